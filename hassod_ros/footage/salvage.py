"""Messages out of one file of a recording, from first to last byte, whether it is whole, cut, damaged or unclosed.

Files are read in the order in which they were written and never through an index at their end, so that the recording
of a killed recorder is read as a closed one is, and memory does not grow with the file. What cannot be read is told in
one sentence each.

MCAP: https://mcap.dev/spec · ROS 1: http://wiki.ros.org/Bags/Format/2.0 · rosbag2: tables `topics` and `messages`.
"""

from __future__ import annotations

import bz2
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lz4.frame
import zstandard
from mcap.exceptions import EndOfFile, InvalidMagic, RecordLengthLimitExceeded
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, ChunkIndex, McapRecord, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk
from rosbags.rosbag1.reader import Header as Fields
from rosbags.rosbag1.reader import ReaderError, RecordType
from rosbags.typesys.msg import normalize_msgtype

from hassod_ros.errors import InputError
from hassod_ros.footage.kinds import MCAP, ROS1, SQLITE, ZSTD

_EARLY = "its recorder was killed, it is being written, or the copy is incomplete"
LARGEST = 1 << 30  # bytes of one record or chunk; a length beyond it is damage

Say = Callable[[str], object]


class Raw(NamedTuple):
    """A message as it was written.

    Attributes:
        topic: Its name.
        type: Normalised as in ROS 2, such as sensor_msgs/msg/Image.
        log_time: When it was recorded, ns.
        data: Serialised.
        encoding: "cdr" (ROS 2), "ros1", "json", or another one that MCAP names.

    """

    topic: str
    type: str
    log_time: int
    data: bytes
    encoding: str


def read_messages(path: Path, wanted: Callable[[str, str], bool], say: Say) -> Iterator[Raw]:
    """Messages of one file in the order in which they were written.

    Args:
        path: MCAP, sqlite3 or ROS 1 file, or one of them compressed as a whole with zstd.
        wanted: Whether messages of a topic and type are wanted.
        say: Gets one sentence for everything that was lost.

    Raises:
        InputError: The file is no recording, empty, or nothing of it can be read.

    """
    with open(path, "rb") as file:
        magic = file.read(16)
    if not magic:
        raise InputError(f"{path} is empty: the recorder ended before it wrote anything; leave the file out")
    if magic.startswith(MCAP):
        yield from _read_mcap(path, wanted, say)
    elif magic.startswith(SQLITE):
        yield from _read_sqlite(path, wanted, say)
    elif magic.startswith(ROS1):
        yield from _read_ros1(path, wanted, say)
    elif magic.startswith(ZSTD):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, path.name.removesuffix(".zstd"))
            _decompress(path, whole, say)
            yield from read_messages(whole, wanted, say)
    else:
        raise InputError(f"{path} is no MCAP, rosbag2 (sqlite3) or ROS 1 bag; check the file, or copy it again")


class _WholeReads:
    """A file whose reads return all bytes asked for: a record that is cut, or whose length is damaged, is an error."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        file.seek(0)

    def read(self, count: int = -1) -> bytes:
        if count > self._size - self._file.tell():  # before memory for a damaged length is asked for
            raise EndOfFile
        return self._file.read(count)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


# MCAP


def _read_mcap(path: Path, wanted: Callable[[str, str], bool], say: Say) -> Iterator[Raw]:
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    indexes: list[ChunkIndex] = []
    count, expected, unknown = 0, 0, 0
    with open(path, "rb") as file:
        with suppress(Exception):  # a file that was not closed has no summary; whatever else is wrong, see below
            if summary := make_reader(file).get_summary():  # type: ignore[no-untyped-call]
                schemas, channels, indexes = summary.schemas, summary.channels, summary.chunk_indexes
                expected = summary.statistics.message_count if summary.statistics else 0
        starts = sorted(index.chunk_start_offset for index in indexes)
        for record in _mcap_records(path, _WholeReads(file), starts, say):
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                count += 1
                channel = channels.get(record.channel_id)
                if channel is None:
                    unknown += 1
                    continue
                schema = schemas.get(channel.schema_id)
                kind = normalize_type(schema.name if schema else "")
                if wanted(channel.topic, kind):
                    yield Raw(channel.topic, kind, record.log_time, record.data, channel.message_encoding)
    if unknown:
        say(f"{path}: {unknown} messages are lost, because the part that names their topics is damaged")
    if count < expected:
        say(f"{path}: {count} of {expected} messages could be read")


def _mcap_records(path: Path, file: _WholeReads, starts: list[int], say: Say) -> Iterator[McapRecord]:
    """Schemas, channels and messages; passes over damaged chunks.

    Where the chain of records itself is damaged, it goes on at the next chunk that the file's index names.
    """
    resumed, damaged = False, False
    while True:
        reader = StreamReader(
            file,  # type: ignore[arg-type]
            skip_magic=resumed,
            emit_chunks=True,
            validate_crcs=not resumed,
            record_size_limit=LARGEST,
        )
        records = reader.records
        while True:
            position = file.tell()
            try:
                record = next(records)
            except StopIteration:
                return
            except CRCValidationError:  # of the whole data, where messages lie outside of chunks or a chunk is damaged
                if not damaged:
                    say(f"{path}: its checksum is wrong, so pictures may be damaged; copy the file again")
                return
            except (EndOfFile, InvalidMagic, RecordLengthLimitExceeded, struct.error, ValueError) as error:
                problem = error
                break
            if not isinstance(record, Chunk):
                yield record
                continue
            try:
                if record.uncompressed_size > LARGEST:
                    raise ValueError(f"it claims to hold {record.uncompressed_size} bytes")
                inner = breakup_chunk(record, validate_crc=True)
            except Exception as error:  # decompressors raise what they like
                damaged = True
                seconds = (record.message_end_time - record.message_start_time) / 1e9
                say(f"{path}: a damaged chunk at byte {position} is left out, {seconds:.2f} s of recording ({error})")
            else:
                yield from inner
        following = next((start for start in starts if start > position), None)
        if following is None:
            if isinstance(problem, EndOfFile | InvalidMagic):
                say(f"{path} ends early, at byte {file.tell()}: {_EARLY}")
            else:
                say(f"{path}: damaged at byte {position} ({problem}); what comes after it is lost")
            return
        say(f"{path}: damaged from byte {position} to {following}, what lies there is lost ({problem or 'cut record'})")
        file.seek(following)
        resumed = damaged = True


# rosbag2 in sqlite3


def _read_sqlite(path: Path, wanted: Callable[[str, str], bool], say: Say) -> Iterator[Raw]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            connection = _open_sqlite(path, Path(folder))
            topics = connection.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        except sqlite3.Error as error:
            raise InputError(f"{path} cannot be read ({error}); {_recover(path)}") from error
        with closing(connection):
            chosen = {key: (name, normalize_type(kind), encoding) for key, name, kind, encoding in topics}
            chosen = {key: topic for key, topic in chosen.items() if wanted(*topic[:2])}
            if not chosen:
                return
            for key, log_time, data in _sqlite_rows(path, connection, sorted(chosen), say):
                name, kind, encoding = chosen[key]
                yield Raw(name, kind, log_time, data, encoding)


def _open_sqlite(path: Path, folder: Path) -> sqlite3.Connection:
    """Read-only; where what a killed recorder left beside the file cannot be used in place, a copy in `folder`."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError:
        beside = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
        if not any(file.exists() for file in beside):
            return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        for file in (path, *beside):
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        return sqlite3.connect(folder / path.name)


def _recover(path: Path) -> str:
    return f"try: sqlite3 {path.name} .recover | sqlite3 new.db3, and give new.db3"


def _sqlite_rows(
    path: Path, connection: sqlite3.Connection, topics: list[int], say: Say
) -> Iterator[tuple[int, int, bytes]]:
    places = ",".join("?" * len(topics))
    query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? AND topic_id IN ({places}) ORDER BY id"
    last, skip, found = -1, 0, 0
    while skip < 1 << 32:
        try:
            rows = connection.execute(query, (last, *topics))
            while row := rows.fetchone():
                last, skip, found = row[0], 0, found + 1
                yield row[1], row[2], row[3]
        except sqlite3.DatabaseError as error:  # noqa: PERF203
            if not skip:
                say(f"{path}: damaged after message {last} ({error}), what can be read after it is; {_recover(path)}")
            # Each step leaves out twice as much: a page that is gone holds many messages, or one message many pages.
            skip = 2 * skip or 1
            last += skip
        else:
            return
    if not found:
        raise InputError(f"{path}: not one message can be read; {_recover(path)}")


# ROS 1


def _read_ros1(path: Path, wanted: Callable[[str, str], bool], say: Say) -> Iterator[Raw]:
    connections: dict[int, tuple[str, str] | None] = {}
    with open(path, "rb") as file:
        stream = _WholeReads(file)
        stream.seek(len(ROS1))
        index = 0  # where it begins; 0 while the bag is being recorded
        while True:
            position = stream.tell()
            try:
                fields = _ros1_fields(stream)
                kind = fields.get_uint8("op")
                if kind == RecordType.BAGHEADER:
                    index = fields.get_uint64("index_pos")
                    if fields.get("encryptor"):
                        raise InputError(f"{path} is encrypted; decrypt it with: rosbag decrypt {path.name}")
                data = _ros1_data(stream)
            except EndOfFile:
                break
            except (ReaderError, UnicodeDecodeError) as error:
                say(f"{path}: damaged at byte {position} ({error}); what comes after it is lost")
                return
            if kind == RecordType.CHUNK:
                try:
                    inner = list(_ros1_chunk(fields, data, connections, wanted))
                except Exception as error:  # decompressors raise what they like
                    say(f"{path}: a damaged chunk at byte {position} is left out ({error})")
                else:
                    yield from inner
        size = file.seek(0, 2)
        if not index or index > size or position < size:
            say(f"{path} ends early, at byte {position}: {_EARLY}")


def _ros1_fields(stream: _WholeReads | BytesIO) -> Fields:
    size = stream.read(4)
    if len(size) < 4:
        raise EndOfFile
    length = struct.unpack("<I", size)[0]
    return Fields.read(BytesIO(size + stream.read(length)))


def _ros1_data(stream: _WholeReads | BytesIO) -> bytes:
    length = struct.unpack("<I", stream.read(4))[0]
    data = stream.read(length)
    if len(data) != length:
        raise EndOfFile
    return data


def _ros1_chunk(
    fields: Fields, data: bytes, connections: dict[int, tuple[str, str] | None], wanted: Callable[[str, str], bool]
) -> Iterator[Raw]:
    compression = fields.get_string("compression")
    if compression == "bz2":
        data = bz2.decompress(data)
    elif compression == "lz4":
        data = lz4.frame.decompress(data)
    elif compression != "none":
        raise ValueError(f"its compression {compression!r} is not known")
    if len(data) != fields.get_uint32("size"):
        raise ValueError(f"it holds {len(data)} bytes instead of {fields.get_uint32('size')}")
    stream = BytesIO(data)
    while stream.tell() < len(data):
        header = _ros1_fields(stream)
        content = _ros1_data(stream)
        kind, number = header.get_uint8("op"), header.get_uint32("conn")
        if kind == RecordType.CONNECTION:
            topic = "/" * header.get_string("topic").startswith("/") + "/".join(
                filter(None, header.get_string("topic").split("/"))
            )
            about = Fields.read(BytesIO(struct.pack("<I", len(content)) + content))
            found = (topic, normalize_type(about.get_string("type")))
            connections[number] = found if wanted(*found) else None
        elif kind == RecordType.MSGDATA and (connection := connections.get(number)):
            yield Raw(*connection, header.get_time("time"), content, "ros1")


def normalize_type(name: str) -> str:
    """sensor_msgs/msg/Image for what ROS 1 and the first distributions of ROS 2 call sensor_msgs/Image."""
    return normalize_msgtype(name) if name.count("/") == 1 else name


def _decompress(path: Path, target: Path, say: Say) -> None:
    with open(path, "rb") as source, open(target, "wb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        try:
            while block := reader.read(1 << 20):
                file.write(block)
        except zstandard.ZstdError as error:
            say(f"{path}: damaged after {file.tell()} decompressed bytes ({error}); what comes after it is lost")
        except OSError as error:
            raise InputError(
                f"{path} cannot be decompressed into {target.parent} ({error.strerror}); free some space there, or set "
                "TMPDIR to another folder"
            ) from error

"""Broken recordings: what can be read is right to the last byte, the rest is told in a sentence; never a traceback."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard

from hassod_ros.errors import InputError
from hassod_ros.footage.bags import frames
from tests.footage.recordings import (
    ROS1,
    cut,
    damage,
    images,
    number_of,
    picture,
    write_mcap,
    write_ros1,
    write_rosbag2,
    write_wal,
)

COUNT = 40  # pictures of 9 kB; chunks hold eleven


def read(path: Path) -> tuple[list[int], list[str]]:
    """Numbers of the pictures, each compared with what was recorded, and the sentences about what was lost."""
    said: list[str] = []
    numbers = []
    for frame in frames(path, say=said.append):
        numbers.append(number_of(frame.stamp))
        assert np.array_equal(frame.pixels, picture(numbers[-1])), f"picture {numbers[-1]} is not what was recorded"
    assert all("\n" not in sentence and "Traceback" not in sentence for sentence in said)
    return numbers, said


def chunk_starts(path: Path) -> list[int]:
    from mcap.reader import make_reader

    with open(path, "rb") as file:
        return [index.chunk_start_offset for index in make_reader(file).get_summary().chunk_indexes]


@pytest.mark.parametrize("compression", ["NONE", "LZ4", "ZSTD"])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_a_cut_mcap_gives_every_whole_chunk(tmp_path: Path, share: float, compression: str) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT), compression=compression)
    whole = [start for start in chunk_starts(path)[1:] if start < path.stat().st_size * share]
    cut(path, share)
    numbers, said = read(path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 11 * len(whole)
    assert any("ends early" in sentence for sentence in said)


def test_the_mcap_of_a_killed_recorder_is_read(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT), close=False)
    numbers, said = read(path)
    assert numbers == list(range(33))  # three whole chunks reached the disk
    assert len(said) == 1
    assert "recorder was killed" in said[0]


def test_a_damaged_chunk_is_left_out_and_named(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT), compression="NONE")
    start = chunk_starts(path)[1]
    damage(path, start + 50_000)
    numbers, said = read(path)
    assert numbers == [*range(11), *range(22, COUNT)]
    assert any(f"damaged chunk at byte {start}" in sentence for sentence in said)
    assert any("29 of 40 messages" in sentence for sentence in said)


def test_behind_damage_in_the_chain_of_records_the_index_leads_on(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT))
    damage(path, chunk_starts(path)[1], 9)  # kind and length of the record
    numbers, said = read(path)
    assert numbers == [*range(11), *range(22, COUNT)]
    assert any("29 of 40 messages" in sentence for sentence in said)


def test_the_first_chunk_names_the_topics_and_may_be_damaged_too(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT), compression="NONE")
    damage(path, chunk_starts(path)[0] + 5_000)
    numbers, _ = read(path)
    assert numbers == list(range(11, COUNT))  # the summary names the topics again

    path = write_mcap(tmp_path / "open.mcap", images(COUNT), compression="NONE", close=False)
    damage(path, 5_000)
    said: list[str] = []
    with pytest.raises(InputError, match="no image"):
        list(frames(path, say=said.append))
    assert any("22 messages are lost" in sentence for sentence in said)


def test_damage_outside_of_chunks_is_told_by_the_checksum_of_all_data(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT), use_chunking=False, enable_data_crcs=True)
    assert read(path) == (list(range(COUNT)), [])
    damage(path, 200_000)
    said: list[str] = []
    assert len(list(frames(path, say=said.append))) == COUNT
    assert any("checksum is wrong" in sentence for sentence in said)


def test_a_length_that_would_not_fit_into_memory_is_damage(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT))
    data = bytearray(path.read_bytes())
    start = chunk_starts(path)[1]
    struct.pack_into("<Q", data, start + 1 + 8 + 16, 1 << 60)  # the chunk's size when decompressed
    path.write_bytes(data)
    numbers, said = read(path)
    assert numbers == [*range(11), *range(22, COUNT)]
    assert any("claims to hold" in sentence for sentence in said)


@pytest.mark.parametrize("writable", [True, False])
def test_what_a_killed_recorder_left_in_the_write_ahead_log_is_read(tmp_path: Path, writable: bool) -> None:
    path = write_wal(tmp_path / "bag", images(COUNT))
    before = {file.name: file.read_bytes() for file in path.parent.glob("*.db3*")}
    if not writable:
        path.parent.chmod(0o500)
    try:
        assert read(path) == (list(range(COUNT)), [])
        assert read(path.parent) == (list(range(COUNT)), [])
    finally:
        path.parent.chmod(0o700)
    assert {name: (path.parent / name).read_bytes() for name in before} == before


def test_half_a_database_gives_what_it_holds_or_the_command_that_recovers_it(tmp_path: Path) -> None:
    folder = write_rosbag2(tmp_path / "bag", images(COUNT), storage="sqlite3")
    path = next(folder.glob("*.db3"))
    cut(path, 0.5)
    try:
        numbers, said = read(path)
    except InputError as error:
        said = [str(error)]
    else:
        assert numbers == list(range(len(numbers)))
    assert any("sqlite3" in sentence and ".recover" in sentence for sentence in said)


def test_a_damaged_page_of_a_database_costs_its_messages_only(tmp_path: Path) -> None:
    path = next(write_rosbag2(tmp_path / "bag", images(COUNT), storage="sqlite3").glob("*.db3"))
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    leaf = next(i for i in range(20, len(data) // page) if data[i * page] == 0x0D and i * page > len(data) // 3)
    data[leaf * page : leaf * page + 100] = bytes(100)
    path.write_bytes(data)
    numbers, said = read(path)
    assert 30 <= len(numbers) < COUNT
    assert numbers == sorted(numbers)
    assert any("damaged after message" in sentence for sentence in said)


@pytest.mark.parametrize("compression", [None, "BZ2", "LZ4"])
def test_a_cut_or_unindexed_ros1_bag_gives_every_whole_chunk(tmp_path: Path, compression: str | None) -> None:
    messages = images(COUNT, store=ROS1)
    path = write_ros1(tmp_path / "bag.bag", messages, compression)
    assert read(path) == (list(range(COUNT)), [])
    cut(path, 0.7)
    numbers, said = read(path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 22
    assert any("ends early" in sentence for sentence in said)

    active = write_ros1(tmp_path / "other.bag", messages, compression).rename(tmp_path / "night.bag.active")
    data = active.read_bytes()
    position = data.index(b"index_pos=") + 10
    index = struct.unpack_from("<Q", data, position)[0]
    active.write_bytes(data[:position] + bytes(8) + data[position + 8 : index])  # as `rosbag record` leaves it
    numbers, said = read(active)
    assert numbers == list(range(COUNT))
    assert any("recorder was killed" in sentence for sentence in said)


@pytest.mark.parametrize("compression", ["BZ2", "LZ4"])
def test_a_damaged_chunk_of_a_ros1_bag_is_left_out(tmp_path: Path, compression: str) -> None:
    path = write_ros1(tmp_path / "bag.bag", images(COUNT, store=ROS1), compression)
    damage(path, path.stat().st_size // 2)
    numbers, said = read(path)
    assert COUNT - 12 <= len(numbers) < COUNT
    assert any("damaged chunk" in sentence for sentence in said)


def test_a_file_compressed_as_a_whole_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    inner = write_mcap(tmp_path / "night.mcap", images(COUNT))
    path = tmp_path / "night.mcap.zstd"
    path.write_bytes(zstandard.ZstdCompressor().compress(inner.read_bytes()))
    assert read(path) == (list(range(COUNT)), [])
    cut(path, 0.6)
    numbers, said = read(path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 11
    assert any("ends early" in sentence for sentence in said)


def zeros(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(100_000))


def a_tail_of_another_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + np.random.default_rng(0).bytes(200_000))


@pytest.mark.parametrize("breakage", [zeros, a_tail_of_another_file])
def test_what_follows_the_recording_does_no_harm(tmp_path: Path, breakage: Callable[[Path], None]) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(COUNT), close=False)
    breakage(path)
    numbers, said = read(path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 11
    assert said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"a text that somebody renamed", "is no MCAP"),
        (b"\x89MCAP0\r\n", "no image: no topic"),
        (b"SQLite format 3\x00" + bytes(100), "recover"),
        (b"#ROSBAG V2.0\n", "no image: no topic"),
        (b"\x28\xb5\x2f\xfd", "is empty"),
    ],
)
def test_files_without_any_message_are_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bag.mcap"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        list(frames(path, say=lambda line: None))


def test_every_single_damaged_byte_gives_a_right_picture_or_none(tmp_path: Path) -> None:
    """With checksums, wherever one byte of a recording is flipped."""
    path = tmp_path / "bag.mcap"
    whole = write_mcap(path, images(6), chunk=20_000).read_bytes()
    for position in range(8, len(whole), len(whole) // 97):
        path.write_bytes(whole)
        damage(path, position, 1)
        with suppress(InputError):  # one sentence, and nothing wrong was given out
            read(path)

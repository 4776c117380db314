"""Labels of a large set: the first reading, and what every later start costs with several training processes at once.

Each process maps the arrays that the first reading left, then reads every byte of them, as an epoch does. Memory is the
proportional share (PSS) that the labels add to all processes together: what they share counts once.

Example:
    python benchmarks/labels.py --images 241690 --masks 13 --processes 4

"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hassod_ros.commands import run, script_parser
from hassod_ros.learning.annotations import Annotations, load_annotations
from hassod_ros.masks import run_lengths

_SIZE = (480, 640)  # (H, W) of a synthetic picture
_KINDS = 500  # different masks, which pictures take in turn
_PROBED = 100  # files that are looked for


def main(arguments: list[str] | None = None) -> int:
    """Make the file, read it, print a table; the status is that of `commands.run`."""
    parser = script_parser("labels", __doc__)
    parser.add_argument("--images", type=int, default=24_169, help="pictures (default: a tenth of COCO's)")
    parser.add_argument("--masks", type=int, default=13, help="of a picture (default: as HASSOD's labels)")
    parser.add_argument("--processes", type=int, default=4, help="that train together (default: one a GPU)")
    parser.add_argument("--row", help="folder that a process of its own reads (default: none)")
    given = parser.parse_args(arguments)

    def work() -> None:
        if given.row:
            _read(Path(given.row))
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write(folder, given.images, given.masks)
            (first,) = _rows(folder, 1)
            later = _rows(folder, given.processes)
            megabytes = (folder / "labels.json").stat().st_size / 1e6
        print(f"{given.images:,} pictures x {given.masks} masks, {megabytes:.0f} MB of JSON")
        print(f"{'':44}{'seconds':>9}{'CPU s':>9}{'GB, all together':>18}{'GB, peak of one':>17}")
        title = f"start or resume of {given.processes} processes"
        for label, rows in (("first reading, which leaves the arrays", [first]), (title, later)):
            seconds, cpu, peak = (max(row[key] for row in rows) for key in ("seconds", "cpu", "peak"))
            print(f"{label:44}{seconds:9.2f}{cpu:9.2f}{sum(row['added'] for row in rows):18.2f}{peak:17.2f}")

    return run("labels", work)


def _rows(folder: Path, count: int) -> list[dict[str, float]]:
    """What `count` processes say that begin at once."""
    command = [sys.executable, __file__, "--row", str(folder)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) for _ in range(count)
    ]
    for process in started:  # memory is measured while all of them hold the labels
        _line(process)
    for process in started:
        _tell(process)
    rows = [json.loads(_line(process)) for process in started]
    for process in started:
        _tell(process)
        process.wait()
    return rows


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    print(file=process.stdin, flush=True)


def _read(folder: Path) -> None:
    before, start, cpu = _share(), time.perf_counter(), time.process_time()
    annotations = load_annotations(folder / "labels.json", folder)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    _touch(annotations)
    print("ready", flush=True)
    sys.stdin.readline()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {"seconds": seconds, "cpu": cpu, "added": _share() - before, "peak": peak}
    print(json.dumps(found), flush=True)
    sys.stdin.readline()  # until all have measured


def _touch(annotations: Annotations) -> None:
    for array in vars(annotations).values():
        if isinstance(array, np.ndarray):
            array.sum(dtype=np.int64)


def _share() -> float:
    """GB of this process, what is shared divided by the number of those that share it."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e9


def _write(folder: Path, images: int, masks: int) -> None:
    """COCO JSON of ellipses: each picture has a whole, the others are its parts or stand beside it."""
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(_KINDS):
        x, y = rng.uniform((40, 40), (600, 440))
        a, b = np.exp(rng.uniform(np.log(8), np.log(200), 2))
        x0, y0, x1, y1 = (int(v) for v in (max(x - a, 0), max(y - b, 0), min(x + a + 1, 640), min(y + b + 1, 480)))
        rows, columns = np.ogrid[y0:y1, x0:x1]
        mask = (((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1).astype(np.uint8)
        (code,) = run_lengths(np.array([[x0, y0, x1, y1]]), [mask], _SIZE)
        size = f'"segmentation":{{"size":[480,640],"counts":{json.dumps(code.decode())}}}'
        pieces.append(f'{size},"bbox":[{x0},{y0},{x1 - x0},{y1 - y0}],"area":{int(mask.sum())},"iscrowd":0')
    with open(folder / "labels.json", "w", encoding="utf-8") as file:
        file.write('{"images":[')
        for i in range(images):
            comma = "," if i else ""
            file.write(f'{comma}{{"id":{i + 1},"file_name":"{i + 1:012d}.jpg","height":480,"width":640}}')
        file.write('],"annotations":[')
        for i in range(images):
            lines = []
            for k, kind in enumerate(rng.integers(0, _KINDS, masks).tolist()):
                own, parent = i * masks + k + 1, i * masks + 1 if k % 3 else 0
                lines.append(
                    f'{{"id":{own},"image_id":{i + 1},"category_id":1,{pieces[kind]},"level":{int(parent > 0)},'
                    f'"parent_id":{parent},"score":0.5}}'
                )
            file.write(("," if i else "") + ",\n".join(lines))
        file.write('],"categories":[{"id":1,"name":"object"}]}')
    for i in np.unique(np.linspace(0, images - 1, _PROBED).astype(int)).tolist():
        (folder / f"{i + 1:012d}.jpg").touch()


if __name__ == "__main__":
    raise SystemExit(main())

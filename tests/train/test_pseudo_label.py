import json
import logging
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import ray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pycocotools.coco import COCO

from hassod_ros.coco import from_coco, to_coco
from hassod_ros.discovery import cluster
from hassod_ros.discovery import pseudo_label as pipeline
from hassod_ros.discovery.features import TINY_TILES, load_features, suited_options
from hassod_ros.discovery.features.onnx import METADATA_KEY, SCHEMA
from hassod_ros.discovery.hassod import HassodConfig, discover
from hassod_ros.discovery.method import change, make_method, open_learner
from hassod_ros.discovery.pseudo_label import Request, pseudo_label
from hassod_ros.discovery.scene import SceneConfig, WithoutScene
from hassod_ros.discovery.shards import Shards, failures_of
from hassod_ros.discovery.sohes import SohesConfig
from hassod_ros.discovery.states import State, save_state
from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.images import read_image
from hassod_ros.train import pseudo_label as script

# Small and without the CRF: what is tested here is the run, not the masks.
FAST = {"size": 64, "crf": None, "filters.min_area": 20}


@pytest.fixture(scope="module", autouse=True)
def _ray_ends_with_this_file():
    yield
    ray.shutdown()


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(4):
        y, x = rng.integers(0, height - 16), rng.integers(0, width - 20)
        image[y : y + 16, x : x + 20] = rng.integers(0, 256, 3)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of every kind, two of them in a folder below, and two files that cannot be read."""
    images = tmp_path_factory.mktemp("data") / "images"
    (images / "below").mkdir(parents=True)
    for i in range(5):
        Image.fromarray(picture(i)).save(images / ("below" if i < 2 else "") / f"{i}.png")
    rgb = Image.fromarray(picture(5))
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(images / "one pixel.png")
    rgb.convert("L").save(images / "grey.png")
    rgb.convert("RGBA").save(images / "rgba.png")
    rgb.convert("CMYK").save(images / "cmyk.tif")
    Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(images / "16 bit.png")
    Image.fromarray(picture(6, 200, 300)).save(images / "cut.jpg")
    data = (images / "cut.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(data[: len(data) // 2])
    (images / "text.jpg").write_bytes(b"no image")
    return images


@pytest.fixture(scope="module")
def labels(folder, tmp_path_factory) -> Path:
    """The file that the script makes of them."""
    out = tmp_path_factory.mktemp("out") / "below" / "labels.json"
    assert script.main(words(folder, out, "--shard", "4")) == 0
    return out


def words(images: Path, out: Path, *more: str) -> list[str]:
    """Options of the script."""
    options = [f"--set={name}={json.dumps(value)}" for name, value in FAST.items()]
    return ["--images", str(images), "--out", str(out), "--features", "handcrafted", "--cpus", "2", *more, *options]


# Parts that waited for a slow first image would all be written before the kill comes.
SLOW = """
import sys, time
import hassod_ros.discovery.pseudo_label as pipeline
from hassod_ros.train import pseudo_label as script

write = pipeline.Shards.write
pipeline.Shards.write = lambda *part: (time.sleep(1), write(*part))
sys.exit(script.main(sys.argv[1:]))
"""


class Killed(NamedTuple):
    """A run of the script in a new process, where Ray starts anew, that was killed when it had written two parts."""

    listed: Path  # its images
    out: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def killed(folder, tmp_path_factory) -> Killed:
    names = sorted(str(path) for path in folder.rglob("*.*"))
    listed, out = folder.parent / "list.txt", tmp_path_factory.mktemp("killed") / "labels.json"
    listed.write_text("# my list\n" + "\n".join(reversed(names)) + "\n")
    command = [sys.executable, "-c", SLOW, *words(listed, out, "--shard", "2", "--batch", "2")]
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:9"}  # nothing listens there
    said = [out.with_name("stdout"), out.with_name("stderr")]
    # Its own process group: the kill hits Ray's processes too, as a power cut would.
    with said[0].open("wb") as first, said[1].open("wb") as second:
        process = subprocess.Popen(command, start_new_session=True, stdout=first, stderr=second, env=environment)
    parts = out.with_name("labels.json.parts")
    deadline = time.monotonic() + 300
    while len(list(parts.glob("0*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return Killed(listed, out, *(path.read_text() for path in said))


def request(folder: Path, out: Path, **fields) -> Request:
    fields = {"options": FAST, "features": "handcrafted", "cpus": 2, "shard": 4} | fields
    return Request(images=folder, out=out, **fields)


def content(path: Path) -> bytes:
    """The bytes of a file of labels but for the code's revision: somebody may commit while the tests run."""
    return re.sub(rb'"revision":"[^"]+"', b"", path.read_bytes(), count=1)


def test_labels_are_those_of_discover_and_load_with_pycocotools(folder, labels):
    coco = COCO(labels)
    config = change(HassodConfig(), suited_options("handcrafted") | FAST)  # nobody has to know their thresholds
    features = load_features("handcrafted")

    # Numbered in the sorted order; the damaged files keep their numbers.
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    readable = [i for i, name in enumerate(names, start=1) if name not in ("cut.jpg", "text.jpg")]
    assert {i: image["file_name"] for i, image in coco.imgs.items()} == {i: names[i - 1] for i in readable}
    for i in readable:
        wanted = discover(read_image(folder / names[i - 1]), features, config)
        found = from_coco(coco.imgToAnns[i], wanted.image_size)
        assert len(found) > 0 or names[i - 1] == "one pixel.png"
        np.testing.assert_array_equal(found.dense(), wanted.dense())
        np.testing.assert_array_equal(found.levels, wanted.levels)
        np.testing.assert_array_equal(found.parents, wanted.parents)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    info = coco.dataset["info"]
    assert (info["method"], info["config"]["size"], info["features"]) == ("hassod", 64, "handcrafted")
    assert info["weights_sha256"] == features.weights_sha256
    assert info["revision"]


def test_unreadable_images_are_listed_with_the_reason(labels):
    failures = json.loads(labels.with_name("labels.failures.json").read_text())
    assert [failure["file_name"] for failure in failures] == ["cut.jpg", "text.jpg"]
    assert failures[0]["error"].startswith("cut.jpg is damaged")
    assert failures[1]["error"] == "text.jpg is not an image that can be read; remove or re-export it"
    assert sorted(path.name for path in labels.parent.iterdir()) == [
        "labels.failures.json",
        "labels.json",
        "labels.json.packed",
    ]


class Fragile:
    """Features that break on what they do not like: one picture of a batch must not take the others along."""

    name, patch_size, dim, weights_sha256 = "fragile", 8, 45, "0"

    def __init__(self):
        self._whole = load_features("handcrafted")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if (images[:, 0, 0] == (1, 2, 3)).all(axis=1).any():
            raise RuntimeError("the device ran out of patience")
        features = self._whole(images)
        features[(images[:, 0, 0] == (9, 9, 9)).all(axis=1)] = np.nan
        return features


def test_one_image_that_breaks_anything_does_not_take_its_batch_along(folder, labels, tmp_path):
    """The stages of the run in this process: their workers' code cannot be exchanged."""
    method = make_method("hassod", FAST)
    stage = object.__new__(pipeline._Partition)
    stage._features, stage._state = Fragile(), None
    stage._plan = pipeline._Plan(method, tmp_path, {}, {"patch_size": 8})
    names, pictures = [f"{i}.png" for i in range(5)], [picture(i) for i in range(5)]
    pictures[1][:], pictures[3][:] = (1, 2, 3), (9, 9, 9)
    for name, pixels in zip(names, pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "4.png").write_bytes(b"no image")
    batch = pickle.dumps(pipeline._Batch(0, list(range(1, 6)), names))
    records = pipeline._discover(stage(pipeline._read({"batch": batch}, stage._plan)), stage._plan)["batch"].records
    alone = [to_coco(discover(pictures[i], load_features("handcrafted"), method.config), i + 1) for i in (0, 2)]
    assert [records[i]["annotations"] for i in (0, 2)] == alone
    assert len(alone[0]) > 0
    assert records[1]["failure"] == {"file_name": "1.png", "error": "RuntimeError: the device ran out of patience"}
    assert "hold NaN or infinity" in records[3]["failure"]["error"]
    assert records[4]["failure"]["error"] == "4.png is not an image that can be read; remove or re-export it"


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_and_shards_batches_and_lists_do_not_change_the_labels(killed, labels):
    out, listed = killed.out, killed.listed
    parts = out.with_name("labels.json.parts")
    finished = {path.name: path.read_bytes() for path in parts.glob("0*.json")}
    assert 2 <= len(finished) < 6, killed.stderr
    assert not out.exists()
    changed = {path: path.stat().st_mtime_ns for path in parts.glob("0*.json")}
    fields = {"shard": 2, "batch": 2}
    with pytest.raises(InputError, match="belongs to a run with other config"):
        pseudo_label(request(listed, out, **fields | {"options": FAST | {"filters.min_area": 21}}))
    assert {path: path.stat().st_mtime_ns for path in parts.glob("0*.json")} == changed
    pseudo_label(request(listed, out, **fields))
    assert content(out).replace(b'"file_name":"images/', b'"file_name":"') == content(labels)
    failures, wanted = (json.loads(failures_of(path).read_text()) for path in (out, labels))
    assert [each["file_name"] for each in failures] == [f"images/{each['file_name']}" for each in wanted]
    assert not parts.exists()


@pytest.mark.skipif(
    subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    != 0
    if shutil.which("unshare")
    else True,
    reason="no file system of limited size can be made here",
)
def test_full_disk_is_a_clear_error_and_loses_nothing(tmp_path):
    """On a real file system of 32 kB, in a name space of its own."""
    code = """
import sys
from pathlib import Path
from hassod_ros.discovery.scene import SceneConfig, WithoutScene
from hassod_ros.discovery.shards import Shards, failures_of
from hassod_ros.errors import InputError

out = Path(sys.argv[1]) / "labels.json"
record = {"image": {"id": 1, "file_name": "a", "height": 1, "width": 1}, "annotations": []}
shards = Shards(out, {"a": 1}, "r")
try:
    for number in range(20):
        shards.write(number, [record | {"padding": "x" * 3000}])
except InputError as error:
    print(error)
folder = shards.folder
del shards  # which lets others in
kept = Shards(out, {"a": 1}, "r").done
print(number, kept == set(range(number)), sorted(p.name for p in folder.iterdir() if p.name.startswith(".")))
"""
    mount = 'mount -t tmpfs -o size=32k tmpfs "$0" && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, tmp_path, sys.executable, "-c", code, tmp_path]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "cannot write" in lines[0]
    assert "No space left on device; free some space and run again" in lines[0]
    number, *rest = lines[1].split(" ", 1)
    assert 2 < int(number) < 12
    assert rest == ["True []"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no read-only file system at hand")
def test_read_only_output_is_found_before_the_work(folder):
    with pytest.raises(InputError, match=r"cannot write to /proc/labels: .*choose another folder"):
        pseudo_label(request(folder, Path("/proc/labels/out.json")))


def test_nothing_to_label(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert script.main(["--images", str(tmp_path / "empty"), "--out", str(tmp_path / "a.json")]) == 2
    assert "holds no image" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--images", "a", "--out", "b", "--set", "nonsense"])
    assert "not NAME=VALUE" in capsys.readouterr().err
    (tmp_path / "picture.png").touch()
    assert script.main(["--images", str(tmp_path), "--out", str(tmp_path / "out.json"), "--crf", "guided"]) == 2
    assert "no CRF method 'guided'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "magic"}, "no method 'magic'; choose one of hassod"),
        ({"options": {"thresholds": [0.1, 0.4]}}, "descend"),
        ({"options": {"thresholds": [2.0]}}, "between -1 and 1"),
        ({"options": {"colour": 1}}, "no option 'colour'"),
        ({"options": {"filters.colour": 1}}, "no option 'colour'; FilterConfig has"),
        ({"options": {"filters": 3}}, "group of options"),
        ({"options": {"crf_method": "guided"}}, "no CRF method 'guided'; choose one of native, pydensecrf"),
        ({"features": "vit_none"}, "knows no model"),
        ({"features": "vit_tiny_patch16_224", "weights": Path("none.pth")}, "none.pth do not exist"),
        ({"device": "tpu"}, "cpu or cuda, not 'tpu'"),
        (
            {"precision": "fp8", "features": "vit_tiny_patch16_224", "weights": Path("w.pth")},
            "precision must be one of",
        ),
        ({"shard": 0}, "at least 1 image"),
        ({"scene": "hassod"}, "hassod does not know what is scene; choose one of lightcluster, heap"),
        ({"scene": "heap", "method": "lightcluster"}, "finds foreground alone; leave --scene out"),
        ({"scene": "lightcluster", "scene_options": {"fate": "burn"}}, "one of drop, mark"),
    ],
)
def test_wrong_options(fields, message, folder, tmp_path):
    with pytest.raises(InputError, match=message):
        pseudo_label(request(folder, tmp_path / "labels.json", **fields))
    assert not (tmp_path / "labels.json").exists()


def test_an_existing_file_is_not_overwritten(folder, tmp_path):
    (tmp_path / "labels.json").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        pseudo_label(request(folder, tmp_path / "labels.json"))
    assert (tmp_path / "labels.json").read_text() == "mine"


def test_broken_features_fail_image_by_image(folder, tmp_path):
    """NaN weights: every image is listed with the reason, and the run says that nothing came out."""
    nothing = numpy_helper.from_array(np.full((1, 4, 8, 8), np.nan, np.float32))
    keys, images = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("keys", TensorProto.FLOAT, (1, 4, 8, 8)),
            ("images", TensorProto.UINT8, (1, 64, 64, 3)),
        )
    )
    graph = helper.make_graph([helper.make_node("Constant", [], ["keys"], value=nothing)], "nan", [images], [keys])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    about = {"schema": SCHEMA, "name": "nan", "patch_size": 8, "dim": 4, "weights_sha256": "0"}
    helper.set_model_props(model, {METADATA_KEY: json.dumps(about)})
    onnx.save(model, tmp_path / "nan.onnx")
    fields = {"features": str(tmp_path / "nan.onnx"), "options": FAST | {"thresholds": [0.4]}}
    with pytest.raises(InputError, match=r"none of 12 images could be labelled; the first: "):
        pseudo_label(request(folder, tmp_path / "labels.json", **fields))
    failures = json.loads((tmp_path / "labels.failures.json").read_text())
    assert sum("hold NaN or infinity" in failure["error"] for failure in failures) == 10


def test_only_the_same_request_is_continued(tmp_path):
    request = {"config": {"thresholds": (0.4, 0.2)}, "images": ["a"]}
    Shards(tmp_path / "out.json", request, "r").write(0, [])
    assert Shards(tmp_path / "out.json", request, "r").done == {0}
    with pytest.raises(InputError, match="belongs to a run with other images; repeat its options"):
        Shards(tmp_path / "out.json", request | {"images": ["a", "b"]}, "r")


def test_merging_renumbers_annotations_over_shards(tmp_path):
    shards = Shards(tmp_path / "out.json", {"a": 1}, "r1")

    def record(image_id: int) -> dict:
        image = {"id": image_id, "file_name": f"{image_id}", "height": 2, "width": 2}
        return {"image": image, "annotations": [{"id": 1, "parent_id": 0}, {"id": 2, "parent_id": 1}]}

    shards.write(1, [record(3)])
    shards.write(0, [record(1), {"failure": {"file_name": "2", "error": "damaged"}}])
    with pytest.raises(InputError, match=r"another run writes .*out\.json at this moment"):
        Shards(tmp_path / "out.json", {"a": 1}, "r2")  # or it would write what is left once the first one has merged
    del shards
    again = Shards(tmp_path / "out.json", {"a": 1}, "r2")
    assert (again.done, again.revision) == ({0, 1}, "r1")
    summary = again.merge({"x": 1})
    assert (summary.images, summary.annotations) == (2, 4)
    merged = json.loads((tmp_path / "out.json").read_text())
    assert [image["id"] for image in merged["images"]] == [1, 3]
    assert [(a["id"], a["parent_id"]) for a in merged["annotations"]] == [(1, 0), (2, 1), (3, 0), (4, 3)]
    assert merged["info"] == {"x": 1}


# What follows was reported by users of Ray and of labelling tools.


def test_an_address_where_nothing_listens_is_named_within_seconds(folder, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ["--images", str(folder), "--out", str(tmp_path / "a.json"), "--features", "handcrafted"]
        assert script.main([*arguments, "--ray", address]) == 2
    assert f"no Ray cluster listens at {address} (Connection refused); check --ray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "token", "message"),
    [
        ("head:port", None, "is no address; give HOST:PORT"),
        (None, Path("none.txt"), "the token none.txt does not exist"),
    ],
)
def test_a_wrong_address_or_token_is_one_sentence(address, token, message):
    with pytest.raises(InputError, match=message):
        cluster.probe(address, token)


def test_a_token_is_handed_to_ray(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "of another cluster")
    (tmp_path / "token").write_text("secret")
    cluster.probe(None, tmp_path / "token")
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("RPC error: InvalidAuthToken: Authentication token is missing or incorrect", "--ray-token FILE"),
        ("Version mismatch: The cluster was started with Ray: 2.40", "another version of Ray"),
        ("[Errno 28] No space left on device", "free /tmp"),
        ("The current node timed out during startup", "less busy"),
        ("Token authentication is enabled for this Ray cluster.\nThe current node timed out", "less busy"),
        ("something new", "session_latest/logs"),
    ],
)
def test_each_cause_has_its_own_remedy_not_only_less_busy(said, remedy, monkeypatch, capfd):
    """Ray writes the cause to standard error, from native code, and raises something else."""

    def init(**_: object) -> None:
        os.write(2, said.encode())
        raise ConnectionError("Failed to start")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=r"^Ray did not start here \(Failed to start\): ") as caught:
        cluster.start_ray(None)
    assert remedy in str(caught.value)
    assert capfd.readouterr().err == ""


def test_what_ray_warns_of_memory_at_its_start_is_passed_on_and_nothing_else(monkeypatch, capfd):
    shared_memory = "WARNING services.py:2249 -- The object store is using /tmp instead of /dev/shm"

    def init(logging_level: int, **_: object) -> None:
        assert logging_level == logging.WARNING
        os.write(2, f"{shared_memory}\nToken authentication is enabled\n".encode())

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    cluster.start_ray(None)
    assert capfd.readouterr().err == f"Ray: {shared_memory}\n"


def test_a_stale_ray_address_is_not_taken_and_the_first_line_comes_first(killed):
    """No raw line of Ray's either."""
    first = killed.stdout.splitlines()[0]
    assert first.startswith(
        f"labelling 12 images of {killed.listed} with hassod: handcrafted features, thresholds 0.6,"
    )
    assert first.endswith(f"; 2 CPUs of this machine -> {killed.out}")
    assert not [line for line in killed.stderr.splitlines() if "image" not in line and line.strip()]
    assert "0/12 [00:00<?, ?image/s, compiling, which takes a minute once]" in killed.stderr


def test_offline_says_which_features_need_no_download(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The variable is read when the library is imported; without this it tries again for most of a minute.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"could not be downloaded .*does not answer.*handcrafted, which need"):
        load_features("vit_small_patch16_224.dino")


def test_each_run_has_its_own_list_of_failures():
    assert failures_of(Path("a/night.json")) == Path("a/night.failures.json")


@pytest.fixture(scope="module")
def learned(folder, tmp_path_factory) -> tuple[Path, Path]:
    """Labels of LightCluster, which has learned from the images first, and what it has learned."""
    options = FAST | {"dataset_clusters": 8, "categories": 2, "classes": 3}
    out = tmp_path_factory.mktemp("learned") / "first.json"
    pseudo_label(request(folder, out, method="lightcluster", options=options))
    return out, out.with_name("first.lightcluster.npz")


def readable(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.*")) if path.name not in ("cut.jpg", "text.jpg")]


def test_lightcluster_learns_from_the_images_and_labels_them_as_one_process_does(folder, learned):
    out, file = learned
    coco = COCO(out)
    info = coco.dataset["info"]
    assert (info["method"], info["config"]["classes"], info["state_sha256"]) == ("lightcluster", 3, sha256(file))
    method, state = open_learner("lightcluster", file)
    features = load_features("handcrafted")
    own = method.fit((method.prepare(read_image(path), 8) for path in readable(folder)), features)
    for name, values in state.arrays.items():
        np.testing.assert_allclose(values, own.arrays[name], atol=1e-5)
    assert len(coco.anns) > 5
    for image_id, about in coco.imgs.items():
        image = read_image(folder / about["file_name"])
        (found,) = method.partition([method.prepare(image, 8)], features, state)
        wanted = method.masks(image, found)
        np.testing.assert_array_equal(from_coco(coco.imgToAnns[image_id], wanted.image_size).dense(), wanted.dense())


def test_sohes_with_tiny_features_gets_the_tiles_that_suit_them(folder, tmp_path, monkeypatch):
    made = []

    def announce(_request, method, _count):
        made.append(method.config)
        raise InputError("that is all")

    monkeypatch.setattr(pipeline, "_announce", announce)
    for name in ("tiny", "handcrafted"):
        with pytest.raises(InputError, match="that is all"):
            pseudo_label(request(folder, tmp_path / "labels.json", method="sohes", features=name, options={}))
    assert [config.tiles for config in made] == [TINY_TILES, SohesConfig().tiles]


def test_labels_of_sohes_marked_by_lightcluster_are_those_of_one_image_at_a_time(folder, learned, tmp_path):
    """A run with what was learned before; images share passes through the features."""
    options = {"size": 64, "crf": None, "small": 0.3}
    words = {"scene": "lightcluster", "state": learned[1], "scene_options": {"fate": "mark"}}
    marked = request(folder, tmp_path / "labels.json", method="sohes", options=options, batch=3, **words)
    pseudo_label(marked)
    assert not pipeline.state_of(marked).exists()  # nothing was learned anew
    coco, features = COCO(marked.out), load_features("handcrafted")
    info = coco.dataset["info"]
    assert (info["method"], info["scene"]["method"], info["scene"]["fate"]) == ("sohes", "lightcluster", "mark")
    plain = make_method("sohes", suited_options("handcrafted") | options)
    learner, state = open_learner("lightcluster", learned[1])
    method = WithoutScene(plain, learner, SceneConfig(fate="mark"))
    for image_id, about in coco.imgs.items():
        image = read_image(folder / about["file_name"])
        (partition,) = method.partition([method.prepare(image, 8)], features, state)
        wanted = method.masks(image, partition)
        found = from_coco(coco.imgToAnns[image_id], wanted.image_size)
        np.testing.assert_array_equal(found.dense(), plain.masks(image, partition.found).dense())
        np.testing.assert_array_equal(found.parents, wanted.parents)
        assert [each["scene"] for each in coco.imgToAnns[image_id]] == wanted.scene.tolist()
    scene = {each["id"] for each in coco.anns.values() if each["scene"]}
    assert 0 < len(scene) < len(coco.anns)
    assert not scene & {each["parent_id"] for each in coco.anns.values()}


def test_a_state_of_other_features_is_refused_before_the_work(folder, tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, State("lightcluster", {}, {"name": "tiny", "dim": 192, "weights_sha256": "abc"}, {}))
    with pytest.raises(InputError, match=r"made with tiny .* these features are handcrafted"):
        pseudo_label(request(folder, tmp_path / "labels.json", method="lightcluster", options={}, state=path))
    with pytest.raises(InputError, match="hassod has no state"):
        pseudo_label(request(folder, tmp_path / "labels.json", state=path))

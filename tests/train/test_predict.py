"""`hassod_ros predict`, which everyone tries first."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image
from pycocotools.coco import COCO

from hassod_ros.images import read_image
from hassod_ros.train import predict

TESTS = Path(__file__).parents[1]
TRAINING_ONLY = (
    *("torch", "torchvision", "timm", "numba", "ray", "lightly", "jsonargparse", "docstring_parser", "pycocotools"),
    *("ijson", "tqdm", "scipy", "skimage", "safetensors", "tensorboard", "onnx", "onnxscript", "rclpy"),
)


def helpers(file: str) -> ModuleType:
    """A module of helpers of another folder of tests."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, TESTS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


models, recordings = helpers("runtime/conftest.py"), helpers("footage/recordings.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A detector that always sees the same things, see tests/runtime/conftest.py."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(models.build_model(models.make_info()), path)
    return str(path)


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    return models.draw_bright(size, seed)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name in ("a.jpg", "a.png", "below/b.png"):
        Image.fromarray(scene(len(name))).save(folder / name)
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:500])
    return folder


def video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (128, 96))
    for _ in range(frames):
        writer.write(scene(0))
    writer.release()
    return path


def frames_of(path: Path) -> tuple[int, float]:
    """Frames and rate of a video."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count, capture.get(cv2.CAP_PROP_FPS)


def test_a_folder_becomes_pictures_and_coco(model, photos, tmp_path, capsys):
    assert predict.main([model, str(photos), "--out", str(tmp_path / "out"), "--score", "0.72"]) == 0
    assert sorted(file.name for file in (tmp_path / "out" / "pictures").iterdir()) == [
        "a_jpg.jpg",
        "a_png.jpg",
        "below_b.jpg",
    ]
    coco = COCO(tmp_path / "out" / "predictions.json")
    assert [image["file_name"] for image in coco.imgs.values()] == ["a.jpg", "a.png", "below/b.png"]
    found = coco.imgToAnns[1]
    assert [annotation["level"] for annotation in found] == [0, 1]  # scores above 0.72 at this brightness
    assert found[1]["parent_id"] == found[0]["id"]
    assert coco.annToMask(found[0]).shape == (96, 128)
    captured = capsys.readouterr()
    assert "3 images, 6 instances (3 wholes, 3 parts, 0 subparts)" in captured.out
    assert "could not be read: 1, named above" in captured.out
    assert "cut.jpg is damaged" in captured.err + captured.out


def test_one_photo_with_panels(model, photos, tmp_path):
    assert predict.main([model, str(photos / "a.png"), "--out", str(tmp_path / "out"), "--panels"]) == 0
    assert read_image(tmp_path / "out" / "pictures" / "a.jpg").shape[1] > 4 * 128


def test_a_video_becomes_a_video_with_tracks(model, tmp_path, capsys):
    source = video(tmp_path / "clip.mp4", 12)
    arguments = [model, str(source), "--out", str(tmp_path / "out"), "--save-frames"]
    assert predict.main(arguments) == 0
    count, rate = frames_of(tmp_path / "out" / "clip_overlay.mp4")
    assert (count, rate) == (12, 20.0)
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["frame_index"] for image in content["images"]] == list(range(12))
    assert content["images"][1]["timestamp"] == pytest.approx(0.05)
    tracks = {annotation["track_id"] for annotation in content["annotations"] if annotation["level"] == 1}
    assert len(tracks) == 1  # one part, the same one in all frames
    for image in content["images"]:
        assert read_image(tmp_path / "out" / "frames" / image["file_name"]).shape == (96, 128, 3)
    assert not list((tmp_path / "out").glob(".*"))


def test_fewer_frames_of_a_video(model, tmp_path):
    source = video(tmp_path / "clip.mp4", 20)
    assert predict.main([model, str(source), "--out", str(tmp_path / "out"), "--max-rate", "5"]) == 0
    assert len(COCO(tmp_path / "out" / "predictions.json").imgs) == 5


def test_a_bag_becomes_a_video_for_each_camera_in_the_time_of_its_stamps(model, tmp_path):
    messages = [
        (topic, recordings.IMAGE, number, recordings.image(number * step, scene(0), "rgb8"))
        for topic, step in (("/left/image_raw", 1), ("/never_stamped", 0))
        for number in range(6)
    ]
    bag = recordings.write_rosbag2(tmp_path / "bag", messages)
    assert predict.main([model, str(bag), "--out", str(tmp_path / "out"), "--score", "0.72"]) == 0
    coco = COCO(tmp_path / "out" / "predictions.json")
    assert len(coco.imgs) == 12
    assert len(coco.anns) == 24
    assert frames_of(tmp_path / "out" / "left_image_raw_overlay.mp4") == (6, 30.0)
    assert frames_of(tmp_path / "out" / "never_stamped_overlay.mp4")[0] == 6  # shown all the same


def test_a_robot_without_the_packages_of_training_predicts(model, photos, tmp_path):
    code = f"import sys; sys.modules |= dict.fromkeys({TRAINING_ONLY}); from hassod_ros.cli import main; main()"
    bag = recordings.write_rosbag2(tmp_path / "bag", recordings.images(3))
    for source, count in ((photos, 3), (bag, 3)):
        command = [sys.executable, "-c", code, "predict", model, str(source), "--out", str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout.startswith(f"{count} images, "), done.stderr
        assert " images, " in done.stderr  # progress
        assert len(COCO(tmp_path / "out" / "predictions.json").imgs) == count


def test_background_is_drawn_where_it_is_asked_for(photos, tmp_path):
    from hassod_ros.instances import Instances
    from hassod_ros.prediction import predict as predict_all

    class Wall:
        def configure(self, selection: object) -> None: ...

        def __call__(self, image: np.ndarray) -> Instances:
            mask = np.zeros((1, *image.shape[:2]), bool)
            mask[:, 20:60, 20:60] = True
            return Instances.from_dense(mask, image_size=image.shape[:2], scene=np.array([True]))

    pictures = []
    for draw_scene in (False, True):
        out = tmp_path / str(draw_scene)
        predict_all(Wall(), photos / "a.png", out, draw_scene=draw_scene)
        assert [entry["scene"] for entry in COCO(out / "predictions.json").anns.values()] == [True]
        pictures.append(read_image(out / "pictures" / "a.jpg").astype(int))
    changed = np.abs(pictures[0] - pictures[1]).max(axis=2) > 60
    assert changed[20, 25:55].all()
    assert not changed[25:55, 25:55].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.onnx", "."], "none.onnx does not exist"),
        (["MODEL", "nowhere"], "nowhere does not exist"),
        (["MODEL", "nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["MODEL", "."], "holds no image"),
    ],
)
def test_wrong_input_is_one_sentence(model, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [model if each == "MODEL" else each for each in arguments]
    assert predict.main([*arguments, "--out", "out"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "image/s" not in line and line.strip()]
    assert len(lines) == 1
    assert message in lines[0]


def test_what_is_done_at_ctrl_c_is_kept(model, photos, tmp_path, monkeypatch):
    from hassod_ros import prediction
    from hassod_ros.runtime.segmenter import open_segmenter

    segment = open_segmenter(model)
    seen = []

    def one_then_ctrl_c(images: list, **options: str) -> list:
        if seen:
            raise KeyboardInterrupt
        seen.append(1)
        return whole(images, **options)

    whole = segment.segment
    monkeypatch.setattr(segment, "segment", one_then_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        prediction.predict(segment, photos, tmp_path / "out")
    coco = COCO(tmp_path / "out" / "predictions.json")
    assert len(coco.imgs) == 1
    assert len(coco.anns) == 4


def test_pictures_do_not_go_among_those_that_are_looked_at(model, photos, capsys):
    assert predict.main([str(model), str(photos), "--out", str(photos / "found")]) == 2
    assert f"{photos}/found lies in {photos}" in capsys.readouterr().err
    assert not (photos / "found").exists()

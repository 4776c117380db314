import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.runtime.segmenter import Segmenter, open_segmenter


def test_image_in_instances_out(bright, write_model):
    instances = Segmenter(write_model())(bright)
    assert instances.levels.tolist() == [0, 1, 2, 0]
    assert instances.parents.tolist() == [-1, 0, 1, -1]
    np.testing.assert_allclose(instances.boxes[0], [4, 4, 44, 44])
    np.testing.assert_allclose(instances.scores, np.array([0.9, 0.8, 0.7, 0.6]) * bright.mean() / 255, rtol=1e-5)


def test_other_sizes_come_back_in_their_own_pixels(bright, write_model):
    instances = Segmenter(write_model())(cv2.resize(bright, (256, 96), interpolation=cv2.INTER_NEAREST))
    # 256 x 96 fits 64 x 48 at a quarter; what lies in the padding is clipped away.
    np.testing.assert_allclose(instances.boxes[0], [16, 16, 176, 96])


def test_thresholds_come_from_the_model_and_may_change(bright, write_model):
    segmenter = Segmenter(write_model(score_thresholds=(0.7, 0.5, 0.5)))
    assert len(segmenter(bright)) == 3
    segmenter.options = type(segmenter.options)(score_thresholds=(0.95, 0.95, 0.6))
    assert segmenter(bright).levels.tolist() == [2]


def test_coverage_of_a_parent_and_weight_of_colours_come_from_the_model(write_model):
    options = Segmenter(write_model(parent_coverage=0.6, color_weight=2.5)).options
    assert (options.parent_coverage, options.color_weight) == (0.6, 2.5)


def test_each_image_of_a_batch_is_outlined_by_its_own_colours(write_model):
    frames = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8) for n in range(2)]
    together = Segmenter(write_model(batch=2, color_weight=3.0)).segment(frames)
    single = Segmenter(write_model(color_weight=3.0))
    for frame, instances in zip(frames, together, strict=True):
        for one, other in zip(instances.masks, single(frame).masks, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("batch", "images"), [(1, 3), (2, 3), (4, 3), (2, 0)])
def test_batches_give_what_single_images_give(bright, write_model, batch, images):
    sizes = [(48, 64), (30, 30), (100, 200)]
    frames = [cv2.resize(bright, sizes[i][::-1], interpolation=cv2.INTER_NEAREST) for i in range(images)]
    together = Segmenter(write_model(batch=batch)).segment(frames)
    single = Segmenter(write_model())
    assert len(together) == images
    for frame, instances in zip(frames, together, strict=True):
        np.testing.assert_array_equal(instances.boxes, single(frame).boxes)
        assert len(instances)
        assert instances.image_size == frame.shape[:2]


def test_results_outlive_the_next_call(bright, write_model):
    segmenter = Segmenter(write_model())
    first = segmenter(bright)
    boxes = first.boxes.copy()
    segmenter(np.full((100, 70, 3), 250, np.uint8))
    np.testing.assert_array_equal(first.boxes, boxes)


def test_unconverged_suppression_is_counted(bright, write_model):
    segmenter = Segmenter(write_model())
    segmenter(bright)
    assert segmenter.unconverged == 0


def test_warm_up_and_close(bright, write_model):
    segmenter = open_segmenter(write_model())
    segmenter.warm_up()
    segmenter.close()
    with pytest.raises(RuntimeError, match="closed"):
        segmenter(bright)


def test_a_blank_picture_holds_nothing_whatever_the_model_says(bright, write_model):
    """CutLER's and HASSOD's users: confident masks with the lens cap on."""
    segment = Segmenter(write_model(batch=2))
    cap, seen = segment.segment([np.full((48, 64, 3), 255, np.uint8), bright])
    assert (len(cap), len(seen)) == (0, 4)


def test_wrong_images(bright, write_model):
    with pytest.raises(InputError, match="uint8"):
        Segmenter(write_model())(bright.astype(np.float32))


def test_a_robot_needs_no_torch(bright, write_model, tmp_path):
    """Load and run a model where neither torch nor anything for training can be imported."""
    photo = tmp_path / "photo.png"
    Image.fromarray(bright).save(photo)
    code = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "pycocotools", "numba", "timm", "onnx", "scipy"):
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
import hassod_ros.runtime
import pkgutil, importlib
from hassod_ros.runtime.segmenter import Segmenter, open_segmenter
from hassod_ros.runtime.engine_cache import EngineCache
print(len(Segmenter({str(write_model())!r})({str(photo)!r})))
try:
    open_segmenter("training_free")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "4"
    assert second.startswith("InputError training-free mode needs")


def test_a_path_is_segmented_as_the_picture_in_it(bright, write_model, tmp_path):
    segment = Segmenter(write_model())
    image = bright - np.array([0, 50, 100], np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    for source in (str(tmp_path / "photo.png"), tmp_path / "photo.png"):
        np.testing.assert_array_equal(segment(source).boxes, segment(image).boxes)
        np.testing.assert_array_equal(segment(source, color_order="BGR").scores, segment(image).scores)


@pytest.mark.parametrize(
    ("image", "message"),
    [(None, "got NoneType; check what read it"), ("none.jpg", "none.jpg does not exist"), ([[1, 2]], "got list")],
)
def test_what_imread_gives_for_a_missing_file_is_one_sentence(write_model, image, message):
    with pytest.raises(InputError, match=message):
        Segmenter(write_model())(image)

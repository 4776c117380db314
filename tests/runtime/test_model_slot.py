import hashlib
import threading

import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.runtime import model_slot
from hassod_ros.runtime.model_slot import ModelSlot
from hassod_ros.runtime.segmenter import open_segmenter
from hassod_ros.runtime.selection import Selection


class Opener:
    """Opens real segmenters, and keeps count of those that are open."""

    def __init__(self) -> None:
        self.open: list = []
        self.warm_up = lambda: None

    def __call__(self, path: str):
        segmenter = open_segmenter(path)
        close, warm_up = segmenter.close, segmenter.warm_up
        segmenter.close = lambda: (self.open.remove(segmenter), close())
        segmenter.warm_up = lambda: (self.warm_up(), warm_up())
        self.open.append(segmenter)
        return segmenter


@pytest.fixture
def opener():
    return Opener()


@pytest.fixture
def slot(opener):
    return ModelSlot(opener)


def test_a_model_is_loaded_exchanged_and_given_back(bright, slot, opener, write_model):
    path = write_model()
    first, nothing = slot.load(str(path))
    assert nothing is None
    assert (first.name, first.precision) == ("model.onnx", "fp32")
    assert first.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    second, old = slot.load(str(write_model(score_thresholds=(0.65, 0.65, 0.65))))
    assert old is first
    assert opener.open == [second.segmenter]
    (found,), by = slot.segment([(bright, "RGB")], Selection())
    assert by is second
    assert found.levels.tolist() == [0, 1, 2]
    slot.close()
    assert opener.open == []
    with pytest.raises(InputError, match="configure it first"):
        slot.segment([(bright, "RGB")], Selection())
    assert slot.load(str(path))[1] is None  # can be used again


def test_what_is_selected_counts_for_the_next_images_only(bright, slot, write_model):
    slot.load(str(write_model()))
    for score, count in ((0.85, 1), (None, 4), (0.0, 4)):
        (found,), _ = slot.segment([(bright, "RGB")], Selection(score_thresholds=(score,) * 3))
        assert len(found) == count


def test_images_of_different_colour_orders_go_together(slot, write_model):
    slot.load(str(write_model(batch=2)))
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 2] = 255
    found, _ = slot.segment([(blue, "RGB"), (blue[..., ::-1].copy(), "BGR")], Selection(score_thresholds=(0.0,) * 3))
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


def test_a_model_that_fails_its_test_is_closed_and_the_old_one_stays(slot, opener, write_model):
    good, _ = slot.load(str(write_model()))

    def fail():
        raise RuntimeError("not today")

    opener.warm_up = fail
    with pytest.raises(RuntimeError, match="not today"):
        slot.load(str(write_model()))
    assert slot.model is good
    assert opener.open == [good.segmenter]
    assert (slot.loading, slot.progress) == ("", "")


def test_a_slot_that_is_closed_meanwhile_does_not_take_the_model(slot, opener, write_model):
    path = str(write_model())
    loading, go_on = threading.Event(), threading.Event()

    def wait():
        loading.set()
        assert go_on.wait(20)

    opener.warm_up = wait
    errors = []

    def load():
        try:
            slot.load(path)
        except InputError as error:
            errors.append(str(error))

    thread = threading.Thread(target=load)
    thread.start()
    assert loading.wait(20)
    slot.report("half of it")
    assert (slot.loading, slot.progress) == (path, "half of it")
    slot.close()
    go_on.set()
    thread.join()
    assert "cleaned up while" in errors[0]
    assert slot.model is None
    assert opener.open == []


def test_a_model_that_hangs_on_an_image_is_not_exchanged_and_the_new_one_is_closed(
    bright, slot, opener, write_model, monkeypatch
):
    monkeypatch.setattr(model_slot, "_SWAP_LIMIT", 0.2)
    path = str(write_model())
    old, _ = slot.load(path)
    segment, hanging, go_on = old.segmenter.segment, threading.Event(), threading.Event()

    def hang(*arguments, **options):
        hanging.set()
        assert go_on.wait(60)
        return segment(*arguments, **options)

    old.segmenter.segment = hang
    thread = threading.Thread(target=slot.segment, args=([(bright, "RGB")], Selection()))
    thread.start()
    assert hanging.wait(60)
    with pytest.raises(InputError, match=r"has not come back from an image for 0\.2 s; restart the node"):
        slot.load(path)
    assert slot.model is old
    assert opener.open == [old.segmenter]
    go_on.set()
    thread.join()
    assert slot.load(path)[1] is old


def test_a_folder_that_models_may_come_from_may_lie_in_the_home(opener, write_model, tmp_path, monkeypatch):
    path = write_model()
    monkeypatch.setenv("HOME", str(path.parent.parent))
    slot = ModelSlot(opener, [f"~/{path.parent.name}"])
    slot.load(str(path))
    slot.close()
    with pytest.raises(InputError, match="lies outside of model_roots"):
        ModelSlot(opener, ["~/elsewhere"]).load(str(path))

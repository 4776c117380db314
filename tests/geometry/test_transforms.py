import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hassod_ros.errors import InputError
from hassod_ros.geometry.transforms import TransformBuffer, TransformError, invert, matrix, quaternions, slerp

rotation = pytest.importorskip("scipy.spatial.transform")
Rotation, Slerp = rotation.Rotation, rotation.Slerp
SECOND = 1_000_000_000

numbers = st.floats(-5, 5, allow_nan=False)
turns = st.tuples(numbers, numbers, numbers).map(lambda v: Rotation.from_rotvec(v).as_quat())
places = st.tuples(numbers, numbers, numbers)


@given(places, turns)
@settings(max_examples=40, deadline=None)
def test_matrices_and_quaternions_agree_with_scipy(place, turn):
    pose = matrix(place, turn)
    np.testing.assert_allclose(pose[:3, :3], Rotation.from_quat(turn).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(invert(pose) @ pose, np.eye(4), atol=1e-9)
    (back,) = quaternions(pose[None, :3, :3])
    assert back[3] >= 0
    np.testing.assert_allclose(Rotation.from_quat(back).as_matrix(), pose[:3, :3], atol=1e-9)


@given(turns, turns, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_interpolation_agrees_with_scipy(first, second, share):
    angle = (Rotation.from_quat(first).inv() * Rotation.from_quat(second)).magnitude()
    if angle > 3.1:  # both ways round are as short
        return
    expected = Slerp([0, 1], Rotation.from_quat([first, second]))(share)
    ours = Rotation.from_quat(slerp(first, second, share))
    assert (expected.inv() * ours).magnitude() < 2e-3


@given(st.lists(st.tuples(places, turns), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_chain_is_the_product_of_its_links(links):
    buffer = TransformBuffer()
    for (parent, child), (place, turn) in zip(
        [("map", "base"), ("base", "arm"), ("base", "mast"), ("mast", "camera")], links, strict=True
    ):
        buffer.add(parent, child, SECOND, place, turn, fixed=parent == "mast")
    arm, mast, camera = (matrix(*links[i]) for i in (1, 2, 3))
    np.testing.assert_allclose(buffer.find("arm", "camera", SECOND), invert(arm) @ mast @ camera, atol=1e-6)
    there, back = buffer.find("map", "camera", SECOND), buffer.find("camera", "map", SECOND)
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-6)


def test_between_two_stamps_it_moves_evenly():
    buffer = TransformBuffer()
    buffer.add("map", "base", 0, (0, 0, 0), (0, 0, 0, 1))
    buffer.add("map", "base", SECOND, (1, 2, 0), tuple(Rotation.from_euler("z", 90, degrees=True).as_quat()))
    pose = buffer.find("map", "base", SECOND // 4)
    np.testing.assert_allclose(pose[:3, 3], [0.25, 0.5, 0])
    np.testing.assert_allclose(
        Rotation.from_matrix(pose[:3, :3]).as_euler("zyx", degrees=True), [22.5, 0, 0], atol=1e-6
    )


def test_what_is_missing_is_named_and_whether_it_may_still_come():
    buffer = TransformBuffer(memory=2.0)
    with pytest.raises(TransformError, match="no transform connects camera with map; frames that are known: none") as e:
        buffer.find("map", "camera", 0)
    assert e.value.early
    buffer.add("map", "camera", 5 * SECOND, (0, 0, 0), (0, 0, 0, 1))
    with pytest.raises(TransformError, match=r"is 1\.500 s older than the image") as e:
        buffer.find("map", "camera", 6 * SECOND + SECOND // 2)
    assert e.value.early
    with pytest.raises(TransformError, match=r"from 1\.000 s after the image only") as e:
        buffer.find("map", "camera", 4 * SECOND)
    assert not e.value.early


def test_late_transforms_are_sorted_in_and_old_ones_forgotten():
    buffer = TransformBuffer(memory=2.0)
    for second in (3, 1, 2, 4):
        buffer.add("a", "b", second * SECOND, (second, 0, 0), (0, 0, 0, 1))
    assert buffer.find("a", "b", 5 * SECOND // 2)[0, 3] == 2.5
    with pytest.raises(TransformError, match="after the image only"):
        buffer.find("a", "b", SECOND)


def test_a_recording_that_starts_again_begins_anew():
    buffer = TransformBuffer(memory=2.0)
    buffer.add("a", "b", 100 * SECOND, (1, 0, 0), (0, 0, 0, 1))
    buffer.add("a", "b", SECOND, (2, 0, 0), (0, 0, 0, 1))
    assert buffer.find("a", "b", SECOND)[0, 3] == 2


@pytest.mark.parametrize(
    ("parent", "child", "place", "turn", "words"),
    [
        ("a", "b", (np.nan, 0, 0), (0, 0, 0, 1), "not a rigid motion"),
        ("a", "b", (0, 0, 0), (0, 0, 0, 0), "not a rigid motion"),
        ("a", "/a", (0, 0, 0), (0, 0, 0, 1), "below itself"),
    ],
)
def test_nonsense_is_refused(parent, child, place, turn, words):
    with pytest.raises(InputError, match=words):
        TransformBuffer().add(parent, child, 0, place, turn)


def test_a_circle_is_said():
    buffer = TransformBuffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a")):
        buffer.add(parent, child, 0, (0, 0, 0), (0, 0, 0, 1), fixed=True)
    with pytest.raises(TransformError, match="circle"):
        buffer.find("a", "x", 0)

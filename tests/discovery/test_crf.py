"""hassod_ros.discovery.crf against pydensecrf and against what a CRF must keep."""

import importlib
from pathlib import Path

import numba
import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment
from skimage import data

from hassod_ros.discovery.crf import interpolate, refine, refine_label_maps
from hassod_ros.discovery.crf.config import CRFConfig
from hassod_ros.errors import InputError


def patches(height: int, width: int, labels: int, seed: int = 0) -> np.ndarray:
    """A random partition of the patch grid: every patch belongs to the nearest of some centres."""
    random = np.random.default_rng(seed)
    centres = random.random((labels, 2)) * (height, width)
    grid = np.stack(np.mgrid[:height, :width], -1)
    nearest = ((grid[:, :, None] - centres) ** 2).sum(-1).argmin(-1)
    return np.unique(nearest, return_inverse=True)[1].reshape(height, width)


def photo(name: str, side: int = 200) -> np.ndarray:
    return np.asarray(Image.fromarray(getattr(data, name)()[..., :3]).resize((side, side), Image.Resampling.LANCZOS))


MAPS = np.stack([patches(25, 25, labels, seed) for seed, labels in enumerate((30, 9, 3))])


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((ours.argmax(0) == theirs.argmax(0)).mean())


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_labels_agree_with_pydensecrf(name: str) -> None:
    image = photo(name)
    ours, theirs = (refine_label_maps(image, MAPS, method=method) for method in ("native", "pydensecrf"))
    for mine, reference, labels in zip(ours, theirs, MAPS, strict=True):
        assert (
            reference.argmax(0) != interpolate(labels, (200, 200)).argmax(0)
        ).mean() > 0.01  # the CRF does something
        assert agreement(mine, reference) >= 0.999
        np.testing.assert_allclose(mine.sum(0), 1, atol=1e-5)
        assert mine.min() >= 0


@pytest.mark.parametrize("case", [0, 1, 2])
def test_labels_agree_with_the_published_discovery(shared: Path, case: int) -> None:
    with np.load(shared / "reference" / f"discovery_case_{case}.npz") as file:
        image = np.asarray(Image.fromarray(file["image"]).resize((480, 480), Image.Resampling.LANCZOS))
        maps, reference = file["label_maps"], file["crf_argmax"]
    for ours, labels in zip(refine_label_maps(image, maps), reference, strict=True):
        table = np.zeros((len(ours), len(ours)))  # the reference numbers the labels in another order
        np.add.at(table, (ours.argmax(0).ravel(), labels.ravel()), 1)
        assert table[linear_sum_assignment(-table)].sum() >= 0.995 * labels.size


def test_label_maps_equal_their_interpolated_masks() -> None:
    torch = pytest.importorskip("torch")
    image = photo("coffee", 90)[:, :70]
    masks = [interpolate(labels, (90, 70)) for labels in MAPS]
    onehot = torch.nn.functional.one_hot(torch.from_numpy(MAPS[0])).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(onehot, (90, 70), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(masks[0], expected, atol=1e-5)
    for fast, slow in zip(refine_label_maps(image, MAPS), refine(image, masks), strict=True):
        np.testing.assert_allclose(fast, slow, atol=2e-3)


@pytest.mark.parametrize("stop_at", [None, 2e-3])
def test_groups_are_independent(stop_at: float | None) -> None:
    image, config = photo("chelsea", 120), CRFConfig(stop_at=stop_at)
    together = refine_label_maps(image, MAPS, config)
    for labels, expected in zip(MAPS, together, strict=True):
        np.testing.assert_array_equal(refine_label_maps(image, labels[None], config)[0], expected)


def test_what_does_not_fit_into_memory_goes_map_by_map_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("hassod_ros.discovery.crf.mean_field")  # its name is also that of a function
    image, config = photo("chelsea", 120), CRFConfig(iterations=2)
    sizes: list[int] = []

    def join(parts: list, real=module.join):  # type: ignore[no-untyped-def]
        lattice = real(parts)
        sizes.append(lattice.size)
        return lattice

    monkeypatch.setattr(module, "join", join)
    together = refine_label_maps(image, MAPS, config)
    a_lane = 2 * (sizes[0] + 120 * 120) * np.dtype(module.storage()).itemsize  # 32, 16 and 8 lanes hold the three maps
    monkeypatch.setattr(module, "MOST_BYTES", 40 * a_lane)
    for found, expected in zip(refine_label_maps(image, MAPS, config), together, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(sizes) == 1 + 1 + len(MAPS)
    monkeypatch.setattr(module, "MOST_BYTES", 20 * a_lane)
    with pytest.raises(InputError, match=r"30 regions in a picture of so much texture need \d+ GB in the CRF"):
        refine_label_maps(image, MAPS, config)


def test_stops_when_few_labels_change() -> None:
    image = photo("astronaut", 120)
    exact, zero, never = (refine_label_maps(image, MAPS, CRFConfig(stop_at=share)) for share in (None, 0.0, 1.0))
    once = refine_label_maps(image, MAPS, CRFConfig(iterations=1))
    soon = refine_label_maps(image, MAPS, CRFConfig(stop_at=1e-3))
    for e, z, n, o, s in zip(exact, zero, never, once, soon, strict=True):
        np.testing.assert_array_equal(z, e)  # no share is below 0
        np.testing.assert_array_equal(n, o)  # every share is below 1: one iteration
        assert agreement(s, e) >= 0.99


def test_one_label_is_certain() -> None:
    image = photo("coffee", 60)
    several, one = refine_label_maps(image, np.stack([patches(8, 8, 4), np.zeros((8, 8), int)]))
    np.testing.assert_array_equal(one, np.ones((1, 60, 60), np.float32))
    np.testing.assert_array_equal(several, refine_label_maps(image, patches(8, 8, 4)[None])[0])
    np.testing.assert_array_equal(refine(image, [np.ones((1, 60, 60), np.float32)])[0], one)


def test_any_memory_layout() -> None:
    image = photo("coffee", 64)
    masks = interpolate(patches(8, 8, 5), (64, 64)).astype(np.float32)
    expected = refine(image, [masks])[0]
    strided = np.asfortranarray(image)[:, ::-1][:, ::-1]
    frozen, transposed = image.copy(), np.ascontiguousarray(masks.transpose(2, 1, 0)).transpose(2, 1, 0)
    frozen.setflags(write=False)
    transposed.setflags(write=False)
    for method in ("native", "pydensecrf"):
        same = [refine(picture, [transposed], method=method)[0] for picture in (strided, frozen)]
        assert agreement(same[0], expected) >= 0.999
        np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (2, 3)])
def test_tiny_images(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    masks = np.random.default_rng(1).dirichlet(np.ones(3), size).transpose(2, 0, 1).astype(np.float32)
    refined = refine(image, [masks])[0]
    np.testing.assert_allclose(refined, refine(image, [masks], method="pydensecrf")[0], atol=0.01)
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


def test_dense_probabilities_and_many_labels() -> None:
    """Random probabilities have no zeros, and 600 labels need blocks of sixteen."""
    image = photo("chelsea", 40)
    masks = np.random.default_rng(0).dirichlet(np.full(600, 0.02), (40, 40)).transpose(2, 0, 1).astype(np.float32)
    assert agreement(refine(image, [masks])[0], refine(image, [masks], method="pydensecrf")[0]) >= 0.995


def test_noise_needs_a_lattice_point_per_corner() -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    ours, theirs = (refine_label_maps(image, MAPS[2:], method=method)[0] for method in ("native", "pydensecrf"))
    assert agreement(ours, theirs) >= 0.999


def test_thread_count_changes_nothing() -> None:
    image, before = photo("astronaut", 96), numba.get_num_threads()
    results = []
    try:
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            results.append(refine_label_maps(image, MAPS))
    finally:
        numba.set_num_threads(before)
    for group in zip(*results, strict=True):
        for other in group[1:]:
            np.testing.assert_array_equal(other, group[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gaussian_sxy": 0.0}, "standard deviations"),
        ({"bilateral_srgb": float("nan")}, "standard deviations"),
        ({"bilateral_compat": -1.0}, "compatibilities"),
        ({"iterations": -1}, "iterations"),
        ({"stop_at": 2.0}, "stop_at"),
    ],
)
def test_impossible_constants_are_refused(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        CRFConfig(**change)


def test_bad_input_is_named() -> None:
    image = photo("coffee", 20)
    with pytest.raises(InputError, match="uint8 RGB image"):
        refine_label_maps(image.astype(np.float32), MAPS)
    with pytest.raises(InputError, match="label maps must be"):
        refine_label_maps(image, MAPS[0])
    with pytest.raises(InputError, match="label maps must be"):
        refine_label_maps(image, MAPS - 1)
    with pytest.raises(InputError, match="like the image"):
        refine(image, [np.ones((1, 20, 21), np.float32)])
    with pytest.raises(InputError, match="NaN"):
        refine(image, [np.full((2, 20, 20), np.nan, np.float32)])
    with pytest.raises(InputError, match="unknown CRF method"):
        refine(image, [np.ones((1, 20, 20), np.float32)], method="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="too small for an image"):
        refine_label_maps(image, MAPS, CRFConfig(bilateral_srgb=0.1))

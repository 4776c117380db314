from __future__ import annotations

import cv2
import numpy as np
import pytest

from hassod_ros.footage.select import KEPT, SelectConfig, choose, cover, farthest, flaws, measure, seen, share
from hassod_ros.footage.sources import pan_zoom


def scene(seed: int, size: tuple[int, int] = (720, 960)) -> np.ndarray:
    """(H, W, 3) a picture with edges of all directions: overlapping discs and bars."""
    rng = np.random.default_rng(seed)
    page = np.full((*size, 3), 128, np.uint8)
    for _ in range(150):
        color = rng.integers(0, 256, 3).tolist()
        center = (int(rng.integers(size[1])), int(rng.integers(size[0])))
        if rng.random() < 0.5:
            cv2.circle(page, center, int(rng.integers(5, 60)), color, -1)
        else:
            page = cv2.ellipse(page, center, (60, 8), float(rng.uniform(0, 180)), 0, 360, color, -1)
    return page


def motion_blur(pixels: np.ndarray, length: int, angle: float) -> np.ndarray:
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    x, y = middle * np.cos(angle), middle * np.sin(angle)
    ends = [(round(middle - x), round(middle - y)), (round(middle + x), round(middle + y))]
    cv2.line(kernel, *ends, 1)
    return cv2.filter2D(pixels, -1, kernel / kernel.sum())


def found_flaws(frames: list[np.ndarray], config: SelectConfig | None = None) -> np.ndarray:
    measures = [measure(frame) for frame in frames]
    columns = [np.array(column) for column in zip(*measures, strict=True)]
    return np.array(flaws(["camera"] * len(frames), *columns, config or SelectConfig()), object)


def test_seeded_blur_is_found_and_sharp_frames_of_a_moving_camera_are_not() -> None:
    rng = np.random.default_rng(0)
    frames, kinds = [], []
    for seed in range(4):
        for frame in pan_zoom(scene(seed), (240, 320), 60):
            kind = rng.choice(["sharp", "motion", "defocus"], p=[0.8, 0.1, 0.1])
            if kind == "motion":
                frame = motion_blur(frame, int(rng.integers(5, 14)) | 1, rng.uniform(0, np.pi))
            elif kind == "defocus":
                frame = cv2.GaussianBlur(frame, (0, 0), rng.uniform(1.5, 3))
            frames.append(frame)
            kinds.append(kind)
    dropped = found_flaws(frames) == "blurred"
    for kind in ("motion", "defocus"):
        assert dropped[np.array(kinds) == kind].mean() >= 0.9
    assert dropped[np.array(kinds) == "sharp"].mean() <= 0.05
    assert not (found_flaws(frames, SelectConfig(sharpness=0)) == "blurred").any()


@pytest.mark.parametrize("kind", ["across", "along", "defocus"])
def test_blur_of_large_frames_is_found_though_not_all_rows_are_read(kind: str) -> None:
    frames = list(pan_zoom(scene(2, (1080, 1920)), (720, 1280), 60))[:12]
    blur = {
        "across": lambda frame: motion_blur(frame, 25, 0),
        "along": lambda frame: motion_blur(frame, 25, np.pi / 2),
        "defocus": lambda frame: cv2.GaussianBlur(frame, (0, 0), 5),
    }
    frames[5] = blur[kind](frames[5])
    assert np.flatnonzero(found_flaws(frames) == "blurred").tolist() == [5]


def test_a_burst_of_blurred_frames_is_found_too() -> None:
    frames = list(pan_zoom(scene(1), (240, 320), 60))
    frames[20:25] = [motion_blur(frame, 9, 0.0) for frame in frames[20:25]]
    dropped = found_flaws(frames) == "blurred"
    assert dropped[20:25].all()
    assert dropped.sum() <= 7


def test_frames_without_light_or_contrast_are_named() -> None:
    picture = scene(0)
    blank = np.full_like(picture, 90)
    frames = [picture, (picture * 0.05).astype(np.uint8), np.full_like(picture, 255), blank, picture]
    assert found_flaws(frames).tolist() == ["", "dark", "bright", "blank", ""]


@pytest.mark.parametrize("size", [(1, 1, 3), (2, 700, 3), (3, 3, 3), (1080, 1920, 3)])
def test_pictures_of_any_size_are_measured(size: tuple[int, int, int]) -> None:
    found = measure(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    assert found.signature.shape == (256,)
    assert found.sharpness.shape == (4,)
    assert np.isfinite(found.sharpness).all()


def test_a_fixed_camera_is_thinned_out_and_what_happens_before_it_stays() -> None:
    rng = np.random.default_rng(0)
    still, frames, events = scene(2, (240, 320)), [], []
    for number in range(300):
        frame = still.copy()
        if number % 100 == 50:  # something large passes by
            cv2.circle(frame, (40 + number // 4, 120), 60, (250, 240, 20), -1)
            events.append(number)
        noise = rng.integers(-6, 7, frame.shape, np.int16)
        frames.append(np.clip(frame + noise, 0, 255).astype(np.uint8))
    signatures = np.array([measure(frame).signature for frame in frames])
    why = np.array(choose(["camera"] * len(frames), signatures, SelectConfig()), object)
    kept = np.flatnonzero(why == KEPT)
    assert len(kept) <= 300 / 20
    assert set(events) <= set(kept.tolist())


def test_cover_keeps_no_two_that_are_near_and_leaves_none_far() -> None:
    rng = np.random.default_rng(0)
    signatures = rng.normal(size=(300, 8)).astype(np.float32)
    signatures /= np.linalg.norm(signatures, axis=1, keepdims=True)
    kept = cover(signatures, 0.2)
    distances = 1 - signatures @ signatures[kept].T
    assert (distances.min(axis=1) < 0.2).all()
    among = distances[kept]
    np.fill_diagonal(among, 9)
    assert (among >= 0.2 - 1e-6).all()


def test_farthest_takes_one_of_each_of_as_many_places() -> None:
    places = np.eye(5, dtype=np.float32).repeat(20, axis=0)
    assert sorted((farthest(places, 5) // 20).tolist()) == [0, 1, 2, 3, 4]
    assert farthest(places, 200).tolist() == list(range(100))
    assert farthest(places, 0).tolist() == []


@pytest.mark.parametrize(
    ("wanted", "total", "given"),
    [
        ({"a": 100, "b": 2, "c": 100}, 12, {"a": 5, "b": 2, "c": 5}),
        ({"a": 3, "b": 2}, 100, {"a": 3, "b": 2}),
        ({"a": 5, "b": 5, "c": 5}, 2, {"a": 1, "b": 1, "c": 0}),
        ({}, 5, {}),
    ],
)
def test_the_quota_is_shared_evenly(wanted: dict[str, int], total: int, given: dict[str, int]) -> None:
    assert share(wanted, total) == given


def test_each_camera_has_its_share_however_many_frames_it_has() -> None:
    rng = np.random.default_rng(0)
    signatures = rng.normal(size=(200, 256)).astype(np.float32)
    signatures /= np.linalg.norm(signatures, axis=1, keepdims=True)
    cameras = ["busy"] * 180 + ["rare"] * 20
    why = choose(cameras, signatures, SelectConfig(count=20))
    assert [sum(w == KEPT and c == name for w, c in zip(why, cameras, strict=True)) for name in ("busy", "rare")] == [
        10,
        10,
    ]


def test_noise_makes_no_other_picture_and_two_pixels_of_motion_do() -> None:
    page, random = cv2.resize(scene(0), (640, 480)), np.random.default_rng(0)
    noisy = np.clip(page + random.normal(0, 5, page.shape), 0, 255).astype(np.uint8)
    others = [noisy, np.roll(page, 2, axis=1), scene(1)]
    signatures = np.stack([measure(frame).signature.astype(np.float16) for frame in (page, *others)]).astype(np.float32)
    assert seen(signatures[1:], signatures[:1]).tolist() == [True, False, False]
    assert not seen(signatures, signatures[:0]).any()

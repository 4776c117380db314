"""A made-up part: four coloured pieces on a scratched plate, and a detector that tells pieces by their colour."""

import cv2
import numpy as np

from hassod_ros.instances import Instances

SIZE = (240, 320)
PIECES = {  # centre x, y, radius, RGB
    "red": (80, 70, 22, (200, 50, 40)),
    "green": (240, 70, 22, (40, 160, 60)),
    "blue": (80, 170, 22, (40, 70, 200)),
    "yellow": (240, 170, 22, (220, 200, 40)),
}


def plate() -> np.ndarray:
    """(H, W, 3) uint8 RGB: grey, with scratches that never change."""
    rng = np.random.default_rng(1)
    picture = np.full((*SIZE, 3), 150, np.uint8)
    for _ in range(400):
        start, length, angle = rng.uniform(0, 1, 2) * SIZE[::-1], rng.uniform(8, 40), rng.uniform(0, np.pi)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        shade = int(rng.integers(90, 210))
        cv2.line(picture, start.astype(int).tolist(), end.astype(int).tolist(), (shade,) * 3, 1, cv2.LINE_AA)
    return picture


def part(**changes: dict[str, object] | None) -> np.ndarray:
    """A part; PIECE=None leaves a piece out, PIECE={"at": (x, y)} or {"colour": rgb} changes it, NEW=(...) adds one."""
    picture = plate()
    for name, (x, y, radius, colour) in {
        **PIECES,
        **{k: v for k, v in changes.items() if isinstance(v, tuple)},
    }.items():
        change = changes.get(name, {})
        if change is None:
            continue
        change = change if isinstance(change, dict) else {}
        centre = change.get("at", (x, y))
        cv2.circle(picture, centre, radius, change.get("colour", colour), -1, cv2.LINE_AA)
        cv2.circle(picture, centre, radius // 2, (30, 30, 30), 2, cv2.LINE_AA)
    return picture


def taken(picture: np.ndarray, seed: int, *, shift: float = 6, angle: float = 3, light: float = 0.05) -> np.ndarray:
    """The picture as a camera takes it: moved, turned, under other light, with noise; the same for the same seed."""
    rng = np.random.default_rng(seed)
    matrix = cv2.getRotationMatrix2D((SIZE[1] / 2, SIZE[0] / 2), rng.uniform(-angle, angle), 1.0)
    matrix[:, 2] += rng.uniform(-shift, shift, 2)
    moved = cv2.warpAffine(picture, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    v, u = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    gain = 1 + rng.uniform(-light, light) + rng.uniform(-light, light) * u + rng.uniform(-light, light) * v
    return np.clip(moved * gain[..., None] + rng.normal(0, 2, moved.shape), 0, 255).astype(np.uint8)


def observe(picture: np.ndarray) -> tuple[Instances, np.ndarray]:
    """Instances of what is colourful, and colours as features of cells of 4 pixels."""
    colourful = (picture.max(axis=2).astype(int) - picture.min(axis=2) > 60).astype(np.uint8)
    colourful = cv2.morphologyEx(colourful, cv2.MORPH_CLOSE, np.ones((25, 25), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(colourful)
    boxes, masks = [], []
    for i in range(1, count):
        x, y, width, height, area = stats[i]
        if area > 200:
            boxes.append((x, y, x + width, y + height))
            masks.append((labels[y : y + height, x : x + width] == i).astype(np.uint8))
    instances = Instances(image_size=picture.shape[:2], boxes=np.array(boxes, np.float32).reshape(-1, 4), masks=masks)
    cells = cv2.resize(picture, (picture.shape[1] // 4, picture.shape[0] // 4), interpolation=cv2.INTER_AREA)
    return instances, cells.transpose(2, 0, 1).astype(np.float32) / 64

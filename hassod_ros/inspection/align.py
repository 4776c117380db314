"""Where a picture lies over the reference picture.

SIFT keypoints and RANSAC (Lowe, 2004) where there is texture enough; elsewhere enhanced correlation (ECC, Evangelidis
and Psarakis, 2008) from several starts. A placement counts where enough keypoints agree or the pictures correlate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

_KEYPOINT_SIDE = 384  # pixels of the longer side that keypoints are sought at
_SMALL_SIDE = 128  # ... that pictures are correlated at
_RATIO = 0.8  # of the distances of the best and the second best match (Lowe)
_INLIER = 2.5  # pixels at _KEYPOINT_SIDE
_LEAST_INLIERS = 6  # below it a placement is not even tried; of photographs by hand none with more was wrong
_SURE = 25  # inliers from which no other placement is sought
_SCALES = (0.7, 1.4)  # a placement beyond them is a mistake
_STARTS = (0.0, -12.0, 12.0)  # degrees that ECC is started from
_LEAST_COVER = 0.4  # share of the reference that a placement must cover


@dataclass(frozen=True)
class Alignment:
    """How a picture lies over the reference.

    Attributes:
        matrix: (2, 3) float64, picture pixels -> reference pixels.
        shift: (x, y) in pixels, by which the middle of the part lies elsewhere in the picture.
        angle: Degrees by which it is turned, clockwise positive, within +-180.
        scale: Its size over the taught size.
        correlation: Of the grey values, -1 to 1.
        inliers: Keypoints that agree on this placement; 0 where it was not found by keypoints.

    """

    matrix: np.ndarray
    shift: tuple[float, float]
    angle: float
    scale: float
    correlation: float
    inliers: int

    @property
    def trust(self) -> float:
        """How sure the placement is: the correlation, and 0.01 for each keypoint up to 50."""
        return self.correlation + 0.01 * min(self.inliers, 50)


@dataclass(frozen=True)
class Keypoints:
    """What a picture is aligned by.

    Attributes:
        places: (N, 2) float32 x y in picture pixels.
        descriptors: (N, 128) float32 RootSIFT, or None where there are none.
        small: (h, w) float32 grey picture, to correlate.
        scale: Of `small` to the picture.

    """

    places: np.ndarray
    descriptors: np.ndarray | None
    small: np.ndarray
    scale: float


def find_keypoints(picture: np.ndarray, mask: np.ndarray | None = None) -> Keypoints:
    """Keypoints of (H, W, 3) uint8 RGB where `mask` (H, W) uint8 is not 0; contrast is evened out first."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _KEYPOINT_SIDE / max(grey.shape))
    work = cv2.createCLAHE(3.0, (8, 8)).apply(_shrunk(grey, scale))
    sift = cv2.SIFT_create(nfeatures=600, contrastThreshold=0.02)  # type: ignore[attr-defined]
    points, descriptors = sift.detectAndCompute(work, None if mask is None else _shrunk(mask, scale))
    places = np.array([point.pt for point in points], np.float32).reshape(-1, 2) / np.float32(scale)
    if descriptors is not None:  # RootSIFT (Arandjelovic and Zisserman, 2012)
        descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    scale = min(1.0, _SMALL_SIDE / max(grey.shape))
    return Keypoints(places, descriptors, _shrunk(grey, scale).astype(np.float32), scale)


class Aligner:
    """Aligns pictures of any size to one reference picture.

    Args:
        reference: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 255 where the part may be looked at.

    """

    def __init__(self, reference: np.ndarray, mask: np.ndarray) -> None:
        self.reference = find_keypoints(reference, mask)
        ys, xs = np.nonzero(mask)
        self._middle = np.array([xs.mean(), ys.mean()])
        self._mask = _shrunk(mask, self.reference.scale) > 0
        self._tolerance = _INLIER / min(1.0, _KEYPOINT_SIDE / max(reference.shape[:2]))

    def __call__(self, picture: np.ndarray) -> Alignment:
        """The best placement of (H, W, 3) uint8 RGB; `trust` tells whether it is one."""
        return self.place(find_keypoints(picture))

    def place(self, picture: Keypoints) -> Alignment:
        """The best placement of a picture whose keypoints are known."""
        matrix, inliers = self._by_keypoints(picture)
        if matrix is not None and inliers >= _SURE:
            return self._describe(picture, matrix, inliers)
        tried = [self._describe(picture, np.eye(2, 3), 0)]
        tried += [self._describe(picture, each, 0) for each in self._by_correlation(picture)]
        if matrix is not None:
            tried.append(self._describe(picture, matrix, inliers))
        return max(tried, key=lambda each: each.trust)

    def _by_keypoints(self, picture: Keypoints) -> tuple[np.ndarray | None, int]:
        known = self.reference
        if known.descriptors is None or picture.descriptors is None or min(len(picture.places), len(known.places)) < 2:
            return None, 0
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(picture.descriptors, known.descriptors, k=2)
        good = [first for first, second in pairs if first.distance < _RATIO * second.distance]
        if len(good) < _LEAST_INLIERS:
            return None, 0
        source = picture.places[[match.queryIdx for match in good]]
        target = known.places[[match.trainIdx for match in good]]
        matrix, inliers = cv2.estimateAffinePartial2D(
            source, target, method=cv2.RANSAC, ransacReprojThreshold=self._tolerance, maxIters=2000, confidence=0.999
        )
        if matrix is None or inliers.sum() < _LEAST_INLIERS:
            return None, 0
        if not _SCALES[0] < math.hypot(*matrix[0, :2]) < _SCALES[1]:
            return None, 0
        return matrix, int(inliers.sum())

    def _by_correlation(self, picture: Keypoints) -> Iterator[np.ndarray]:
        """ECC at the small size, from several turns about the middle."""
        target, source = self.reference.small, picture.small
        middle = (source.shape[1] / 2, source.shape[0] / 2)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
        for start in _STARTS:
            turn = cv2.getRotationMatrix2D(middle, start, 1.0).astype(np.float32)
            try:
                _, found = cv2.findTransformECC(
                    target, source, turn, cv2.MOTION_EUCLIDEAN, criteria, np.ones(source.shape, np.uint8), 5
                )
            except cv2.error:  # it does not converge from here
                continue
            matrix = np.array(cv2.invertAffineTransform(found.astype(np.float64)), np.float64)
            matrix[:, :2] *= picture.scale / self.reference.scale
            matrix[:, 2] /= self.reference.scale
            yield matrix

    def _describe(self, picture: Keypoints, matrix: np.ndarray, inliers: int) -> Alignment:
        back = cv2.invertAffineTransform(matrix)
        shift = back[:, :2] @ self._middle + back[:, 2] - self._middle
        return Alignment(
            matrix=matrix,
            shift=(float(shift[0]), float(shift[1])),
            angle=math.degrees(math.atan2(back[1, 0], back[0, 0])),
            scale=math.hypot(back[0, 0], back[1, 0]),
            correlation=self._correlate(picture, matrix),
            inliers=inliers,
        )

    def _correlate(self, picture: Keypoints, matrix: np.ndarray) -> float:
        small = self.reference.small
        inside = matrix.copy()
        inside[:, :2] *= self.reference.scale / picture.scale
        inside[:, 2] *= self.reference.scale
        moved = cv2.warpAffine(picture.small, inside, small.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=-1)
        valid = self._mask & (moved >= 0)
        covered = int(np.count_nonzero(valid)) / max(1, int(np.count_nonzero(self._mask)))
        if covered < _LEAST_COVER:
            return -1.0
        a, b = small[valid] - small[valid].mean(), moved[valid] - moved[valid].mean()
        spread = math.sqrt(float(a @ a) * float(b @ b))
        return float(a @ b) / spread if spread > 0 else 0.0


def lay_over(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The picture laid over the reference of `size` (H, W), and (H, W) uint8, 255 where it covers it.

    Beyond its border the picture goes on as its edge, so that nothing stands out there.
    """
    shape = (size[1], size[0])
    moved = cv2.warpAffine(picture, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    full = np.full(picture.shape[:2], 255, np.uint8)
    return moved, cv2.warpAffine(full, matrix, shape, flags=cv2.INTER_NEAREST, borderValue=0)


def _shrunk(picture: np.ndarray, scale: float) -> np.ndarray:
    return picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

"""Where a picture lies over the reference picture.

SIFT keypoints vote for placements (Lowe, 2004), finer ones where few agree; where there is no texture, the middle of
the picture is sought at all angles, and enhanced correlation begins there (ECC, Evangelidis and Psarakis, 2008). Of all
that are tried the one counts by which most of the part agrees with the reference, place by place: keypoints alone are
led astray by a label that is turned around its bottle, or a pattern that repeats. Blocks are then laid over each other
to a fraction of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

# Pixels of the longer side that keypoints are sought at, 0 where pictures are correlated instead; each is tried where
# those before are not sure.
_STAGES = (160, 320, 0, 640)
_SMALL_SIDE = 128  # ... that pictures are correlated at
_FINE_SIDE = 200  # ... and where it matters
_NEIGHBOURS = 3  # best matches of a keypoint that vote; patterns repeat
_RATIO = 0.8  # of the distances of the best and the second best match (Lowe), above which a match is unsure
_UNSURE = 0.25  # vote of an unsure match
_BINS, _TURNS = 12, 18  # of the votes, along each side and of the angle
_PEAKS = 3  # of the votes, that are followed up
_INLIER = 2.5  # pixels at the side that keypoints are sought at
_LEAST_INLIERS = 6  # below it a placement is not even tried
_MOST = 600  # keypoints
_LIKELY = 0.7  # of the agreement that good pictures have, from which a part may lie without a turn
_ROUNDS = 3  # of blocks that are laid over each other, there
_SURE = 15  # inliers from which no other placement is sought
_SAME = 0.01  # of the longer side, by which two placements that are the same may differ
_SHORT = 0.03  # trust, or agreement, that may lack to what is usual; if more does, the search goes on
_LOCAL = 4.0  # standard deviation, in pixels at _SMALL_SIDE, of the places that agree or not
_NOISE, _STRONG = 2.0, 20.0  # grey levels of contrast below which a place says nothing, and above which no more
_SCALES = (0.7, 1.4)  # a placement beyond them is a mistake
_ANGLES = range(-45, 46, 3)  # degrees at which the middle of the picture is sought
_MIDDLE = 0.6  # of each side of the picture
_TRIED = 3  # of the angles, the best, that ECC starts from
_LEAST_COVER = 0.4  # share of the reference that a placement must cover
# Agreement of the reference with itself, moved by _FAR, from which a direction hardly tells where it lies.
_ITSELF = 0.8
_FAR = 0.05  # of the longer side
_REACH, _STEP = 0.15, 0.012  # likewise, how far and how finely another place is sought along such a direction
_BETTER = 0.005  # agreement by which a place must be better than all that are further away than _FAR
_SHADE = 16.0  # standard deviation, in pixels at _SMALL_SIDE, of what is taken for a shade
_BLOCK, _SEARCH = 48, 6  # pixels of a block, and how far around it is sought
_GRID = 6  # blocks along the longer side
_ALIKE = 0.6  # correlation from which a block counts
_LEAST_BLOCKS = 6
_BLOCK_INLIER = 1.0  # pixels
# Blocks that agree, and share of those that are found, from which a placement that they leave as it is needs no
# keypoints: a part with something missing still lies there.
_MANY_BLOCKS, _NEARLY_ALL = 8, 0.8
_SOFT = np.geomspace(4.0, _BLOCK_INLIER, 8)  # likewise, in each round: more and more blocks are left out
_FIRM = 0.01  # of what one block says, that a placement stays where nothing tells where it lies
_FRACTION = 4  # bits of the fractions of pixels that corners are given in


@dataclass(frozen=True)
class Alignment:
    """How a picture lies over the reference.

    Attributes:
        matrix: (2, 3) float64, picture pixels -> reference pixels.
        shift: (x, y) in pixels, by which the middle of the part lies elsewhere in the picture.
        angle: Degrees by which it is turned, clockwise positive, within +-180.
        scale: Its size over the taught size.
        agreement: Share of the part that looks like the reference at its place, 0 to 1.
        correlation: Of the grey values, -1 to 1.
        inliers: Keypoints that agree on this placement; 0 where it was not found by keypoints.
        sure: Whether no place further along looks as good, as on stripes that show no end.

    """

    matrix: np.ndarray
    shift: tuple[float, float]
    angle: float
    scale: float
    agreement: float
    correlation: float
    inliers: int
    sure: bool = True

    @property
    def trust(self) -> float:
        """How sure the placement is: the agreement, and up to 0.05 for keypoints, which tell what looks alike apart."""
        return self.agreement + 0.001 * min(self.inliers, 50)


class _Found(NamedTuple):
    """N keypoints: places (N, 2), angles (N,) in radians, sizes (N,), all in pixels, and RootSIFT (N, 128)."""

    places: np.ndarray
    angles: np.ndarray
    sizes: np.ndarray
    descriptors: np.ndarray


class Keypoints:
    """What a picture is aligned by; what is needed rarely is found when it is.

    Args:
        picture: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, not 0 where keypoints are sought.

    """

    def __init__(self, picture: np.ndarray, mask: np.ndarray | None = None) -> None:
        self.grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        self._mask = mask
        self._found: dict[int, _Found] = {}

    def found(self, side: int) -> _Found:
        """Keypoints sought at a longer side, in picture pixels."""
        if side not in self._found:
            scale = min(1.0, side / max(self.grey.shape))
            work = cv2.createCLAHE(3.0, (8, 8)).apply(_shrunk(self.grey, scale))
            sift = cv2.SIFT_create(nfeatures=_MOST, contrastThreshold=0.02)  # type: ignore[attr-defined]
            points, descriptors = sift.detectAndCompute(
                work, None if self._mask is None else _shrunk(self._mask, scale)
            )
            if descriptors is None:
                descriptors = np.zeros((0, 128), np.float32)
            # RootSIFT (Arandjelovic and Zisserman, 2012): of unit length
            descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
            values = np.array([(*point.pt, point.angle, point.size) for point in points], np.float32).reshape(-1, 4)
            self._found[side] = _Found(
                values[:, :2] / np.float32(scale), np.radians(values[:, 2]), values[:, 3] / scale, descriptors
            )
        return self._found[side]

    @property
    def scale(self) -> float:
        """Of `small` to the picture."""
        return min(1.0, _SMALL_SIDE / max(self.grey.shape))

    @cached_property
    def small(self) -> np.ndarray:
        """(h, w) float32 grey picture."""
        return _shrunk(self.grey, self.scale).astype(np.float32)

    @cached_property
    def even(self) -> np.ndarray:
        """(h, w) float32 grey picture without what shades it as a whole."""
        evened: np.ndarray = self.small - cv2.GaussianBlur(self.small, (0, 0), _SHADE)
        return evened


class Aligner:
    """Aligns pictures of any size to one reference picture.

    Args:
        reference: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 255 where the part may be looked at.
        usual: Trust that good pictures have; with it, and no better, the search ends.
        alike: Agreement that good pictures have, likewise, with which it need not begin.

    """

    def __init__(self, reference: np.ndarray, mask: np.ndarray, usual: float = 2.0, alike: float = 2.0) -> None:
        self._usual, self._alike = usual, alike
        self.reference = Keypoints(reference, mask)
        ys, xs = np.nonzero(mask)
        self._middle = np.array([xs.mean(), ys.mean()])
        self._mask = _shrunk(mask, self.reference.scale) > 0
        seen = self._mask.astype(np.float32)
        count = np.maximum(_local(seen), 1e-3)
        mean = _local(self.reference.small * seen) / count
        spread = np.maximum(_local(self.reference.small**2 * seen) / count - mean**2, 0)
        self._contrast = np.minimum(np.sqrt(spread), _STRONG) * _half(seen)
        self._blocks = _blocks(self.reference.grey, mask)
        far = _FAR * max(mask.shape)
        turns = (np.array([math.cos(turn), math.sin(turn)]) for turn in np.arange(8) * (math.pi / 8))
        self._loose = [
            along for along in turns if self._agreement(self.reference, _moved(np.eye(2, 3), far * along), 0) > _ITSELF
        ]

    def __call__(self, picture: np.ndarray) -> Alignment:
        """The best placement of (H, W, 3) uint8 RGB; `trust` tells whether it is one."""
        return self.place(Keypoints(picture))

    def place(self, picture: Keypoints) -> Alignment:
        """The best placement of a picture whose keypoints are known."""
        (best, told), before = self._unturned(picture), None
        for side in () if told or best.agreement >= self._alike - _SHORT else _STAGES:
            rough = self._by_keypoints(picture, side) if side else self._by_correlation(picture)
            tried = [self._describe(picture, *each) for each in rough]
            if not tried:
                continue
            found = self._finer(picture, max(tried, key=lambda each: each.trust))
            best = max(best, found, key=lambda each: each.trust)
            if found.inliers >= _SURE or best.trust >= self._usual - _SHORT or self._same(found, before):
                break
            before = found
        if self._loose:
            best = self._slide(picture, best)
        return replace(best, correlation=self._correlate(picture, best.matrix))

    def _unturned(self, picture: Keypoints) -> tuple[Alignment, bool]:
        """The best placement without a turn, at a fifth of the price of keypoints: many parts lie as they were taught.

        Where it looks like one, it is followed up as all others are, and may then be turned a little.

        Returns:
            The placement, and whether blocks tell that it is one, however little of the part looks as it should.
        """
        target, scale = self.reference.small, self.reference.scale
        top, left, rows, columns = _middle_of(target.shape)
        middle = target[top : top + rows, left : left + columns]
        source = picture.small if scale == picture.scale else _shrunk(picture.grey, scale).astype(np.float32)
        best = self._describe(picture, np.eye(2, 3), 0)
        if min(source.shape[0] - rows, source.shape[1] - columns) >= 0 and middle.std() >= 1:
            likeness = np.pad(cv2.matchTemplate(source, middle, cv2.TM_CCOEFF_NORMED), 1, mode="edge")
            _, _, _, (x, y) = cv2.minMaxLoc(likeness[1:-1, 1:-1])
            x_off, y_off = _peak(likeness[y + 1, x : x + 3]), _peak(likeness[y : y + 3, x + 1])
            offset = np.array([left - x - x_off, top - y - y_off]) / scale
            best = max(best, self._describe(picture, _moved(np.eye(2, 3), offset), 0), key=lambda each: each.agreement)
        if best.agreement < _LIKELY * self._alike:
            return best, False
        for _ in range(_ROUNDS):  # where it is turned, the outer blocks are found last
            rough, (matrix, told) = best, self._refine(picture, best.matrix)
            best = self._better(picture, rough, matrix)
            if self._apart(rough, best) < _BLOCK_INLIER:
                return best, told
        return best, False

    def _same(self, first: Alignment, second: Alignment | None) -> bool:
        """Whether two placements are one, at every corner of the reference."""
        return second is not None and self._apart(first, second) < _SAME * max(self.reference.grey.shape)

    def _apart(self, first: Alignment, second: Alignment) -> float:
        """Pixels, along x or y, by which two placements differ at most at a corner of the reference."""
        height, width = self.reference.grey.shape
        corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]])
        return float(np.abs(corners @ (first.matrix - second.matrix).T).max())

    def _slide(self, picture: Keypoints, start: Alignment) -> Alignment:
        """The best place along the directions in which the reference resembles itself, and whether it is one."""
        size = max(self.reference.grey.shape)
        steps = size * np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
        tried = [_moved(start.matrix, step * along) for along in self._loose for step in steps]
        agreements = [self._agreement(picture, matrix, 0) for matrix in tried]
        best = self._finer(picture, self._describe(picture, tried[int(np.argmax(agreements))], start.inliers))
        known = self._agreement(picture, best.matrix, 0)
        here = self._agreement(picture, start.matrix, 0)
        best, known = (best, known) if known > here + _BETTER else (start, here)
        return replace(
            best,
            sure=all(
                agreement < known - _BETTER
                for matrix, agreement in zip(tried, agreements, strict=True)
                if np.hypot(*(matrix - best.matrix)[:, 2]) > _FAR * size
            ),
        )

    def _finer(self, picture: Keypoints, rough: Alignment) -> Alignment:
        return self._better(picture, rough, self._refine(picture, rough.matrix)[0])

    def _better(self, picture: Keypoints, rough: Alignment, matrix: np.ndarray) -> Alignment:
        """What `_refine` made of a placement, unless it is a worse one."""
        finer = self._describe(picture, matrix, rough.inliers)
        return finer if finer.agreement > rough.agreement - 0.02 else rough

    def _by_keypoints(self, picture: Keypoints, side: int) -> Iterator[tuple[np.ndarray, int]]:
        """Placements for which most keypoints vote, with how many agree on each."""
        new, known = picture.found(side), self.reference.found(side)
        if min(len(new.places), len(known.places)) <= _NEIGHBOURS:
            return
        alike = new.descriptors @ known.descriptors.T
        best, values = _largest(alike, _NEIGHBOURS)
        distances = 2 - 2 * values[:, :2]  # squared
        weights = np.full(best.shape, _UNSURE)
        weights[:, 0] = np.where(distances[:, 0] < _RATIO**2 * distances[:, 1], 1.0, _UNSURE)
        source, target = np.repeat(np.arange(len(best)), _NEIGHBOURS), best.ravel()
        size = known.sizes[target] / new.sizes[source]
        likely = (size > _SCALES[0] / 1.5) & (size < _SCALES[1] * 1.5)
        source, target, weights, size = source[likely], target[likely], weights.ravel()[likely], size[likely]
        # Each match says where the middle of the picture comes to lie, and how it is turned.
        height, width = picture.grey.shape
        turn = known.angles[target] - new.angles[source]
        arm = (np.array([width / 2, height / 2], np.float32) - new.places[source]) * size[:, None]
        cosine, sine = np.cos(turn), np.sin(turn)
        x = known.places[target, 0] + cosine * arm[:, 0] - sine * arm[:, 1]
        y = known.places[target, 1] + sine * arm[:, 0] + cosine * arm[:, 1]
        tall, wide = self.reference.grey.shape
        bins = np.stack([x / wide * _BINS, y / tall * _BINS, turn / (2 * np.pi) * _TURNS % _TURNS])
        inside = ((bins[:2] >= 0) & (bins[:2] < _BINS)).all(axis=0)
        source, target, weights, bins = source[inside], target[inside], weights[inside], bins[:, inside]
        tolerance = _INLIER * max(1.0, max(tall, wide) / side)
        for peak in _peaks(bins, weights):
            apart = np.abs(bins - peak[:, None])
            apart[2] = np.minimum(apart[2], _TURNS - apart[2])
            near = (apart < 1.5).all(axis=0)
            if np.count_nonzero(near) < _LEAST_INLIERS:
                continue
            matrix, inliers = cv2.estimateAffinePartial2D(
                new.places[source[near]],
                known.places[target[near]],
                method=cv2.RANSAC,
                ransacReprojThreshold=tolerance,
                maxIters=1000,
                confidence=0.999,
            )
            if matrix is None or inliers.sum() < _LEAST_INLIERS:
                continue
            if _SCALES[0] < math.hypot(*matrix[0, :2]) < _SCALES[1]:
                yield matrix, int(inliers.sum())

    def _by_correlation(self, picture: Keypoints) -> Iterator[tuple[np.ndarray, int]]:
        """ECC at the small size, from the turns at which the middle of the picture correlates best."""
        target, source = self.reference.small, picture.small
        height, width = source.shape
        top, left, rows, columns = _middle_of(source.shape)
        coarse = _shrunk(target, 0.5)
        starts = []
        for angle in _ANGLES:
            turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
            middle = cv2.warpAffine(source, turn, (width, height))[top : top + rows, left : left + columns]
            middle = _shrunk(middle, 0.5)
            if min(coarse.shape[0] - middle.shape[0], coarse.shape[1] - middle.shape[1]) < 0 or middle.std() < 1:
                continue
            _, peak, _, place = cv2.minMaxLoc(cv2.matchTemplate(coarse, middle, cv2.TM_CCOEFF_NORMED))
            turn[:, 2] += 2 * place[0] - left, 2 * place[1] - top
            starts.append((peak, turn))
        for _, start in sorted(starts, key=lambda each: -each[0])[:_TRIED]:
            found = _by_ecc(source, target, start)
            if found is not None:
                found[:, :2] *= picture.scale / self.reference.scale
                found[:, 2] /= self.reference.scale
                yield found, 0

    def _refine(self, picture: Keypoints, matrix: np.ndarray) -> tuple[np.ndarray, bool]:
        """The placement by which blocks of the reference lie over the picture best, to a fraction of a pixel.

        Where there are too few blocks, that of the best correlation at a larger size.

        Returns:
            (2, 3) the placement, and whether nearly all blocks that are found agree on it, and many are.
        """
        grey = self.reference.grey
        moved = cv2.warpAffine(picture.grey, matrix, grey.shape[::-1], flags=cv2.INTER_LINEAR)
        places, offsets, tensors = [], [], []
        for (x, y), tensor in self._covered_blocks(picture, matrix):
            around = slice(y - _SEARCH, y + _BLOCK + _SEARCH), slice(x - _SEARCH, x + _BLOCK + _SEARCH)
            likeness = cv2.matchTemplate(moved[around], grey[y : y + _BLOCK, x : x + _BLOCK], cv2.TM_CCOEFF_NORMED)
            _, value, _, (column, row) = cv2.minMaxLoc(likeness)
            if value < _ALIKE or not (0 < column < 2 * _SEARCH and 0 < row < 2 * _SEARCH):
                continue
            x_off, y_off = _peak(likeness[row, column - 1 : column + 2]), _peak(likeness[row - 1 : row + 2, column])
            places.append((x + _BLOCK / 2, y + _BLOCK / 2))
            offsets.append((column - _SEARCH + x_off, row - _SEARCH + y_off))
            tensors.append(tensor)
        if len(places) < _LEAST_BLOCKS:
            return self._refine_by_ecc(picture, matrix), False
        step, inliers = _fit(np.array(places), np.array(offsets), np.array(tensors))
        if inliers < _LEAST_BLOCKS:
            return self._refine_by_ecc(picture, matrix), False
        finer: np.ndarray = (step @ np.vstack([matrix, (0, 0, 1)]))[:2]
        return finer, inliers >= max(_MANY_BLOCKS, _NEARLY_ALL * len(places))

    def _covered_blocks(self, picture: Keypoints, matrix: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """Those of the blocks that a picture shows with all that they are sought in."""
        back = cv2.invertAffineTransform(matrix)
        last = np.array(picture.grey.shape[::-1]) - 1
        low, high = -_SEARCH, _BLOCK + _SEARCH - 1
        square = np.array([[low, low], [high, low], [high, high], [low, high]])
        for block in self._blocks:
            corners = (square + block[0]) @ back[:, :2].T + back[:, 2]
            if (corners >= 0).all() and (corners <= last).all():
                yield block

    def _describe(self, picture: Keypoints, matrix: np.ndarray, inliers: int) -> Alignment:
        back = cv2.invertAffineTransform(matrix)
        shift = back[:, :2] @ self._middle + back[:, 2] - self._middle
        return Alignment(
            matrix=matrix,
            shift=(float(shift[0]), float(shift[1])),
            angle=math.degrees(math.atan2(back[1, 0], back[0, 0])),
            scale=math.hypot(back[0, 0], back[1, 0]),
            agreement=self._agreement(picture, matrix),
            correlation=0.0,  # of those that are tried, nobody asks
            inliers=inliers,
        )

    def _correlate(self, picture: Keypoints, matrix: np.ndarray) -> float:
        known = self.reference.even
        moved, valid = self._small_over(picture, picture.even, matrix)
        covered = int(np.count_nonzero(valid)) / max(1, int(np.count_nonzero(self._mask)))
        if covered < _LEAST_COVER:
            return -1.0
        a, b = known[valid] - known[valid].mean(), moved[valid] - moved[valid].mean()
        spread = math.sqrt(float(a @ a) * float(b @ b))
        return float(a @ b) / spread if spread > 0 else 0.0

    def _small_over(self, picture: Keypoints, small: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A small (h, w) map of the picture laid over the small reference, and (h, w) bool where it covers the part."""
        inside = matrix.copy()
        inside[:, :2] *= self.reference.scale / picture.scale
        inside[:, 2] *= self.reference.scale
        shape = self._mask.shape[::-1]
        moved = cv2.warpAffine(small, inside, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        covers = cv2.warpAffine(np.full(small.shape, 255, np.uint8), inside, shape, flags=cv2.INTER_LINEAR)
        return moved, self._mask & (covers == 255)  # no pixel that is partly beyond the border

    def _agreement(self, picture: Keypoints, matrix: np.ndarray, uncovered: float = 0.5) -> float:
        """Mean of the correlations around each place of the part, those with contrast, at the small size.

        A place that the picture does not cover counts `uncovered` as much as one that does not agree.
        """
        known = self.reference.small
        moved, covered = self._small_over(picture, picture.small, matrix)
        valid = covered.astype(np.float32)
        if valid.sum() < _LEAST_COVER * np.count_nonzero(self._mask):
            return 0.0
        count = np.maximum(_local(valid), 1e-3)
        a, b = known * valid, moved * valid
        mean_a, mean_b = _local(a) / count, _local(b) / count
        spread_a = np.maximum(_local(a * a) / count - mean_a * mean_a, 0)
        spread_b = np.maximum(_local(b * b) / count - mean_b * mean_b, 0)
        both = _local(a * b) / count - mean_a * mean_b
        likeness = both / np.sqrt((spread_a + _NOISE**2) * (spread_b + _NOISE**2))
        shown = _half(valid)
        weight = np.minimum(np.sqrt(np.maximum(spread_a, spread_b)), _STRONG) * shown
        lacking = self._contrast * (1 - shown)
        return float(
            (weight * np.maximum(likeness, 0)).sum() / max(1e-6, float(weight.sum() + uncovered * lacking.sum()))
        )

    def _refine_by_ecc(self, picture: Keypoints, matrix: np.ndarray) -> np.ndarray:
        scale = min(1.0, _FINE_SIDE / max(self.reference.grey.shape))
        start = matrix.copy()
        start[:, 2] *= scale
        source, target = (_shrunk(each.grey, scale).astype(np.float32) for each in (picture, self.reference))
        found = _by_ecc(source, target, start)
        if found is None:
            return matrix
        found[:, 2] /= scale
        return found


def _largest(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values (N, count) of the largest in each row of (N, M), the largest first; `values` are spoiled."""
    rows, indices, largest = np.arange(len(values)), [], []
    for _ in range(count):
        indices.append(values.argmax(axis=1))
        largest.append(values[rows, indices[-1]])
        values[rows, indices[-1]] = -np.inf
    return np.stack(indices, axis=1), np.stack(largest, axis=1)


def _peaks(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(P, 3) places where most of the votes `bins` (3, M) are, which run round in the third."""
    votes = np.zeros((_BINS, _BINS, _TURNS))
    np.add.at(votes, tuple(bins.astype(np.intp) % np.array([[_BINS], [_BINS], [_TURNS]])), weights)
    padded = np.pad(np.pad(votes, ((0, 1), (0, 1), (0, 0))), ((0, 0), (0, 0), (0, 1)), mode="wrap")
    sums = padded[:-1] + padded[1:]  # of two by two by two bins
    sums = sums[:, :-1] + sums[:, 1:]
    sums = sums[:, :, :-1] + sums[:, :, 1:]
    best = np.argsort(-sums, axis=None)[: _PEAKS * 8]
    places = np.stack(np.unravel_index(best, sums.shape), axis=1) + 1.0
    chosen: list[np.ndarray] = []
    for place in places:
        if all(np.abs(place - other).max() > 1 for other in chosen):
            chosen.append(place)
    return np.array(chosen[:_PEAKS]).reshape(-1, 3)


def _middle_of(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of the middle of a picture (h, w)."""
    rows, columns = (round(side * _MIDDLE) for side in shape)
    return (shape[0] - rows) // 2, (shape[1] - columns) // 2, rows, columns


def _moved(matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(2, 3) `matrix`, and then by x, y pixels."""
    moved = matrix.copy()
    moved[:, 2] += offset
    return moved


def _local(values: np.ndarray) -> np.ndarray:
    """Means around each place, at half the size: (h, w) -> (h / 2, w / 2)."""
    return cv2.GaussianBlur(_half(values), (0, 0), _LOCAL / 2, borderType=cv2.BORDER_CONSTANT)


def _half(values: np.ndarray) -> np.ndarray:
    size = max(1, values.shape[1] // 2), max(1, values.shape[0] // 2)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def _by_ecc(source: np.ndarray, target: np.ndarray, start: np.ndarray) -> np.ndarray | None:
    """(2, 3) float64 that lays one picture (h, w) float32 over another, sought from `start`; None: not found."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    guess = cv2.invertAffineTransform(start).astype(np.float32)
    inside = np.ones(source.shape, np.uint8)
    try:
        _, found = cv2.findTransformECC(target, source, guess, cv2.MOTION_EUCLIDEAN, criteria, inside, 5)
    except cv2.error:  # it does not converge from here
        return None
    return np.array(cv2.invertAffineTransform(found.astype(np.float64)), np.float64)


def _blocks(grey: np.ndarray, mask: np.ndarray) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Blocks that have contrast enough, on a grid, away from the border.

    Returns:
        Upper left corner x y of each, and (2, 2) how firmly it tells where it lies, along x and y, 1 where it does.

    """
    height, width = grey.shape
    rim = _SEARCH
    across, down = ((each - 2 * rim - _BLOCK) for each in (width, height))
    if min(across, down) < 0:
        return []
    step = max(1, round(max(across, down) / (_GRID - 1)))
    blocks = []
    for y in range(rim, rim + down + 1, step):
        for x in range(rim, rim + across + 1, step):
            window = np.s_[y : y + _BLOCK, x : x + _BLOCK]
            if mask[window].all() and grey[window].std() > 4:
                slopes = np.stack([cv2.Sobel(grey[window], cv2.CV_32F, *order).ravel() for order in ((1, 0), (0, 1))])
                tensor = slopes @ slopes.T
                blocks.append(((x, y), tensor / np.linalg.norm(tensor, 2)))
    return blocks


def _fit(places: np.ndarray, offsets: np.ndarray, tensors: np.ndarray) -> tuple[np.ndarray, int]:
    """The movement, turn and scale by which most blocks lie off, and how many agree.

    A block that holds edges of one direction tells nothing of where it lies along them: it counts across them only.

    Args:
        places: (N, 2) x y of the blocks' middles in the reference.
        offsets: (N, 2) pixels by which they are found off.
        tensors: (N, 2, 2), see `_blocks`.

    Returns:
        (3, 3) what undoes it.

    """
    middle = places.mean(axis=0)
    size = max(1.0, float(np.abs(places - middle).max()))
    x, y = ((places - middle) / size).T
    zeros, ones = np.zeros_like(x), np.ones_like(x)
    # offset = shift + (scale, -turn; turn, scale) @ place
    rows = np.stack([np.stack([ones, zeros, x, -y], axis=1), np.stack([zeros, ones, y, x], axis=1)], axis=1)
    solution = np.zeros(4)
    for soft in (np.inf, *_SOFT):
        off = offsets - rows @ solution
        squares = np.einsum("ni,nij,nj->n", off, tensors, off)
        weights = 1 / (1 + squares / soft**2) ** 2  # Geman and McClure
        held = np.einsum("nik,nij->nkj", rows, tensors * weights[:, None, None])
        solution = np.linalg.solve(
            np.einsum("nkj,njl->kl", held, rows) + _FIRM * np.eye(4), np.einsum("nkj,nj->k", held, offsets)
        )
    shift, (grown, turned) = solution[:2], solution[2:] / size
    step = np.eye(3)
    step[:2, :2] += [[grown, -turned], [turned, grown]]
    step[:2, 2] = shift - (step[:2, :2] - np.eye(2)) @ middle
    off = offsets - rows @ solution
    inliers = np.count_nonzero(np.einsum("ni,nij,nj->n", off, tensors, off) < _BLOCK_INLIER**2)
    return np.linalg.inv(step), int(inliers)


def _peak(three: np.ndarray) -> float:
    """Where the parabola through three values is highest, from the middle one."""
    bend = float(three.ravel()[0] - 2 * three.ravel()[1] + three.ravel()[2])
    return float(three.ravel()[0] - three.ravel()[2]) / (2 * bend) if bend < 0 else 0.0


def lay_over(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The picture laid over the reference of `size` (H, W), and (H, W) uint8, 255 where it covers it.

    Beyond its border the picture goes on as its edge, so that nothing stands out there.
    """
    moved = cv2.warpAffine(picture, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    x, y = picture.shape[1] - 1, picture.shape[0] - 1
    corners = np.array([[0, 0], [x, 0], [x, y], [0, y]]) @ matrix[:, :2].T + matrix[:, 2]
    covers = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(covers, np.round(corners * 2**_FRACTION).astype(np.int32), 255, shift=_FRACTION)
    return moved, covers


def _shrunk(picture: np.ndarray, scale: float) -> np.ndarray:
    return picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

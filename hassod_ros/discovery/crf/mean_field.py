"""Mean field of the dense CRF, compiled.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials (2011). Mean field with
Potts compatibility, a Gaussian kernel in position and a bilateral one in position and colour, both normalised
symmetrically, as pydensecrf does by default.

A group is the set of labels that compete for each pixel: the regions of one threshold. All groups of an image share
one pass over its two lattices; the softmax stays within the group. Three facts make it fast. Labels lie side by side
in blocks of eight, one vector instruction each. Nearly all probabilities are zero: a bit for every block of every
pixel and lattice point tells which are not, and only those are touched. And after two iterations most pixels stand
still: filters are linear, so each iteration filters only the changes of the probabilities and renews only the pixels
whose probabilities these can have changed. What counts as zero or as still is so little that about 1 pixel in 10,000
gets another label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from hassod_ros.discovery.crf.config import FLOOR, CRFConfig
from hassod_ros.discovery.crf.lanes import (
    LANES,
    accumulate,
    add,
    as_float,
    copy,
    difference,
    gather,
    lowest_bit,
    smooth,
    storage,
)
from hassod_ros.discovery.crf.lattice import PARTS, Lattice, bilateral_lattice, join, piece, spatial_lattice, tile_order
from hassod_ros.errors import InputError

_ZERO = np.float32(2e-5)  # a block of probabilities not above this counts as zero
# Both relative to the group's largest probability at the pixel:
_SAME = np.float32(5e-3)  # a block of probabilities that changes by less is not filtered again
_STILL = np.float32(5e-3)  # nor is a pixel renewed while its logits cannot have moved a probability by more
_BITS = 64  # blocks that one mask can tell apart
_ONE = np.uint64(1)
_EIGHT = np.uint64(LANES)
_SIX = np.uint64(6)
_LOW_SIX = np.uint64(63)


MOST_BYTES = 2 << 30  # of values at once: a photograph needs a tenth, noise would need all there is


class TooManyRegionsError(InputError):
    """The values would not fit into memory."""


class Layout(NamedTuple):
    """Where labels lie in a row of values: each group starts a new block, a mask's bit stands for a block."""

    sizes: np.ndarray  # (G,) int64 labels of each group
    starts: np.ndarray  # (G,) int64 lane of each group's first label
    bits: np.ndarray  # (G,) uint64 bits of each group's blocks; none for a group of one label: it is always 1
    owners: np.ndarray  # (blocks,) int64 group of each block
    block: int  # lanes of a block: 8, or the multiple of it that lets 64 bits suffice
    stride: int  # lanes of a row

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Layout:
        """The layout of groups of so many labels."""
        block = LANES
        while sum(-(-size // block) for size in sizes if size > 1) > _BITS:
            block += LANES
        blocks = [-(-size // block) if size > 1 else 0 for size in sizes]
        first = np.concatenate([[0], np.cumsum(blocks)]).astype(int)
        bits = [((1 << count) - 1) << int(start) for count, start in zip(blocks, first[:-1], strict=True)]
        return cls(
            np.array(sizes, np.int64),
            first[:-1] * block,
            np.array(bits, np.uint64),
            np.repeat(np.arange(len(blocks)), blocks),
            block,
            int(first[-1]) * block,
        )


class Unary(NamedTuple):
    """What the unary term says about each of N pixels, in tile order: the labels above the floor."""

    lanes: np.ndarray  # (N, S) int32 lane of the label
    excess: np.ndarray  # (N, S) float32 log(probability / floor); labels that are not listed have 0
    counts: np.ndarray  # (N,) int32 how many of the S are used


@njit(cache=True, parallel=True)
def unary_of_maps(  # type: ignore[no-untyped-def]
    maps, row_low, row_high, row_part, column_low, column_high, column_part, order, starts
):
    """The fields of `Unary` for (T, h, w) int32 label maps; `*_part` weighs the upper of two source indices."""
    n, width = order.size, column_low.size
    lanes = np.empty((n, 4 * len(maps)), np.int32)
    excess = np.empty((n, 4 * len(maps)), np.float32)
    counts = np.empty(n, np.int32)
    single = np.empty(len(maps), np.bool_)
    for t in range(len(maps)):
        single[t] = maps[t].max() == 0
    for i in prange(n):
        y, x = order[i] // width, order[i] % width
        count = 0
        for t in range(len(maps)):
            if single[t]:
                continue
            begin = count
            for corner in range(4):
                row = row_high[y] if corner & 2 else row_low[y]
                column = column_high[x] if corner & 1 else column_low[x]
                weight = row_part[y] if corner & 2 else np.float32(1) - row_part[y]
                weight *= column_part[x] if corner & 1 else np.float32(1) - column_part[x]
                lane = starts[t] + maps[t, row, column]
                slot = begin
                while slot < count and lanes[i, slot] != lane:
                    slot += 1
                if slot == count:
                    lanes[i, slot] = lane
                    excess[i, slot] = 0
                    count += 1
                excess[i, slot] += weight
            kept = begin
            for slot in range(begin, count):
                if excess[i, slot] > FLOOR:
                    lanes[i, kept] = lanes[i, slot]
                    excess[i, kept] = np.log(min(excess[i, slot], np.float32(1)) / np.float32(FLOOR))
                    kept += 1
            count = kept
        counts[i] = count
    return lanes, excess, counts


def unary_of_probabilities(groups: Sequence[np.ndarray], order: np.ndarray, layout: Layout) -> Unary:
    """The same for one (R, H, W) float32 array of probabilities per group."""
    counts = np.zeros(order.size, np.int32)
    several = [(group, start) for group, start in zip(groups, layout.starts, strict=True) if len(group) > 1]
    for group, _ in several:
        counts += (group > FLOOR).sum(0, dtype=np.int32).ravel()[order]
    most = int(counts.max(initial=0))
    unary = Unary(np.empty((order.size, most), np.int32), np.empty((order.size, most), np.float32), counts)
    counts[:] = 0
    for group, start in several:
        _list_labels(group.reshape(len(group), -1), order, start, *unary)
    return unary


@njit(cache=True, parallel=True)
def _list_labels(group, order, start, lanes, excess, counts):  # type: ignore[no-untyped-def]
    for i in prange(order.size):
        for label in range(len(group)):
            probability = group[label, order[i]]
            if probability > FLOOR:
                lanes[i, counts[i]] = start + label
                excess[i, counts[i]] = np.log(min(probability, np.float32(1)) / np.float32(FLOOR))
                counts[i] += 1


class _Values(NamedTuple):
    """Rows of values, most of them zero."""

    values: np.ndarray  # (rows * stride,) float16 bits or float32
    blocks: np.ndarray  # (rows,) uint64, bit b: block b may differ from zero

    @classmethod
    def zeros(cls, rows: int, layout: Layout) -> _Values:
        return cls(np.zeros(rows * layout.stride, storage()), np.zeros(rows, np.uint64))


def mean_field(image: np.ndarray, layout: Layout, unary: Unary, config: CRFConfig) -> list[np.ndarray]:
    """(R, H, W) float32 probabilities of each group after the last iteration; `image` is (H, W, 3) uint8 RGB."""
    order = tile_order(*image.shape[:2])
    probabilities = _Values.zeros(order.size, layout)
    if layout.stride:
        _iterate(image, layout, unary, config, probabilities)
    result = []
    for size, start, bits in zip(layout.sizes, layout.starts, layout.bits, strict=True):
        if size == 1:
            result.append(np.ones((1, *image.shape[:2]), np.float32))
            continue
        group = np.zeros((int(size), *image.shape[:2]), np.float32)
        stride, block = np.uint64(layout.stride), np.uint64(layout.block)
        _spread_out(*probabilities, order, np.uint64(start), bits, stride, block, group.reshape(int(size), -1))
        result.append(group)
    return result


def _iterate(image: np.ndarray, layout: Layout, unary: Unary, config: CRFConfig, probabilities: _Values) -> None:
    """Fill the zeros with the probabilities after the last iteration."""
    height, width = image.shape[:2]
    pixels = height * width
    stride, block = np.uint64(layout.stride), np.uint64(layout.block)
    labels = np.zeros((pixels, len(layout.sizes)), np.uint16)
    if config.iterations == 0:
        _start(*unary, layout.sizes, layout.owners, *probabilities, labels, stride, block)
        return
    colour = bilateral_lattice(image, config.bilateral_sxy, config.bilateral_srgb)
    near = spatial_lattice(height, width, config.gaussian_sxy)
    lattice = join([(colour, config.bilateral_compat), (near, config.gaussian_compat)])
    del colour  # it is copied; free it before the values grow
    needed = 2 * (lattice.size + pixels) * layout.stride * np.dtype(storage()).itemsize
    if needed > MOST_BYTES:
        raise TooManyRegionsError(
            f"{layout.sizes.sum():,} regions in a picture of so much texture need {needed / 1e9:.0f} GB in the CRF; "
            "use lower thresholds, which leave fewer regions, or no CRF"
        )
    _start(*unary, layout.sizes, layout.owners, *probabilities, labels, stride, block)
    filtered = _Filtered.of(lattice, layout)
    active = np.full(-(-pixels // 64), ~np.uint64(0))
    slack = np.full((pixels, len(layout.sizes)), -1, np.float32)
    changes = np.zeros((PARTS, len(layout.sizes)), np.int64)
    running = layout.sizes > 1
    steps = probabilities
    for iteration in range(config.iterations):
        live = np.uint64(np.bitwise_or.reduce(layout.bits[running]))
        filtered.add(steps, active, live, layout)
        if iteration == 0:
            steps = _Values.zeros(pixels, layout)
        _update(
            filtered.lattice.corners, filtered.lattice.weights, *filtered.total, filtered.moved,
            *unary, layout.sizes, layout.bits, running, *probabilities, *steps, active, slack, labels, changes,
            stride, block,
        )  # fmt: skip
        if config.stop_at is not None:
            running = running & (changes.sum(0) >= config.stop_at * pixels)
            if not running.any():
                break


class _Filtered(NamedTuple):
    """The filtered probabilities on the lattice points, kept up to date by filtering only what has changed."""

    lattice: Lattice
    total: _Values
    step: _Values
    moved: np.ndarray  # (M * G rounded up to eights,) like values: largest change of each group in the last step

    @classmethod
    def of(cls, lattice: Lattice, layout: Layout) -> _Filtered:
        points = lattice.size
        return cls(
            lattice,
            _Values.zeros(points, layout),
            _Values.zeros(points, layout),
            np.zeros(points * -(-len(layout.sizes) // LANES) * LANES, storage()),
        )

    def add(self, source: _Values, active: np.ndarray, live: np.uint64, layout: Layout) -> None:
        """Filter the source and add it to the total."""
        lattice, stride, block = self.lattice, np.uint64(layout.stride), np.uint64(layout.block)
        _splat(lattice.first, lattice.pixels, lattice.shares, *source, active, *self.step, live, stride, block)
        _blur(lattice.chain, lattice.chain_first, lattice.axis_first, *self.step, stride, block)
        _accumulate(*self.step, *self.total, self.moved, layout.owners, stride, block)


@njit(cache=True, inline="always")
def _clear(values, start, length):  # type: ignore[no-untyped-def]
    for k in range(start, start + length):
        values[k] = 0


@njit(cache=True, parallel=True)
def _splat(first, pixels, shares, source, source_blocks, active, target, target_blocks, live, stride, block):  # type: ignore[no-untyped-def]
    """Sum the active pixels' values onto the lattice points; blocks that no pixel has become zero."""
    for part in prange(PARTS):
        begin, stop = piece(first.size - 1, part)
        for p in range(begin, stop):
            row = np.uint64(p) * stride
            reached = np.uint64(0)
            for entry in range(first[p], first[p + 1]):
                pixel = np.uint64(pixels[entry])
                if not (active[pixel >> _SIX] >> (pixel & _LOW_SIX)) & _ONE:
                    continue
                share = shares[entry]
                rest = source_blocks[pixel] & live
                fresh = rest & ~reached
                reached |= rest
                while fresh:
                    _clear(target, row + lowest_bit(fresh) * block, block)
                    fresh &= fresh - _ONE
                while rest:
                    at = lowest_bit(rest) * block
                    rest &= rest - _ONE
                    for k in range(at, at + block, _EIGHT):
                        add(target, row + k, source, pixel * stride + k, share)
            gone = target_blocks[p] & ~reached
            while gone:
                _clear(target, row + lowest_bit(gone) * block, block)
                gone &= gone - _ONE
            target_blocks[p] = reached


@njit(cache=True, parallel=True)
def _blur(chain, chain_first, axis_first, values, blocks, stride, block):  # type: ignore[no-untyped-def]
    """Blur along each axis with (1/2, 1, 1/2), walking each chain once and in place."""
    for axis in range(axis_first.size - 1):
        for part in prange(PARTS):
            before = np.zeros(stride, np.float32)  # the unblurred values of the point behind
            begin, end = piece(axis_first[axis + 1] - axis_first[axis], part)
            for c in range(axis_first[axis] + begin, axis_first[axis] + end):
                before_blocks = np.uint64(0)
                here = np.uint64(chain[chain_first[c]])
                here_blocks = blocks[here]
                for q in range(chain_first[c] + 1, chain_first[c + 1]):
                    after = np.uint64(chain[q])
                    after_blocks = blocks[after]
                    rest = before_blocks | here_blocks | after_blocks
                    blocks[here] = rest
                    while rest:
                        at = lowest_bit(rest) * block
                        rest &= rest - _ONE
                        for k in range(at, at + block, _EIGHT):
                            smooth(values, here * stride + k, after * stride + k, before, k)
                    before_blocks = here_blocks
                    here = after
                    here_blocks = after_blocks
                blocks[here] = here_blocks | before_blocks
                while before_blocks:
                    at = lowest_bit(before_blocks) * block
                    before_blocks &= before_blocks - _ONE
                    for k in range(at, at + block, _EIGHT):
                        add(values, here * stride + k, before, k, np.float32(0.5))
                    _clear(before, at, block)


@njit(cache=True, parallel=True)
def _accumulate(step, step_blocks, total, total_blocks, moved, owners, stride, block):  # type: ignore[no-untyped-def]
    """Add a step to the total and tell how far it moved each group."""
    n = step_blocks.size
    moves = np.uint64(moved.size // n)
    for part in prange(PARTS):
        largest = np.empty(moves, np.float32)
        begin, end = piece(n, part)
        for p in range(begin, end):
            rest = step_blocks[p]
            total_blocks[p] |= rest
            largest[:] = 0
            while rest:
                b = lowest_bit(rest)
                rest &= rest - _ONE
                at = np.uint64(p) * stride + b * block
                for k in range(at, at + block, _EIGHT):
                    largest[owners[b]] = max(largest[owners[b]], accumulate(total, k, step, k))
            for k in range(np.uint64(0), moves, _EIGHT):
                copy(moved, np.uint64(p) * moves + k, largest, k)


@njit(cache=True, fastmath=True, inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 0 to 3e-7 relative, in instructions that vectorise; below -87 it stays at exp(-87)."""
    x = max(x, np.float32(-87)) * np.float32(1.44269504)
    whole = np.floor(x)
    part = x - whole
    power = np.float32(1.8775767e-3)  # 2^part on [0, 1), minimax polynomial
    power = power * part + np.float32(8.9893397e-3)
    power = power * part + np.float32(5.5826318e-2)
    power = power * part + np.float32(2.4015361e-1)
    power = power * part + np.float32(6.9315308e-1)
    power = power * part + np.float32(0.99999994)
    return power * as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(cache=True, parallel=True)
def _start(lanes, excess, counts, sizes, owners, values, blocks, labels, stride, block):  # type: ignore[no-untyped-def]
    """Write the softmax of the unary term alone."""
    n = counts.size
    for part in prange(PARTS):
        row = np.empty(stride, np.float32)
        first, last = piece(n, part)
        for i in range(first, last):
            begin = 0
            while begin < counts[i]:
                g = owners[lanes[i, begin] // block]
                best = end = begin
                total = np.float32(0)
                while end < counts[i] and owners[lanes[i, end] // block] == g:
                    total += np.exp(excess[i, end])
                    if excess[i, end] > excess[i, best]:
                        best = end
                    end += 1
                total += np.float32(sizes[g] - (end - begin))
                labels[i, g] = lanes[i, best]
                used = np.uint64(0)
                for s in range(begin, end):
                    b = np.uint64(lanes[i, s]) // block
                    if not (used >> b) & _ONE:
                        used |= _ONE << b
                        _clear(row, b * block, block)
                    row[lanes[i, s]] = np.exp(excess[i, s]) / total
                blocks[i] |= used
                while used:
                    at = lowest_bit(used) * block
                    used &= used - _ONE
                    for k in range(at, at + block, _EIGHT):
                        copy(values, np.uint64(i) * stride + k, row, k)
                begin = end


@njit(cache=True, parallel=True, fastmath={"contract", "reassoc", "nsz", "nnan"})
def _update(  # type: ignore[no-untyped-def]
    corners, weights, filtered, filtered_blocks, moved,
    lanes, excess, counts, sizes, bits, running, current, current_blocks, step, step_blocks, active, slack, labels,
    changes, stride, block,
):  # fmt: skip
    """Gather the filters' results, add the unary term, take the softmax of each running group.

    Logits are relative to a label at the unary floor that no filter reaches: such a label has 0 and needs no memory.
    Unused lanes at the end of a group have 0 too; the sum of the exponentials corrects for their number.

    A pixel's slack is how far its logits may move before a probability can change too much (`_STILL`): with q the
    probability of all labels but the best and a movement of at most m, no probability grows by more than
    q * (exp(2 * m) - 1). While the movements of the points around it add up to less, the pixel is left as it is.
    """
    n = counts.size
    for part in prange(PARTS):
        packed = np.empty(stride, np.float32)  # logits of the blocks in use, side by side
        slot = np.empty(64, np.uint64)  # where each of them starts
        moves = np.uint64(-(-bits.size // LANES) * LANES)
        reach = np.empty(moves, np.float32)
        changed = np.zeros(bits.size, np.int64)
        first, last = piece(active.size, part)
        active[first:last] = 0
        for i in range(first * 64, min(last * 64, n)):
            for k in range(np.uint64(0), moves, _EIGHT):
                _clear(reach, k, _EIGHT)
                gather(reach, k, moved, corners, weights, np.uint64(i * 9), 9, moves, k)
            due = np.uint64(0)  # all blocks of the groups to renew
            for g in range(bits.size):
                slack[i, g] -= reach[g]
                if running[g] and slack[i, g] < 0:
                    due |= bits[g]
            if not due:
                continue
            found = np.uint64(0)
            for r in range(9):  # 6 corners in position and colour, 3 in position
                found |= filtered_blocks[corners[i, r]]
            used = found | current_blocks[i]
            for s in range(counts[i]):
                used |= _ONE << (np.uint64(lanes[i, s]) // block)
            used &= due
            rest = used
            end = np.uint64(0)
            while rest:
                b = lowest_bit(rest)
                rest &= rest - _ONE
                slot[b] = end
                for k in range(b * block, (b + _ONE) * block, _EIGHT):
                    _clear(packed, end, _EIGHT)
                    if (found >> b) & _ONE:
                        gather(packed, end, filtered, corners, weights, np.uint64(i * 9), 9, stride, k)
                    end += _EIGHT
            for s in range(counts[i]):
                lane = np.uint64(lanes[i, s])
                b = lane // block
                if (used >> b) & _ONE:
                    packed[slot[b] + lane - b * block] += excess[i, s]
            begin = np.uint64(0)
            stepped = np.uint64(0)
            for g in range(bits.size):
                rest = used & bits[g]
                if not rest:
                    continue
                end = begin
                largest = np.float32(0)
                while rest:
                    rest &= rest - _ONE
                    end += block
                for k in range(begin, end):
                    largest = max(largest, packed[k])
                total = np.float32(0)
                for k in range(begin, end):
                    power = _exp(packed[k] - largest)
                    packed[k] = power
                    total += power
                total += np.float32(sizes[g] - np.int64(end - begin)) * _exp(-largest)
                scale = np.float32(1) / total
                others = max((total - np.float32(1)) * scale, np.float32(1e-6))
                slack[i, g] = np.float32(0.5) * np.log(np.float32(1) + _STILL * scale / others)
                rest = used & bits[g]
                label = np.uint64(0)
                best = np.float32(0)
                while rest:
                    b = lowest_bit(rest)
                    rest &= rest - _ONE
                    highest = np.float32(0)
                    for k in range(begin, begin + block):
                        packed[k] *= scale
                        highest = max(highest, packed[k])
                    if highest > best:
                        best = highest
                        winner = begin
                        while packed[winner] < highest:
                            winner += _ONE
                        label = b * block + winner - begin
                    if highest <= _ZERO:
                        _clear(packed, begin, block)
                        current_blocks[i] &= ~(_ONE << b)
                    else:
                        current_blocks[i] |= _ONE << b
                    at = np.uint64(i) * stride + b * block
                    largest = np.float32(0)
                    for k in range(np.uint64(0), block, _EIGHT):
                        largest = max(largest, difference(step, at + k, packed, begin + k, current))
                    if largest > _SAME * scale:
                        stepped |= _ONE << b
                        for k in range(np.uint64(0), block, _EIGHT):
                            add(current, at + k, step, at + k, np.float32(1))
                    begin += block
                if labels[i, g] != label:
                    labels[i, g] = label
                    changed[g] += 1
            if stepped:
                step_blocks[i] = stepped
                active[i >> 6] |= _ONE << np.uint64(i & 63)
        changes[part] = changed


@njit(cache=True, parallel=True)
def _spread_out(values, blocks, order, start, bits, stride, block, target):  # type: ignore[no-untyped-def]
    """Write a group's labels to (R, H * W) zeros, in raster order, summing to 1 again after rounding and cutting."""
    n = order.size
    labels = np.uint64(len(target))
    for part in prange(PARTS):
        row = np.empty(stride, np.float32)
        first, last = piece(n, part)
        for i in range(first, last):
            rest = blocks[i] & bits
            total = np.float32(0)
            while rest:
                at = lowest_bit(rest) * block
                rest &= rest - _ONE
                for k in range(at, at + block, _EIGHT):
                    copy(row, k, values, np.uint64(i) * stride + k)
                for k in range(at, min(at + block, start + labels)):
                    total += row[k]
            rest = blocks[i] & bits
            while rest:
                at = lowest_bit(rest) * block
                rest &= rest - _ONE
                for k in range(at, min(at + block, start + labels)):
                    if row[k] > 0:
                        target[k - start, order[i]] = row[k] / total

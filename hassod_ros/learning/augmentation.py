"""Views of a training picture: shared geometry, copy-paste, and the student's strong colours (HASSOD, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms import v2

from hassod_ros.instances import kept_parents

_PASTE_SCALE = (0.3, 1.0)  # of the target picture's sides
_PASTE_HIDES = 0.5  # a mask that hides this share of another one is not pasted


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with its masks.

    Attributes:
        image: (3, H, W) uint8 RGB.
        masks: (G, H, W) bool, none empty.
        levels: (G,) int64, values of `Level`.
        parents: (G,) int64, index of the mask that this one is a part of, or -1.

    """

    image: tv_tensors.Image
    masks: Tensor
    levels: Tensor
    parents: Tensor

    def select(self, index: Tensor) -> Sample:
        """The same picture with the masks of an index tensor; who loses its parent gets the nearest ancestor left."""
        parents = torch.from_numpy(kept_parents(self.parents.numpy(), index.numpy()))
        return Sample(self.image, self.masks[index], self.levels[index], parents)


def drop_empty(sample: Sample) -> Sample:
    """Leave out masks that a resize or a paste has wiped out."""
    keep = _any_pixel(sample.masks)
    if keep.all():
        return sample
    return sample.select(keep.nonzero()[:, 0])


def copy_paste(target: Sample, source: Sample) -> Sample:
    """Paste some instances of `source` onto `target`.

    Of the n instances of the source, 1 to n-1 are drawn (the one, where n is 1). The source is stretched to a share
    of 0.3 to 1 of the target's sides and laid at a random place; its masks grow by what they touch on the way. An
    instance that hides half of a target mask or more is not pasted. Masks below lose what is hidden; those that are
    hidden wholly are left out. Each keeps its level and its parent, or the next ancestor that is there, as published.

    Args:
        target: The picture that is pasted onto; unchanged.
        source: Where the instances come from; may be `target`.

    Returns:
        A new sample, or `target` where nothing could be pasted. Draws from torch's global generator.

    """
    n = len(source.masks)
    if not n:
        return target
    chosen = torch.randperm(n)[: 1 if n == 1 else int(torch.randint(1, n, ()))]
    height, width = target.image.shape[-2:]
    share = float(torch.empty(()).uniform_(*_PASTE_SCALE))
    size = [max(1, int(height * share)), max(1, int(width * share))]
    top = int(torch.randint(height - size[0] + 1, ()))
    left = int(torch.randint(width - size[1] + 1, ()))

    pasted = _touched(source.masks[chosen], size)  # (k, h, w)
    window = (..., slice(top, top + size[0]), slice(left, left + size[1]))
    hidden = torch.from_numpy(_hidden(pasted.numpy().view(np.uint8), target.masks.numpy().view(np.uint8), top, left))
    areas = torch.from_numpy(target.masks.numpy().view(np.uint8).sum(2, dtype=np.int32).sum(1, dtype=np.int64))
    fits = _any_pixel(pasted) & (hidden < _PASTE_HIDES * areas).all(1)
    if not fits.any():
        return target
    pasted, added = pasted[fits], source.select(chosen[fits])

    alpha = pasted.any(0)
    image = target.image.clone()
    # Cut to whole numbers as released; float64 and a thousandth keep out rounding errors, which threads change.
    stretched = (_stretch(source.image.double(), size) + 1e-3).to(torch.uint8)
    image[window] = torch.where(alpha, stretched, image[window])
    masks = torch.cat([target.masks, target.masks.new_zeros((len(pasted), height, width))])
    masks[window][: len(target.masks)] &= ~alpha
    masks[window][len(target.masks) :] = pasted
    levels = torch.cat([target.levels, added.levels])
    parents = torch.cat([target.parents, torch.where(added.parents < 0, -1, added.parents + len(target.parents))])
    return drop_empty(Sample(tv_tensors.Image(image), masks, levels, parents))


def boxes_of(masks: Tensor) -> Tensor:
    """(G, 4) float32 x0 y0 x1 y1 extents of (G, H, W) bool masks, none empty; x1 and y1 are one past the last pixel."""
    if not len(masks):
        return torch.zeros((0, 4))
    # (G, W), (G, H); NumPy's `any` takes a tenth of torch's time on CPUs
    columns, rows = (torch.from_numpy(masks.numpy().any(axis)) for axis in (1, 2))
    width, height = columns.shape[1], rows.shape[1]
    first = [line.to(torch.uint8).argmax(1) for line in (columns, rows)]
    past = [side - line.flip(1).to(torch.uint8).argmax(1) for line, side in ((columns, width), (rows, height))]
    return torch.stack([*first, *past], dim=1).float()


def _any_pixel(masks: Tensor) -> Tensor:
    """(G,) bool, which of (G, H, W) bool masks are not empty; faster than torch's `any`, see `boxes_of`."""
    return torch.from_numpy(masks.numpy().any(axis=(1, 2)))


@njit(cache=True, nogil=True)
def _hidden(pasted: np.ndarray, masks: np.ndarray, top: int, left: int) -> np.ndarray:
    """(K, G) int64 pixels of (G, H, W) uint8 masks under (K, h, w) uint8 ones whose corner lies at `top`, `left`."""
    counts = np.zeros((len(pasted), len(masks)), np.int64)
    height, width = pasted.shape[1:]
    for y in range(height):  # row by row: those of all masks fit into the cache together
        for k in range(len(pasted)):
            first, past = 0, width
            while first < past and not pasted[k, y, first]:
                first += 1
            while first < past and not pasted[k, y, past - 1]:
                past -= 1
            line = pasted[k, y, first:past]
            if len(line):
                for g in range(len(masks)):
                    below = masks[g, top + y, left + first : left + past]
                    count = 0
                    for x in range(len(line)):
                        count += line[x] & below[x]
                    counts[k, g] += count
    return counts


def _touched(masks: Tensor, size: Sequence[int]) -> Tensor:
    """(G, H, W) bool masks at another (height, width): whatever their bilinear interpolation is not 0 at, as released.

    Each pixel sees four: its two rows by its two columns, less those of weight 0.
    """
    inside = masks.numpy()
    for axis, (source, target) in enumerate(zip(inside.shape[1:], size, strict=True), start=1):
        low, high = _neighbours(source, target)
        inside = inside.take(low, axis=axis) | inside.take(high, axis=axis)
    return torch.from_numpy(inside)


def _neighbours(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `target` pixels the two of `source` that it is interpolated from; one twice, where it is that one."""
    scale = np.float32(source) / np.float32(target)
    at = np.maximum(scale * (np.arange(target, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    low = np.minimum(at.astype(np.int64), source - 1)
    return low, np.where(at > low, np.minimum(low + 1, source - 1), low)


def _stretch(image: Tensor, size: Sequence[int]) -> Tensor:
    """(C, H, W) floats at another (height, width): bilinear without antialiasing, as released."""
    return interpolate(image[None], list(size), mode="bilinear", align_corners=False)[0]


class StrongView(v2.Transform):
    """The student's picture: colours, blur and erased rectangles, the geometry unchanged.

    Unbiased Teacher's constants, which HASSOD uses: colour jitter (0.4, 0.4, 0.4, 0.1) with probability 0.8, grey 0.2,
    Gaussian blur of sigma 0.1 to 2 with 0.5, and three erased rectangles with 0.7, 0.5 and 0.3, filled with noise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.colours = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                v2.RandomGrayscale(p=0.2),
                v2.RandomApply([v2.GaussianBlur(kernel_size=13, sigma=(0.1, 2.0))], p=0.5),
            ]
        )
        self.erase = v2.Compose(
            [
                v2.RandomErasing(p=0.7, scale=(0.05, 0.2), ratio=(0.3, 3.3)),
                v2.RandomErasing(p=0.5, scale=(0.02, 0.2), ratio=(0.1, 6.0)),
                v2.RandomErasing(p=0.3, scale=(0.02, 0.2), ratio=(0.05, 8.0)),
            ]
        )

    def forward(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> the same shape. Draws from torch's global generator."""
        image = self.colours(image)
        # The rectangles are drawn on a plane of their own: RandomErasing's noise is made for floats, not for bytes.
        kept = self.erase(tv_tensors.Image(torch.ones((1, *image.shape[-2:]), dtype=torch.uint8)))
        noise = torch.randint(0, 256, image.shape, dtype=torch.uint8)
        return tv_tensors.Image(torch.where(kept.bool(), image, noise))

"""Training throughput: this detector and torchvision's reference Mask R-CNN on the same pictures.

Each row runs in a process of its own, so that its peak memory is its own. All learn from the same batches, in the order
of the recipe, with SGD and gradients clipped each by itself; torchvision's model sees them at the same size. "Plainly"
does the same step as one would write it first: a plane for every box that shows an object, clipping and SGD one
parameter after the other, every term of the loss asked for.

python benchmarks/training.py --images photos --annotations labels.json --size 480 --batch 4 --steps 10
python benchmarks/training.py --parts
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import roi_align

from hassod_ros.detection.base import Targets
from hassod_ros.detection.cascade import losses as cascade_losses
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.errors import InputError
from hassod_ros.learning.annotations import load_annotations
from hassod_ros.learning.config import DataConfig, StageConfig
from hassod_ros.learning.dataset import Batch, TrainingBatches, iterate
from hassod_ros.learning.loop import autocast, clip_gradients, make_optimizer
from hassod_ros.learning.monitor import memory

_WARM_UP = 2  # steps that are not counted


def main() -> int:
    """Measure every row and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images")
    parser.add_argument("--annotations")
    parser.add_argument("--size", type=int, default=480, help="short side in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps counted (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="loading processes (%(default)s)")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=2, help="repetitions; the fastest counts (%(default)s)")
    parser.add_argument("--parts", action="store_true", help="parts of a step alone: plainly, and as they are done")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="(default: all)")
    parser.add_argument("--row", choices=sorted(ROWS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts:
        parts()
        return 0
    if not (options.images and options.annotations):
        parser.error("give --images and --annotations, or --parts")
    if options.row:
        print(json.dumps(measure(options)))
        return 0
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.rows}
    for _ in range(options.rounds):  # rows take turns: whatever else the machine does meets all of them
        for name in options.rows:
            command = [sys.executable, __file__, *sys.argv[1:], "--row", name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr.strip().splitlines()[-1], file=sys.stderr)
                return 2
            found[name].append(json.loads(done.stdout))
    print(f"{'':34} pictures/s   ratio   peak GB   waiting for data   CPU s/picture")
    best = {name: max(rows, key=lambda row: row["pictures_per_second"]) for name, rows in found.items()}
    reference = best[list(best)[-1]]["pictures_per_second"]
    for name, row in best.items():
        rate = row["pictures_per_second"]
        line = f"{TITLES[name]:34} {rate:10.2f} {rate / reference:7.2f} {row['memory']:9.2f}"
        print(f"{line} {row['waiting']:18.1%} {row['cpu']:15.2f}")
    return 0


def parts() -> None:
    """Mask targets of 256 boxes of 13 objects at 800 x 1066; a ResNet-50 detector's clipping, update, average, log."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random = torch.Generator().manual_seed(0)
    masks = torch.rand(13, 800, 1066, generator=random).to(device) > 0.5
    objects = torch.randint(0, 13, (256,), generator=random).to(device)
    corner = torch.rand(256, 2, generator=random) * 600
    boxes = torch.cat([corner, corner + 20 + torch.rand(256, 2, generator=random) * 180], dim=1).to(device)
    rois = torch.cat([torch.zeros(256, 1, device=device), boxes], dim=1)

    crop = 0, Targets(boxes, objects, masks), rois, objects, 28
    assert torch.equal(plane_crops(*crop), cascade_losses.object_crops(*crop))
    detector = CascadeMaskRCNN(DetectorConfig()).to(device)
    for parameter in detector.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    plain = torch.optim.SGD(detector.parameters(), lr=1e-9, momentum=0.9, foreach=False)
    fused = torch.optim.SGD(detector.parameters(), lr=1e-9, momentum=0.9, fused=True)
    mean, decay = copy.deepcopy(detector), get_ema_multi_avg_fn(0.9996)
    pairs = [
        (one.detach(), other.detach()) for one, other in zip(mean.parameters(), detector.parameters(), strict=True)
    ]
    teacher, student = (list(side) for side in zip(*pairs, strict=True))
    terms = list(torch.rand(24, generator=random).to(device))

    def averaged() -> None:
        for one, other in pairs:
            one.mul_(0.9996).add_(other, alpha=1 - 0.9996)

    rows = {
        "mask targets, a plane for every box": (lambda: plane_crops(*crop), 256 * masks[0].numel() * 4),
        "mask targets, the object as RoIAlign's batch index": (
            lambda: cascade_losses.object_crops(*crop),
            masks.numel() * 4,
        ),
        "clipping, one parameter after the other": (lambda: _one_by_one(detector), 0),
        "clipping, all parameters in one go": (lambda: clip_gradients(detector, StageConfig()), 0),
        "SGD, one parameter after the other": (plain.step, 0),
        "SGD, fused": (fused.step, 0),
        "the teacher's average, one parameter after the other": (averaged, 0),
        "the teacher's average, all in one go": (lambda: decay(teacher, student, torch.tensor(1)), 0),
        "24 terms of the loss, each asked for": (lambda: _each_asked_for(terms), 0),
        "24 terms of the loss, added up where they are": (lambda: [term + term for term in terms], 0),
    }
    print(f"{'':54}{'CPU s' if device.type == 'cpu' else 's':>8}{'planes, MB':>12}")
    for name, (function, size) in rows.items():
        function()
        _settle(device)
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        start = clock()
        for _ in range(3):
            function()
        _settle(device)
        planes = f"{size / 1e6:12.0f}" if size else ""
        print(f"{name:54}{(clock() - start) / 3:8.4f}{planes}")


def plane_crops(image: int, target: Targets, rois: Tensor, objects: Tensor, side: int) -> Tensor:
    """What `object_crops` gives, from a copy of the object's plane for every box."""
    if target.masks is None or not len(objects):
        return torch.zeros((0, side, side), dtype=torch.bool, device=rois.device)
    regions = torch.cat([torch.arange(len(rois), device=rois.device)[:, None].float(), rois[:, 1:]], dim=1)
    planes = target.masks[objects].float()[:, None]
    return roi_align(planes, regions, side, 1.0, sampling_ratio=0, aligned=True)[:, 0] >= 0.5


def _one_by_one(model: nn.Module) -> None:
    for parameter in model.parameters():
        torch.nn.utils.clip_grad_norm_(parameter, 1.0)


def _each_asked_for(terms: list[Tensor]) -> list[float]:
    return [float(term) for term in terms]


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Rate, memory and waiting share of one row."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = DataConfig(options.images, options.annotations, short_sides=(options.size,), max_side=options.size * 5 // 3)
    batches = TrainingBatches(load_annotations(data.annotations, data.images), data, batch_size=options.batch)
    torch.manual_seed(0)
    model, losses = ROWS[options.row](options)
    model.to(device).train()
    plainly, stage = options.row == "plain", StageConfig(learning_rate=1e-4)
    optimizer = make_optimizer(model, stage)
    if plainly:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, foreach=False)
        cascade_losses.object_crops = plane_crops
    source = iterate(batches, range(_WARM_UP + options.steps), workers=options.workers, pin=device.type == "cuda")
    waited = start = cpu = 0.0
    for step in range(_WARM_UP + options.steps):
        if step == _WARM_UP:
            _settle(device)
            waited, start, cpu = 0.0, time.perf_counter(), time.process_time()
        begin = time.perf_counter()
        batch = next(source)
        waited += time.perf_counter() - begin
        batch = batch.to(device)
        with autocast(device, options.precision):
            terms = [loss.float() for loss in losses(model, batch).values()]
            total = torch.stack(terms).sum()
        total.backward()
        if plainly:
            _each_asked_for(terms)
            _one_by_one(model)
        else:
            clip_gradients(model, stage)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    _settle(device)
    seconds = time.perf_counter() - start
    return {
        "pictures_per_second": options.steps * options.batch / seconds,
        "waiting": waited / seconds,
        "cpu": (time.process_time() - cpu) / (options.steps * options.batch),  # steady also on a busy machine
        "memory": memory(device),
    }


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _ours(config: DetectorConfig) -> tuple[nn.Module, Callable]:
    def losses(model: CascadeMaskRCNN, batch: Batch) -> dict[str, Tensor]:
        return model.losses(batch.images, batch.sizes, batch.targets)

    return CascadeMaskRCNN(config), losses


def _compiled() -> tuple[nn.Module, Callable]:
    model, losses = _ours(DetectorConfig())
    assert isinstance(model, CascadeMaskRCNN)
    model.backbone.compile(dynamic=True)  # heads and losses have as many rows as there are boxes
    return model, losses


def _torchvision(size: int) -> tuple[nn.Module, Callable]:
    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        pairs = zip(batch.images, batch.sizes, strict=True)
        images = [image[:, :height, :width].float() / 255 for image, (height, width) in pairs]
        targets = [
            {"boxes": each.boxes, "labels": torch.ones_like(each.levels), "masks": each.masks.to(torch.uint8)}
            for each in batch.targets
            if each.masks is not None
        ]
        return model(images, targets)

    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=size, max_size=size * 5 // 3
    )
    return model, losses


# The second row does torchvision's work: one stage, its numbers of proposals and samples, no levels.
_SAME_WORK = DetectorConfig(
    stage_ious=(0.5,),
    level_head=False,
    backbone_norm="batch",
    fpn_norm="none",
    rpn_pre_nms=(2000, 1000),
    rpn_post_nms=(2000, 1000),
    rpn_nms=0.7,
    box_positive=0.25,
)
TITLES = {
    "plain": "HASSOD, its step plainly",
    "cascade": "HASSOD: three stages, levels",
    "compiled": "HASSOD, trunk by torch.compile",
    "one_stage": "ours with torchvision's work",
    "torchvision": "torchvision maskrcnn_resnet50_fpn",
}
ROWS: dict[str, Callable[[argparse.Namespace], tuple[nn.Module, Callable]]] = {
    "plain": lambda options: _ours(DetectorConfig()),
    "cascade": lambda options: _ours(DetectorConfig()),
    "compiled": lambda options: _compiled(),
    "one_stage": lambda options: _ours(_SAME_WORK),
    "torchvision": lambda options: _torchvision(options.size),
}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

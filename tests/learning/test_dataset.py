import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.learning.annotations import load_annotations, unlabelled
from hassod_ros.learning.augmentation import boxes_of
from hassod_ros.learning.config import DataConfig
from hassod_ros.learning.dataset import TrainingBatches, epoch_order, iterate, seed_of

DATA = DataConfig(short_sides=(48, 64, 80), max_side=100)


def _batches(toy_set, **options):
    return TrainingBatches(load_annotations(toy_set.labels, toy_set.images), DATA, **{"batch_size": 2, **options})


def _equal(first, second):
    assert first.names == second.names
    assert first.sizes == second.sizes
    assert torch.equal(first.images, second.images)
    assert (first.strong is None) == (second.strong is None)
    assert first.strong is None or torch.equal(first.strong, second.strong)
    for one, other in zip(first.targets, second.targets, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.masks, other.masks)
        assert torch.equal(one.levels, other.levels)


def test_batch_holds_padded_pictures_and_their_masks(toy_set):
    batch = _batches(toy_set)[0]
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (2, 3, *torch.tensor(batch.sizes).amax(0))
    for image, (height, width), target in zip(batch.images, batch.sizes, batch.targets, strict=True):
        assert target.masks.shape == (4, height, width)
        assert torch.equal(target.boxes, boxes_of(target.masks))
        assert sorted(target.levels.tolist()) == [0, 0, 1, 1]
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
        reds = (image[:, :height, :width].permute(1, 2, 0) == torch.tensor([200, 30, 30])).all(2)
        part = target.masks[target.levels == 1].any(0)
        assert part[reds].all()  # the parts are painted in this colour and nothing else


def test_resized_and_mirrored_pictures_keep_their_masks(toy_set):
    batches, seen = _batches(toy_set), {}
    for k in range(12):
        batch = batches[k]
        for image, (height, width), target, name in zip(
            batch.images, batch.sizes, batch.targets, batch.names, strict=True
        ):
            view, things = image[:, :height, :width].float(), target.masks.any(0)
            assert view[:, ~things].mean() < 45  # the ground is 40
            assert view[:, things].mean() > 70
            column = torch.nonzero(things)[:, 1].float().mean() / width
            seen.setdefault(name, set()).add((min(height, width), round(float(column), 1)))
    assert {side for views in seen.values() for side, _ in views} == {48, 64, 80}
    assert any(len({column for _, column in views}) > 1 for views in seen.values())  # mirrored and not


def test_a_batch_depends_on_seed_stream_and_number_alone(toy_set):
    options = {"copy_paste_rate": 1.0, "strong": True, "seed": 3}
    forward = [_batches(toy_set, **options)[k] for k in range(4)]
    batches = _batches(toy_set, **options)
    torch.manual_seed(99)
    for k in (3, 1, 0, 2):
        _equal(batches[k], forward[k])
    assert torch.initial_seed() == 99
    with_workers = iterate(batches, range(1, 4), workers=2, pin=False)
    for k, batch in enumerate(with_workers, start=1):
        _equal(batch, forward[k])
    for other in ({"seed": 4}, {"stream": 1}):
        batch = _batches(toy_set, **{**options, **other})[0]
        assert batch.names != forward[0].names or not torch.equal(batch.images, forward[0].images)


def test_processes_share_an_epoch_without_overlap(toy_set):
    ranks = [_batches(toy_set, batch_size=1, rank=rank, world=3) for rank in range(3)]
    names = [batches[k].names[0] for k in range(2) for batches in ranks]
    assert len(set(names)) == 6


def test_epoch_order_groups_orientations_and_covers_the_set():
    tall = np.arange(23) % 3 == 0
    order = epoch_order(tall, 4, (0, 0))
    assert len(order) == len(set(order.tolist())) == 20
    mixed = [len(set(tall[group])) > 1 for group in order.reshape(-1, 4)]
    assert sum(mixed) <= 1
    assert not np.array_equal(order, epoch_order(tall, 4, (0, 1)))
    np.testing.assert_array_equal(order, epoch_order(tall, 4, (0, 0)))


def test_a_set_smaller_than_a_batch_is_repeated(toy_set):
    names = _batches(toy_set, batch_size=8)[0].names
    assert len(names) == 8
    assert len(set(names)) == 6


def test_strong_view_shares_the_geometry(toy_set):
    batches = _batches(toy_set, batch_size=6, strong=True)
    batch = batches[0]
    assert batch.strong.shape == batch.images.shape
    correlations = []
    for weak, strong, (height, width) in zip(batch.images, batch.strong, batch.sizes, strict=True):
        assert not strong[:, height:].any()
        pair = torch.stack([each[:, :height, :width].float().mean(0).flatten() for each in (weak, strong)])
        correlations.append(float(torch.corrcoef(pair)[0, 1]))
        mirrored = torch.stack([pair[0], pair[1].view(height, width).flip(1).flatten()])
        assert correlations[-1] > float(torch.corrcoef(mirrored)[0, 1])
    assert not torch.equal(batch.strong, batch.images)
    assert np.median(correlations) > 0.5


def test_copy_paste_receives_from_the_mirror_picture_of_the_batch(toy_set):
    plain, pasted = _batches(toy_set)[0], _batches(toy_set, copy_paste_rate=1.0)[0]
    assert plain.names == pasted.names
    assert sum(len(target.boxes) for target in pasted.targets) > sum(len(target.boxes) for target in plain.targets)


def test_unlabelled_pictures_have_no_targets(toy_set):
    batch = TrainingBatches(unlabelled(toy_set.images), DATA, batch_size=2, strong=True)[0]
    assert [len(target.boxes) for target in batch.targets] == [0, 0]
    assert batch.targets[0].masks.shape == (0, *batch.sizes[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_refuses_a_picture_of_another_size_or_a_damaged_one(toy_set, workers):
    for i in range(6):
        Image.new("RGB", (30, 30)).save(toy_set.images / f"{i}.png")
    with pytest.raises(InputError, match=r"^\S+\.png is \(30, 30\) \(height, width\), its annotations were made for"):
        list(iterate(_batches(toy_set), range(1), workers=workers, pin=False))
    for i in range(6):
        (toy_set.images / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^\S+\.png is not an image that can be read"):
        list(iterate(_batches(toy_set), range(1), workers=workers, pin=False))


def test_neighbouring_keys_give_unrelated_seeds():
    seeds = {seed_of(0, stream, k) for stream in range(3) for k in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_damaged_after_labelling_is_listed_and_not_fatal_with_drop_faulty(toy_set, workers, caplog):
    annotations = load_annotations(toy_set.labels, toy_set.images)
    (toy_set.images / "2.png").write_bytes(b"damaged")
    config = DataConfig(short_sides=(48,), max_side=64, drop_faulty=True)
    batches = TrainingBatches(annotations, config, batch_size=6)
    names = [name for batch in iterate(batches, range(2), workers=workers, pin=False) for name in batch.names]
    assert len(names) == 12
    if not workers:  # a worker writes to its own standard error
        assert [record.getMessage().count("2.png") for record in caplog.records] == [1]


def test_a_small_dev_shm_of_a_container_is_named_before_the_work(toy_set, monkeypatch):
    batches = TrainingBatches(load_annotations(toy_set.labels, toy_set.images), DataConfig(), batch_size=16)
    free = shutil.disk_usage("/")._replace(free=64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(InputError, match=r"/dev/shm has 64 MB free.*--shm-size 2g, or take --run.workers 0"):
        next(iterate(batches, range(1), workers=4, pin=False))
    small = DataConfig(short_sides=(48,), max_side=64)  # 64 MB are enough for these
    next(iterate(TrainingBatches(batches.annotations, small, batch_size=2), range(1), workers=1, pin=False))


class _Killed(TrainingBatches):
    def __getitem__(self, k: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_loading_worker_ends_the_run(toy_set):
    batches = _Killed(load_annotations(toy_set.labels, toy_set.images), DataConfig(), batch_size=1)
    with pytest.raises(InputError, match=r"a process that prepares batches died.*--run.workers 0"):
        next(iterate(batches, range(2), workers=1, pin=False))

"""Pre-training of the small ViT: its views, and whole runs that learn, survive kill -9 and refuse what cannot go on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hassod_ros import files
from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.features.tiny import read_tiny
from hassod_ros.errors import InputError
from hassod_ros.learning.config import save_recipe
from hassod_ros.learning.pretraining import views
from hassod_ros.learning.pretraining.config import PretrainConfig
from hassod_ros.learning.pretraining.run import drawn, load_pictures, make_views, pretrain
from hassod_ros.train import pretrain_features as script
from tests.learning.killing import kill_after_the_first_checkpoint

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Ten pictures of coloured rectangles, and a file that is none."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(10):
        pixels = np.full((40, 60, 3), random.integers(0, 256, 3), np.uint8)
        pixels[8:30, 10:40] = random.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "text.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def config(photographs, tmp_path) -> PretrainConfig:
    return PretrainConfig(
        images=str(photographs),
        output=str(tmp_path / "run"),
        picture_side=48,
        width=24,
        depth=2,
        registers=2,
        global_size=32,
        local_size=16,
        local_views=2,
        prototypes=32,
        head_width=16,
        iterations=8,
        batch_size=4,
        learning_rate=0.003,
        warmup=2,
        temperature_warmup=3,
        frozen_prototypes=1,
        device="cpu",
        checkpoint_every=2,
        log_every=4,
    )


def test_a_run_gives_features_and_says_what_it_left_out(config, photographs, capsys):
    path = pretrain(config)
    out = capsys.readouterr().out
    assert f"left out: {photographs}/text.jpg is not an image" in out
    assert out.splitlines()[-1].startswith("8/8 · loss ")
    assert path == Path(config.output) / "features.safetensors"
    _, facts = read_tiny(path)
    assert facts["photographs"] == 10
    assert facts["settings"]["iterations"] == 8
    features = load_features("tiny", weights=path, device="cpu", precision="fp32")
    keys = features(np.array(Image.open(photographs / "0.png").resize((48, 32)))[None])
    assert keys.shape == (1, 24, 4, 6)
    assert np.ptp(keys, axis=(2, 3)).max() > 0


def test_a_student_comes_to_agree_with_a_teacher_that_stays(config, tmp_path):
    """With a moving teacher the loss says little: it follows the entropy of the teacher's outputs."""
    config = dataclasses.replace(config, iterations=100, momentum=(1.0, 1.0), log_every=25)
    pretrain(config)
    still = dataclasses.replace(config, learning_rate=1e-12, output=str(tmp_path / "still"))
    pretrain(still)
    for name in ("views", "patches"):
        learnt, not_learnt = (
            [event.value for event in EventAccumulator(each.output).Reload().Scalars(f"train/{name}")]
            for each in (config, still)
        )
        assert learnt[-1] < not_learnt[-1] - 0.05, (name, learnt, not_learnt)


def test_looks_of_patches_are_learned_without_a_teacher(config, tmp_path, capsys):
    config = dataclasses.replace(
        config, views_weight=0.0, dense_weight=0.0, descriptor_weight=1.0, iterations=100, log_every=20
    )
    path = pretrain(config)
    assert "collapsed" not in capsys.readouterr().out
    read = EventAccumulator(config.output).Reload()
    assert "train/views" not in read.Tags()["scalars"]
    assert "train/patches" not in read.Tags()["scalars"]
    losses = [event.value for event in read.Scalars("train/descriptors")]
    assert losses[-1] < 0.75 * losses[0]
    assert load_features("tiny", weights=path, device="cpu").dim == 24


def test_features_that_have_collapsed_are_told(config, capsys):
    """Nothing is learned, and a teacher's temperature so high that all its outputs are equal."""
    pretrain(dataclasses.replace(config, learning_rate=1e-12, teacher_temperature=(99.0, 99.0)))
    assert "warning: the features have collapsed" in capsys.readouterr().out


def test_views_keep_their_colours_where_nothing_compares_them(config, photographs):
    batch = load_pictures(sorted(photographs.glob("*.png")), 48).permute(0, 3, 1, 2).float() / 255
    zero, one = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    config = dataclasses.replace(config, views_weight=0.0, descriptor_weight=1.0, global_scale=(1.0, 1.0))
    seen = make_views(batch, config, mean_std=(zero, one))
    assert not seen.small
    assert seen.descriptors is not None
    assert seen.descriptors.shape == (20, 16, 12)
    for view, picture in zip(seen.large, torch.cat([batch, batch]), strict=True):
        assert view.mean((1, 2)).sub(picture.mean((1, 2))).abs().max() < 0.1
    changed = make_views(batch, dataclasses.replace(config, views_weight=1.0), mean_std=(zero, one))
    assert len(changed.small) == 2
    means = changed.large.mean((2, 3)).sub(torch.cat([batch, batch]).mean((2, 3))).abs()
    assert means.max() > 0.1


@pytest.mark.parametrize(
    "weights",
    [{}, {"dense_weight": 0.0}, {"views_weight": 0.0, "dense_weight": 0.0, "descriptor_weight": 1.0}],
    ids=["views and patches", "views", "descriptors"],
)
def test_a_run_in_two_parts_ends_with_the_same_file(config, tmp_path, weights):
    config = dataclasses.replace(config, **weights)
    whole = pretrain(config).read_bytes()
    parts = dataclasses.replace(config, output=str(tmp_path / "parts"))
    stop_after(parts, 3)  # between two checkpoints
    assert pretrain(parts).read_bytes() == whole
    assert pretrain(dataclasses.replace(config, output=str(tmp_path / "s"), seed=1)).read_bytes() != whole


def stop_after(config: PretrainConfig, steps: int) -> None:
    """Run `steps` steps of a run, then end it by an error from within."""
    import hassod_ros.learning.pretraining.run as module

    done = 0
    original = module.update_momentum

    def update(*arguments):
        nonlocal done
        done += 1
        if done > steps:
            raise KeyboardInterrupt
        original(*arguments)

    module.update_momentum = update
    try:
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)
    finally:
        module.update_momentum = original


def test_a_killed_run_goes_on_to_the_same_file(config, tmp_path, capsys):
    whole = pretrain(dataclasses.replace(config, output=str(tmp_path / "whole")))
    save_recipe(config, tmp_path / "recipe.yaml")
    words, folder = ["--config", str(tmp_path / "recipe.yaml")], Path(config.output)
    checkpoint = folder / "checkpoint.pt"
    kill_after_the_first_checkpoint("hassod_ros.learning.pretraining.run", "pretrain_features", words, checkpoint)
    assert torch.load(checkpoint, weights_only=True)["iteration"] == 2
    assert not (folder / "features.safetensors").exists()
    assert script.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "features.safetensors")
    assert (folder / "features.safetensors").read_bytes() == whole.read_bytes()


def test_a_checkpoint_of_other_settings_or_photographs_is_refused(config, photographs):
    pretrain(config)
    with pytest.raises(InputError, match=r"prototypes \(32 there, 64 now\)"):
        pretrain(dataclasses.replace(config, prototypes=64))
    (photographs / "0.png").unlink()
    with pytest.raises(InputError, match=r"made with another recipe: pictures \("):
        pretrain(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"warmup": -1}, "warmup must not be negative"),
        ({"global_size": 100}, "global_size 100 is no multiple of patch_size 8"),
        ({"local_scale": (0.5, 0.1)}, "local_scale must be two shares that rise"),
        ({"masked_views": 1.5}, "masked_views must lie in"),
        ({"masked_views": 0.0}, "dense_weight needs masked patches"),
        ({"views_weight": 0, "dense_weight": 0}, "views_weight, dense_weight, descriptor_weight are all 0"),
        ({"descriptor_weight": -1}, "descriptor_weight must not be negative"),
        ({"descriptor_weight": 1, "patch_size": 16}, "descriptor_weight needs patches of 8 pixels, patch_size is 16"),
        ({"log_every": 0}, "log_every must be at least 1"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(InputError, match=message):
        PretrainConfig(**values)


def test_the_script_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for argv, message in (
        (["--iteratoins", "3"], "sets iteratoins, which does not exist; the nearest name is iterations"),
        (["--batch_size", "many"], "batch_size"),
        ([], "pre-training needs photographs"),
        (["--images", str(tmp_path / "empty")], "holds no image"),
        (["--width", "50", "--images", str(tmp_path)], "holds no image"),
    ):
        assert script.main([*argv, "--output", str(tmp_path / "run"), "--device", "cpu"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_no_photograph_that_can_be_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of 1 photographs"):
        load_pictures([tmp_path / "a.jpg"], 32)


def test_a_second_run_is_told_before_it_loads_pictures(config, monkeypatch, capsys):
    monkeypatch.setattr(files, "_END_LIMIT", 0.1)
    with files.alone(config.output), pytest.raises(InputError, match=r"another run writes .*run at this moment"):
        pretrain(config)
    assert "left out" not in capsys.readouterr().out


def test_a_loss_that_is_not_finite_ends_the_run(config):
    with pytest.raises(InputError, match="the loss is not finite at iteration"):
        pretrain(dataclasses.replace(config, learning_rate=1e30, clip_norm=0.0, warmup=0, frozen_prototypes=0))


def test_each_epoch_sees_each_picture_once():
    seen = torch.cat([drawn(7, 3, step, seed=5) for step in range(14)]).view(6, 7)
    assert all(sorted(epoch.tolist()) == list(range(7)) for epoch in seen)
    assert len({tuple(epoch.tolist()) for epoch in seen}) > 1
    assert len(drawn(2, 5, 0, seed=5)) == 5


def test_crops_lie_inside_and_keep_their_share():
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 64)
    plane = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.ones(64, 64)])  # x, y, 1
    found = views.crop(plane.expand(200, 3, 64, 64), 16, (0.25, 0.5))
    assert found.shape == (200, 3, 16, 16)
    torch.testing.assert_close(found[:, 2], torch.ones(200, 16, 16))
    # Along an axis the ramp tells how much of the picture is seen: between outer pixel centres 15/16 of the part.
    width = (found[:, 0, 0, -1] - found[:, 0, 0, 0]) * (16 / 15)
    height = (found[:, 1, -1, 0] - found[:, 1, 0, 0]) * (16 / 15)
    share = (width * height).abs()
    assert share.min() > 0.23
    assert share.max() < 0.54
    assert 0.3 < (width < 0).float().mean() < 0.7  # mirrored
    assert (height > 0).all()


def test_colours_change_each_view_on_its_own():
    torch.manual_seed(0)
    same = torch.rand(1, 3, 16, 16).expand(64, 3, 16, 16)
    found = views.colours(same, blur=0.5, solarise=0.2)
    assert found.shape == same.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({tuple(view.flatten().tolist()) for view in found}) > 40
    grey = (found[:, 0] - found[:, 1]).abs().flatten(1).amax(1) < 1e-3
    assert 0.05 < grey.float().mean() < 0.4


def test_colours_keep_grey_and_blur_keeps_the_mean():
    grey = torch.full((32, 3, 8, 8), 0.5)
    torch.manual_seed(0)
    changed = views._turn_colours(grey, torch.rand(32) * 2, torch.rand(32) * 6)
    torch.testing.assert_close(changed, grey, atol=2e-3, rtol=0)
    point = torch.zeros(2, 3, 21, 21)
    point[..., 10, 10] = 1
    blurred = views._blur(point, torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(2, 3))
    assert blurred[0, 0, 10, 10] > 4 * blurred[1, 0, 10, 10] > 0


def test_masks_cover_the_wanted_share():
    torch.manual_seed(0)
    masks = views.block_masks(400, 20, probability=0.5, share=(0.1, 0.5), device=CPU)
    share = masks.flatten(1).float().mean(1)
    assert 0.4 < (share > 0).float().mean() < 0.6
    masked = share[share > 0]
    assert 0.2 < masked.mean() < 0.4
    assert masked.max() < 0.6
    assert views.block_masks(3, 4, probability=0.0, share=(0.1, 0.5), device=CPU).any()

from pathlib import Path

import pytest
import yaml

from hassod_ros.errors import InputError
from hassod_ros.learning.config import Recipe, flat, read_recipe, read_settings, save_recipe
from hassod_ros.learning.pretraining.config import PretrainConfig

FOLDER = Path(__file__).parents[2] / "config" / "recipes"
ROUNDS = ("", "_gpu", "_cpu", "_2", "_2_gpu", "_2_cpu")
NAMES = (
    "finetune",
    "hassod_coco",
    "retrain",
    "small",
    "smoke",
    "sohes_paper",
    "sohes_small",
    *(f"default_model{end}" for end in ROUNDS),
)
RECIPES = [FOLDER / f"{name}.yaml" for name in NAMES]
OTHERS = [("features", PretrainConfig, "local_views")]


def _read(*argv: str) -> Recipe:
    return read_recipe(argv, prog="detector", description="")


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_every_recipe_is_tested():
    assert set(FOLDER.glob("*.yaml")) == {*RECIPES, *(FOLDER / f"{name}.yaml" for name, *_ in OTHERS)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_and_survive_a_round_trip(path, tmp_path):
    recipe = _read("--config", str(path))
    save_recipe(recipe, tmp_path / "resolved.yaml")
    assert _read("--config", str(tmp_path / "resolved.yaml")) == recipe
    assert set(flat(recipe)) == set(flat(Recipe()))


@pytest.mark.parametrize(("name", "kind", "key"), OTHERS)
def test_other_recipes_are_valid_and_survive_a_round_trip(name, kind, key, tmp_path):
    recipe = read_settings(kind, ["--config", str(FOLDER / f"{name}.yaml")], prog=name, description="")
    save_recipe(recipe, tmp_path / "resolved.yaml")
    assert read_settings(kind, ["--config", str(tmp_path / "resolved.yaml")], prog=name, description="") == recipe
    with pytest.raises(InputError, match=f"sets {key[:-1]}, which does not exist; the nearest name is {key}"):
        read_settings(kind, [f"--{key[:-1]}", "3"], prog=name, description="")


def test_the_paper_recipe_holds_the_published_values():
    recipe = _read("--config", str(next(path for path in RECIPES if path.stem == "hassod_coco")))
    assert recipe.model.backbone == "resnet50"
    assert (recipe.model.backbone_norm, recipe.model.fpn_norm) == ("sync", "sync")
    assert recipe.model.stage_ious == (0.5, 0.6, 0.7)
    assert recipe.model.rpn_post_nms == (4000, 1000)
    assert recipe.model.detections == 1000
    assert recipe.data.short_sides == (240, 320, 480, 640, 672, 704, 736, 768, 800, 1024)
    assert (recipe.data.max_side, recipe.data.flip) == (1333, 0.5)
    burn_in, teacher = recipe.burn_in, recipe.mean_teacher
    assert (burn_in.iterations, burn_in.batch_size, burn_in.learning_rate, burn_in.schedule) == (
        40_000, 16, 0.01, "constant",
    )  # fmt: skip
    assert (burn_in.copy_paste, burn_in.drop_loss_iou, burn_in.weight_decay) == (1.0, 0.01, 5e-5)
    assert (teacher.iterations, teacher.batch_size, teacher.unlabelled_batch, teacher.schedule) == (
        2000, 8, 8, "cosine",
    )  # fmt: skip
    assert (teacher.ema_decay, teacher.score_threshold) == (0.9996, 0.7)
    assert (teacher.label_weights, teacher.teacher_weights) == ((1.0, 0.0), (2.0, 3.0))
    assert (teacher.teacher_mask_weight, teacher.drop_loss_iou, teacher.copy_paste) == (0.0, None, 0.0)


def test_the_command_line_goes_over_the_file(tmp_path):
    path = _write(tmp_path / "r.yaml", "burn_in:\n  iterations: 7\n  drop_loss_iou: null\ndata:\n  flip: 0.25\n")
    recipe = _read("--config", path, "--burn_in.iterations", "9", "--data.short_sides=[64, 80]")
    assert recipe.burn_in.iterations == 9
    assert recipe.burn_in.drop_loss_iou is None
    assert recipe.data.flip == 0.25
    assert recipe.data.short_sides == (64, 80)
    assert recipe.mean_teacher == Recipe().mean_teacher


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("burn_in:\n  iteration: 7\n", "sets burn_in.iteration, .* nearest name is burn_in.iterations"),
        ("iterations: 7\n", "sets iterations, .* nearest name is burn_in.iterations"),
        ("brun_in:\n  warmup: 7\n", "sets brun_in.warmup, .* nearest name is burn_in.warmup"),
        ("model:\n  back_bone: resnet18\n", "nearest name is model.backbone"),
        ("burn_in:\n  iterations: many\n", "burn_in.iterations"),
        ("burn_in:\n  schedule: linear\n", "burn_in.schedule"),
        ("- 1\n", "holds no sections"),
        ("a: [\n", "is not YAML"),
        ("burn_in:\n  iterations: 0\n", "burn_in.iterations must be above 0"),
        ("mean_teacher:\n  ema_decay: 1.5\n", r"mean_teacher.ema_decay must lie in \[0, 1\]"),
        ("data:\n  short_sides: [0]\n", "must be positive pixel counts"),
        ("model:\n  stage_ious: []\n", "stage_ious has 0 values"),
        ("mask2former:\n  queries: 7\n", "the detector is cascade, settings of mask2former change nothing"),
        ("detector: mask2former\nmodel:\n  nms: 0.7\n", "the detector is mask2former, settings of model change"),
    ],
)
def test_names_what_is_wrong_in_a_recipe(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        _read("--config", _write(tmp_path / "r.yaml", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data.image", "x"], "the command line sets data.image, .* nearest name is data.images"),
        (["--batch_size=4"], "nearest name is burn_in.batch_size"),
        (["--config", "nowhere.yaml"], "cannot read the recipe nowhere.yaml"),
        (["stray"], "stray"),
    ],
)
def test_names_what_is_wrong_on_the_command_line(argv, message):
    with pytest.raises(InputError, match=message):
        _read(*argv)


@pytest.mark.parametrize(("detector", "other"), [("cascade", "mask2former"), ("mask2former", "model")])
def test_the_saved_recipe_spells_out_every_value_of_its_detector(tmp_path, detector, other):
    save_recipe(Recipe(detector=detector), tmp_path / "r.yaml")
    tree = yaml.safe_load((tmp_path / "r.yaml").read_text())
    assert tree.pop("detector") == detector
    named = {f"{section}.{key}" for section, values in tree.items() for key in values}
    assert named == {name for name in flat(Recipe()) if not name.startswith((f"{other}.", "detector"))}

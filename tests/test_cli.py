"""One name for everything that can be run, and the page that explains it."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from hassod_ros import cli

REPO = Path(__file__).parents[1]
ALTERNATIVES = {"predictions", "model", "checkpoint"}  # of evaluate: one of them is required
SCRIPTS = {name: verb for name, verb in cli.VERBS.items() if not verb.node}


def test_the_page_is_that_of_the_parsers():
    written = (REPO / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == cli.document(), "run python -m hassod_ros.cli > docs/cli.md"


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_option_says_what_it_means(name):
    for action in import_module(SCRIPTS[name].module).build_parser()._actions:
        assert action.help, f"{name} {action.option_strings} has no help"
        if action.option_strings and not action.required and action.default is None and action.dest != "config":
            said = any(words in action.help for words in ("(default: ", " without ", "null: "))
            assert said or action.dest in ALTERNATIVES, action.dest


def test_help_of_a_recipe_tells_units_and_defaults():
    text = " ".join(import_module("hassod_ros.train.detector").build_parser().format_help().split())
    assert "Shorter side of a training view in pixels; one is drawn for each picture. (type: " in text
    assert "Iterations between two checkpoints. (type: int, default: 1000)" in text


def test_every_script_of_the_checkout_is_a_verb_and_a_program_of_its_own():
    files = {file.stem for folder in ("train", "export") for file in (REPO / folder).glob("[!_]*.py")}
    assert files == {verb.module.rpartition(".")[2] for verb in SCRIPTS.values()}
    setup = (REPO / "setup.py").read_text()
    for name, verb in cli.VERBS.items():
        assert f'"{name} = {verb.module}:main"' in setup


def test_a_verb_gets_the_rest_of_the_line():
    command = [sys.executable, "-c", "from hassod_ros.cli import main; raise SystemExit(main())", "shrink_photos"]
    done = subprocess.run([*command, "--images", "nowhere", "--out", "x"], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 2
    assert done.stderr.startswith("shrink_photos: nowhere does not exist")


def test_help_lists_the_verbs_and_a_wrong_one_names_the_nearest(capsys):
    assert cli.main(["--help"]) == 0
    assert all(f"  {name} " in capsys.readouterr().out for name in ["pseudo_label"])
    assert cli.main(["pseudolabel"]) == 2
    assert "the nearest is pseudo_label" in capsys.readouterr().err
    assert cli.main([]) == 2

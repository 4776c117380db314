"""What the pages name exists: links, files, commands and their options, launch arguments, parameters, Python names."""

from __future__ import annotations

import ast
import builtins
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from hassod_ros.cli import VERBS
from hassod_ros.discovery.method import make_method, parse_option

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
CALLED = re.compile(
    r"(?:(?<!launch )(?<![\w/])hassod_ros (?=[a-z])|(?<![\w/])(?P<folder>train|export|benchmarks)/(?=[a-z]\w*\.py))"
    r"(?P<name>\w+)(?:\.py)?(?P<words>[^\n]*)"
)
LAUNCHED = re.compile(r"(\w+\.launch\.py)([^\n]*)")
FILE = re.compile(r"(?<![\w/.])(?:benchmarks|config|docs|export|hassod_ros|launch|scripts|tests|train)/[\w./*-]+")
ELSEWHERE = {  # written by a user, or made
    "hassod_ros/models/tiny_features.safetensors",
    "train/VERB.py",
    "export/VERB.py",
    "hassod_ros/engines",
    "hassod_ros/references",
}
FOREIGN = {  # options of other programs
    *("--base-paths", "--cpus", "--cpuset-cpus", "--ipc", "--logdir", "--network", "--no-arr", "--nproc-per-node"),
    *("--shm-size", "--standalone"),
}

each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


@cache
def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def shell(page: Path) -> Iterator[str]:
    """Whatever may hold commands, each of them on one line."""
    indented = re.findall(r"(?:^ {4}.*\n)+", prose(page), flags=re.MULTILINE)
    for text in (*blocks(page, "", "bash"), *indented, *spans(page)):
        yield text.replace("\\\n", " ")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def strings(file: Path) -> set[str]:
    """The texts in a Python file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@cache
def options(folder: str | None, name: str) -> set[str]:
    """The options of a command; a benchmark's are read from its source, as it may import what is not installed."""
    if folder == "benchmarks":
        found = strings(ROOT / "benchmarks" / f"{name}.py")
        return found | {"--data", "--every"} if "add_sets" in imports(ROOT / "benchmarks" / f"{name}.py") else found
    verb = ({verb.module.rpartition(".")[2]: verb for verb in VERBS.values()} | VERBS)[name]
    if verb.node:
        return {"--ros-args"}
    return {option for action in import_module(verb.module).build_parser()._actions for option in action.option_strings}


def imports(file: Path) -> set[str]:
    """Names that a Python file imports from others."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def given(text: str) -> list[str]:
    """Options on a line of shell, up to the end of the command."""
    found = []
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a line of a variable that goes on
        words = text.split()
    for word in words:
        if word in ("|", "&&", "||", ";"):
            break
        if re.fullmatch(r"--[a-z][\w.-]*(=.*)?[,;]?", word):
            found.append(re.split(r"[=,;]", word)[0])
    return found


def included(file: str) -> set[str]:
    """Texts in a launch file and in those that it includes."""
    found = strings(ROOT / "launch" / file)
    return found.union(*(included(name) for name in found if re.fullmatch(r"\w+\.launch\.py", name)))


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not link.startswith(("http://", "https://")):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@each_page
def test_files_that_are_named_exist(page):
    named = {file.rstrip(".") for text in shell(page) for file in FILE.findall(text)} - ELSEWHERE
    assert not {file for file in named if not list(ROOT.glob(file))}


@each_page
def test_commands_have_the_options_that_are_named(page):
    for text in shell(page):
        for command in CALLED.finditer(text):
            known = options(command["folder"], command["name"])
            assert not [word for word in given(command["words"]) if word not in known], command[0]


@each_page
def test_settings_of_methods_that_are_given_exist(page):
    for text in shell(page):
        for command in CALLED.finditer(text):
            if command["name"] == "pseudo_label" and "--set" in command["words"]:
                words = shlex.split(command["words"], comments=True)
                method = words[words.index("--method") + 1] if "--method" in words else "hassod"
                settings = [word for flag, word in itertools.pairwise(words) if flag == "--set"]
                make_method(method, dict(map(parse_option, settings)))  # raises where there is no such setting


@each_page
def test_options_that_are_named_alone_are_those_of_some_command(page):
    known = FOREIGN.union(*(options(None, name) for name in VERBS))
    known |= {word for file in (ROOT / "benchmarks").glob("*.py") for word in options("benchmarks", file.stem)}
    for span in spans(page):
        assert not [word for word in given(span) if word not in known], span


@each_page
def test_launch_files_have_the_arguments_that_are_named(page):
    for text in shell(page):
        for file, rest in LAUNCHED.findall(text):
            known = included(file)
            assert not set(re.findall(r"(\w+):=", rest)) - known, text


@each_page
def test_python_that_is_shown_imports_what_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = pytest.importorskip(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), block


@each_page
def test_python_that_is_shown_defines_what_it_uses(page):
    for block in blocks(page, "python"):
        names = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name | ast.alias)]
        made = {node.name if isinstance(node, ast.alias) else node.id for node in names if not is_read(node)}
        used = {node.id for node in names if isinstance(node, ast.Name) and is_read(node)}
        assert used - made - set(dir(builtins)) <= {"image", "depth", "instance"}, block  # which a reader has


def is_read(node: ast.Name | ast.alias) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


@each_page
def test_parameters_that_are_set_exist(page):
    pytest.importorskip("rclpy", reason="ROS 2 is missing: source scripts/env.sh")
    from scripts.reference import TABLES

    known = {parameter.name for table in TABLES.values() for parameter in table}
    for block in blocks(page, "yaml"):
        for node, section in yaml.safe_load(block).items():
            if not node.endswith("lifecycle_manager"):
                assert set(section["ros__parameters"]) - {"qos_overrides"} <= known, block
    for text in shell(page):
        assert set(re.findall(r"-p (\w[\w.]*):=", text)) <= known, text

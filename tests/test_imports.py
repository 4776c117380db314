"""The direction of imports inside hassod_ros, read from the source: nothing is imported here."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hassod_ros"
FILES = {
    ".".join(("hassod_ros", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(path: Path) -> set[str]:
    """Files of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inside if name in FILES} or {node.module}
    return {name for name in found if name in FILES}


GRAPH = {name: imported(path) for name, path in FILES.items()}


def test_no_two_files_import_each_other() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle of imports: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in done:
            for other in sorted(GRAPH[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(GRAPH):
        visit(name, ())


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("detection", "discovery learning evaluation deploy nodes footage"),
        ("discovery", "runtime detection learning evaluation deploy nodes footage"),
        ("learning", "runtime evaluation deploy nodes"),
        ("runtime", "nodes evaluation deploy learning"),
    ],
)
def test_no_import_runs_back(below: str, above: str) -> None:
    back = {
        f"{name} -> {other}"
        for name, others in GRAPH.items()
        if name.startswith(f"hassod_ros.{below}.")
        for other in others
        if other.startswith(tuple(f"hassod_ros.{package}" for package in above.split()))
    }
    assert not back

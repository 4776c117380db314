"""The table of reports names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NAMED = re.findall(r"`tests/([\w/]+\.py)::(\w+)`", (TESTS / "reported.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_every_test_of_the_table_exists(path):
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    assert {name for file, name in NAMED if file == path} <= {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    }


def test_every_row_names_a_test():
    rows = [line for line in (TESTS / "reported.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| what happens there")]
    assert len(rows) > 30
    assert not [row for row in rows if "::test_" not in row]

"""What the documents refer to is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
ROWS = [
    line
    for line in (ROOT / "docs/bad-input.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what goes in")
]


@cache
def functions_in(name: str) -> set[str]:
    tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_every_row_of_bad_input_names_a_test_that_is_there(row: str) -> None:
    cells = row.strip("| ").split(" | ")
    assert len(cells) == 3
    found = re.fullmatch(r"`((?:\w+/)?test_\w+\.py)::(test_\w+)`", cells[2])
    assert found is not None
    assert found[2] in functions_in(found[1])


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []

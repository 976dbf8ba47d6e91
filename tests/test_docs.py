"""What the documents refer to is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from captioner.images.kinds import EXTRAS, READ_SUFFIXES
from captioner.video import animations
from captioner.video.finding import VIDEOS

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


def rows_of(section: str) -> list[list[str]]:
    """The cells of the table in a section of docs/inputs.md."""
    text = (ROOT / "docs/inputs.md").read_text(encoding="utf-8")
    part = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def suffixes_of(row: list[str]) -> list[str]:
    return re.findall(r"`(\.\w+)`", row[1])


def test_the_tables_of_inputs_list_every_suffix_once_with_its_extra() -> None:
    rows = rows_of("Images")
    by_extra = {name: [] for name in ("", *(extra.name for extra in EXTRAS.values()))}
    for row in rows:
        by_extra[row[2].strip("`")] += suffixes_of(row)
    assert {name: sorted(each) for name, each in by_extra.items()} == {
        "": sorted(READ_SUFFIXES),
        **{extra.name: sorted(extra.suffixes) for extra in EXTRAS.values()},
    }
    *videos, moving = rows_of("Videos")
    assert sorted(sum(map(suffixes_of, videos), [])) == sorted(VIDEOS.suffixes)
    assert sorted(suffixes_of(moving)) == sorted(animations.SUFFIXES)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []

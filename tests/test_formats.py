"""docs/formats.md, docs/python.md and the schema of caption records say what is so."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from captioner.captioning.formats import WRITERS
from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from captioner.tagging.writers import TAG_WRITERS
from helpers.images import noise

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCHEMA = json.loads((DOCS / "captions.schema.json").read_text("utf-8"))
RECORDS = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.S)


@pytest.fixture(scope="module")
def records(
    tagging_model: CaptionModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """Options -> what the command writes with them: two images, one cut short, one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("a.png", "sub/ü.jpg")):
        (folder / name).parent.mkdir(exist_ok=True)
        noise(seed).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no image")
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    found = {}
    for options in (
        "",
        "--tags 0",
        "--candidates --tags",
        "--num-captions 3",
        "--min-confidence 1",
        "--partial-images",
    ):
        output = folder / f"out{options.replace(' ', '')}.jsonl"
        command = ["caption", str(folder), "--model", str(tagging_model.path), "--device", "cpu"]
        assert cli.main([*command, "--quiet", "--output", str(output), *options.split()]) == 1
        found[options] = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
        assert len(found[options]) == 4
    return found


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_describes_what_is_written(records: dict[str, list[dict[str, Any]]]) -> None:
    seen: set[str] = set()
    for lines in records.values():
        for record in lines:
            RECORDS.validate(record)
            seen |= set(record)
    # In tests/captioning/test_embedding.py and test_languages.py: what other options add.
    assert seen == set(SCHEMA["properties"]) - {"embed_error", "language", "other_languages"}


def test_the_schema_refuses_what_is_not_written(records: dict[str, list[dict[str, Any]]]) -> None:
    good = next(each for each in records["--candidates --tags"] if each["error"] is None)
    good = {**copy.deepcopy(good), "tags": [{"name": "dog", "type": "noun", "confidence": 0.5}]}
    RECORDS.validate(good)
    bad = next(each for each in records[""] if each["error"] is not None)

    def changed(path: str, value: object) -> dict[str, Any]:
        record: Any = copy.deepcopy(good)
        *way, last = path.split("/")
        place = record
        for key in way:
            place = place[int(key) if isinstance(place, list) else key]
        place[int(last) if isinstance(place, list) else last] = value
        return dict(record)

    wrong = [
        changed("confidence", 1.5),
        changed("confidence", None),
        changed("confidence", "0.5"),
        changed("calibrated", None),
        changed("calibrated", 1),
        changed("file_name", ""),
        changed("more", 1),
        changed("candidates/0/log_prob", 0.1),
        changed("candidates/0/words", []),
        changed("candidates/0/words/0", ["a"]),
        changed("candidates/0/words/0", ["a", 0.5, 1]),
        changed("candidates/0/words/0", ["a", 2]),
        changed("tags/0/type", "adverb"),
        changed("tags/0/confidence", -0.1),
        {key: value for key, value in good.items() if key != "text"},
        {**bad, "text": "a dog"},
        {**bad, "confidence": 0.5},
        {**bad, "calibrated": False},
        {**bad, "tags": []},
        {**bad, "error": ""},
    ]
    assert [record for record in wrong if RECORDS.is_valid(record)] == []


def test_every_format_is_on_the_page() -> None:
    page = (DOCS / "formats.md").read_text("utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\)", page, re.M)
    assert rows == [(name, name) for name in WRITERS]
    headings = re.findall(r"^## (\w+)$", page, re.M)
    assert [heading for heading in headings if heading in WRITERS] == list(WRITERS)
    videos = page.partition("\n## Videos\n")[2]
    assert [name for name in TAG_WRITERS if f"`{name}`" not in videos] == []


def test_the_records_on_the_page_are_valid() -> None:
    page = (DOCS / "formats.md").read_text("utf-8")
    lines = [line for line in page.splitlines() if line.startswith('{"file_name"')]
    assert len(lines) == 2
    for line in lines:
        RECORDS.validate(json.loads(line))


def test_the_python_examples_import_nothing_but_the_package() -> None:
    imports = re.findall(r"^(?:import|from) captioner.*", "".join(EXAMPLES), re.M)
    assert set(imports) == {"import captioner"}


@pytest.mark.usefixtures("one_thread")
def test_the_python_examples_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_shapes: Callable[[Path, int], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("data", "configs"):
        Path(name).symlink_to(ROOT / name)
    make_shapes(Path("shapes"), 40)
    capsys.readouterr()
    printed = []
    for number, code in enumerate(EXAMPLES):
        exec(compile(code, f"docs/python.md, example {number + 1}", "exec"), {})
        printed.append(capsys.readouterr().out.splitlines())
    images = len(list((ROOT / "data/examples").glob("*.jpg")))
    one, folder, into_file, read, video, trained = printed
    assert len(one) == 1 + 5 + 5
    assert len(folder) == len(into_file) == images
    assert all(line.startswith("ok data/examples/") for line in into_file)
    lines = Path("captions.jsonl").read_text("utf-8").splitlines()
    sure = [line for line in lines if json.loads(line)["confidence"] >= 0.5]
    assert len(read) == len(sure) > 0
    assert len(video) > 0
    assert any("CIDEr-D" in line for line in trained)

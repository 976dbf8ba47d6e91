"""The program that does what the documents say: what it reads of them, and what it makes of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import follow_docs
from documented import plan
from documented.commands import commands_of
from documented.running import Reader

TEXT = """\
# A title

```bash
captioner caption photos/ --output a.jsonl    # a comment
# only a comment

captioner export --checkpoint a.ckpt \\
  --output "b # c.safetensors"
python -m pip install . && captioner caption dog.jpg
```

```
folder/
  file.txt
```

```python
print(1)
```

```
$ captioner caption dog.jpg  # another
dog.jpg    a dog
  with a ball
$ captioner fill dog.jpg "a ___"
```

```python
print(2)
```
"""


def test_commands_are_read_with_their_lines_and_what_they_print() -> None:
    assert [(each.line, each.text, each.output) for each in commands_of("a.md", TEXT)] == [
        (4, "captioner caption photos/ --output a.jsonl", None),
        (7, 'captioner export --checkpoint a.ckpt --output "b # c.safetensors"', None),
        (9, "python -m pip install .", None),
        (9, "captioner caption dog.jpg", None),
        (18, "python (all examples)", None),
        (22, "captioner caption dog.jpg", "dog.jpg    a dog\n  with a ball"),
        (25, 'captioner fill dog.jpg "a ___"', ""),
    ]
    assert commands_of("a.md", TEXT)[4].script == "print(1)\n\nprint(2)\n"


def test_every_entry_of_the_plan_fits_a_documented_command() -> None:
    pages = follow_docs.documents()
    commands = [
        each
        for page in pages
        for each in commands_of(page, (follow_docs.ROOT / page).read_text("utf-8"))
    ]
    assert len(commands) > 60
    assert plan.outdated(commands) == []
    gone = [each for each in commands if "fuzz_guided" not in each.text and each.page != pages[-1]]
    assert r"python tests/fuzz/fuzz_guided\.py" in plan.outdated(gone)


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("captioner caption dog.jpg", "captioner caption dog.jpg"),
        ("x --run_dir a/seedSEED --seed SEED FOLDER", "x --run_dir a/seed1 --seed 1 ."),
        ("captioner review a.jsonl", "captioner review a.jsonl --no-browser"),
    ],
)
def test_what_is_run_of_a_command(text: str, run: str) -> None:
    assert plan.as_run(text) == run


@pytest.mark.parametrize(
    ("text", "installs", "why"),
    [
        ('python -m pip install ".[train]"', False, "--python gives the environment"),
        ('python -m pip install ".[train]"', True, None),
        ("exiftool a.jpg", True, "exiftool is not installed"),
        ("python -m pytest -n auto", True, "the test suite: .ci/run runs it"),
        ("captioner caption dog.jpg", False, None),
    ],
)
def test_what_is_left_out_has_a_reason(text: str, installs: bool, why: str | None) -> None:
    assert plan.reason_to_leave_out(text, [], installs=installs) == why


def test_a_document_is_followed_and_what_is_false_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("photos", "videos"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text(
        "```\n$ python -c 'print(1,   2)'\n1  2\n$ python -c 'print(3)'\n4\n```\n"
        '```bash\ncd photos\npython -c \'open("a", "w")\'\ncd ../nowhere\n```\n'
        "```bash\npython -c 'open(\"photos/a\")'\npython -m pytest\n"
        "python -c 'import time; time.sleep(60)'\n```\n"
    )
    commands = commands_of("README.md", (tmp_path / "README.md").read_text())
    reader = Reader(tmp_path, follow_docs.environment(Path(sys.executable), tmp_path), 3)
    counts = follow_docs.follow("README.md", commands, reader, installs=False)
    assert counts == {"ok": 4, "FAILED": 3, "left out": 1}
    said = capsys.readouterr().out
    assert "prints something else than the document shows\n    3\n" in said
    assert "no such folder" in said and "runs too long" in said

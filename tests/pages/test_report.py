"""The report through the real command: its files, what it refuses, and how it goes on."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from captioner.cli.entry import main
from captioner.files.store import Store, StoreKind
from captioner.model.caption_model import CaptionModel
from captioner.pages.attention_cache import ATTENTION, STATE
from captioner.pages.report_images import LONG_SIDE
from helpers.images import noise

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, str]]

CAPTIONS = ".captions.jsonl.captioner"


@pytest.fixture
def run(tagging_model: CaptionModel, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run main() in this process; returns (exit code, standard error)."""

    def run(command: str, *arguments: str | Path) -> tuple[int, str]:
        model = ["--model", str(tagging_model.path), "--device", "cpu", "--workers", "0"]
        code = main([command, *model, *map(str, arguments)])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images and a broken one; the tests run beside their folder."""
    folder = tmp_path / "Fotos ü"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(["a.png", "b c.jpg", "sub/a.png"]):
        noise(index, 400 + 100 * index, 300).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"not an image")
    monkeypatch.chdir(tmp_path)
    return folder


def attention_in(files: Path) -> dict[str, Any]:
    """What a report's folder knows of attention, by key."""
    with Store(files / STATE, ATTENTION) as store:
        return dict(store.rows())


def data_of(page: str | Path) -> dict[str, Any]:
    """What the page's script reads."""
    html = Path(page).read_text(encoding="utf-8")
    found = re.search('<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def records_of(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_captions_and_their_page_at_once(
    run: Run, photos: Path, tagging_model: CaptionModel
) -> None:
    code, err = run("caption", photos, "--output", "out/my report.html")
    assert code == 1
    assert err.splitlines() == [
        f"captioner: {photos}/broken.jpg: not an image Pillow can read",
        "captioner: 3 captioned, 1 failed",
        "captioner: out/my report.html: 4 images",
    ]
    files = Path("out/my report_files")
    records = records_of(files / "captions.jsonl")
    assert [record["file_name"] for record in records] == [
        "a.png",
        "b c.jpg",
        "broken.jpg",
        "sub/a.png",
    ]
    assert [len(record["candidates"]) for record in records] == [3, 3, 0, 3]
    assert all(record["tags"] for record in records if record["error"] is None)
    data = data_of("out/my report.html")
    assert [item["record"] for item in data["items"]] == records
    assert data["thumbnails"] == "my%20report_files/thumbnails/"
    assert data["grid"] == list(tagging_model.encoder.grid_shape)
    cells = data["grid"][0] * data["grid"][1]
    for item in data["items"]:
        if item["record"]["error"] is not None:
            assert item["problem"] == "not an image Pillow can read" and "thumbnail" not in item
            continue
        with Image.open(files / "thumbnails" / item["thumbnail"]) as image:
            assert image.format == "JPEG" and 100 < max(image.size) <= LONG_SIDE
        words = [word for word, _ in item["record"]["candidates"][0]["words"] if word is not None]
        said = [prob for word, prob in item["record"]["candidates"][0]["words"] if word is not None]
        assert item["word_probs"] == pytest.approx(said, abs=2e-4)
        levels = np.frombuffer(base64.b64decode(item["levels"]), np.uint8).reshape(
            len(words), cells
        )
        assert (levels.max(axis=1) == 255).all()
    assert str(photos.parent) not in Path("out/my report.html").read_text(encoding="utf-8")


def test_again_it_uses_what_is_there(run: Run, photos: Path) -> None:
    (photos / "broken.jpg").unlink()
    # Beside the images: the thumbnails are none of them.
    first = run("caption", photos, "--output", photos / "report.html")
    assert first == (
        0,
        f"captioner: 3 captioned, 0 failed\ncaptioner: {photos}/report.html: 3 images\n",
    )
    page, files = photos / "report.html", photos / "report_files"
    before = page.read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (files / "thumbnails").iterdir()}
    attention = (files / STATE).read_bytes()
    assert len(times) == len(attention_in(files)) == 3
    page.unlink()
    for path in photos.rglob("*.*g"):
        # Not opened again: with the size and the time it had, nobody sees that it is another.
        seen = path.stat()
        path.write_bytes(bytes(seen.st_size))
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    code, err = run("caption", photos, "--output", page)
    assert code == 0 and "0 captioned, 3 finished before, 0 failed" in err
    assert page.read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (files / "thumbnails").iterdir()} == times
    assert (files / STATE).read_bytes() == attention
    # One is another image now, one is gone; both names have been seen.
    noise(9, 500, 300).save(photos / "b c.jpg")
    (photos / "sub" / "a.png").unlink()
    code, err = run("caption", photos, "--output", page, "--append")
    assert code == 1 and "captioner: sub/a.png: file not found" in err
    assert "1 not found or not read" in err
    now = {path.name for path in (files / "thumbnails").iterdir()}
    assert len(now) == 2 and len(now & {path.name for path in times}) == 1
    assert len(attention_in(files)) == 2
    data = data_of(page)
    assert [item.get("problem") for item in data["items"]] == [None, None, "file not found"]


def test_attention_that_an_earlier_version_kept_is_found_anew(run: Run, photos: Path) -> None:
    """Its weights are not the shares that are shown now."""
    (photos / "broken.jpg").unlink()
    assert run("caption", photos, "--output", "report.html")[0] == 0
    files = Path("report_files")
    before, expected = Path("report.html").read_bytes(), attention_in(files)
    (files / STATE).unlink()
    values = {"word_probs": [0.5], "levels": "AA=="}
    earlier = StoreKind("captioner-attention-1", "remove it", is_cache=True)
    Store.create(files / STATE, earlier, {}, ((key, values) for key in expected)).close()
    (files / ".attention.jsonl").write_text('{"key": "cut sh')
    Path("report.html").unlink()
    assert run("caption", photos, "--output", "report.html")[0] == 0
    assert Path("report.html").read_bytes() == before
    assert attention_in(files) == expected
    assert not (files / ".attention.jsonl").exists()


def test_interrupted_it_goes_on(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, tagging_model: CaptionModel
) -> None:
    (photos / "broken.jpg").unlink()
    assert run("caption", photos, "--output", "whole.html")[0] == 0
    assert run("caption", photos, "--output", "report.html", "--no-attention")[0] == 0
    Path("report.html").unlink()
    from captioner.pages import report

    looked = []

    def on_image(count: int = 1) -> None:
        looked.append(count)
        if len(looked) == 2:
            raise KeyboardInterrupt

    job = report.ReportJob(
        Path("report_files/captions.jsonl"), Path("report.html"), batch_size=1, workers=1
    )
    with pytest.raises(KeyboardInterrupt):
        report.write_report(job, tagging_model, on_image)
    assert not Path("report.html").exists()
    files = Path("report_files")
    kept, before = (files / STATE).read_bytes(), attention_in(files)
    assert len(before) == 2
    levels = [item["levels"] for item in data_of("whole.html")["items"]]
    # Damaged by a power cut, the images are looked at again.
    for there in (kept, kept[:5000], b""):
        (files / STATE).write_bytes(there)
        report.write_report(job, tagging_model)
        assert [item["levels"] for item in data_of("report.html")["items"]] == levels
        now = attention_in(files)
        assert len(now) == 3 and before.items() <= now.items()
        assert sorted(path.name for path in files.glob(".*")) == [STATE, CAPTIONS]


def test_the_second_of_two_processes_is_refused(run: Run, photos: Path) -> None:
    assert run("caption", photos, "--output", "c.jsonl")[0] == 1
    Path("report_files").mkdir()
    with FileLock(f"report_files/{STATE}.lock"):
        code, err = run("report", "c.jsonl")
    assert (code, "report_files is in use by another captioner; wait for it" in err) == (2, True)
    assert not Path("report.html").exists()
    assert run("report", "c.jsonl")[0] == 0


def test_a_page_of_captions_made_before(run: Run, photos: Path) -> None:
    assert run("caption", photos, "--output", "c.jsonl", "--candidates")[0] == 1
    before = Path("c.jsonl").read_bytes()
    assert run("report", "c.jsonl") == (0, "captioner: report.html: 4 images\n")
    assert run("report", "c.jsonl", "--quiet") == (0, "")
    items = data_of("report.html")["items"]
    assert [("thumbnail" in item, "levels" in item) for item in items] == [
        (True, True),
        (True, True),
        (False, False),
        (True, True),
    ]
    assert run("report", "c.jsonl", "--no-attention", "--output", "b.html")[0] == 0
    items = data_of("b.html")["items"]
    assert [("thumbnail" in item, "levels" in item) for item in items] == [
        (True, False),
        (True, False),
        (False, False),
        (True, False),
    ]
    assert Path("c.jsonl").read_bytes() == before


def test_captions_of_others_beside_their_images(run: Run, photos: Path) -> None:
    odd = {"text": "x", "words": [["\ud800", 1]]}
    lines = [
        {"file_name": "a.png", "text": "A red ball; zeppelin!", "extra": {"id": 7}, "tags": "x"},
        {"file_name": "b c.jpg", "text": None},
        {"file_name": "../secret.png", "text": "a dog"},
        {"file_name": str(photos / "a.png"), "text": "a dog"},
        {"file_name": "gone.png", "text": "a dog", "candidates": [1], "confidence": "high"},
        {"file_name": "half\ud800.png", "text": "a dog"},
        {"file_name": "sub/a.png", "text": "a dog " * 1000},
        {"file_name": "a.png", "text": "x", "candidates": [odd]},
    ]
    noise(1).save("secret.png")
    captions = photos / "metadata.jsonl"
    captions.write_text("".join(json.dumps(line) + "\n\n" for line in lines), encoding="utf-8")
    code, err = run("report", captions)
    assert code == 1
    assert "../secret.png: its name leads out of the folder of the images" in err
    assert err.count("leads out of") == 3 and "gone.png: file not found" in err
    items = data_of("report.html")["items"]
    assert [item["record"] for item in items] == lines
    assert items[0]["words"] == ["a", "red", "ball", "zeppelin"]
    assert items[0]["word_probs"][3] is None and all(
        0 < prob < 1 for prob in items[0]["word_probs"][:3]
    )
    seen = [True, True, False, False, False, False, True, True]
    assert ["thumbnail" in item for item in items] == seen
    assert "levels" not in items[1] and "levels" not in items[6]
    assert items[7]["word_probs"] == [None]
    # Elsewhere, the folder is named.
    shutil.move(captions, "metadata.jsonl")
    code, err = run("report", "metadata.jsonl", "--images", photos, "--output", "b.html")
    assert code == 1 and err.count("file not found") == 1


def test_it_says_when_another_model_made_the_captions(
    run: Run, photos: Path, tagging_model: CaptionModel, tmp_path: Path
) -> None:
    import torch

    other = CaptionModel.load(tagging_model.path or "")
    with torch.no_grad():
        other.decoder.output.bias[5] += 3
    other.save("other.safetensors", half=False)
    run("caption", photos, "--output", "c.jsonl", "--candidates")
    note = "Another model than that of this report made the captions"
    assert note not in run("report", "c.jsonl")[1]
    assert note in run("report", "c.jsonl", "--model", "other.safetensors")[1]
    assert note in Path("report.html").read_text(encoding="utf-8")
    # Without the journal, which knows it, by the words' probabilities.
    shutil.copy("c.jsonl", photos / "copy.jsonl")
    copied = (photos / "copy.jsonl", "--output", "copy.html")
    assert note not in run("report", *copied)[1]
    assert note in run("report", *copied, "--model", "other.safetensors")[1]


def test_a_model_without_a_lexicon_gives_no_tags(
    run: Run, photos: Path, tiny_model: CaptionModel
) -> None:
    tiny_model.save("tiny.safetensors", half=False)
    code, _ = run("caption", photos / "a.png", "--output", "r.HTML", "--model", "tiny.safetensors")
    assert code == 0
    (item,) = data_of("r.HTML")["items"]
    assert "tags" not in item["record"] and "levels" in item


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "gone.jsonl"], "gone.jsonl cannot be read: no such file or directory"),
        (["report", "empty.jsonl"], "empty.jsonl holds no captions: `captioner caption PHOTOS"),
        (["report", "lines.jsonl"], "lines.jsonl: line 2 is not JSON"),
        (["report", "names.jsonl"], "names.jsonl: line 1 has no file_name"),
        (["report", "texts.jsonl"], "texts.jsonl: line 1 has a text that is not a string"),
        (["report", "nan.jsonl"], "nan.jsonl: line 1 is not JSON"),
        (["report", "ok.jsonl", "--images", "gone"], "images gone is not a folder"),
        (["report", "ok.jsonl", "--output", "ok.jsonl"], "is the captions' file"),
        (["report", "ok.jsonl", "--output", "folder"], "output folder is a folder"),
        (["report", "ok.jsonl", "--output", "page.html"], "--overwrite replaces it"),
        (["report", "ok.jsonl", "--output", "ok.jsonl/x.html"], "ok.jsonl is not a folder"),
        (["report", "ok.jsonl", "--output", "taken.html"], "taken_files is a file"),
        (["caption", "Fotos ü", "--format", "html"], "add --output report.html"),
        (["caption", "Fotos ü", "--format", "html", "--output", "-"], "add --output report.html"),
        (["caption", "Fotos ü", "--output", "page.html"], "--overwrite replaces it"),
        (["caption", "Fotos ü", "--no-attention"], "--no-attention applies to pages only"),
    ],
)
def test_what_cannot_be_done_is_named(
    run: Run, photos: Path, arguments: list[str], message: str
) -> None:
    line = '{"file_name": "a.png", "text": "a dog"}\n'
    for name, text in {
        "empty.jsonl": "\n",
        "lines.jsonl": line + "{oops\n",
        "names.jsonl": '{"text": "a dog"}\n',
        "texts.jsonl": '{"file_name": "a.png", "text": 5}\n',
        "nan.jsonl": '{"file_name": "a.png", "text": null, "confidence": NaN}\n',
        "ok.jsonl": line,
        "page.html": "<p>mine</p>",
        "taken_files": "mine",
    }.items():
        Path(name).write_text(text, encoding="utf-8")
    Path("folder").mkdir()
    code, err = run(*arguments)
    assert code == 2
    assert message in err and err.startswith("captioner: error: ")
    assert Path("page.html").read_text() == "<p>mine</p>"
    assert not Path("report.html").exists() and not Path("page_files").exists()


def test_overwrite_replaces_what_is_no_report(run: Run, photos: Path) -> None:
    Path("page.html").write_text("<p>mine</p>")
    (photos / "broken.jpg").unlink()
    assert run("caption", photos, "--output", "page.html", "--overwrite")[0] == 0
    assert len(data_of("page.html")["items"]) == 3
    # The page of other captions is another page.
    run("caption", photos, "--output", "c.jsonl")
    code, err = run("report", "c.jsonl", "--output", "page.html")
    assert code == 2 and "is not a report of these captions" in err


def test_where_nothing_can_be_written(
    run: Run,
    photos: Path,
    shared_folder: Path,
    without_privileges: Callable[[], AbstractContextManager[None]],
) -> None:
    captions = shared_folder / "c.jsonl"
    captions.write_text('{"file_name": "a.png", "text": "a dog"}\n')
    os.chmod(shared_folder, 0o555)
    with without_privileges():
        code, err = run("report", captions, "--no-attention", "--output", shared_folder / "r.html")
    assert code == 2 and "permission denied" in err

"""What is refused before torch is loaded, and what is said then."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import captioner
from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"

MISTAKES = (
    (["caption", "gone.jpg"], "gone.jpg does not exist: check the path"),
    (
        ["caption", "clip.mp4"],
        "clip.mp4 is a video: `captioner tag clip.mp4` describes such files",
    ),
    (["caption", "videos"], "; `captioner tag` describes the videos in it"),
    (["tag", "cat.jpg"], "cat.jpg is an image: `captioner caption cat.jpg` describes such files"),
    (["tag", "images"], "; `captioner caption` describes the images in it"),
    (["tag", "clip.mp4", "--format", "srt"], "--format: without --output-dir a summary is printed"),
    (["tag", "clip.mp4", "--overwrite"], "--overwrite: without --output-dir a summary is printed"),
    (["tag", "clip.mp4", "--output-dir", "cat.jpg"], "cat.jpg is not a folder"),
    (
        ["caption", "https://example.org/a.jpg?size=2"],
        "a.jpg?size=2: captions of shards and of what lies at addresses go into a folder, a file",
    ),
    (["caption", "cat.jpg", "--model", "https://example.org/m"], "m is a URL, and captioner reads"),
    (
        ["caption", "cat.jpg", "--output", "x.xyz"],
        "end it in one of .tsv .jsonl .ndjson .csv .json",
    ),
    (
        ["caption", "cat.jpg", "--output", "x.xyz"],
        "(or .html for a page), or add --format with one",
    ),
    (
        ["caption", "cat.jpg", "--device", "gpu"],
        "device 'gpu' cannot be used (there is no such name; a GPU is called cuda (NVIDIA, AMD) or "
        "mps (Apple)); use auto, cpu, cuda or mps",
    ),
    (["caption", "cat.jpg", "--model", "no.safetensors"], "model no.safetensors: no such file"),
    (
        ["caption", "cat.jpg", "--num-captions", "4", "--beam-size", "3"],
        "--num-captions 4: beam search gives at most --beam-size 3",
    ),
    (
        ["fill", "cat.jpg", "a", "___", "cat"],
        "the sentence 'a ___ cat' is one argument: put it in quotes, as in `captioner fill cat.jpg "
        '"a ___ cat"`',
    ),
    (["fill", "cat.jpg", "a", "___"], '`captioner fill cat.jpg "a ___"`'),
    (["fill", "cat.jpg", "a cat"], "there is no blank in it"),
    (["explain", "gone.jpg"], "gone.jpg does not exist"),
    (["explain", "images"], "image images is a folder"),
    (["report", "gone.jsonl"], "gone.jsonl cannot be read: no such file or directory"),
    (["report", "x.csv"], "x.csv is not JSONL, of which a page is made: caption the images with"),
    (["report", "images"], "`captioner caption images --output report.html` makes both"),
    (["evaluate", "--data", "gone"], "gone: there is no such file or folder"),
    (["calibrate", "--data", "gone", "-o", "a.safetensors"], "gone: there is no such file"),
    (["export", "--checkpoint", "a.ckpt", "-o", "a.safetensors"], "a.ckpt: no such file"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, copy in (
        ("cat.jpg", "cat.jpg"),
        ("cat.jpg", "images/cat.jpg"),
        ("slideshow.mp4", "clip.mp4"),
        ("slideshow.mp4", "videos/clip.mp4"),
    ):
        (tmp_path / copy).parent.mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / name, tmp_path / copy)
    (tmp_path / "x.csv").write_text("file_name,text\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_have_a_remedy(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    there = sorted(place.rglob("*"))
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert sorted(place.rglob("*")) == there


def test_none_of_them_waits_for_torch(place: Path) -> None:
    code = f"""
import sys
from captioner.cli.entry import main
for arguments in {[arguments for arguments, _ in MISTAKES]!r}:
    assert main(arguments) == 2, arguments
    assert not {{"torch", "numpy", "PIL"}} & set(sys.modules), arguments
"""
    path = {"PYTHONPATH": str(Path(captioner.__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("Error")) == (0, 0), run.stderr


def test_the_beam_grows_with_the_captions(run, photos: Path, model: CaptionModel) -> None:
    options = captioner.DecodingOptions(num_captions=5, beam_size=5)
    code, out, _ = run("caption", "photos/a.png", "--num-captions", "5")
    expected = [each.text for each in model.caption([photos / "a.png"], options)[0].candidates]
    assert (code, out) == (0, "\t".join(["photos/a.png", *expected]) + "\n")


def test_a_banned_word_that_the_model_does_not_know(run, photos: Path) -> None:
    code, out, err = run("caption", "photos/a.png", "--ban", "dgo")
    assert (code, out) == run("caption", "photos/a.png")[:2]
    assert "captioner: --ban: the model never says 'dgo' anyway: it is not in its vocabulary" in err
    assert "'dog'" in err
    assert "--ban:" not in run("caption", "photos/a.png", "--ban", "dog")[2]

"""`--missing-only`, and what `--overwrite` asks before it replaces what people wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.images import draw, noise
from helpers.jobs import hidden, killed_at_each_write, tree

pytestmark = pytest.mark.usefixtures("one_thread")

TXT = ["--format", "txt", "--missing-only"]
XMP = ["--format", "xmp", "--no-tags", "--missing-only"]
THEIRS = "<x:xmpmeta>darktable's</x:xmpmeta>"


@pytest.fixture
def half(photos: Path) -> dict[str, bytes]:
    """Beside two of the six images lies somebody's text; all files of the folder."""
    (photos / "b.jpg").unlink()
    (photos / "a.txt").write_bytes(b"my own words\r\n\r\n")
    (photos / "sub dir" / "\xe4 b.txt").write_bytes(b"\xff is no UTF-8")
    return tree(photos)


# --- text files and sidecars ---------------------------------------------------------------


def test_text_files_that_are_there_keep_their_bytes(
    photos: Path, run, half: dict[str, bytes]
) -> None:
    assert run(str(photos), "--format", "txt", "--output", "all")[0] == 0
    for counts in ("4 captioned, 2 kept as they were", "0 captioned, 4 finished before, 2 kept"):
        code, errors = run(str(photos), *TXT)
        assert code == 0
        assert errors.startswith(f"captioner: {counts}")
        assert tree(photos) == tree(Path("all")) | half
    assert hidden(photos) == [".captions.captioner"]


def test_an_empty_text_file_is_no_caption(photos: Path, run, half: dict[str, bytes]) -> None:
    (photos / "d.txt").write_text(" \n")
    assert run(str(photos), *TXT)[1].startswith("captioner: 4 captioned, 2 kept")
    caption = (photos / "d.txt").read_bytes()
    assert caption.strip()
    (photos / "d.txt").write_bytes(b"")  # emptied since
    assert run(str(photos), *TXT)[0] == 0
    assert (photos / "d.txt").read_bytes() == caption


def test_a_text_file_with_the_full_name_of_its_image_is_its_caption(
    photos: Path, run, half: dict[str, bytes]
) -> None:
    (photos / "d.png.txt").write_text("mine")
    assert run(str(photos), *TXT)[1].startswith("captioner: 3 captioned, 3 kept")
    assert not (photos / "d.txt").exists()


def test_what_was_changed_since_is_kept_even_if_the_image_changes(
    photos: Path, run, half: dict[str, bytes]
) -> None:
    assert run(str(photos), *TXT)[0] == 0
    (photos / "d.txt").write_text("changed\n")
    ours = (photos / "z.txt").read_bytes()
    for seed, name in enumerate(("d.png", "z.png", "a.png")):
        noise(60 + seed).save(photos / name)
    draw(photos, ["new.png"], first_seed=70)
    (photos / "sub dir" / "a.txt").unlink()
    code, errors = run(str(photos), *TXT)
    assert (code, errors) == (
        0,
        "captioner: 1 captioned, 4 finished before, 2 kept as they were, 0 failed\n",
    )
    assert (photos / "d.txt").read_text() == "changed\n"
    assert (photos / "z.txt").read_bytes() == ours
    assert (photos / "a.txt").read_bytes() == half["a.txt"]
    assert (photos / "sub dir" / "a.txt").exists()  # written again, out of the journal
    assert (photos / "new.txt").exists()


def test_an_image_that_failed_is_tried_again(photos: Path, run) -> None:
    assert run(str(photos), *TXT)[1].endswith("captioner: 6 captioned, 1 failed\n")
    noise(70).save(photos / "b.jpg")
    assert run(str(photos), *TXT)[1] == "captioner: 1 captioned, 6 finished before, 0 failed\n"
    assert (photos / "b.txt").exists()


def test_sidecars_of_others_stay_and_are_no_reason_to_stop(
    photos: Path, run, half: dict[str, bytes]
) -> None:
    theirs = photos / "d.png.xmp"
    theirs.write_text(THEIRS)
    assert run(str(photos), "--format", "xmp", "--no-tags")[0] == 2
    for counts in ("5 captioned, 1 kept", "0 captioned, 5 finished before, 1 kept"):
        assert run(str(photos), *XMP)[1].startswith(f"captioner: {counts} as they were")
        assert theirs.read_text() == THEIRS
    assert len(list(photos.rglob("*.xmp"))) == 6
    code, errors = run(str(photos), "--format", "xmp", "--no-tags", "--overwrite", "--yes")
    assert (code, f"{theirs} holds what captioner has not written" in errors) == (2, True)
    assert theirs.read_text() == THEIRS


@pytest.mark.parametrize(
    ("options", "name", "theirs"), [(TXT, "z.txt", "mine"), (XMP, "z.png.xmp", THEIRS)]
)
def test_what_appears_while_the_job_runs_is_kept(
    photos: Path, run, options: list[str], name: str, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = CaptionModel.read

    def meanwhile(self, path, data=None):
        (photos / name).write_text(theirs)
        return read(self, path, data)

    monkeypatch.setattr(CaptionModel, "read", meanwhile)
    for _ in range(2):
        assert run(str(photos), *options)[0] == 1
        assert (photos / name).read_text() == theirs


@pytest.mark.parametrize("options", [TXT, XMP], ids=["txt", "xmp"])
def test_killed_at_any_write_the_next_run_ends_as_an_undisturbed_one(
    photos: Path, run, command: list[str], half: dict[str, bytes], options: list[str]
) -> None:
    (photos / "d.png.xmp").write_text(THEIRS)
    shutil.copytree(photos, "start")
    assert run(str(photos), *options)[0] == 0
    calm = tree(photos)
    arguments = [*command, str(photos), *options]
    for moment in killed_at_each_write(photos, Path("start"), arguments):  # noqa: B007 - the last
        assert cli.main(arguments) == 0
        assert tree(photos) == calm
    assert moment > 5


def test_ctrl_c_keeps_what_is_finished(
    photos: Path, run, half: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(photos, [f"x{number}.png" for number in range(4)], first_seed=80)
    read, asked = CaptionModel.read, []

    def interrupted(self, path, data=None):
        asked.append(path)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return read(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(CaptionModel, "read", interrupted)
        assert run(str(photos), *TXT)[0] == 130
    code, errors = run(str(photos), *TXT)
    assert code == 0
    assert errors.endswith("finished before, 2 kept as they were, 0 failed\n")
    assert len(list(photos.rglob("*.txt"))) == 10
    assert half.items() <= tree(photos).items()


@pytest.mark.parametrize("more", [["--beam-size", "2"], ["--caption-prefix", "sks "]])
def test_other_options_are_refused(
    photos: Path, run, half: dict[str, bytes], more: list[str]
) -> None:
    assert run(str(photos), *TXT)[0] == 0
    before = tree(photos)
    code, errors = run(str(photos), *TXT, *more)
    assert (code, "another model or other options made" in errors) == (2, True)
    assert tree(photos) == before


# --- what --overwrite asks -----------------------------------------------------------------


def test_overwrite_counts_what_people_wrote_and_changes_nothing(
    photos: Path, run, half: dict[str, bytes]
) -> None:
    txt = [str(photos), "--format", "txt"]
    code, errors = run(*txt, "--overwrite")
    assert (code, errors) == (
        2,
        f"captioner: error: --overwrite would replace 2 files (the first: {photos}/a.txt) with "
        "text that captioner has not written, or that was changed since; nothing is changed: "
        "--missing-only keeps such text, --overwrite --yes replaces it\n",
    )
    assert tree(photos) == half
    assert hidden(photos) == []
    assert run(*txt, "--overwrite", "--yes")[0] == 0
    written = tree(photos)
    assert written["a.txt"] != half["a.txt"]
    # All of them are captioner's now.
    assert run(*txt, "--overwrite", "--beam-size", "1")[0] == 0
    (photos / "d.txt").write_text("mine")
    code, errors = run(*txt, "--overwrite")
    assert (code, f"would replace 1 file ({photos}/d.txt) with" in errors) == (2, True)
    assert (photos / "d.txt").read_text() == "mine"


def test_overwrite_replaces_what_captioner_wrote_and_what_is_empty(photos: Path, run) -> None:
    assert run(str(photos), "--format", "txt")[0] == 1
    (photos / "a.txt").write_bytes(b"")
    assert run(str(photos), "--format", "txt", "--overwrite")[0] == 1
    assert (photos / "a.txt").read_bytes() != b""


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.tsv", "out.json"])
def test_overwrite_of_a_file_that_people_wrote_or_changed(photos: Path, run, output: str) -> None:
    path = Path(output)
    path.write_text("mine\n")
    message = f"--overwrite would replace 1 file ({output}) with text"
    code, errors = run(str(photos), "--output", output, "--overwrite")
    assert (code, message in errors, path.read_text()) == (2, True, "mine\n")
    assert hidden(Path()) == []
    assert run(str(photos), "--output", output, "--overwrite", "--yes")[0] == 1
    assert run(str(photos), "--output", output, "--overwrite")[0] == 1
    changed = path.read_bytes().replace(b"a.png", b"A.png", 1)
    path.write_bytes(changed)
    state = Path(f".{output}.captioner").read_bytes()
    code, errors = run(str(photos), "--output", output, "--overwrite")
    assert (code, message in errors, path.read_bytes()) == (2, True, changed)
    assert Path(f".{output}.captioner").read_bytes() == state


def test_overwrite_in_another_format_asks_nothing(photos: Path, run) -> None:
    for more in ([], ["--csv-bom"], [], ["--format", "jsonl"], []):
        assert run(str(photos), "--output", "out.csv", "--overwrite", *more)[0] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--yes"], "--yes: is for --overwrite"),
        (["--missing-only"], "--missing-only: standard output and devices keep nothing"),
        (["--missing-only", "--overwrite"], "not allowed with argument"),
        (["--missing-only", "--append"], "not allowed with argument"),
    ],
)
def test_options_that_do_not_go_together(
    photos: Path, run, options: list[str], message: str
) -> None:
    code, errors = run(str(photos), *options)
    assert (code, message in errors) == (2, True)

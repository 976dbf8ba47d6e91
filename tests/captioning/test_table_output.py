"""`--missing-only` on a metadata file that people wrote: its bytes stay, rows are added."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from captioner.cli import entry as cli
from captioner.data.datasets import load_caption_data
from helpers.images import draw, noise
from helpers.jobs import hidden, killed_at_each_write, tree

pytestmark = pytest.mark.usefixtures("one_thread")

JSONL = (
    '{"file_name": "a.png", "split": "train", "text": "my own words"}\n'
    '{"file_name": "z.png", "split": "train", "text": ""}\n'
    '{"file_name": "sub dir/a\u0308 b.png", "split": "dev", "text": "d\u00e9j\u00e0"}\n'
).encode()
CSV = (
    "\ufeffsplit;Image;caption;note\r\n"
    "train;a.png;my own words;\r\n"
    "train;z.png;;\r\n"
    'dev;sub dir/a\u0308 b.png;"two; parts";x'  # without a line end
).encode()
MISSING = ["c \xfcber.png", "d.png", "sub dir/a.png", "z.png"]
STARTS = {"metadata.jsonl": JSONL, "metadata.csv": CSV}


@pytest.fixture(params=STARTS)
def table(request: pytest.FixtureRequest, photos: Path) -> Path:
    """A metadata file beside six images, two of which have a caption in it."""
    (photos / "b.jpg").unlink()
    path: Path = photos / request.param
    path.write_bytes(STARTS[path.name])
    return path


@pytest.fixture
def texts(photos: Path, run, table: Path) -> dict[str, str]:
    """What captioner says of each image."""
    run(str(photos), "--output", "all.jsonl")
    lines = Path("all.jsonl").read_text("utf-8").splitlines()
    return {record["file_name"]: record["text"] for record in map(json.loads, lines)}


def added(table: Path) -> bytes:
    data = table.read_bytes()
    assert data.startswith(STARTS[table.name])
    return data.removeprefix(STARTS[table.name])


def rows(texts: dict[str, str], table: Path, names: list[str]) -> bytes:
    """The rows of these images, in the file's own columns."""
    if table.suffix == ".jsonl":
        records = [{"file_name": name, "split": None, "text": texts[name]} for name in names]
        return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records).encode()
    return "".join(f"\r\n;{name};{texts[name]};" for name in names).encode()


def test_rows_are_added_in_its_own_columns(
    photos: Path, run, table: Path, texts: dict[str, str]
) -> None:
    options = [str(photos), "--output", str(table), "--missing-only"]
    for counts in ("4 captioned, 2 kept as they were", "0 captioned, 4 finished before, 2 kept"):
        code, errors = run(*options)
        assert code == 0
        assert errors.startswith(f"captioner: {counts}")
        assert added(table) == rows(texts, table, MISSING)
    assert hidden(photos) == [f".{table.name}.captioner"]
    read = {each.image_id: each.captions for each in load_caption_data(photos).examples}
    assert {name: read[name] for name in MISSING} == {name: (texts[name],) for name in MISSING}
    assert read["a.png"] == ("my own words",)
    # A new image comes behind, whatever its name; one that has changed has its caption.
    draw(photos, ["0.png"], first_seed=80)
    noise(81).save(photos / "d.png")
    noise(82).save(photos / "a.png")
    assert run(*options)[1].startswith("captioner: 1 captioned, 4 finished before, 2 kept")
    assert added(table).startswith(rows(texts, table, MISSING))
    assert b"0.png" in added(table)


def test_killed_at_any_write_the_next_run_ends_as_an_undisturbed_one(
    photos: Path, run, command: list[str], table: Path
) -> None:
    options = [str(photos), "--output", str(table), "--missing-only"]
    shutil.copytree(photos, "start")
    assert run(*options)[0] == 0
    calm = tree(photos)
    arguments = [*command, *options]
    for moment in killed_at_each_write(photos, Path("start"), arguments):  # noqa: B007 - the last
        assert added(table) is not None
        assert cli.main(arguments) == 0
        assert tree(photos) == calm
    assert moment > 4


def test_rows_that_people_change_between_two_runs_are_theirs(
    photos: Path, run, table: Path, texts: dict[str, str]
) -> None:
    options = [str(photos), "--output", str(table), "--missing-only"]
    assert run(*options)[0] == 0
    whole = table.read_bytes()
    first, second = (rows(texts, table, [name]) for name in MISSING[:2])
    changed = whole.replace(first, b"").replace(second, second.replace(b"d.png", b"D.png"))
    table.write_bytes(changed)
    assert run(*options)[1].startswith("captioner: 2 captioned, 4 kept as they were")
    assert table.read_bytes() == changed + rows(texts, table, MISSING[:2])
    assert run(*options)[1].startswith("captioner: 0 captioned, 2 finished before, 4 kept")


def test_an_image_that_fails_gets_no_row_and_is_tried_again(
    photos: Path, run, table: Path, texts: dict[str, str]
) -> None:
    good = (photos / "d.png").read_bytes()
    (photos / "d.png").write_bytes(b"no image")
    options = [str(photos), "--output", str(table), "--missing-only"]
    for counts in ("3 captioned", "0 captioned, 3 finished before"):
        code, errors = run(*options)
        assert (code, errors.splitlines()[-1]) == (
            1,
            f"captioner: {counts}, 2 kept as they were, 1 failed",
        )
        names = [name for name in MISSING if name != "d.png"]
        assert added(table) == rows(texts, table, names)
    (photos / "d.png").write_bytes(good)
    assert run(*options)[0] == 0
    assert added(table) == rows(texts, table, [*names, "d.png"])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--missing-only", "--beam-size", "2"], "--beam-size: 3 there, 2 now"),
        ([], "--missing-only: True there, None now"),
        (["--append"], "--missing-only: True there, None now"),
        (["--overwrite"], "--overwrite would replace 1 file"),
    ],
)
def test_what_else_is_refused_then(
    photos: Path, run, table: Path, more: list[str], why: str
) -> None:
    options = [str(photos), "--output", str(table)]
    code, errors = run(*options)
    assert (code, "--missing-only keeps it and adds images" in errors) == (2, True)
    assert table.read_bytes() == STARTS[table.name]
    assert run(*options, "--missing-only")[0] == 0
    before = tree(photos)
    code, errors = run(*options, *more)
    assert (code, why in errors) == (2, True)
    assert tree(photos) == before


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_captioners_own_file_with_corrections(photos: Path, run, output: str) -> None:
    path = Path(output)
    assert run(str(photos), "--output", output)[0] == 1
    whole = path.read_bytes()
    assert run(str(photos), "--output", output, "--missing-only")[1].endswith(
        "captioner: 0 captioned, 6 finished before, 1 failed\n"
    )
    assert path.read_bytes() == whole
    mine = whole.replace(b"b.jpg", b"B.jpg").replace(b"d.png", b"D.png")
    path.write_bytes(mine)
    noise(90).save(photos / "b.jpg")
    code, errors = run(str(photos), "--output", output, "--missing-only")
    assert (code, errors) == (0, "captioner: 2 captioned, 5 kept as they were, 0 failed\n")
    assert path.read_bytes().startswith(mine)
    text = path.read_text("utf-8")
    if output.endswith(".jsonl"):
        records = [json.loads(line) for line in text.splitlines()]
    else:
        records = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [record["file_name"] for record in records[-2:]] == ["b.jpg", "d.png"]
    assert 0 < float(records[-1]["confidence"]) < 1
    assert not records[-1]["error"]


def test_names_with_their_whole_path(photos: Path, run) -> None:
    path = Path("metadata.csv")
    start = f"file_name,text\n{photos.absolute()}/a.png,mine\n".encode()
    path.write_bytes(start)
    images = ["Meine Fotos/a.png", "Meine Fotos/d.png"]
    code, errors = run(*images, "--output", str(path), "--missing-only")
    assert (code, errors) == (0, "captioner: 1 captioned, 1 kept as they were, 0 failed\n")
    new = path.read_bytes().removeprefix(start).decode()
    assert new.startswith(f"{photos.absolute()}/d.png,")


def test_a_folder_behind_a_link(photos: Path, run) -> None:
    Path("link").symlink_to(photos)
    path = photos / "metadata.csv"
    start = b"file_name,text\nsub dir/a.png,mine\n"
    path.write_bytes(start)
    code, errors = run("link/sub dir", "--output", "link/metadata.csv", "--missing-only")
    assert (code, errors) == (0, "captioner: 1 captioned, 1 kept as they were, 0 failed\n")
    assert path.read_bytes().removeprefix(start).decode().startswith("sub dir/\xe4 b.png,")


def test_an_empty_file_and_none_are_begun_as_ever(photos: Path, run) -> None:
    Path("new.jsonl").write_bytes(b"\n")
    code, errors = run(str(photos), "--output", "new.jsonl")
    assert (code, "exists, and no .new.jsonl.captioner beside it" in errors) == (2, True)
    assert run(str(photos), "--output", "calm.jsonl")[0] == 1
    for output in ("new.jsonl", "none.jsonl"):
        assert run(str(photos), "--output", output, "--missing-only")[0] == 1
        assert Path(output).read_bytes() == Path("calm.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("folder", "row", "paths", "expected"),
    [
        ("", "sub dir/a.png", ["Meine Fotos/sub dir"], ["sub dir/\xe4 b.png"]),
        ("", "a.png", ["Meine Fotos/a.png", "Meine Fotos/d.png"], ["d.png"]),
        ("", "Meine Fotos/a.png", ["Meine Fotos"], ["Meine Fotos/d.png"]),
        ("..", "Meine Fotos/a.png", ["Meine Fotos"], ["Meine Fotos/d.png"]),
        ("..", "a.png", ["Meine Fotos"], ["d.png"]),
        ("../other", "a.png", ["Meine Fotos"], ["d.png"]),
    ],
)
def test_names_are_relative_to_what_the_names_in_the_file_are(
    photos: Path, run, folder: str, row: str, paths: list[str], expected: list[str]
) -> None:
    path = photos / folder / "metadata.csv"
    path.parent.mkdir(exist_ok=True)
    start = f"file_name,text\n{row},mine\n".encode()
    path.write_bytes(start)
    for name in ("b.jpg", "c \xfcber.png", "z.png"):
        (photos / name).unlink()
    if paths == ["Meine Fotos"]:
        shutil.rmtree(photos / "sub dir")
    code, errors = run(*paths, "--output", str(path), "--missing-only")
    assert (code, errors) == (0, "captioner: 1 captioned, 1 kept as they were, 0 failed\n")
    new = path.read_bytes().removeprefix(start).decode()
    assert [line.split(",")[0] for line in new.splitlines()] == expected


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.jsonl", b'{"file_name": "a.png", "text": "x"}\n{\n', "line 2: is not valid JSON"),
        ("m.jsonl", b"[]\n", "line 1: is not a JSON object"),
        ("m.jsonl", b'{"file_name": 7, "text": "x"}\n', "line 1: has no image name"),
        ("m.jsonl", b'{"file_name": "a.png"}\n', "line 1: has no column text or captions"),
        ("m.csv", b"name,text\n", "line 1: has no column file_name or filename or image"),
        ("m.csv", b"image,text\na.png,x,y\n", "line 2: has 3 cells under 2 headings"),
        ("m.csv", b'image,text\na.png,"x\n', "line 2: is not valid CSV"),
        ("m.csv", b"image,text\na.png,\xff\n", "line 2: is not UTF-8 text"),
        ("m.csv", "image,text\n".encode("utf-16"), "m.csv is UTF-16, not text in UTF-8: "),
        ("m.jsonl", b"PAR1\x15\x04", "m.jsonl is Parquet, not text in UTF-8: --missing-only adds"),
        ("m.csv", b"PK\3\4\x14\0", "m.csv is an archive or a workbook, not text"),
        ("m.parquet", b"PAR1", "m.parquet is Parquet by its name: one file for all images"),
        ("m.xlsx", b"PK\3\4", "m.xlsx is a workbook of Excel by its name"),
        ("m.tsv", b"a.png\tx\n", "--missing-only adds to files of jsonl and csv, not to tsv"),
        ("m.json", b"[]\n", "--missing-only adds to files of jsonl and csv, not to json"),
    ],
)
def test_a_file_to_which_nothing_can_be_added(
    photos: Path, run, name: str, data: bytes, message: str
) -> None:
    Path(name).write_bytes(data)
    code, errors = run(str(photos), "--output", name, "--missing-only")
    assert (code, message in errors, Path(name).read_bytes()) == (2, True, data)
    assert hidden(Path()) == []


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        (
            "m.jsonl",
            '{"image": "a.png", "captions": ["x", "y"]}\n',
            '{"image": "d.png", "captions": [T]}\n',
        ),
        ("m.csv", 'image,captions\na.png,"[""x"", ""y""]"\n', 'd.png,"[T]"\n'),
        ("m.csv", "caption\timage\n\ta.png\nx\ta.png\n", "T\td.png\n"),
    ],
)
def test_texts_that_are_lists_and_rows_in_other_orders(
    photos: Path, run, name: str, start: str, expected: str
) -> None:
    path = photos / name
    path.write_text(start)
    images = [f"{photos}/a.png", f"{photos}/d.png"]
    assert run(*images, "--output", "all.json")[0] == 0
    text = json.loads(Path("all.json").read_bytes())[1]["caption"]
    assert run(*images, "--output", str(path), "--missing-only")[0] == 0
    cell = f'""{text}""' if '"[T]"' in expected else json.dumps(text) if "[T]" in expected else text
    assert path.read_text() == start + expected.replace("T", cell)

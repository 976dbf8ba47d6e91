"""Finding files: exact names in an exact order, whatever folders, links and patterns there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile, other_files, printable
from captioner.images import kinds
from captioner.images.kinds import find_images, images_to_find
from captioner.images.reading import ImageError, read_image
from helpers.images import HEIGHT, WIDTH, noise


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of empty files: finding does not open them. The tests run inside."""
    for name in [
        "2023/a.jpg",
        "2023/b.PNG",
        "2023/notes.txt",
        "2023/.hidden.jpg",
        "2023/._a.jpg",
        "2023/.thumbs/a.jpg",
        "2023/paris/a.jpg",
        "2023/paris/z.webp",
        "2024/a.jpg",
        "2024/raw.dat",
        "empty/readme.txt",
        "odd[1]/x.gif",
        "odd1/y.gif",
        "top.tiff",
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*paths: str | Path) -> list[str]:
    return [file.name for file in find_images(paths)]


def test_a_folder_is_searched_with_its_subfolders_in_the_order_of_the_names(tree: Path) -> None:
    assert list(find_images("2023")) == [
        SourceFile(Path("2023/a.jpg"), "a.jpg", Path("2023")),
        SourceFile(Path("2023/b.PNG"), "b.PNG", Path("2023")),
        SourceFile(Path("2023/paris/a.jpg"), "paris/a.jpg", Path("2023")),
        SourceFile(Path("2023/paris/z.webp"), "paris/z.webp", Path("2023")),
    ]
    assert names(tree / "2023") == names("2023/")


def test_a_file_is_taken_whatever_its_suffix(tree: Path) -> None:
    assert list(find_images(Path("2023/notes.txt"))) == [
        SourceFile(Path("2023/notes.txt"), "notes.txt", None)
    ]
    assert names("2023/.hidden.jpg") == [".hidden.jpg"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        # Equal names in two folders.
        (
            ["2023", "2024"],
            ["2023/a.jpg", "2023/b.PNG", "2023/paris/a.jpg", "2023/paris/z.webp", "2024/a.jpg"],
        ),
        (["2023/a.jpg", "2024/a.jpg"], ["2023/a.jpg", "2024/a.jpg"]),
        # One folder, as a shell gives its files.
        (["2023/a.jpg", "2023/b.PNG"], ["a.jpg", "b.PNG"]),
        # A folder and something beside it.
        (["2024", "top.tiff"], ["2024/a.jpg", "top.tiff"]),
        # One folder inside the other.
        (["2023/paris", "2023"], ["paris/a.jpg", "paris/z.webp", "a.jpg", "b.PNG"]),
        (["2023", "2023/paris"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
    ],
)
def test_names_are_relative_to_the_folder_that_holds_everything_given(
    tree: Path, paths: list[str], expected: list[str]
) -> None:
    assert names(*paths) == expected


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["2023", "2023"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (["2023/b.PNG", "2023/b.PNG"], ["b.PNG"]),
        (["2023/b.PNG", "2023"], ["b.PNG", "a.jpg", "paris/a.jpg", "paris/z.webp"]),
        (["2023", "2023/paris/a.jpg"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (
            ["2023", "2023/notes.txt"],
            ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp", "notes.txt"],
        ),
        (["2023/*.jpg", "2023"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (["2023", "2023/**/*.jpg"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        (["2023/**/a.jpg", "2023/*.jpg"], ["a.jpg", "paris/a.jpg"]),
        (["2023/*.jpg", "2023/a.jpg"], ["a.jpg"]),
        (["2023/../2023/a.jpg", "2023"], ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
    ],
)
def test_a_file_that_several_paths_lead_to_is_listed_once(
    tree: Path, paths: list[str], expected: list[str]
) -> None:
    assert names(*paths) == expected
    absolute = [str(tree / path) if index else path for index, path in enumerate(paths)]
    assert names(*absolute) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("2023/*.jpg", ["a.jpg"]),
        ("2023/*", ["a.jpg", "b.PNG"]),
        ("2023/?.PNG", ["b.PNG"]),
        ("2023/[a-b].*", ["a.jpg", "b.PNG"]),
        ("2024/*.dat", ["raw.dat"]),
        ("2023/.*.jpg", ["._a.jpg", ".hidden.jpg"]),
        ("20*/a.jpg", ["2023/a.jpg", "2024/a.jpg"]),
        ("**/a.jpg", ["2023/a.jpg", "2023/paris/a.jpg", "2024/a.jpg"]),
        ("2023/**", ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp"]),
        ("**/paris/*.webp", ["2023/paris/z.webp"]),
        ("**/**/z.*", ["2023/paris/z.webp"]),
        ("odd[1-2]/*", ["odd1/y.gif"]),
        # A folder's real name comes before what it means as a pattern.
        ("odd[1]", ["x.gif"]),
        ("odd[1]/*", ["x.gif"]),
        ("odd[[]1]/*", ["odd[1]/x.gif"]),
    ],
)
def test_patterns(tree: Path, pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected


def test_the_name_of_a_pattern_starts_behind_its_fixed_folders(tree: Path) -> None:
    (file,) = find_images(["2023/par*/z.webp"])
    assert file == SourceFile(Path("2023/paris/z.webp"), "paris/z.webp", Path("2023"))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["nowhere"], "nowhere does not exist: check the path"),
        (["2023", "nowhere/x.jpg"], "nowhere/x.jpg does not exist"),
        (["top.tiff/x.jpg"], "top.tiff/x.jpg does not exist"),
        (["empty"], r"empty holds no image files \(\.jpg \.jpeg"),
        (["2023", "empty"], "empty holds no image files"),
        (["odd[1]/gone.jpg"], r"odd\[1\]/gone\.jpg matches no image files"),
        (["2023/*.gif"], r"2023/\*\.gif matches no image files"),
        (["nowhere/*.gif"], r"nowhere/\*\.gif matches nothing: nowhere is not a folder"),
        (["*/../2023/a.jpg"], r"'\.\.' after a wildcard"),
        ([""], "'' is not a path"),
        (["a\0b"], "is not a path"),
        ([], "no images given"),
    ],
)
def test_mistakes_are_told_before_anything_is_listed(
    tree: Path, paths: list[str], message: str
) -> None:
    with pytest.raises(CaptionerError, match=message):
        find_images(paths)


def test_a_link_to_nothing(tree: Path) -> None:
    Path("2024/dead.jpg").symlink_to("gone.jpg")
    with pytest.raises(CaptionerError, match=r"2024/dead\.jpg is a link to nothing"):
        find_images("2024/dead.jpg")
    # In a folder it is a bad file among others, and not passed over.
    assert names("2024") == ["a.jpg", "dead.jpg"]


def test_links_to_folders_are_followed_once_and_never_in_circles(tree: Path) -> None:
    Path("2023/again").symlink_to(".")
    Path("2023/up").symlink_to("..")
    Path("2023/zz").symlink_to("../2024")
    Path("2024/back").symlink_to("../2023")
    Path("2024/twice").symlink_to("../2023")
    Path("2024/self").symlink_to("self")
    assert names("2024") == [
        "a.jpg",
        "back/a.jpg",
        "back/b.PNG",
        "back/paris/a.jpg",
        "back/paris/z.webp",
    ]
    assert names("2023") == ["a.jpg", "b.PNG", "paris/a.jpg", "paris/z.webp", "zz/a.jpg"]
    assert names("2023/**/a.jpg") == ["a.jpg", "paris/a.jpg", "zz/a.jpg"]


def test_a_link_to_a_file_named_as_well_is_the_same_file(tree: Path) -> None:
    Path("2024/link.jpg").symlink_to("../2023/a.jpg")
    assert names("2024") == ["a.jpg", "link.jpg"]
    assert names("2023/a.jpg", "2024") == ["2023/a.jpg", "2024/a.jpg"]
    assert names("2023/a.jpg", "2024/link.jpg") == ["2023/a.jpg"]


def test_special_files_in_a_folder_are_listed_to_be_refused(tree: Path) -> None:
    os.mkfifo("2024/pipe.jpg")
    Path("2024/folder.jpg").mkdir()
    assert names("2024") == ["a.jpg", "pipe.jpg"]


def test_a_folder_that_cannot_be_read(shared_folder: Path, without_privileges) -> None:
    (shared_folder / "a.jpg").touch()
    (shared_folder / "closed").mkdir()
    (shared_folder / "closed" / "b.jpg").touch()
    (shared_folder / "closed").chmod(0)
    with without_privileges():
        with pytest.raises(CaptionerError, match="closed cannot be read: permission denied"):
            find_images(shared_folder / "closed")
        # Below a folder it is listed, so that reading it gives an error record.
        assert names(shared_folder) == ["a.jpg", "closed"]


def test_folders_are_listed_only_when_they_are_reached(tree: Path) -> None:
    files = find_images(["2023", "2024"])
    assert next(files).name == "2023/a.jpg"
    Path("2024/late.jpg").touch()
    assert [file.name for file in files][-1] == "2024/late.jpg"


def test_names_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fsencode(tmp_path) + b"/gr\xfcn\xff.png"
    noise().save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", path)
    (file,) = find_images(tmp_path)
    assert file.name == "gr\\xfcn\\xff.png"
    assert file.name.encode("utf-8")
    assert read_image(file.path).size == (WIDTH, HEIGHT)
    assert printable(os.fsdecode(path)) == f"{tmp_path}/gr\\xfcn\\xff.png"
    file.path.write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        read_image(file.path)
    assert str(caught.value).encode("utf-8").endswith(b"gr\\xfcn\\xff.png: empty file")


PAIRS = ["A.JPG", "a.nef", "b.dng", "c.arw", "c.heic", "d.jxl", "d.raw", "sub/a.jpg", "sub/b.cr3"]


@pytest.mark.parametrize(
    ("raw", "exclude", "expected"),
    [
        ("alone", [], ["A.JPG", "b.dng", "c.heic", "d.jxl", "sub/a.jpg", "sub/b.cr3"]),
        ("alone", ["*.JPG"], ["a.nef", "b.dng", "c.heic", "d.jxl", "sub/a.jpg", "sub/b.cr3"]),
        ("all", [], [name for name in PAIRS if name != "d.raw"]),
        ("none", [], ["A.JPG", "c.heic", "d.jxl", "sub/a.jpg"]),
    ],
)
def test_of_a_raw_photo_and_its_jpeg_the_jpeg_is_taken(
    tmp_path: Path, raw: str, exclude: list[str], expected: list[str]
) -> None:
    (tmp_path / "sub").mkdir()
    for name in PAIRS:
        (tmp_path / name).touch()
    assert [file.name for file in find_images(tmp_path, exclude, raw)] == expected
    others = sorted(
        path.relative_to(tmp_path).as_posix()
        for path in other_files([tmp_path], images_to_find(raw), exclude)
    )
    left_out = {"A.JPG"} if exclude else set()
    assert others == sorted(set(PAIRS) - set(expected) - left_out)


def test_a_raw_photo_that_is_named_is_taken_beside_its_jpeg(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.nef", "b.nef"):
        (tmp_path / name).touch()
    for paths, expected in (
        ([tmp_path, tmp_path / "a.nef"], ["a.jpg", "b.nef", "a.nef"]),
        ([tmp_path / "a.nef", tmp_path], ["a.nef", "a.jpg", "b.nef"]),
        ([tmp_path / "*.nef"], ["a.nef", "b.nef"]),
        ([tmp_path / "a.*"], ["a.jpg"]),
        ([tmp_path / "*.n*"], ["a.nef", "b.nef"]),
    ):
        assert [file.name for file in find_images(paths)] == expected, paths


def test_without_their_extras_heic_is_listed_to_say_so_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PAIRS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(kinds, "is_installed", lambda module: False)
    assert [file.name for file in find_images(tmp_path)] == ["A.JPG", "c.heic", "sub/a.jpg"]


def test_a_choice_of_raw_photos_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="raw='some': choose from alone, all, none"):
        find_images(".", raw="some")

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data.datasets import CaptionData, Example, load_caption_data
from captioner.errors import CaptionerError
from helpers.captioned import captions, photos, splits, write


def test_flickr_reads_captions_in_order_with_their_splits(flickr: Path) -> None:
    data = load_caption_data(flickr)
    assert data == CaptionData(
        "flickr",
        flickr,
        (
            # Two annotators wrote the same: both stay, as in the published reference sets.
            Example("a.jpg", flickr / "Images/a.jpg", ("A dog runs .", "A dog runs ."), "train"),
            Example("b.jpg", flickr / "Images/b.jpg", ("Two cats .",), "dev"),
            Example("c.jpg", flickr / "Images/c.jpg", ("A man .",), "test"),
        ),
        (),
    )
    assert data.splits == {"train": 1, "dev": 1, "test": 1}
    assert data.name == flickr.name


def test_flickr_with_bom_crlf_and_blank_lines(flickr: Path) -> None:
    before = load_caption_data(flickr)
    for file in flickr.glob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n") + b"\r\n")
    assert load_caption_data(flickr) == before


def test_flickr_counts_what_it_leaves_out(flickr: Path) -> None:
    with (flickr / "Flickr8k.token.txt").open("a") as file:
        file.write("d.jpg.1#0\tAn odd one .\nd.jpg.1#1\tAn odd one .\n")
        file.write("c.jpg#1\t \na.jpg#0\tA dog runs .\nunlisted.jpg#0\tA fish .\ne.jpg#0\t\n")
    photos(flickr / "Images", "unlisted.jpg", "e.jpg")
    write(flickr / "Flickr_8k.testImages.txt", "c.jpg\nz.jpg\n")
    token = flickr / "Flickr8k.token.txt"
    data = load_caption_data(flickr)
    assert data.warnings == (
        f"2 empty captions dropped (first: {token}, line 7)",
        f"1 repeated caption dropped (first: {token}, line 8)",
        "1 image of the split lists without a caption "
        f"(first: {flickr / 'Flickr_8k.testImages.txt'}, line 2)",
        "1 image without a caption left out (first: e.jpg)",
        "1 image not found (first: d.jpg.1)",
        "1 image in no split, so never used (first: unlisted.jpg)",
    )
    assert captions(data)["a.jpg"] == ("A dog runs .", "A dog runs .")
    assert splits(data) == {"a.jpg": "train", "b.jpg": "dev", "c.jpg": "test", "unlisted.jpg": None}


def test_flickr_image_in_two_splits_is_an_error(flickr: Path) -> None:
    write(flickr / "Flickr_8k.devImages.txt", "b.jpg\na.jpg\n")
    # Split lists are read in the order of their names: dev, test, train.
    with pytest.raises(
        CaptionerError, match=r"trainImages.txt, line 1: the image 'a.jpg' .* 'train' and in 'dev'"
    ):
        load_caption_data(flickr)


def test_flickr_without_split_files(flickr: Path) -> None:
    for file in flickr.glob("*Images.txt"):
        file.unlink()
    data = load_caption_data(flickr)
    assert set(splits(data).values()) == {None}
    assert data.splits == {} and data.warnings == ()
    with pytest.raises(CaptionerError, match="no image here belongs to any split.*with_random"):
        data.split("train")


def test_flickr_bad_line_is_named(flickr: Path) -> None:
    write(flickr / "Flickr8k.token.txt", "a.jpg#0\tA dog .\na.jpg A cat\n")
    with pytest.raises(CaptionerError, match=r"token.txt, line 2: 'a.jpg A cat' is not name#num"):
        load_caption_data(flickr)


def test_flickr_bytes_that_are_not_utf8_are_named(flickr: Path) -> None:
    write(flickr / "Flickr8k.token.txt", b"a.jpg#0\tA dog .\nb.jpg#0\tA caf\xe9 .\n")
    with pytest.raises(CaptionerError, match=r"token.txt, line 2: byte 0xe9 is not UTF-8.*iconv"):
        load_caption_data(flickr)


@pytest.mark.parametrize("folder", ["Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset"])
def test_flickr_as_the_archives_unpack_it(tmp_path: Path, folder: str) -> None:
    photos(tmp_path / folder, "a.jpg")
    write(tmp_path / "Flickr8k_text/Flickr8k.token.txt", "a.jpg#0\tA dog .\n")
    write(tmp_path / "Flickr8k_text/Flickr_8k.trainImages.txt", "a.jpg\n")
    data = load_caption_data(tmp_path)
    assert data.examples == (Example("a.jpg", tmp_path / folder / "a.jpg", ("A dog .",), "train"),)
    # The annotation file itself as the root finds the images of the folder above.
    from_file = load_caption_data(tmp_path / "Flickr8k_text/Flickr8k.token.txt")
    assert from_file.examples == data.examples


def test_flickr30k_token_file_with_number_only_split_lists(tmp_path: Path) -> None:
    photos(tmp_path / "flickr30k_images", "1.jpg", "2.jpg")
    write(tmp_path / "results_20130124.token", "1.jpg#0\tA dog .\n2.jpg#0\tA cat .\n")
    write(tmp_path / "flickr30k_train.txt", "1\n")
    write(tmp_path / "flickr30k_val.txt", "2\n")
    data = load_caption_data(tmp_path)
    assert data.format == "flickr"
    assert splits(data) == {"1.jpg": "train", "2.jpg": "dev"}


def test_flickr_kaggle_captions_txt(tmp_path: Path) -> None:
    photos(tmp_path / "Images", "a.jpg")
    write(
        tmp_path / "captions.txt",
        'image,caption\na.jpg,A dog .\na.jpg,"A dog , wet , runs ."\na.jpg,A dog .\n'
        'a.jpg,"""Hi"" it says ."\n',
    )
    data = load_caption_data(tmp_path)
    assert data.format == "flickr"
    assert captions(data) == {
        "a.jpg": ("A dog .", "A dog , wet , runs .", "A dog .", '"Hi" it says .')
    }
    assert data.warnings == ()


def test_flickr_kaggle_results_csv_with_its_broken_line(tmp_path: Path) -> None:
    nested = tmp_path / "flickr30k_images"  # as that archive unpacks
    photos(nested / "flickr30k_images", "a.jpg")
    results = write(
        nested / "results.csv",
        "image_name| comment_number| comment\na.jpg| 0| Two men , one old | tall .\n"
        "a.jpg| 4   A dog runs .\n",
    )
    data = load_caption_data(tmp_path)
    assert data.format == "flickr"
    assert captions(data) == {"a.jpg": ("Two men , one old | tall .", "A dog runs .")}
    assert data.warnings == (
        f"1 line without its second separator repaired (first: {results}, line 3)",
    )
    write(results, "image_name| comment_number| comment\na.jpg A dog runs\n")
    with pytest.raises(CaptionerError, match=r"results.csv, line 2: 'a.jpg A dog runs' is not im"):
        load_caption_data(tmp_path)


def test_flickr30k_with_commas(tmp_path: Path) -> None:
    photos(tmp_path / "flickr30k_images", "a.jpg", "b.jpg")
    rows = [
        "image_name,comment_number,comment",
        "a.jpg,0, Two men , one old , talk .",
        'a.jpg,1," Two ""men"" , again ."',
        "b.jpg, 4   A dog , wet .",
    ]
    file = write(tmp_path / "results.csv", "\r\n".join(rows))
    data = load_caption_data(tmp_path)
    assert data.format == "flickr"
    assert captions(data) == {
        "a.jpg": ("Two men , one old , talk .", 'Two "men" , again .'),
        "b.jpg": ("A dog , wet .",),
    }
    assert data.warnings == (
        f"1 line without its second separator repaired (first: {file}, line 4)",
    )
    for name in ("captions.txt", "flickr30k.csv"):
        file = file.rename(tmp_path / name)
        assert captions(load_caption_data(tmp_path)) == captions(data)
    write(file, "image_name,comment_number,comment\na.jpg,0\n")
    with pytest.raises(CaptionerError, match=r"flickr30k.csv, line 2: 'a.jpg,0' is not image_na"):
        load_caption_data(tmp_path)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("image_name,comment_number,comment", 'a.jpg,0,"A dog , ""wet"" , runs ."'),
        ("image_name, comment_number, comment", 'a.jpg, 0, "A dog , ""wet"" , runs ."'),
        ("image_name, comment_number, comment", 'a.jpg, 0, A dog , "wet" , runs .'),
        ('"image_name","comment_number","comment"', '"a.jpg","0","A dog , ""wet"" , runs ."'),
        (",image_name,comment_number,comment", '7,a.jpg,0,"A dog , ""wet"" , runs ."'),
        ("image_name;comment_number;comment", 'a.jpg;0;"A dog , ""wet"" , runs ."'),
        ("image_name\tcomment_number\tcomment", 'a.jpg\t0\t"A dog , ""wet"" , runs ."'),
        ("image_name| comment_number| comment", 'a.jpg| 0| A dog , "wet" , runs .'),
        ("Image_Name|Comment_Number|Comment", 'a.jpg|0|A dog , "wet" , runs .'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_flickr30k_tables(tmp_path: Path, header: str, row: str, encoding: str) -> None:
    photos(tmp_path / "flickr30k-images", "a.jpg")
    write(tmp_path / "captions.txt", f"{header}\r\n{row}\r\n".encode(encoding))
    data = load_caption_data(tmp_path)
    assert (data.format, data.warnings) == ("flickr", ())
    assert captions(data) == {"a.jpg": ('A dog , "wet" , runs .',)}


@pytest.mark.parametrize("name", ["captions_all.txt", "results_20130124.txt", "results.txt"])
def test_flickr30k_tables_under_other_names(tmp_path: Path, name: str) -> None:
    photos(tmp_path / "images", "a.jpg")
    write(tmp_path / name, "image_name| comment_number| comment\na.jpg| 0| A dog .\n")
    assert captions(load_caption_data(tmp_path)) == {"a.jpg": ("A dog .",)}

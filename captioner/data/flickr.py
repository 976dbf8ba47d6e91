"""The caption files of Flickr8k and Flickr30k, as published and as Kaggle has them."""

from __future__ import annotations

import re
from pathlib import Path

from captioner.data.entries import SPLIT_WORD, TEXT_FOLDERS, Entries
from captioner.data.text_files import csv_rows, files_of, first_line, only_one, text_lines
from captioner.errors import CaptionerError

_SPLIT_FILE = re.compile(
    rf"(?:flickr_?(?:8k|30k)[._-])?({SPLIT_WORD})[._-]?(?:images|ids)?\.txt", re.IGNORECASE
)

_PATTERNS = (
    *("*.token.txt", "*.token", "captions.txt", "results.csv", "*.csv"),
    *("captions*.txt", "results*.txt"),
)
_RESULTS = re.compile(r"(?:[,;\t])?image_name([|,;\t])comment_number\1comment")


def flickr_kind(file: Path) -> str | None:
    """`token`, `kaggle` (image,caption), `results` (image_name| comment_number| comment), `table`.

    `table` is `results` with commas, semicolons or tabs, and quotes around texts that need them.
    """
    first = first_line(file)
    if re.match(r"[^\t]+#\d+\t", first):
        return "token"
    header = re.sub(r'[ "]', "", first.lower())
    if header == "image,caption" and file.suffix.lower() != ".csv":
        return "kaggle"
    if (match := _RESULTS.fullmatch(header)) is None:
        return None
    return "results" if match[1] == "|" else "table"


def find_flickr(root: Path) -> list[Path]:
    """The caption files in the folder, or the file itself if it is one."""
    if root.is_file():
        return [root] if flickr_kind(root) else []
    for folder in (root, *(root / name for name in TEXT_FOLDERS)):
        for pattern in _PATTERNS:
            # The Flickr8k archive holds a second, lemmatised copy of the captions.
            files = [f for f in files_of(folder, pattern) if ".lemma." not in f.name.lower()]
            if files := [f for f in files if flickr_kind(f)]:
                return files
    return []


def read_flickr(files: list[Path], entries: Entries) -> None:
    """Read the captions, and the split lists beside them.

    Raises:
        CaptionerError: several files, or a broken line (named).
    """
    file = only_one(files, "flickr")
    kind = flickr_kind(file)
    readers = {"token": _flickr_token, "kaggle": _flickr_kaggle}
    readers |= {"results": _flickr_results, "table": _flickr_table}
    if kind is None:
        raise CaptionerError(f"{file}: not a caption file of Flickr8k or Flickr30k")
    readers[kind](file, entries)
    for folder in dict.fromkeys((file.parent, entries.base)):
        for split_file in files_of(folder, "*.txt"):
            if match := _SPLIT_FILE.fullmatch(split_file.name):
                _flickr_split(split_file, match[1], entries)


def _flickr_token(file: Path, entries: Entries) -> None:
    for number, line in text_lines(file):
        head, _, caption = line.partition("\t")
        name, _, key = head.rpartition("#")  # a name may have more of them
        if not (name and key.strip().isdecimal()):
            raise CaptionerError(
                f"{file}, line {number}: {line[:60]!r} is not name#number<TAB>caption"
            )
        entries.add(name, caption, f"{file}, line {number}", key.strip())


def _flickr_kaggle(file: Path, entries: Entries) -> None:
    for index, (number, row) in enumerate(csv_rows(file, ",")):
        if len(row) < 2:
            raise CaptionerError(f"{file}, line {number}: {row[0][:60]!r} is not image,caption")
        if index:  # Its captions have no numbers: each row is one annotator's, so each is kept.
            entries.add(row[0], ",".join(row[1:]), f"{file}, line {number}", index)


def _flickr_results(file: Path, entries: Entries) -> None:
    for number, line in list(text_lines(file))[1:]:
        _add_result(line.split("|"), "|", f"{file}, line {number}", entries)


def _flickr_table(file: Path, entries: Entries) -> None:
    mark = max(",;\t", key=first_line(file).count)
    (_, header), *rows = csv_rows(file, mark)
    index_columns = 0 if header[0].strip() else 1  # pandas writes one without a heading
    for number, cells in rows:
        row = cells[index_columns:]
        text = mark.join(row[2:])
        # Quotes behind a blank are not seen as those around a cell.
        if match := re.fullmatch(r'\s+"((?:[^"]|"")*)"\s*', text):
            row[2:] = [match[1].replace('""', '"')]
        _add_result(row, mark, f"{file}, line {number}", entries)


def _add_result(cells: list[str], mark: str, where: str, entries: Entries) -> None:
    """Add a line's cells; a caption may have the mark between cells in it."""
    name, key, *rest = (*cells, "")[: max(2, len(cells))]
    # The published file lacks one separator: "2199200615.jpg| 4   A dog runs across ..."
    if match := re.fullmatch(r"\s*(\d+)\s+(\S.*)", key):
        key, rest = match[1], [match[2], *rest]
        entries.count("line{s} without its second separator repaired", where)
    elif not rest:
        raise CaptionerError(
            f"{where}: {mark.join(cells)[:60]!r} is not image_name, comment_number, comment"
        )
    entries.add(name, mark.join(rest), where, key.strip())


def _flickr_split(file: Path, split: str, entries: Entries) -> None:
    for number, line in text_lines(file):
        # Some published lists give the photo's number without ".jpg".
        names = (entries.resolve(n) for n in (line, line.strip() + ".jpg"))
        known = next((n for n in names if n in entries.captions), None)
        if known is None:
            entries.count("image{s} of the split lists without a caption", f"{file}, line {number}")
        else:
            entries.assign(known, split, f"{file}, line {number}")

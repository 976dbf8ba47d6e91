"""What several commands of the command line share: options, their types, lines to the user."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from captioner.errors import CaptionerError
from captioner.files.escaping import shown

if TYPE_CHECKING:
    from captioner.decoding.options import DecodingOptions
    from captioner.files.kinds import FileKind
    from captioner.model.caption_model import CaptionModel

Options = TypeVar("Options")


def words_of(text: str) -> tuple[str, ...]:
    """The type of an option that lists words, with commas between them; none is allowed."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


# Option, type, metavar, help. The defaults are DecodingOptions' own: an option that is not given
# is not passed on, and a test compares the numbers in the help with them.
DECODING_ARGUMENTS: tuple[tuple[str, Any, str, str], ...] = (
    ("beam_size", int, "K", "beams of the search; 1 is greedy (default: 3)"),
    ("max_length", int, "T", "maximum number of words in a caption (default: 20)"),
    (
        "length_penalty",
        float,
        "A",
        "score = log-probability / length**A; 0 prefers short captions (default: 0.7)",
    ),
    (
        "no_repeat_ngram",
        int,
        "N",
        "never repeat N words in a row, nor say 'white and white'; 0 allows both (default: 2)",
    ),
    (
        "joining_words",
        words_of,
        "WORDS",
        "comma-separated words that never join a word with itself (default: and)",
    ),
    (
        "tag_weight",
        float,
        "W",
        "weight of the model's tag classifier in the choice of words (default: 0.0)",
    ),
    (
        "style",
        str,
        "NAME",
        "how captions are written, for a model that knows several styles (default: its first)",
    ),
)
SAMPLING_ARGUMENTS: tuple[tuple[str, Any, str, str], ...] = (
    ("temperature", float, "X", "below 1 more cautious, above 1 bolder (default: 1.0)"),
    ("top_k", int, "N", "draw from the N most probable words; 0 for all (default: 0)"),
    ("top_p", float, "P", "draw from the words that make up P of the probability (default: 1.0)"),
    ("seed", int, "N", "the same seed gives the same captions (default: 0)"),
)


# --- options -------------------------------------------------------------------------------


def add_decoding(
    parser: argparse.ArgumentParser,
    explanation: str = "A model file can have its own defaults, which replace these.",
) -> argparse._ArgumentGroup:
    """The options of the search for captions; more can be added to the group."""
    group = parser.add_argument_group("decoding", explanation)
    add_arguments(group, DECODING_ARGUMENTS)
    return group


def add_exclude(parser: argparse.ArgumentParser) -> None:
    """The option of what is left out of folders, in the group of the paths."""
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave this out of folders; may be given again. Written as in a .gitignore file: "
        "'*.png', 'drafts/', '/2023/*.tif'; a file .captionerignore in a folder holds such lines. "
        "Folders of thumbnails and waste bins (@eaDir, #recycle, $RECYCLE.BIN, __MACOSX, *.lrdata) "
        "are left out anyway. Paths that you name are never left out",
    )


def add_raw(parser: argparse.ArgumentParser) -> None:
    """The option that selects the raw photos of the folders."""
    from captioner.images.kinds import RAW_CHOICES

    parser.add_argument(
        "--raw",
        choices=RAW_CHOICES,
        default=RAW_CHOICES[0],
        help="raw photos in folders (.cr3, .nef, .arw, .dng ...), which are read with the extra "
        "captioner[raw]. alone (default): those without a JPEG or another image of the same name; "
        "all; none. Files that you name are always taken",
    )


def add_arguments(
    group: argparse._ArgumentGroup, arguments: Iterable[tuple[str, Any, str, str]]
) -> None:
    """Options from a table; those that are not given do not appear among the arguments."""
    for name, kind, metavar, text in arguments:
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=text,
        )


def add_model(
    parser: argparse.ArgumentParser, batch_size: int | None = 32, workers: bool = True
) -> None:
    """The options of model, device and batches; None for what works on one image at a time."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="default",
        metavar="FILE",
        help="model file; or flickr8k, the shipped model that knows only people and dogs "
        "(default: the shipped model that knows more)",
    )
    group.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)"
    )
    group.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default="auto",
        help="of the CNN; auto is bf16 on GPUs that support it, else fp32",
    )
    if batch_size is None:
        return
    group.add_argument(
        "--batch-size",
        type=at_least(1),
        default=batch_size,
        metavar="B",
        help=f"images at once (default: {batch_size})",
    )
    if not workers:
        return
    group.add_argument(
        "--workers",
        type=at_least(0),
        default=2,
        metavar="N",
        help="threads that read images while the model works (default: 2)",
    )


def add_data(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The options of captioned images on disk; ``several`` for more than one data set."""
    from captioner.data.datasets import FORMATS

    data = parser.add_argument_group("data")
    more = "; may be given again, for several data sets together" if several else ""
    data.add_argument(
        "--data",
        required=True,
        action="append" if several else "store",
        metavar="PATH",
        help=f"folder or annotation file{more}",
    )
    data.add_argument(
        "--format",
        choices=["auto", *FORMATS],
        default="auto",
        help="layout of the data (default: auto, by its files); data/README.md explains each",
    )
    data.add_argument("--images", metavar="DIR", help="folder of the images, if it is elsewhere")
    data.add_argument(
        "--sidecar-suffix",
        metavar="SUFFIX",
        help="what the text files beside the images end in (default: .txt, else .caption, else "
        "what captioner has written there)",
    )
    data.add_argument("--split", default="dev", help="which images (default: dev)")
    data.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N images")


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of an option that is a whole number."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least {minimum}")
        return value

    return convert


_MOMENT = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


def moment(text: str) -> float:
    """The type of an option that is a time in a video: seconds, mm:ss or hh:mm:ss; in seconds."""
    found = _MOMENT.fullmatch(text.strip())
    hours, minutes, seconds = found.groups(default="0") if found else ("0", "0", "inf")
    is_in_range = float(seconds) < 60 or (found is not None and found[2] is None)
    if found is None or not is_in_range or (found[1] is not None and int(minutes) >= 60):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give seconds, mm:ss or hh:mm:ss, such as 90, 1:30 or 0:01:30.5"
        )
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def share(text: str) -> float:
    """The type of an option from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to 1")
    return value


def list_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that lists some of these names, with commas between them."""

    def convert(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        unknown = [name for name in given if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{', '.join(map(repr, unknown))}: choose from {', '.join(names)}"
            )
        return given

    return convert


def decoding_options(
    args: argparse.Namespace, own: DecodingOptions | None = None
) -> DecodingOptions:
    """What `add_decoding` found, checked; what is not given is as the model's ``own`` options say.

    Without ``own``, the options can be checked before the model is loaded.
    """
    from captioner.decoding.options import DecodingOptions

    return options_of(DecodingOptions, "decoding options", args, own)


def options_of(
    kind: type[Options], what: str, args: argparse.Namespace, base: Options | None = None
) -> Options:
    """The options of a dataclass out of the arguments that have its fields' names.

    What is not given is as in ``base``, or by default.
    """
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    given = {name: value for name, value in vars(args).items() if name in names}
    try:
        return kind(**given) if base is None else replace(base, **given)  # type: ignore[type-var]
    except ValueError as error:
        raise CaptionerError(f"{what}: {error}") from error


def check_outputs(paths: Iterable[Path], overwrite: bool) -> None:
    """Refuse files to write that would replace something unasked.

    Raises:
        CaptionerError: a path is not a regular file, or one that already exists.
    """
    for path in paths:
        output = f"output {shown(path)}"
        if path.is_dir():
            raise CaptionerError(f"{output} is a folder; give the path of a file")
        if path.exists() and not path.is_file():
            # Written under another name and renamed: that would replace a device or a pipe.
            raise CaptionerError(f"{output} is not a regular file; choose another path")
        if path.exists() and not overwrite:
            raise CaptionerError(f"{output} already exists; pass --overwrite to replace it")


# --- lines ---------------------------------------------------------------------------------


def shown_lines(text: object) -> str:
    """A message, its lines kept: names and values in it may hold what would steer a terminal."""
    return "\n".join(map(shown, str(text).split("\n")))


def say(line: str) -> None:
    """A line on standard error, also while a progress bar is shown there."""
    from tqdm import tqdm

    tqdm.write(shown_lines(line), file=sys.stderr)


NOT_CALIBRATED = (
    "the model is not calibrated: a confidence is the geometric mean of the words' probabilities, "
    "higher than the share of right words; `captioner calibrate` measures that"
)


def say_if_calibration_was_lost(model: CaptionModel, *, wanted: bool) -> None:
    """One line for a model whose training made the calibration of its start untrue.

    Args:
        model: the captioner.
        wanted: whether the user wants to know.
    """
    from captioner.model.description import has_lost_calibration

    if wanted and has_lost_calibration(model):
        say(f"captioner: {NOT_CALIBRATED}")


def say_what_was_passed_over(
    paths: Sequence[str],
    kind: FileKind,
    exclude: Sequence[str],
    notes: Mapping[str, str] | None = None,
    *,
    wanted: bool,
) -> None:
    """One line on the other files of the folders, by kind; often none.

    Args:
        paths: of the command.
        kind: what folders were searched for.
        exclude: what was left out on purpose.
        notes: what there is to say of a kind of file: how it would be read.
        wanted: whether the user wants to know.
    """
    from captioner.files.finding import other_files
    from captioner.files.recognising import VIDEO, recognise

    if not wanted:
        return
    suffixes: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    try:
        others = list(other_files(paths, kind, exclude))
    except CaptionerError:
        return  # What was named is gone by now, and has been done.
    for path in others:
        found = recognise(path)
        if found is not None and (found == VIDEO or kind.noun == "image"):
            counts[found] += 1
            suffixes.setdefault(found, set()).add(path.suffix.lower() or "no suffix")
    if counts:
        parts = []
        for name, count in sorted(counts.items()):
            about = " ".join(sorted(suffixes[name]))
            if notes and name in notes:
                about += f"; {notes[name]}"
            plural = "" if name[0].isupper() or count == 1 else "s"
            parts.append(f"{count} {name}{plural} ({about})")
        say(f"captioner: passed over in folders: {', '.join(parts)}")

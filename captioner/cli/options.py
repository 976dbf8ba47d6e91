"""What several commands of the command line share: options, their types, lines to the user."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.options import Description, described

if TYPE_CHECKING:
    from captioner.data.datasets import CaptionData
    from captioner.data.options import DataOptions
    from captioner.decoding.options import DecodingOptions
    from captioner.files.kinds import FileKind
    from captioner.model.caption_model import CaptionModel

Options = TypeVar("Options")
Arguments: TypeAlias = "argparse.ArgumentParser | argparse._ArgumentGroup"


# --- options -------------------------------------------------------------------------------


def add_options(group: Arguments, kind: type, *names: str) -> None:
    """Options of the fields of a dataclass, for `options_of`.

    Args:
        group: gets the options. Those that are not given do not appear among the arguments.
        kind: a dataclass with fields made by `captioner.options.option`.
        names: of the fields; all of them if none is given.
    """
    for name in names or described(kind):
        add_option(group, kind, name)


def add_option(group: Arguments, kind: type, name: str, **how: Any) -> None:
    """An option of one field of a dataclass, for `options_of`.

    Args:
        group: gets the option.
        kind: a dataclass with fields made by `captioner.options.option`.
        name: of the field.
        how: what `argparse` is to do otherwise than the description says.
    """
    description, default = described(kind)[name]
    keywords: dict[str, Any] = {"default": argparse.SUPPRESS, "help": description.help}
    if stated := _default_text(kind, name):
        keywords["help"] += f" (default: {stated})"
    if description.kind is bool:
        keywords["action"] = argparse.BooleanOptionalAction if default else "store_true"
    elif description.choices:
        keywords["choices"] = description.choices
    elif description.kind is not tuple:
        keywords["type"] = value_of(description)
    elif not how.keys() & {"action", "nargs"}:
        keywords["type"] = words_of
    if description.metavar is not None:
        keywords["metavar"] = description.metavar
    group.add_argument(flag_of(kind, name), dest=name, **(keywords | how))


def _default_text(kind: type, name: str) -> str:
    """What the help calls the default of a field; empty: nothing."""
    description, default = described(kind)[name]
    if description.default_text is not None:
        return description.default_text
    if default is None or default is False:
        return ""
    if default is True:
        return flag_of(kind, name)
    if description.kind is tuple:
        return ",".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def flag_of(kind: type, name: str) -> str:
    """What the command line calls a field of a dataclass of options."""
    return described(kind)[name][0].flag or "--" + name.replace("_", "-")


def add_decoding(
    parser: argparse.ArgumentParser,
    explanation: str = "A model file can have its own defaults, which replace these.",
) -> argparse._ArgumentGroup:
    """The options of the search for captions; more can be added to the group."""
    from captioner.decoding.options import DecodingOptions

    group = parser.add_argument_group("decoding", explanation)
    names = ("beam_size", "max_length", "length_penalty", "no_repeat_ngram", "joining_words")
    add_options(group, DecodingOptions, *names, "tag_weight", "style")
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


def add_model(
    parser: argparse.ArgumentParser, *, has_batches: bool = False
) -> argparse._ArgumentGroup:
    """The options for `model_of`, and where a command has batches, those for `BatchOptions`."""
    from captioner.model.options import BatchOptions, ModelOptions

    group = parser.add_argument_group("model")
    add_options(group, ModelOptions)
    if has_batches:
        add_options(group, BatchOptions)
    return group


def add_data(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The options of captioned images on disk; ``several`` for more than one data set."""
    from captioner.data.options import DataOptions

    data = parser.add_argument_group("data")
    more = "; may be given again, for several data sets together" if several else ""
    data.add_argument(
        "--data",
        required=True,
        action="append" if several else "store",
        metavar="PATH",
        help=f"folder or annotation file{more}",
    )
    add_options(data, DataOptions)


def words_of(text: str) -> tuple[str, ...]:
    """The type of an option that lists words, with commas between them; none is allowed."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


def value_of(description: Description) -> Callable[[str], Any]:
    """The type of an option: a text or a number, within the bounds of its description."""
    if description.kind is str:
        return str

    def convert(text: str) -> Any:
        try:
            value = description.kind(text)
        except ValueError:
            value = None
        if not description.allows(value):
            raise argparse.ArgumentTypeError(f"{text!r}: {description.remedy}")
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


share = value_of(Description(float, minimum=0, maximum=1))
"""The type of an option from 0 to 1."""


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

    wanted = getattr(args, "num_captions", 1)
    is_open = "beam_size" not in vars(args) and not getattr(args, "sample", False)
    if is_open and wanted > (own or DecodingOptions()).beam_size:
        args = argparse.Namespace(**{**vars(args), "beam_size": wanted})
    return options_of(DecodingOptions, args, own)


def decoding_for(model: CaptionModel, args: argparse.Namespace) -> DecodingOptions:
    """What `add_decoding` found, checked with a model, whose own options it completes.

    Raises:
        CaptionerError: the model cannot do so; the message has the names of the command line.
    """
    from captioner.decoding.options import DecodingOptions

    options = decoding_options(args, model.decoding)
    with options_named_by_flags(DecodingOptions):
        model.check_options(options)
    return options


def options_of(
    kind: type[Options], args: argparse.Namespace, base: Options | None = None
) -> Options:
    """The options of a dataclass out of the arguments that have its fields' names.

    What is not given is as in ``base``, or by default.

    Raises:
        CaptionerError: they do not go together; the message has the names of the command line.
    """
    given = {name: value for name, value in vars(args).items() if name in described(kind)}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    try:
        return kind(**given) if base is None else replace(base, **given)  # type: ignore[type-var]
    except ValueError as error:
        raise CaptionerError(with_flags(str(error), kind)) from error


def model_of(args: argparse.Namespace) -> CaptionModel:
    """Load the model that the options of `add_model` name."""
    from captioner.model.options import ModelOptions
    from captioner.model.shipped import load_model

    options = options_of(ModelOptions, args)
    return load_model(
        options.model,
        language=options.language,
        device=options.device,
        precision=options.precision,
    )


def data_of(
    paths: Sequence[str], options: DataOptions
) -> tuple[list[CaptionData], list[CaptionData]]:
    """Read captioned images, and say what is wrong with single ones and which are held out.

    Returns:
        The data sets with the split that is asked for, and those of which images are held out.

    Raises:
        CaptionerError: the data cannot be read, or no images can be held out.
    """
    from captioner.data.datasets import ALL, load_caption_data
    from captioner.data.holdout import with_split

    suffix = options.sidecar_suffix
    with options_named_by_flags(type(options)):
        sets = [
            load_caption_data(path, options.format, options.images, sidecar_suffix=suffix)
            for path in paths
        ]
    for data in sets:
        for warning in data.warnings:
            say(f"captioner: {data.root}: {warning}")
    try:
        sets, held_out = with_split(sets, options.split, options.dev_fraction)
    except CaptionerError as error:
        raise CaptionerError(f"{error} (--dev-fraction); --split {ALL} takes all") from error
    for data in held_out:
        dev = data.splits["dev"]
        say(
            f"captioner: {data.root}: there is no dev split; {dev} of "
            f"{dev + data.splits['train']} images are held out, the same as in captioner fit "
            f"(--dev-fraction {options.dev_fraction:g}); --split {ALL} takes every image"
        )
    return sets, held_out


@contextmanager
def options_named_by_flags(*kinds: type) -> Iterator[None]:
    """Errors of the block call the fields of these dataclasses as the command line does."""
    try:
        yield
    except CaptionerError as error:
        raise CaptionerError(with_flags(str(error), *kinds)) from error


def with_flags(message: str, *kinds: type) -> str:
    """A message with the names of the command line instead of the fields' names.

    Args:
        message: of an error about options.
        kinds: the dataclasses that they are fields of.
    """
    flags = {name: flag_of(kind, name) for kind in kinds for name in described(kind)}
    for name, flag in flags.items():
        message = re.sub(rf"\bsettings\.(?:\w+\.)?{name}: ", f"{flag}: ", message)
        word = rf"(?<![\w/\\'.-]){name}"  # not in a path and not in quotes
        message = re.sub(rf"{word}=True\b", flag, message)
        message = re.sub(rf"{word}=", f"{flag} ", message)
        if "_" in name:  # the others are words that mean something else as well
            message = re.sub(rf"{word}(?![\w'/\\]|\.\w)", flag, message)
    return message


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
    from captioner.files.recognising import DOCUMENTS, VIDEO, recognise

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
        if found is None or found in DOCUMENTS:
            continue
        if found == VIDEO or kind.noun == "image":
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

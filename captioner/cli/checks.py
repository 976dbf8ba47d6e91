"""What a command is given, looked at before anything is loaded that takes long."""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from captioner.cli.options import options_of
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.finding import SourceFile, other_files
from captioner.files.kinds import FileKind
from captioner.files.recognising import IMAGES, VIDEO, recognise

MOST_LOOKED_AT = 100
"""Files of a folder of the wrong kind that are looked into for what it holds."""


def check_model(args: argparse.Namespace, *, several_languages: bool = False) -> None:
    """Refuse a model and a device that cannot be; see `captioner.cli.options.add_model`.

    Args:
        args: of the command.
        several_languages: whether the command can write captions in several languages.

    Raises:
        CaptionerError: names the option's value and the remedy.
    """
    from captioner.model.choices import check_device, check_language_file, check_model_file
    from captioner.model.options import LANGUAGE_SUFFIX, SHIPPED, ModelOptions

    options = options_of(ModelOptions, args)
    if len(options.language) > 1 and not several_languages:
        raise CaptionerError(
            f"--language {','.join(options.language)}: this command works in one language at a "
            "time; give one"
        )
    for language in options.language:
        if language.endswith(LANGUAGE_SUFFIX):
            check_language_file(language)
    if options.model not in SHIPPED:
        check_model_file(options.model)
    check_device(options.device)


def check_files(paths: Iterable[Path], what: str) -> None:
    """Refuse files to read that are not there.

    Raises:
        CaptionerError: names the first one.
    """
    for path in paths:
        if path.is_dir():
            raise CaptionerError(f"{what} {shown(path)} is a folder: give the path of a file")
        if not path.is_file():
            raise CaptionerError(f"{what} {shown(path)}: no such file; check the path")


def check_images(paths: Sequence[str], exclude: Sequence[str], raw: str) -> None:
    """Refuse paths of images that lead to none, and videos, which `captioner tag` reads.

    Raises:
        CaptionerError: names a path and the remedy.
    """
    from captioner.images.kinds import find_images, images_to_find

    if _all_are(paths, {VIDEO}):
        raise CaptionerError(_other_command(paths, "a video", "tag"))
    try:
        find_images(paths, exclude, raw)
    except CaptionerError as error:
        if VIDEO not in _kinds_in(paths, images_to_find(raw)):
            raise
        raise CaptionerError(f"{error}; `captioner tag` describes the videos in it") from None


def found_videos(paths: Sequence[str], exclude: Sequence[str]) -> list[SourceFile]:
    """The videos, in their order; images that do not move are left to `captioner caption`.

    Raises:
        CaptionerError: names a path that leads to none, and the remedy.
    """
    from captioner.video.animations import is_animated
    from captioner.video.finding import VIDEOS, find_videos

    if _all_are(paths, IMAGES) and not any(is_animated(Path(path)) for path in paths):
        raise CaptionerError(_other_command(paths, "an image", "caption"))
    try:
        return list(find_videos(paths, exclude))
    except CaptionerError as error:
        if not _kinds_in(paths, VIDEOS) & IMAGES:
            raise
        raise CaptionerError(f"{error}; `captioner caption` describes the images in it") from None


def _all_are(paths: Sequence[str], kinds: Container[str | None]) -> bool:
    return all(recognise(Path(path)) in kinds for path in paths)


def _other_command(paths: Sequence[str], what: str, command: str) -> str:
    path = shown(paths[0])
    return f"{path} is {what}: `captioner {command} {path}` describes such files"


def _kinds_in(paths: Sequence[str], wanted: FileKind) -> set[str | None]:
    """What files of other kinds there are in the folders."""
    try:
        others = other_files(paths, wanted)
        return {recognise(path) for path, _ in zip(others, range(MOST_LOOKED_AT), strict=False)}
    except CaptionerError:
        return set()

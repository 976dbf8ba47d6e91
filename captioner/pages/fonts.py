"""Fonts for texts of any script, for what is drawn: Pillow's own, or one that the system has.

Pillow's font has Latin letters only, and no font is part of captioner.
"""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont, features

from captioner.errors import CaptionerError
from captioner.text.scripts import is_right_to_left

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FILES = (
    # Linux; the third font of a Noto collection has the forms of simplified Chinese.
    *(("DejaVuSans.ttf", 0), ("NotoSansCJK-Regular.ttc", 2), ("NotoSansArabic-Regular.ttf", 0)),
    *(("NotoNaskhArabic-Regular.ttf", 0), ("NotoSans-Regular.ttf", 0), ("wqy-microhei.ttc", 0)),
    # Windows
    *(("segoeui.ttf", 0), ("msyh.ttc", 0), ("simsun.ttc", 0), ("arial.ttf", 0)),
    # macOS
    *(("PingFang.ttc", 0), ("Hiragino Sans GB.ttc", 0), ("Arial Unicode.ttf", 0)),
    *(("GeezaPro.ttc", 0), ("Arial.ttf", 0)),
)
"""Names of files, which Pillow looks for where systems keep fonts, and places in a collection."""

_NO_LETTER = "\U0010ffff"


def font_for(text: str, size: int) -> Font:
    """Pillow's own font where it has the letters of a text, else the system's that has most.

    Args:
        text: without characters that are not shown.
        size: in pixels.
    """
    letters = frozenset(text) - {" ", "\n"}
    own = ImageFont.load_default(size)
    if not _missing(own, letters):
        return own
    fonts = [own, *(font for file in FILES if (font := _font(*file, size)) is not None)]
    return min(fonts, key=lambda font: len(_missing(font, letters)))


def check_letters(text: str) -> None:
    """Refuse to draw a text as boxes, or with its letters apart and in the wrong order.

    Raises:
        CaptionerError: no font has its letters, or Pillow lacks what joins them; says what to
            install.
    """
    missing = sorted(_missing(font_for(text, 20), frozenset(text) - {" ", "\n"}))
    if missing:
        raise CaptionerError(
            f"no font was found with the letter {missing[0]} of the caption: install one (Debian "
            "and Ubuntu: sudo apt install fonts-noto-cjk fonts-noto-core)"
        )
    if is_right_to_left(text) and not features.check("raqm"):
        raise CaptionerError(
            "the caption is written from right to left, for which Pillow needs FriBiDi: install it "
            "(Debian and Ubuntu: sudo apt install libfribidi0; macOS: brew install fribidi)"
        )


def _missing(font: Font, letters: frozenset[str]) -> frozenset[str]:
    """The letters that a font shows as a box."""
    box = bytes(font.getmask(_NO_LETTER))
    return frozenset(letter for letter in letters if bytes(font.getmask(letter)) == box)


@lru_cache(maxsize=64)
def _font(name: str, index: int, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size, index)
    except (OSError, ValueError):
        return None

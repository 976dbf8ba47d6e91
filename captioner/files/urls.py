"""Addresses on the web, which are not paths."""

from __future__ import annotations

import re
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.escaping import shown

_URL = re.compile(r"(?:https?|ftp|file|s3|gs):/", re.IGNORECASE)  # a Path has one slash left


def refuse_url(path: str | Path) -> None:
    """Refuse what is a URL and not a path.

    Raises:
        CaptionerError: says what to do with it.
    """
    if _URL.match(str(path)):
        raise CaptionerError(
            f"{shown(path)} is a URL, and captioner reads files: download it, and give the path"
        )

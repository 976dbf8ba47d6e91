"""Programs that tests start. `.ci/run` installs them: under CI, on Linux, none may be missing."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from PIL import ImageFont


def missing(what: str) -> None:
    """Skip the test, or fail it where CI runs on Linux."""
    if os.environ.get("CI") and sys.platform == "linux":
        pytest.fail(f"{what} is not installed: .ci/run installs it")
    pytest.skip(f"{what} is not installed")


def program(*names: str) -> str:
    """The path of the first of these programs that is installed; else see `missing`."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing(names[0])
    assert found is not None
    return found


def fonts() -> None:
    """Need fonts with Chinese and Arabic letters."""
    for name in ("NotoSansCJK-Regular.ttc", "NotoSansArabic-Regular.ttf"):
        try:
            ImageFont.truetype(name, 20)
        except OSError:
            missing(name)


@pytest.fixture
def exiftool() -> str:
    """ExifTool's path."""
    return program("exiftool")


@pytest.fixture
def exiv2() -> str:
    """Exiv2's path."""
    return program("exiv2")


@pytest.fixture
def java() -> str:
    """Java's path."""
    return program("java")

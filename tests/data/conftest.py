from __future__ import annotations

from pathlib import Path

import pytest

from helpers.captioned import flickr_set


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    return flickr_set(tmp_path)

"""Whether what a calibration needs is installed; loads none of it."""

from __future__ import annotations

from importlib.util import find_spec

from captioner.errors import CaptionerError


def check_installed() -> None:
    """Report that scikit-learn is missing before hours of work.

    Raises:
        CaptionerError: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise CaptionerError(
            'calibration needs scikit-learn, which is not installed; pip install "captioner[train]"'
        )

"""Which model and which device, as names that are checked before torch is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.urls import refuse_url

DEVICES = "auto, cpu, cuda or mps"
"""As messages list them. A number may follow, as in ``cuda:1``; ``xpu`` (Intel) is taken too."""

_DEVICE = re.compile(r"auto|(?:cpu|cuda|mps|xpu)(?::\d+)?")


def check_model_file(path: str | Path) -> None:
    """Refuse a model that is not there.

    Raises:
        CaptionerError: it is no file.
    """
    _check_file(
        path,
        "model",
        "`default` is the model that ships with captioner, and `flickr8k` the one that knows "
        "people and dogs",
    )


def check_language_file(path: str | Path) -> None:
    """Refuse a language file that is not there.

    Raises:
        CaptionerError: it is no file.
    """
    _check_file(path, "language", "give a file of `captioner export --without-cnn`")


def check_device(device: str) -> None:
    """Refuse what is not the name of a device, whether there is one or not.

    Raises:
        CaptionerError: names those that are.
    """
    if _DEVICE.fullmatch(device):
        return
    gpu = "; a GPU is called cuda (NVIDIA, AMD) or mps (Apple)" if "gpu" in device.lower() else ""
    raise CaptionerError(
        f"device {device!r} cannot be used (there is no such name{gpu}); use {DEVICES}"
    )


def _check_file(path: str | Path, what: str, remedy: str) -> None:
    if not Path(path).is_file():
        refuse_url(path)
        raise CaptionerError(f"{what} {shown(path)}: no such file; {remedy}")

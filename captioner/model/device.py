"""Where a model computes, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from captioner.errors import CaptionerError
from captioner.model.choices import DEVICES, check_device
from captioner.networks.precisions import PRECISIONS


def find_device(device: str) -> torch.device:
    """A torch device by its name; ``auto``: CUDA, then Apple's MPS, then the CPU.

    Raises:
        CaptionerError: when there is none of that name.
    """
    check_device(device)
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        reason = _why_not(found)
        if reason is None:
            torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
    if reason is not None:
        raise CaptionerError(f"device {device!r} cannot be used ({reason}); use {DEVICES}")
    return found


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads inside the block, for the thread that enters it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _why_not(device: torch.device) -> str | None:
    """Why a device cannot be used, as far as PyTorch says so; None if it can."""
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "PyTorch finds no GPU of Apple's here"
    if device.type != "cuda":
        return None
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            "the installed PyTorch is the one for processors alone; "
            "https://pytorch.org/get-started/locally has those for GPUs"
        )
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU, or no driver of one, on this machine"
    if (device.index or 0) >= (count := torch.cuda.device_count()):
        return f"the last GPU here is cuda:{count - 1}"
    return None


def find_precision(precision: str, device: torch.device) -> str:
    """One of `PRECISIONS`; ``auto``: bf16 on CUDA devices that have it, fp32 elsewhere.

    Raises:
        CaptionerError: when there is none of that name, or the device does not compute in it.
    """
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision not in PRECISIONS:
        raise CaptionerError(f"precision {precision!r}: use one of auto, {', '.join(PRECISIONS)}")
    if precision == "int8" and device.type != "cpu":
        raise CaptionerError(
            f"precision int8 is for CPUs, and the device is {device}; leave the precision out, or "
            "choose --device cpu"
        )
    return precision

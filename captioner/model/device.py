"""Where a model computes, and how exactly."""

from __future__ import annotations

import torch

from captioner.errors import CaptionerError
from captioner.networks.precisions import PRECISIONS


def find_device(device: str) -> torch.device:
    """A torch device by its name; ``auto``: CUDA, then Apple's MPS, then the CPU.

    Raises:
        CaptionerError: when there is none of that name.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()  # "meta" makes tensors, but nothing to read
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise CaptionerError(
            f"device {device!r} cannot be used ({reason}); use auto, cpu, cuda or mps"
        ) from error
    return found


def find_precision(precision: str, device: torch.device) -> str:
    """One of `PRECISIONS`; ``auto``: bf16 on CUDA devices that have it, fp32 elsewhere.

    Raises:
        CaptionerError: when there is none of that name.
    """
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision not in PRECISIONS:
        raise CaptionerError(f"precision {precision!r}: use one of auto, {', '.join(PRECISIONS)}")
    return precision

"""What the processes of one training tell each other; a process alone tells itself."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def processes() -> int:
    """How many processes train together."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    distributed.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """The value of the first process."""
    if processes() == 1:
        return value
    values: list[Any] = [value]
    distributed.broadcast_object_list(values)
    first: T = values[0]
    return first


def mean_over_all(mean: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the mean over what this process has into that over what all have.

    Gradients are averaged over the processes, however much each has. With its mean weighed, the
    average is the gradient that one process with all of it would have.

    Args:
        mean: () of this process.
        count: () of what it is the mean of, such as words.

    Returns:
        What to differentiate here, and the mean over all, without a gradient.
    """
    if processes() == 1:
        return mean, mean.detach()
    sums = torch.stack([mean.detach().float() * count, count.float()])
    distributed.all_reduce(sums)
    total, counted = sums
    return mean * (count * processes() / counted), total / counted

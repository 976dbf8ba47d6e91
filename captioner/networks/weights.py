"""Build networks without drawing weights, notice when some changed, and run without dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class ZerosOnly(TorchFunctionMode):
    """Networks built under it are not drawn at random but zero: their weights are loaded next."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = args[0] if args else kwargs["tensor"]
            with torch.no_grad():
                return tensor if tensor.is_meta else tensor.zero_()
        return func(*args, **kwargs)


class ShapesOnly(ZerosOnly):
    """Networks built under it have shapes but take no memory.

    ``torch.device("meta")`` would do the same to the little sums that some networks compute their
    shapes with, and fail; and to fill tensors without memory, torch imports its compiler.
    """

    MADE = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.MADE and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return super().__torch_function__(func, types, args, kwargs)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Without dropout inside, whatever the network's mode was; the mode is restored."""
    was_training = network.training
    if was_training:
        network.eval()
    try:
        yield
    finally:
        if was_training:
            network.train()


def versions(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """What changes when a weight or statistic of the network does, or moves.

    Tensors that were made in inference mode count no changes.
    """
    return tuple(
        (each.data_ptr(), 0 if each.is_inference() else each._version)
        for each in network.state_dict().values()
    )

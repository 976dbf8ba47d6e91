"""What a model file keeps beside the weights: tensors that were measured on images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

from captioner.errors import damaged


class Measured(nn.Module):
    """What was measured on images with a network, in tensors that a model file keeps.

    Attributes:
        part: what messages call it.
    """

    part: ClassVar[str]

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Build it from its ``state_dict``.

        Raises:
            CaptionerError: when a tensor is missing, unknown, or has an impossible shape or value.
        """
        try:
            return cls(**state)
        except TypeError as error:
            raise damaged(cls.part, f"its tensors are {', '.join(state)}") from error

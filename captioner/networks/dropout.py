"""Dropout whose random numbers cost little on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 256  # of a random byte


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) that draws a byte for each value on a CPU.

    torch draws a float for each with one thread, which takes longer than all else that is done to
    the values. The probability is therefore a multiple of 1/256 there, for 0.3 it is 77/256. The
    values that are kept are divided by 1 - 77/256, not by 0.7, which preserves the mean.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, some of them 0, the others larger."""
        if not self.training or self.p == 0 or values.device.type != "cpu":
            return super().forward(values)
        dropped = min(max(round(self.p * LEVELS), 1), LEVELS - 1)
        # One 64-bit number is eight bytes; without the limits its sign would always be the same.
        drawn = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        drawn = drawn.view(torch.uint8)[: values.numel()].view(values.shape)
        factors = (drawn >= dropped).to(values.dtype).mul_(LEVELS / (LEVELS - dropped))
        return values * factors

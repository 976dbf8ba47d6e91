"""The groups of the optimiser, and their learning rates over the steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from captioner.training.optimizer import adamw, warmup_and_cosine


def test_only_matrices_of_trained_parts_decay() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    encoder[0].requires_grad_(False)
    decoder = nn.Linear(2, 5)
    optimizer = adamw(encoder, decoder, lr_encoder=0.1, lr_decoder=0.2, weight_decay=0.5)
    groups = optimizer.param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [
        *((0.1, 0.5), (0.1, 0.0)),
        *((0.2, 0.5), (0.2, 0.0)),
    ]
    expected = [
        [encoder[2].weight],
        [encoder[1].weight, encoder[1].bias, encoder[2].bias],
        [decoder.weight],
        [decoder.bias],
    ]
    for group, parameters in zip(groups, expected, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in parameters]


def test_a_frozen_part_has_no_group() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    optimizer = adamw(frozen, nn.Linear(2, 5), lr_encoder=1.0, lr_decoder=0.2, weight_decay=0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


def test_rates_rise_to_their_highest_and_fall_along_half_a_cosine() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warmup_and_cosine(optimizer, steps=10, warmup_share=0.4)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    falling = [2 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(7)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, *falling])
    assert rates[-1] == pytest.approx(0.0)

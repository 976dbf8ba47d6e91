"""A training step of the CNN's last stages: float32, bf16 as torch has it, and ours.

    python benchmarks/train_cnn.py [--trainable 2] [--batch-size 32] [--rounds 5]

Forward and backward of the trained stages, from what the frozen ones gave: what `captioner fit`
runs in each step where `data.views` keeps that. Needs a processor with bf16 arithmetic
(AVX512-BF16 or AMX); on others `captioner fit` trains in float32.

float32          what such configurations use by default on a CPU
bf16, plain      `trainer.precision: bf16-mixed`, every gradient from oneDNN
bf16, tiled      the same with the gradients of wide depthwise kernels computed tile by tile, as
                 `captioner fit` does
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import torch
from torch import Tensor

from captioner.networks.configs import EncoderConfig
from captioner.networks.depthwise import TiledConv2d
from captioner.networks.encoder import Encoder

WAYS = ("float32", "bf16, plain", "bf16, tiled")


def gradients(encoder: Encoder, maps: Tensor, way: str) -> list[Tensor]:
    encoder.zero_grad()
    tiled = TiledConv2d._is_slow if way.endswith("tiled") else lambda *_: False
    with mock.patch.object(TiledConv2d, "_is_slow", tiled):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way != "float32"):
            features = encoder.finish(maps)
        # Something with gradients of its own everywhere.
        (features.grid.float().square().mean() + features.pooled.float().square().mean()).backward()
    return [each.grad.clone() for each in encoder.parameters() if each.grad is not None]


def check_alike(encoder: Encoder, maps: Tensor) -> None:
    exact = gradients(encoder, maps, "float32")
    for way in WAYS[1:]:
        pairs = zip(gradients(encoder, maps, way), exact, strict=True)
        far = [float((found - true).norm() / true.norm()) for found, true in pairs]
        print(
            f"{way}: gradients differ from float32's by {sorted(far)[len(far) // 2]:.3f} (median)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="timm/tf_efficientnet_lite2")
    parser.add_argument("--trainable", type=int, default=2, help="last stages (default: 2)")
    parser.add_argument("--batch-size", type=int, default=32, help="images (default: 32)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    config = EncoderConfig(
        name=args.encoder, weights="imagenet", trainable=args.trainable, image_size=256
    )
    encoder = Encoder(config)
    encoder.train()
    maps = torch.rand(args.batch_size, *encoder.frozen_shape)
    check_alike(encoder, maps)
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(args.rounds):
        for way in WAYS:
            start = time.perf_counter()
            gradients(encoder, maps, way)
            best[way] = min(best[way], time.perf_counter() - start)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.encoder}")
    for way, seconds in best.items():
        ratio = best["float32"] / seconds
        print(f"{way:12s} {seconds:6.3f} s a step; float32 takes {ratio:.2f} times that")


if __name__ == "__main__":
    main()

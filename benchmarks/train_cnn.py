"""A training step of the CNN's last stages: from pixels and from what is kept, float32 and bf16.

    python benchmarks/train_cnn.py [--trainable 2] [--batch-size 32] [--rounds 5]

Forward and backward of the trained stages: from pixels, as `captioner fit` runs them without
`data.views`, and from what the frozen stages gave, as with it. Reading images is left out. bf16
needs a processor with such arithmetic (AVX512-BF16 or AMX); on others `captioner fit` trains in
float32.

torch, pixels    float32, the frozen stages by torch as well
pixels           float32, the frozen stages in ONNX Runtime, as in inference
float32          from what is kept; what such configurations use by default on a CPU
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
from captioner.networks.fast_encoder import frozen_part
from captioner.training.batch_features import BatchFeatures

WAYS = ("float32", "pixels", "torch, pixels", "bf16, plain", "bf16, tiled")


def gradients(features_of: BatchFeatures, pixels: Tensor, kept: Tensor, way: str) -> list[Tensor]:
    encoder = features_of.encoder
    encoder.zero_grad()
    tiled = TiledConv2d._is_slow if way.endswith("tiled") else lambda *_: False
    with mock.patch.object(TiledConv2d, "_is_slow", tiled):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way.startswith("bf16")):
            if way == "torch, pixels":
                features = encoder(pixels)
            else:
                features = features_of(pixels if way == "pixels" else kept)
        # Something with gradients of its own everywhere.
        (features.grid.float().square().mean() + features.pooled.float().square().mean()).backward()
    return [each.grad.clone() for each in encoder.parameters() if each.grad is not None]


def check_alike(features_of: BatchFeatures, pixels: Tensor, kept: Tensor) -> None:
    exact = gradients(features_of, pixels, kept, "float32")
    for way in WAYS[1:]:
        pairs = zip(gradients(features_of, pixels, kept, way), exact, strict=True)
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
    features_of = BatchFeatures(encoder)
    pixels = torch.rand(args.batch_size, 3, 256, 256) * 2 - 1
    kept = frozen_part(encoder)(pixels).permute(0, 2, 3, 1).half().contiguous()
    check_alike(features_of, pixels, kept)
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(args.rounds):
        for way in WAYS:
            start = time.perf_counter()
            gradients(features_of, pixels, kept, way)
            best[way] = min(best[way], time.perf_counter() - start)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.encoder}")
    print(f"{kept[0].nbytes:,} bytes are kept of a view of an image")
    for way, seconds in best.items():
        ratio = best["float32"] / seconds
        print(f"{way:13s} {seconds:6.3f} s a step; float32 takes {ratio:.2f} times that")


if __name__ == "__main__":
    main()

"""Let the decoder of a language read the features of another CNN, such as one that was trained on.

    python data/move_language.py --language captioner/weights/language_de.safetensors
        --model old.safetensors --to captioner/weights/default.safetensors
        --photos data/flickr8k/Images --output moved_de.safetensors

The features of the old CNN are predicted from those of the new one, cell by cell, by ridge
regression on some photos, and the prediction becomes part of the decoder's projections. Nothing
else of the decoder changes, and it has the size it had. If the new CNN looks at larger or smaller
images, the old one is shown these, so that their cells lie in the same places. `captioner calibrate
--language` makes its tags and confidences anew. It takes a minute or two for 2,000 photos.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.language_file import read_language, write_language
from captioner.model.shipped import load_model

BATCH = 32
RIDGE = 1e-3  # of the mean variance of a feature


def cells(new: CaptionModel, old: CaptionModel, paths: Sequence[Path]) -> Iterator[list[Tensor]]:
    """What both see in the cells of photos, (B * R, D) and (B * R, D'), a batch after the other."""
    for first in range(0, len(paths), BATCH):
        images = torch.stack([new.read(path) for path in paths[first : first + BATCH]])
        with torch.inference_mode():
            yield [each.encode(images).grid.flatten(0, 1).double() for each in (new, old)]


def resized(old: CaptionModel, new: CaptionModel) -> CaptionModel:
    """The old model, looking at images of the size that the new one looks at."""
    description = old.description()
    description["transform"]["size"] = list(new.transform.size)
    description["encoder"]["image_size"] = new.transform.size[0]
    return CaptionModel.from_description(description, old.state_dict())


def predict(new: CaptionModel, old: CaptionModel, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """A (D, D') and b (D',) of old = new A + b; prints the share of the variance they explain."""
    count, sums, squares = 0, 0.0, 0.0
    bar = tqdm(total=len(paths), unit="photo", desc="encoding")
    for one, other in cells(new, old, paths):
        both = torch.cat([one, other], dim=1)
        count, sums, squares = count + len(both), sums + both.sum(dim=0), squares + both.T @ both
        bar.update(BATCH)
    bar.close()
    mean, size = sums / count, one.shape[1]
    covariance = squares / count - torch.outer(mean, mean)
    inputs, across, outputs = (
        covariance[:size, :size],
        covariance[:size, size:],
        covariance[size:, size:],
    )
    ridge = RIDGE * inputs.diagonal().mean() * torch.eye(size, dtype=inputs.dtype)
    matrix = torch.linalg.solve(inputs + ridge, across)
    left = outputs.trace() - 2 * (matrix * across).sum() + (matrix * (inputs @ matrix)).sum()
    print(f"{1 - left / outputs.trace():.1%} of the variance of the old features is explained")
    return matrix, mean[size:] - mean[:size] @ matrix


@torch.no_grad()
def compose(layer: nn.Linear, matrix: Tensor, bias: Tensor) -> None:
    """Let a layer take new features x and compute what it computed of x A + b."""
    weight = layer.weight.double()
    layer.bias += weight @ bias
    layer.weight.copy_(weight @ matrix.T)


def move(args: argparse.Namespace) -> None:
    """Read, predict, compose, write."""
    old, new = load_model(args.model, device="cpu"), load_model(args.to, device="cpu")
    model = read_language(args.language, old)
    old = resized(old, new)
    if (grids := [each.encoder.grid_shape for each in (old, new)])[0] != grids[1]:
        raise CaptionerError(f"--to {args.to}: its grid is {grids[1]}, that of --model {grids[0]}")
    paths = sorted(args.photos.rglob("*.jpg"))
    paths = random.Random(0).sample(paths, min(args.count, len(paths)))
    if not paths:
        raise CaptionerError(f"--photos {args.photos}: no *.jpg there")
    matrix, bias = predict(new, old, paths)
    for layer in (model.decoder.grid_projection, model.decoder.pooled_projection):
        compose(layer, matrix, bias)
    model.encoder, model.transform = new.encoder, new.transform
    model.tag_head = model.familiarity = model.tag_calibration = None  # of the old CNN's features
    write_language(model, args.output)
    print(f"{args.output}: for the CNN of {args.to}")


def main() -> None:
    """Read the options; what is wrong with them is one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--language", required=True, type=Path, metavar="FILE.safetensors")
    parser.add_argument("--model", required=True, type=Path, help="that it was trained for")
    parser.add_argument("--to", required=True, type=Path, help="the model with the new CNN")
    parser.add_argument("--photos", required=True, type=Path, metavar="FOLDER")
    parser.add_argument(
        "--count", type=int, default=2000, metavar="N", help="photos (default: 2000)"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.safetensors")
    args = parser.parse_args()
    try:
        move(args)
    except CaptionerError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

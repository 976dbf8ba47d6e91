"""The search for captions, against the same search with the decoder as it is trained.

    python benchmarks/search.py [FOLDER] [--model MODEL] [--rounds 5]

Features of a folder's images (default: data/examples, again and again) are computed first. Then
captions are searched for in batches of 32 that keep their shape, as `captioner caption` does, with
one thread, and processor time is compared round by round:

fast    `captioner.networks.fast_steps.FastSteps`, as the model captions
plain   `captioner.networks.decoder_steps.DecoderSteps`: every product of the whole batch at each
        step, those with words and grid in full

int8    `captioner.networks.int8_steps.Int8Steps`, as the model captions with `--precision int8`

All are asked for the captions that tags and confidence need, without the tag classifier's say in
the choice of words; the first two must find the same.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from captioner import load_model
from captioner.decoding.constraints import find_constraints
from captioner.decoding.hypotheses import Hypothesis
from captioner.decoding.options import DecodingOptions
from captioner.decoding.rules import OpenStep
from captioner.decoding.search import decode
from captioner.images.kinds import find_images
from captioner.model.caption_model import CaptionModel
from captioner.model.tags import with_evidence
from captioner.networks.decoder_steps import DecoderSteps
from captioner.networks.fast_steps import FastSteps
from captioner.networks.features import ImageFeatures
from captioner.networks.int8_steps import Int8Steps
from captioner.text.tokenizer import BOS_ID, EOS_ID

BATCH, BATCHES = 32, 8
PARTS = {
    "start": "projections of the images",
    "_continue": "recurrent cell",
    "_read_state": "query and readout",
    "_add_seen": "readout of what was seen",
    "_look": "attention",
    "_score": "output layer",
}
Way = Callable[[ImageFeatures], list[list[Hypothesis]]]


def read_features(model: CaptionModel, folder: Path) -> list[ImageFeatures]:
    paths = [file.path for file in find_images(folder)]
    paths = [paths[number % len(paths)] for number in range(BATCH * BATCHES)]
    known: dict[Path, ImageFeatures] = {}
    for path in paths:
        if path not in known:
            known[path] = model.encode(model.read(path)[None])
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    return [
        ImageFeatures(*(torch.cat(parts) for parts in zip(*(known[p] for p in batch), strict=True)))
        for batch in batches
    ]


def search_with(model: CaptionModel, options: DecodingOptions, steps: DecoderSteps) -> Way:
    words = find_constraints(options, model.tokenizer)
    step: Any = OpenStep(steps.step_open) if isinstance(steps, FastSteps) else steps.step

    def search(features: ImageFeatures) -> list[list[Hypothesis]]:
        return decode(
            step,
            steps.start(features),
            BATCH,
            options,
            bos=BOS_ID,
            eos=EOS_ID,
            forbidden=words.forbidden,
            device="cpu",
            fixed_shape=True,
            joining=words.joining,
        )

    return search


def measure_parts(steps: FastSteps, spent: Counter[str]) -> None:
    """Have the parts of the steps add up their processor time."""

    def timed(name: str, part: Callable[..., Any], *args: Any) -> Any:
        start, others = time.process_time(), spent.total()
        found = part(*args)
        # What a part within this one takes is its own.
        spent[name] += time.process_time() - start - (spent.total() - others)
        return found

    for name in PARTS:
        setattr(steps, name, partial(timed, name, getattr(steps, name)))


def print_shares(
    model: CaptionModel, options: DecodingOptions, steps: FastSteps, batches: list[ImageFeatures]
) -> None:
    spent: Counter[str] = Counter()
    measure_parts(steps, spent)
    search = search_with(model, options, steps)
    start = time.process_time()
    for features in batches:
        search(features)
    whole = time.process_time() - start
    for name, what in PARTS.items():
        print(f"{spent[name] / whole:5.0%} {what}")
    print(f"{1 - spent.total() / whole:5.0%} choice of words and all else")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/examples"))
    parser.add_argument("--model", default="default", help="a shipped model's name, or a file")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(args.model, device="cpu")
    batches = read_features(model, args.folder)
    options = replace(with_evidence(model.decoding), tag_weight=0.0)
    fast, int8 = FastSteps(model.decoder), Int8Steps(model.decoder)
    ways = {
        "plain": search_with(model, options, DecoderSteps(model.decoder)),
        "fast": search_with(model, options, fast),
        "int8": search_with(model, options, int8),
    }
    found = {
        name: [[h.ids for h in each] for features in batches for each in way(features)]
        for name, way in ways.items()
    }
    assert found["fast"] == found["plain"], "the captions differ"
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.process_time()
            for features in batches:
                way(features)
            best[name] = min(best[name], (time.process_time() - start) / BATCH / BATCHES)
    print(f"torch {torch.__version__}, one thread, {BATCH * BATCHES} images, beam 3")
    for name, seconds in best.items():
        print(f"{name:6s} {1000 * seconds:6.2f} ms/image")
    print(f"fast / plain: {best['fast'] / best['plain']:.2f}")
    print(f"int8 / fast: {best['int8'] / best['fast']:.2f}")
    for name, steps in (("fast", fast), ("int8", int8)):
        print(f"\nof {name}:")
        print_shares(model, options, steps, batches)


if __name__ == "__main__":
    main()

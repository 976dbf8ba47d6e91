"""A training step with cached features, against the same decoder walked through word by word.

    python benchmarks/train.py [--cell lstm] [--batch-size 32] [--rounds 5]

All compute the same loss and the same gradients (checked first), of five captions for each of the
images, on stored features already: forward, loss, backward and AdamW.

all words at once    as `captioner fit` does: attention behind the recurrence, the projections of
                     an image shared by its captions, no padding, cheap random numbers
in bf16              that with `trainer.precision: bf16-mixed`, on a processor that has it
word by word         the same decoder called for one word after the other, as decoders with
                     attention inside the recurrence have to; torch's dropout and its plain AdamW
of each caption      that, with every caption an image of its own, as the usual scripts have it
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.networks.configs import CELLS, DecoderConfig
from captioner.networks.decoder import Decoder, shift
from captioner.networks.decoder_steps import DecoderSteps
from captioner.networks.features import ImageFeatures
from captioner.networks.layout import WordLayout
from captioner.text.tokenizer import PAD_ID
from captioner.training.optimizer import adamw

VOCABULARY, FEATURES, CELLS_IN_GRID, CAPTIONS = 2540, 1280, 64, 5  # of the shipped model
LENGTHS = (7, 20)
"""Words of a caption; Flickr8k's have 11 in the mean."""

Loss = Callable[[Decoder, ImageFeatures, Tensor], Tensor]


def at_once(decoder: Decoder, features: ImageFeatures, captions: Tensor) -> Tensor:
    inputs, targets = shift(captions)
    layout = WordLayout.of((targets != PAD_ID).sum(-1), targets.shape[-1])
    logits = decoder.logits(decoder.read(features, inputs, layout))
    return functional.cross_entropy(logits.float(), targets.flatten()[layout.places])


def in_bf16(decoder: Decoder, features: ImageFeatures, captions: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return at_once(decoder, features, captions)


def word_by_word(decoder: Decoder, features: ImageFeatures, captions: Tensor) -> Tensor:
    inputs, targets = shift(captions)
    steps = DecoderSteps(decoder)
    state = steps.start(features)
    state = state.select_beams(inputs.new_zeros(inputs.shape[:2]))
    scores = []
    for t in range(inputs.shape[2]):
        logits, state = steps.step(inputs[:, :, t], state)
        scores.append(logits)
    logits = torch.stack(scores, dim=2)
    return functional.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=PAD_ID)


def of_each_caption(decoder: Decoder, features: ImageFeatures, captions: Tensor) -> Tensor:
    repeated = (part.repeat_interleave(captions.shape[1], dim=0) for part in features)
    return word_by_word(decoder, ImageFeatures(*repeated), captions.flatten(0, 1).unsqueeze(1))


WAYS: dict[str, Loss] = {
    "all words at once": at_once,
    "in bf16": in_bf16,
    "word by word": word_by_word,
    "of each caption": of_each_caption,
}


def make_batch(images: int) -> tuple[ImageFeatures, Tensor]:
    torch.manual_seed(0)
    features = ImageFeatures.from_grid(torch.rand(images, CELLS_IN_GRID, FEATURES))
    captions = torch.zeros(images, CAPTIONS, LENGTHS[1] + 2, dtype=torch.int64)
    for row in captions.view(-1, captions.shape[-1]):
        length = int(torch.randint(LENGTHS[0], LENGTHS[1] + 1, ()))
        row[: length + 2] = torch.randint(4, VOCABULARY, (length + 2,))
    return features, captions


def check_equal(decoder: Decoder, features: ImageFeatures, captions: Tensor) -> None:
    decoder.eval()  # without dropout, which is drawn in another order
    found = []
    for loss in (at_once, word_by_word, of_each_caption):
        decoder.zero_grad()
        loss(decoder, features, captions).backward()
        found.append([weight.grad.clone() for weight in decoder.parameters()])
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)
    decoder.train()


def measure(
    cell: str, features: ImageFeatures, captions: Tensor, rounds: int, ways: dict[str, Loss]
) -> dict[str, float]:
    """Captions/s of each way, the best of the rounds."""
    decoder = Decoder(DecoderConfig(cell=cell), VOCABULARY, FEATURES)
    check_equal(decoder, features, captions)
    usual = copy.deepcopy(decoder)
    usual.dropout = nn.Dropout(decoder.config.dropout)
    rates = {"lr_encoder": 1e-4, "lr_decoder": 1e-4, "weight_decay": 0.01}
    ours = decoder, adamw(nn.Identity(), decoder, **rates)
    theirs = usual, torch.optim.AdamW(usual.parameters(), lr=1e-4)
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds + 1):  # the first one warms up
        for name, loss in ways.items():
            trained, optimizer = ours if loss in (at_once, in_bf16) else theirs
            start = time.perf_counter()
            optimizer.zero_grad()
            loss(trained, features, captions).backward()
            optimizer.step()
            rate = captions.shape[0] * captions.shape[1] / (time.perf_counter() - start)
            best[name] = max(best[name], rate)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--batch-size", type=int, default=32, help="images (default: 32)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    features, captions = make_batch(args.batch_size)
    ways = dict(WAYS)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        del ways["in bf16"]
    best = measure(args.cell, features, captions, args.rounds, ways)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.cell}")
    for name, rate in best.items():
        others = ", ".join(
            f"{best[other] / rate:.2f} times"
            for other in ("all words at once", "in bf16")
            if other in best
        )
        print(f"{name:18s} {rate:7.0f} captions/s; all words at once, in bf16: {others} that")


if __name__ == "__main__":
    main()

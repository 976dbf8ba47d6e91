"""Which caption speaks best for several views of the same thing?

    python benchmarks/consensus.py --data data/flickr8k --images 300

Five crops of a photo stand for five frames of a shot. Every way of choosing one caption for them is
scored against the photo's references. Below the table stands how alike the CNN's features of crops
of one photo are, and of two photos, which is what `captioner.tagging.videos.SAME_THING` divides.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import defaultdict
from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn import functional
from tqdm import tqdm

from captioner.data.datasets import load_caption_data
from captioner.images.reading import read_image
from captioner.model.caption_model import CaptionModel
from captioner.model.results import CaptionResult
from captioner.model.shipped import load_model
from captioner.networks.features import ImageFeatures
from captioner.tagging.timeline import CaptionedFrame, choose_caption
from captioner.tagging.videos import SAME_THING
from captioner.text.metrics import score_captions

CROPS = 5
AREA = (0.4, 0.9)  # shares of the photo's area that a crop can have


def crops(photo: Image.Image, rng: random.Random) -> list[Image.Image]:
    """Crops of the photo's shape, anywhere in it."""
    found = []
    for _ in range(CROPS):
        scale = math.sqrt(rng.uniform(*AREA))
        width, height = photo.width * scale, photo.height * scale
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
        found.append(photo.crop((int(left), int(top), int(left + width), int(top + height))))
    return found


def as_frame(result: CaptionResult, confidence: float) -> CaptionedFrame:
    """A caption as `choose_caption` takes it."""
    words = result.candidates[0].words
    return CaptionedFrame(0.0, 0, 0, False, result.text, words, confidence, 0.0, ())


def choose(model: CaptionModel, features: ImageFeatures) -> dict[str, str]:
    """The caption that each way chooses."""
    mean = ImageFeatures(*(part.mean(0, keepdim=True) for part in features))
    results = model.caption_features(features)
    sure = [as_frame(result, result.confidence) for result in results]
    alike = [as_frame(result, 1.0) for result in results]
    return {
        "the first crop's": results[0].text,
        "of the mean features": model.caption_features(mean)[0].text,
        "most confident": max(results, key=lambda result: result.confidence).text,
        "most agreed with": choose_caption(alike, model.lexicon)[0].text,
        "confidence x agreement": choose_caption(sure, model.lexicon)[0].text,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", required=True, help="a data set, as `captioner evaluate` reads it"
    )
    parser.add_argument("--split", default="dev")
    parser.add_argument("--images", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--model", default="default")
    args = parser.parse_args(argv)
    model, rng = load_model(args.model), random.Random(0)
    examples = load_caption_data(args.data, "auto", None).split(args.split)[: args.images]
    said: defaultdict[str, dict[str, str]] = defaultdict(dict)
    same: list[float] = []
    looks = []
    for example in tqdm(examples, unit=" images"):
        views = crops(read_image(example.path), rng)
        with torch.inference_mode():
            features = model.encode(torch.stack([model.transform(view) for view in views]))
        for way, text in choose(model, features).items():
            said[way][example.image_id] = text
        look = functional.normalize(features.pooled, dim=1)
        same += (look @ look.T)[0, 1:].tolist()
        looks.append(look[0])
    references = {example.image_id: example.captions for example in examples}
    print(f"{'caption':<24}{'BLEU-4':>8}{'CIDEr-D':>9}")
    for way, captions in said.items():
        scores = score_captions(captions, references).values
        print(f"{way:<24}{100 * scores['BLEU-4']:>8.2f}{100 * scores['CIDEr-D']:>9.2f}")
    other = (torch.stack(looks[:-1]) * torch.stack(looks[1:])).sum(dim=1)
    print(f"crops of one photo at least {SAME_THING}: {share(torch.tensor(same)):.3f}")
    print(f"crops of two photos at least {SAME_THING}: {share(other):.3f}")
    return 0


def share(likeness: torch.Tensor) -> float:
    """Share of the pairs that count as the same thing."""
    return float((likeness >= SAME_THING).float().mean())


if __name__ == "__main__":
    raise SystemExit(main())

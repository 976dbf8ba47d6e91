"""What the benchmarks of teaching share: runs of `captioner fit`, and scores of what they made."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch

from captioner.cli.entry import main as captioner
from captioner.data.datasets import Example, load_caption_data
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import load_any
from captioner.networks.features import ImageFeatures
from captioner.text.metrics import score_captions

CONFIGS = Path(__file__).parents[1] / "configs"
BATCH = 32
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


class Scored:
    """Images whose features are computed once: the encoder stays frozen."""

    def __init__(self, model: CaptionModel, examples: Sequence[Example]) -> None:
        self.references = {each.image_id: each.captions for each in examples}
        self.features = [
            ImageFeatures(*(part.half() for part in model.encode(pixels)))
            for pixels in (
                torch.stack([model.read(each.path) for each in examples[first : first + BATCH]])
                for first in range(0, len(examples), BATCH)
            )
        ]

    def captions(self, model: CaptionModel) -> dict[str, str]:
        """What a model with the same encoder says of the images, decoding in its own way."""
        texts = [each.text for part in self.features for each in model.caption_features(part)]
        return dict(zip(self.references, texts, strict=True))

    def score(self, captions: Mapping[str, str], ids: Iterable[str] | None = None) -> list[float]:
        """CIDEr-D and BLEU-4 of captions of all images, or of some, times 100."""
        chosen = list(captions if ids is None else ids)
        references = {image_id: self.references[image_id] for image_id in chosen}
        said = {image_id: captions[image_id] for image_id in chosen}
        values = score_captions(said, references).values
        return [100 * values["CIDEr-D"], 100 * values["BLEU-4"]]


def shuffled(data: str, split: str, seed: int) -> list[Example]:
    """The images of a split in an order that the seed settles."""
    examples = sorted(load_caption_data(data).split(split), key=lambda each: each.image_id)
    random.Random(seed).shuffle(examples)
    return examples


def teach(
    config: str, data: Path, run: Path, start: str, seed: int, options: Sequence[str]
) -> CaptionModel:
    """The best checkpoint of a run, which is trained if it is not there.

    Args:
        config: name of the configuration.
        data: what is taught, its `data.root`.
        run: folder of the run.
        start: the model to start from.
        seed: of the run.
        options: further ones of `captioner fit`.
    """
    best = run / "checkpoints" / "best.ckpt"
    command = ["fit", "--config", str(CONFIGS / config), f"--data.root={data}", f"--run_dir={run}"]
    command += [f"--seed_everything={seed}", f"--model.init_from={start}", "--ckpt_path=last"]
    if not best.is_file():
        with redirect_stdout(sys.stderr):  # standard output is the table's
            if captioner([*command, *QUIET, *options]) != 0:
                raise SystemExit(2)
    return load_any(best)


def link(example: Example, path: Path) -> None:
    """A photo under another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(example.path.resolve())


def name_of(model: CaptionModel) -> str:
    """The first digits of a model file's hash, by which documents call it."""
    return model.sha256[:8]


def table_head(columns: Sequence[str]) -> str:
    """The first two lines of a table in Markdown."""
    return f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|"


def table_row(first: str, rows: Sequence[Sequence[float]], digits: int = 1) -> str:
    """A line of the table: the mean of each column."""
    means = (statistics.mean(values) for values in zip(*rows, strict=True))
    return f"| {first} | {' | '.join(f'{each:.{digits}f}' for each in means)} |"

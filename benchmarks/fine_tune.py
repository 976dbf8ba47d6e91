"""What own captioned photos bring to a shipped model, and what it forgets.

    python benchmarks/fine_tune.py --data data/photos --other data/flickr8k
    python benchmarks/fine_tune.py --data data/photos --other data/flickr8k --limit 200 --seeds 1

The images of a split that the model was not trained on are shuffled (`random.Random(0)`). The first
ones are taught, each number of them as `captioner fit --config configs/custom.yaml` does it; the
last ones are scored, and so is the split of the same name of the other data. Options of
`captioner fit` can be added at the end: `--trainer.max_epochs 5`.

Prints a table in Markdown: CIDEr-D and BLEU-4 times 100, the mean over the seeds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from captioner.cli.entry import main as captioner
from captioner.data.datasets import Example, load_caption_data
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import load_any
from captioner.networks.features import ImageFeatures
from captioner.text.metrics import score_captions

CONFIG = Path(__file__).parents[1] / "configs" / "custom.yaml"
BATCH = 32
COLUMNS = ("photos taught", "new words", "CIDEr-D", "BLEU-4", "CIDEr-D, other", "BLEU-4, other")
Row = tuple[float, ...]


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

    def score(self, model: CaptionModel) -> Row:
        """CIDEr-D and BLEU-4 of a model that decodes in its own way, times 100."""
        texts = [each.text for part in self.features for each in model.caption_features(part)]
        said = dict(zip(self.references, texts, strict=True))
        values = score_captions(said, self.references).values
        return 100 * values["CIDEr-D"], 100 * values["BLEU-4"]


def lay_out(folder: Path, examples: Sequence[Example]) -> Path:
    """A data set of these images: links to them, and a file with their captions."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for place, example in enumerate(examples):
        link = folder / "images" / f"{place:04}{example.path.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(example.path.resolve())
        record = {"file_name": f"images/{link.name}", "captions": list(example.captions)}
        lines.append(json.dumps(record) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


def teach(data: Path, run: Path, start: str, seed: int, options: Sequence[str]) -> CaptionModel:
    """The best checkpoint of a run, which is trained if it is not there."""
    best = run / "checkpoints" / "best.ckpt"
    command = ["fit", "--config", str(CONFIG), f"--data.root={data}", f"--run_dir={run}"]
    command += [f"--seed_everything={seed}", f"--model.init_from={start}", "--ckpt_path=last"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    if not best.is_file() and captioner([*command, *quiet, *options]) != 0:
        raise SystemExit(2)
    return load_any(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="photos to teach and to score")
    parser.add_argument("--other", required=True, help="what the model should not forget")
    parser.add_argument("--split", default="dev", help="of both (default: dev)")
    parser.add_argument("--model", default="default", help="to start from (default: default)")
    parser.add_argument("--teach", type=int, nargs="+", default=[30, 100, 400], metavar="N")
    parser.add_argument("--score", type=int, default=100, metavar="N")
    parser.add_argument("--limit", type=int, metavar="N", help="of the other images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--work", type=Path, default=Path("runs/fine_tune"), metavar="DIR")
    args, options = parser.parse_known_args()

    examples = sorted(load_caption_data(args.data).split(args.split), key=lambda e: e.image_id)
    random.Random(0).shuffle(examples)
    if len(examples) < max(args.teach) + args.score:
        parser.error(f"the split {args.split} has {len(examples)} images only")
    start = load_any(args.model)
    words = len(start.tokenizer.words)
    scored = [
        Scored(start, examples[-args.score :]),
        Scored(start, load_caption_data(args.other).split(args.split)[: args.limit]),
    ]

    def row(model: CaptionModel) -> Row:
        new = float(len(model.tokenizer.words) - words)
        return new, *(value for each in scored for value in each.score(model))

    print(f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", sep="\n")
    show(0, [row(start)])
    for count in args.teach:
        data = lay_out(args.work / f"{count}", examples[:count])
        show(
            count,
            [
                row(teach(data, args.work / f"{count}-seed{seed}", args.model, seed, options))
                for seed in args.seeds
            ],
        )


def show(count: int, rows: Sequence[Row]) -> None:
    """A line of the table: the mean over the seeds."""
    new, *means = (statistics.mean(values) for values in zip(*rows, strict=True))
    print(f"| {count} | {new:.0f} | {' | '.join(f'{each:.1f}' for each in means)} |", flush=True)


if __name__ == "__main__":
    main()

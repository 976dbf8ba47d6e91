"""What own captioned photos bring to a shipped model, and what it forgets.

    python benchmarks/fine_tune.py --data data/photos --other data/flickr8k
    python benchmarks/fine_tune.py --data data/photos --other data/flickr8k --limit 200 --seeds 1

The images of a split that the model was not trained on are shuffled. The first ones are taught,
each number of them as `captioner fit --config configs/custom.yaml` does it; the last ones are
scored, and so is the split of the same name of the other data. Options of `captioner fit` can be
added at the end: `--trainer.max_epochs 5`.

Prints the table of docs/training.md: CIDEr-D and BLEU-4 times 100, the mean over the seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from captioner.data.datasets import Example, load_caption_data
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import load_any
from teaching import Scored, link, name_of, shuffled, table_head, table_row, teach

COLUMNS = ("photos taught", "new words", "CIDEr-D", "BLEU-4", "CIDEr-D, other", "BLEU-4, other")


def lay_out(folder: Path, examples: Sequence[Example]) -> Path:
    """A data set of these images: links to them, and a file with their captions."""
    lines = []
    for place, example in enumerate(examples):
        name = f"images/{place:04}{example.path.suffix}"
        link(example, folder / name)
        lines.append(json.dumps({"file_name": name, "captions": list(example.captions)}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


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

    examples = shuffled(args.data, args.split, seed=0)
    if len(examples) < max(args.teach) + args.score:
        parser.error(f"the split {args.split} has {len(examples)} images only")
    start = load_any(args.model)
    words = len(start.tokenizer.words)
    scored = [
        Scored(start, examples[-args.score :]),
        Scored(start, load_caption_data(args.other).split(args.split)[: args.limit]),
    ]

    def row(model: CaptionModel) -> list[float]:
        return [value for each in scored for value in each.score(each.captions(model))]

    print(f"model {name_of(start)}, seeds {', '.join(map(str, args.seeds))}\n")
    print(table_head(COLUMNS))
    print(table_row("0 | 0", [row(start)]), flush=True)
    for count in args.teach:
        data = lay_out(args.work / f"{count}", examples[:count])
        taught = [
            teach("custom.yaml", data, args.work / f"{count}-seed{seed}", args.model, seed, options)
            for seed in args.seeds
        ]
        new = len(taught[0].tokenizer.words) - words
        print(table_row(f"{count} | {new}", [row(model) for model in taught]), flush=True)


if __name__ == "__main__":
    main()

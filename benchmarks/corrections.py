"""What corrections teach: caption photos, correct the captions, teach a model, caption others.

    python benchmarks/corrections.py --data data/photos
    python benchmarks/corrections.py --data data/photos --teach 200 --seeds 1

For each seed, photos of a split that the model was not trained on are drawn. `captioner caption`
captions them, each caption is corrected as in `captioner review` to the reference that shares most
words with it, `captioner fit --config configs/corrections.yaml` teaches the model, and the photos
that were not drawn are scored before and after. Options of `captioner fit` can be added at the end.

Prints the table of docs/review.md: CIDEr-D and BLEU-4 times 100.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from captioner.cli.entry import main as captioner
from captioner.data.datasets import Example
from captioner.model.checkpoints import load_any
from captioner.review.options import ReviewOptions
from captioner.review.run import open_session
from captioner.text.tokenizer import tokenize
from teaching import Scored, link, name_of, shuffled, table_head, table_row, teach

COLUMNS = ("seed", "CIDEr-D before", "after", "change", "BLEU-4 before", "after", "change")


def correction(text: str, references: Sequence[str]) -> str:
    """The reference that somebody who edits this caption would be nearest to."""
    said = set(tokenize(text))

    def shared(reference: str) -> float:
        words = set(tokenize(reference))
        return len(words & said) / len(words | said)

    return max(references, key=shared)


def review(folder: Path, examples: Sequence[Example], model: str) -> Path:
    """The folder of the captions of these photos, all corrected."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = folder / "captions.jsonl"
    if captions.exists():  # by an earlier call
        return folder
    right = {}
    for place, example in enumerate(examples):
        name = f"{place:04}{example.path.suffix}"
        link(example, folder / "photos" / name)
        right[name] = example.captions
    command = ["caption", str(folder / "photos"), "--output", str(captions), "--model", model]
    if captioner([*command, "--quiet"]) != 0:
        raise SystemExit(2)
    with open_session(captions, ReviewOptions(images=str(folder / "photos"))) as session:
        for each in session.reviewed():
            name, text = each.item.name, each.item.text or ""
            session.correct(name, each.item.text, correction(text, right[name]))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="photos to correct and to score")
    parser.add_argument("--split", default="dev", help="of it (default: dev)")
    parser.add_argument("--model", default="default", help="to start from (default: default)")
    parser.add_argument("--teach", type=int, default=60, metavar="N", help="photos (default: 60)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--work", type=Path, default=Path("runs/corrections"), metavar="DIR")
    args, options = parser.parse_known_args()

    start = load_any(args.model)
    scored = Scored(start, shuffled(args.data, args.split, seed=0))
    said = scored.captions(start)
    print(f"model {name_of(start)}, {args.teach} photos corrected, the others scored\n")
    print(table_head(COLUMNS), flush=True)
    rows = []
    for seed in args.seeds:
        examples = shuffled(args.data, args.split, seed)
        folder = review(args.work / f"{args.teach}-seed{seed}", examples[: args.teach], args.model)
        run = folder / "run"
        taught = teach("corrections.yaml", folder, run, args.model, seed, options)
        others = [each.image_id for each in examples[args.teach :]]
        after = scored.score(scored.captions(taught), others)
        pairs = zip(scored.score(said, others), after, strict=True)
        rows.append([value for old, new in pairs for value in (old, new, new - old)])
        print(table_row(str(seed), rows[-1:], digits=2), flush=True)
    print(table_row("mean", rows, digits=2))


if __name__ == "__main__":
    main()

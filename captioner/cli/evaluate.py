"""`captioner evaluate`: score a model on captioned images."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from captioner.cli.checks import check_model
from captioner.cli.options import (
    add_data,
    add_decoding,
    add_model,
    add_option,
    check_outputs,
    data_of,
    decoding_for,
    decoding_options,
    model_of,
    options_of,
    say,
)
from captioner.cli.progress import image_bar
from captioner.data.options import DataOptions
from captioner.files.escaping import shown
from captioner.model.options import BatchOptions
from captioner.text.options import ScoringOptions

EVALUATE_EXAMPLES = """\
examples:
  captioner evaluate --data data/flickr8k --split test
  captioner evaluate --data data/flickr8k --beam-size 5 --output scores.json
  captioner evaluate --data captions.jsonl --images photos/ --model mine.safetensors
  captioner evaluate --data captions.jsonl --images photos/ --split all --limit 100
  captioner evaluate --data data/coco --metrics METEOR SPICE    these two need Java
  captioner evaluate --data data/flickr8k --tokenizer ptb --metrics METEOR-stem

The JSON file holds the scores, the protocol that produced them and every image's caption.
An image that cannot be read ends the evaluation: scores on fewer images are not comparable.
"""


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = EVALUATE_EXAMPLES
    parser.set_defaults(command=_evaluate)
    add_data(parser)
    output = parser.add_argument_group("output")
    add_option(output, ScoringOptions, "metrics", nargs="+")
    add_option(output, ScoringOptions, "tokenizer")
    output.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="scores and protocol, as JSON"
    )
    output.add_argument(
        "--coco-results",
        type=Path,
        metavar="FILE",
        help="captions in COCO's results format; image_id is the annotations' id of the image, "
        "else the number that its name is, else its place from 1 (said, with file_name beside it)",
    )
    output.add_argument("--overwrite", action="store_true", help="replace files that already exist")
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    add_decoding(parser)
    add_model(parser, has_batches=True)


def _evaluate(args: argparse.Namespace) -> int:
    from captioner.captioning.coco_ids import choose_coco_ids
    from captioner.data.datasets import canonical_split

    decoding_options(args)
    check_model(args)
    scoring = options_of(ScoringOptions, args)
    outputs = [path for path in (args.output, args.coco_results) if path is not None]
    check_outputs(outputs, args.overwrite)
    chosen = options_of(DataOptions, args)
    (data,), held_out = data_of([args.data], chosen)
    examples = data.split(chosen.split)[: chosen.limit]
    ids = None if args.coco_results is None else choose_coco_ids(examples)
    if ids is not None and ids.numbered:
        say(
            f"captioner: {shown(args.coco_results)}: the images are numbered from 1, because "
            f"{ids.reason}; file_name beside each number is the image's name"
        )
    from captioner.evaluation.evaluate import evaluate, save_json

    model = model_of(args)
    options = decoding_for(model, args)
    with image_bar(len(examples), args.quiet) as count:
        result = evaluate(
            model,
            examples,
            options,
            data={
                "format": data.format,
                "split": canonical_split(chosen.split),
                **({"dev_fraction": chosen.dev_fraction} if held_out else {}),
                "limit": chosen.limit,
                "warnings": list(data.warnings),
            },
            scoring=scoring,
            **asdict(options_of(BatchOptions, args)),
            on_image=count,
        )
    print(result.table())
    if args.output is not None:
        save_json(args.output, result.to_dict())
    if ids is not None:
        save_json(args.coco_results, result.coco_results(ids))
    return 0

"""`captioner calibrate`: measure how sure tags are, and keep it in the model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from captioner.cli.checks import check_model
from captioner.cli.options import (
    add_data,
    add_model,
    check_outputs,
    data_of,
    model_of,
    options_of,
    say,
)
from captioner.cli.progress import image_bar
from captioner.data.options import DataOptions
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.model.options import BatchOptions

CALIBRATE_EXAMPLES = """\
example:
  captioner calibrate --model mine.safetensors --data data/flickr8k --output tagging.safetensors

The held-out images are captioned and their tags compared with what people said. The new file is
the same captioner with the calibration and, where it had none, the lexicon. The scores are
cross-validated; give images that the model was not trained on. Where the data has a training
split, it must be the model's: from all its images come a classifier of what captions name, and a
measure of how unfamiliar an image is, which lowers confidences.
"""


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = CALIBRATE_EXAMPLES
    parser.set_defaults(command=_calibrate)
    add_data(parser, several=True)
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.safetensors")
    output.add_argument("--report", type=Path, metavar="FILE", help="all figures, as JSON")
    output.add_argument("--overwrite", action="store_true", help="replace files that already exist")
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    add_model(parser, has_batches=True)


def _calibrate(args: argparse.Namespace) -> int:
    from captioner.data.datasets import joined
    from captioner.evaluation.installed import check_installed

    check_installed()
    check_model(args)
    check_outputs([path for path in (args.output, args.report) if path], args.overwrite)
    chosen = options_of(DataOptions, args)
    if chosen.images is not None and len(args.data) > 1:
        raise CaptionerError("--images: is for one --data; lay the images out beside each")
    sets, held_out = data_of(args.data, chosen)
    data = joined(sets)
    data.split(chosen.split)  # A mistake is reported before the model is loaded.
    from captioner.evaluation.calibrate import (
        calibrate,
        images_to_read,
        save_calibrated,
        without_training_images,
    )
    from captioner.evaluation.evaluate import save_json
    from captioner.model.model_file import file_sha256

    model = model_of(args)
    if held_out and model.tag_head is not None and model.lexicon is not None:
        # It was fitted to more images than these, or to these.
        data = without_training_images(data)
        say(
            "captioner: the model's tag classifier and familiarity stay as they are; a split train "
            "in the data would replace them"
        )
    total = images_to_read(data, chosen.split, chosen.limit)
    if model.lexicon is None and not args.quiet:
        say("captioner: the model has no lexicon; it is built from the training captions")
    with image_bar(total, args.quiet) as count:
        result = calibrate(
            model,
            data,
            chosen.split,
            chosen.limit,
            **asdict(options_of(BatchOptions, args)),
            on_image=count,
        )
    save_calibrated(model, args.output)
    if args.report is not None:
        save_json(args.report, result.to_dict())
    print(result.table())
    print(f"{shown(args.output)}: sha256 {file_sha256(args.output)}")
    return 0

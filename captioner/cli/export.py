"""`captioner export`: parse, call, print."""

from __future__ import annotations

import argparse
from pathlib import Path

from captioner.cli.checks import check_files
from captioner.cli.options import (
    NOT_CALIBRATED,
    add_decoding,
    check_outputs,
    decoding_options,
    say,
    share,
)
from captioner.files.escaping import shown

EXPORT_EXAMPLES = """\
example:
  captioner export --checkpoint runs/lstm/last.ckpt --output mine.safetensors
  captioner caption photos/ --model mine.safetensors
  captioner export --checkpoint runs/seed*/checkpoints/best.ckpt --output mean.safetensors
  captioner export --checkpoint new.ckpt old.safetensors --weights 0.4 0.6 --output mean.safetensors
  captioner export --checkpoint runs/de/last.ckpt --without-cnn --output de.safetensors
  captioner caption photos/ --language de.safetensors

The mean of the weights of several runs can be better than each of them, if they are of one
configuration and started from the same model (`model.init_from`).
"""


def add_export(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = EXPORT_EXAMPLES
    parser.set_defaults(command=_export)
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+",
        type=Path,
        metavar="FILE.ckpt",
        help="of `captioner fit`; the weights of several are averaged, all but the first may be "
        "model files",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=share,
        metavar="W",
        help="how much each of the checkpoints counts in the mean, in their order: 0.4 0.6 "
        "(default: all alike)",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.safetensors")
    parser.add_argument(
        "--without-cnn",
        action="store_true",
        help="write a language file, for --language: all but the CNN, which it shares with the "
        "model that the training started from",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_decoding(
        parser,
        "The model's defaults; kept in the file. What is not given is as in the model that the "
        "training started from, or as below.",
    )


def _export(args: argparse.Namespace) -> int:
    check_outputs([args.output], args.overwrite)
    check_files(args.checkpoint, "checkpoint")
    decoding_options(args)
    from captioner.model.checkpoints import decoding_of, export_checkpoint

    first, *others = args.checkpoint
    options = decoding_options(args, decoding_of(first))
    model = export_checkpoint(
        first,
        args.output,
        *others,
        weights=args.weights,
        decoding=options,
        without_cnn=args.without_cnn,
    )
    size_mb = args.output.stat().st_size / 1e6
    print(f"{shown(args.output)}: {size_mb:.1f} MB, sha256 {model.sha256}")
    # The checkpoint never has one: training makes that of the model it started from untrue.
    say(f"captioner: {NOT_CALIBRATED}")
    return 0

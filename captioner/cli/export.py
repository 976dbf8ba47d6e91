"""`captioner export`: parse, call, print."""

from __future__ import annotations

import argparse
from pathlib import Path

from captioner.cli.checks import check_files
from captioner.cli.options import add_decoding, check_outputs, decoding_options
from captioner.files.escaping import shown

EXPORT_EXAMPLES = """\
example:
  captioner export --checkpoint runs/lstm/last.ckpt --output mine.safetensors
  captioner caption photos/ --model mine.safetensors
  captioner export --checkpoint runs/seed*/checkpoints/best.ckpt --output mean.safetensors

The mean of the weights of several runs can be better than each of them, if they are of one
configuration and started from the same model (`model.init_from`).
"""


def add_export(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.set_defaults(command=_export)
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+",
        type=Path,
        metavar="FILE.ckpt",
        help="of `captioner fit`; the weights of several are averaged",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_decoding(parser, "The model's defaults; kept in the file.")


def _export(args: argparse.Namespace) -> int:
    check_outputs([args.output], args.overwrite)
    check_files(args.checkpoint, "checkpoint")
    decoding = decoding_options(args)
    from captioner.model.checkpoints import export_checkpoint

    first, *others = args.checkpoint
    model = export_checkpoint(first, args.output, *others, decoding=decoding)
    size_mb = args.output.stat().st_size / 1e6
    print(f"{shown(args.output)}: {size_mb:.1f} MB, sha256 {model.sha256}")
    return 0

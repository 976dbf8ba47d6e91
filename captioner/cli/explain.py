"""`captioner explain`: parse, call, print."""

from __future__ import annotations

import argparse
from pathlib import Path

from captioner.cli.checks import check_files, check_images, check_model
from captioner.cli.options import (
    add_decoding,
    add_model,
    check_outputs,
    decoding_for,
    decoding_options,
    model_of,
)
from captioner.errors import CaptionerError
from captioner.files.escaping import shown

EXPLAIN_EXAMPLES = """\
examples:
  captioner explain dog.jpg                               writes explain.png
  captioner explain dog.jpg --output dog.png --beam-size 5

The image shows the photo, for each word of its caption the part of the photo that the decoder
read from and the word's probability, and the captions that lost the search.
"""


def add_explain(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = EXPLAIN_EXAMPLES
    parser.set_defaults(command=_explain)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the photo")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("explain.png"),
        metavar="FILE.png",
        help="the image to write (default: explain.png)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_decoding(parser)
    add_model(parser)


def _explain(args: argparse.Namespace) -> int:
    output: Path = args.output
    if output.suffix.lower() != ".png":
        raise CaptionerError(f"output {shown(output)}: the image is a PNG; end it in .png")
    check_outputs([output], args.overwrite)
    decoding_options(args)
    check_model(args)
    check_images([str(args.image)], (), "all")
    check_files([args.image], "image")
    from captioner.pages.explain import explain, save_figure

    model = model_of(args)
    options = decoding_for(model, args)
    explanation = explain(model, args.image, options)
    save_figure(explanation, output)
    print(explanation.text)
    return 0

"""`captioner review`: parse, call, print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.options import add_model, at_least, say
from captioner.errors import CaptionerError

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel

REVIEW_EXAMPLES = """\
examples:
  captioner review captions.jsonl                captions that captioner caption wrote, or a CSV
  captioner review photos/                       the text files or XMP sidecars beside the photos
  captioner review captions.jsonl --images photos/
  captioner review photos/ --sidecar-suffix .xmp --no-browser

A page opens in the browser: look at the captions, accept, correct or reject them, or have an image
captioned again from words of your own, all by keyboard (? lists the keys). Each change is saved at
once where the captions live and can be undone, also after a restart. What you said of each caption
is kept beside them in .captioner-review.sqlite. Only this machine reaches the page, and only under
the address that is printed. Ctrl-C ends it. It needs the extra: pip install "captioner[review]"
"""


def add_review(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.set_defaults(command=_review)
    parser.add_argument(
        "path", type=Path, metavar="CAPTIONS", help="JSONL or CSV file, or a folder with captions"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--sidecar-suffix",
        metavar="SUFFIX",
        help="review the files for each image that end in this, such as .txt or .xmp (default: "
        "those in the folder, if they are of one kind)",
    )
    parser.add_argument(
        "--port",
        type=at_least(0),
        default=0,
        metavar="N",
        help="serve the page on this port (default: any free one)",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, and open no browser"
    )
    add_model(parser, batch_size=None, workers=False)


def _review(args: argparse.Namespace) -> int:
    try:
        from captioner.review.run import ReviewJob, serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise CaptionerError(
            f"`captioner review` needs {error.name}, which is not installed; "
            'pip install "captioner[review]"'
        ) from None

    def load() -> CaptionModel:
        from captioner.model.shipped import load_model

        return load_model(args.model, device=args.device, precision=args.precision)

    def on_ready(address: str) -> None:
        say(f"captioner: review at {address} (Ctrl-C ends it)")
        if not args.no_browser:
            import webbrowser

            webbrowser.open(address)

    try:
        job = ReviewJob(args.path, args.images, args.sidecar_suffix, args.port)
    except ValueError as error:
        raise CaptionerError(str(error)) from error
    counts = serve(job, load, on_ready)
    if counts:
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        say(f"captioner: {said}")
    return 0

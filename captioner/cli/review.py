"""`captioner review`: parse, call, print."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.options import add_model, add_options, model_of, options_of, say
from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.model.options import ModelOptions
from captioner.review.options import ReviewOptions

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
is kept beside them in .captioner-review.sqlite: `captioner fit --config configs/corrections.yaml
--data.root FOLDER` teaches the shipped model with it. Only this machine reaches the page, and only
under the address that is printed. Ctrl-C ends it. It needs the extra: pip install
"captioner[review]"
"""


def add_review(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and its examples."""
    parser.epilog = REVIEW_EXAMPLES
    parser.set_defaults(command=_review)
    parser.add_argument(
        "path", type=Path, metavar="CAPTIONS", help="JSONL or CSV file, or a folder with captions"
    )
    add_options(parser, ReviewOptions)
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, and open no browser"
    )
    add_model(parser)


def _review(args: argparse.Namespace) -> int:
    try:
        from captioner.review.run import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise CaptionerError(
            f"`captioner review` needs {error.name}, which is not installed; "
            'pip install "captioner[review]"'
        ) from None

    def on_ready(address: str) -> None:
        say(f"captioner: review at {address} (Ctrl-C ends it)")
        if not args.no_browser:
            import webbrowser

            webbrowser.open(address)

    def load(language: str | None) -> CaptionModel:
        if language is not None and not options_of(ModelOptions, args).language:
            args.language = (language,)
        return model_of(args)

    options = options_of(ReviewOptions, args)
    counts = serve(args.path, options, load, on_ready)
    if counts:
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        folder = args.path if args.path.is_dir() else args.path.parent
        say(f"captioner: {said}")
        say(
            "captioner: to teach a model with them: captioner fit --config "
            f"configs/corrections.yaml --data.root {shown(shlex.quote(str(folder)))}"
        )
    return 0

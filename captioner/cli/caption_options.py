"""The options of `captioner caption`, with their help."""

from __future__ import annotations

import argparse

from captioner.cli.options import (
    add_decoding,
    add_exclude,
    add_model,
    add_option,
    add_options,
    add_raw,
    share,
)
from captioner.decoding.options import DecodingOptions
from captioner.options import described

PAGE = "html"
"""Not a writer format: the captions are kept as JSONL, and a page shows them."""

TAG_CONFIDENCE = 0.25
"""Of the tags, unless another is asked for."""

CAPTION_EXAMPLES = """\
examples:
  captioner caption dog.jpg                               one line on standard output
  captioner caption photos/ 'more/*.png'                  folders with all in them, patterns
  captioner caption photos/ --exclude '*.png' --exclude drafts/   but not these
  captioner caption photos/ --output captions.csv         one file; its suffix decides the format
  captioner caption photos/ --output texts/ --format txt  a text file for each image
  captioner caption photos/ --format txt --sidecar-suffix .caption --caption-prefix "sks, "
  captioner caption photos/ --output report.html          a page to look at; opens in any browser
  captioner caption photos/ --format xmp                  XMP sidecars beside the photos
  captioner caption photos/ --output captions.csv --embed   also into the photos themselves
  captioner caption new/ --output captions.csv --append   and others to the same file
  captioner caption photos/ --format txt --missing-only   only photos without a text file
  captioner caption photos/ --num-captions 3 --candidates --output captions.jsonl
  captioner caption dog.jpg --sample --top-p 0.9 --num-captions 5 --seed 1
  captioner caption photos/ --ban snow --no-repeat-ngram 2
  captioner caption dog.jpg --prompt "two dogs"           continue these words
  captioner caption dog.jpg --must-include ball --must-include grass
  captioner caption photos/ --tags --output captions.jsonl      words with their probabilities
  captioner caption 'shards/{0000..0099}.tar' --output captions/  a file for each archive
  captioner caption photos.csv --output s3://bucket/captions      a list of images, into a store
  captioner caption 's3://bucket/{0000..9999}.tar' --output s3://bucket/captions --engine ray

HEIC, raw photos and JPEG XL need extras: pip install 'captioner[heif,raw,jxl]'. Of a raw photo
and a JPEG with one name only the JPEG is captioned (--raw all: both). Other files in a folder
(videos, what has no extra) are counted by kind, in one line at the end.

Standard output gets a line `path<TAB>caption` for each image, and further captions after further
tabs. An image that cannot be read is named on standard error, the others are captioned, and the
exit code is 1.

After an interruption, a kill or a full disk, run the same command again to resume: finished images
are not read again; images that failed, changed or are new are captioned and put in their places.
Other options, another model or other images are refused: --append adds other images at the end and
touches nothing else, --overwrite starts over (leave it out to resume after that). Where that would
replace text that people wrote or changed, it says in how many files and changes nothing: --yes
replaces it, --missing-only leaves it and captions the images that have no caption yet. What is
known of the output stands beside it in a hidden file, `.captions.csv.captioner`: without it nothing
can be added. The captions of a page, report.html, are report_files/captions.jsonl, and all of this
holds for them; `captioner report --help` explains the page. Standard output keeps nothing: there,
every run starts from the beginning.

An XMP sidecar or an embedded description that another program has written or changed is never
replaced, not even by --overwrite. Without --embed images are never touched. docs/formats.md
explains all formats, docs/scale.md shards and addresses.
"""


def add_caption_options(parser: argparse.ArgumentParser) -> None:
    """All options of the command, in the order of its help."""
    from captioner.captioning.job import CaptionJob

    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder or pattern")
    add_exclude(parser)
    add_raw(parser)
    add_option(parser, CaptionJob, "partial_images")
    output = parser.add_argument_group("output")
    _add_output(output)
    _add_contents(output)
    _add_details(output)
    _add_words(add_decoding(parser))
    sampling = parser.add_argument_group("sampling")
    add_options(sampling, DecodingOptions, "sample", "temperature", "top_k", "top_p", "seed")
    add_model(parser, has_batches=True)
    _add_shards(parser)
    # Whether a name for XMP was given matters; of the others only their values do.
    defaults = {name: default for name, (_, default) in described(CaptionJob).items()}
    del defaults["xmp_name"]
    parser.set_defaults(**defaults)


def _add_shards(parser: argparse.ArgumentParser) -> None:
    """How inputs become shards."""
    from captioner.shards.job import EngineOptions, ShardOptions

    group = parser.add_argument_group(
        "shards",
        "Archives, tables with images in them, lists of images (.csv, .jsonl, .parquet)\n"
        "and addresses (s3://...) give a file for each shard, below --output; so do images\n"
        "where --output ends in a slash and --format is jsonl, parquet or tar.",
    )
    add_options(group, ShardOptions)
    add_options(group, EngineOptions)


def _add_output(output: argparse._ArgumentGroup) -> None:
    """Where captions go, and what happens to existing ones."""
    from captioner.captioning.formats import WRITERS
    from captioner.captioning.job import CaptionJob
    from captioner.shards.work import FORMATS as SHARD_FORMATS

    output.add_argument(
        "-o", "--output", metavar="PATH", help="write there, not to standard output"
    )
    output.add_argument(
        "--format",
        choices=[*WRITERS, PAGE, *(format for format in SHARD_FORMATS if format not in WRITERS)],
        help="of the output; without it the suffix of PATH decides. "
        + "; ".join(f"{name}: {writer.summary}" for name, writer in WRITERS.items())
        + f"; {PAGE}: a page on which people look at, find and correct captions; for shards jsonl "
        "(default), parquet or tar (image, .txt and .json, for training)",
    )
    again = output.add_mutually_exclusive_group()
    add_options(again, CaptionJob, "append", "overwrite", "missing_only")
    add_option(output, CaptionJob, "replace_hand_made")


def _add_contents(output: argparse._ArgumentGroup) -> None:
    """What is written about each image."""
    from captioner.captioning.job import CaptionJob

    add_options(output, CaptionJob, "candidates", "min_confidence")
    tags = output.add_mutually_exclusive_group()
    tags.add_argument(
        "--tags",
        nargs="?",
        type=share,
        const=TAG_CONFIDENCE,
        metavar="P",
        help="with jsonl and xmp: what each image shows, as words that are right with a "
        "probability of at least P (default: 0.25); xmp and --embed have them anyway, if the model "
        "has any",
    )
    tags.add_argument(
        "--no-tags", action="store_true", help="with xmp, html and --embed: the caption only"
    )


def _add_details(output: argparse._ArgumentGroup) -> None:
    """How it is written."""
    from captioner.captioning.job import CaptionJob

    names = ("caption_prefix", "caption_suffix", "sidecar_suffix", "csv_bom", "xmp_name")
    add_options(output, CaptionJob, *names)
    output.add_argument(
        "--no-attention",
        action="store_true",
        help="with html: do not show where the captioner looked, which means reading images twice",
    )
    add_option(output, CaptionJob, "embed")
    output.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def _add_words(decoding: argparse._ArgumentGroup) -> None:
    """What captions shall and shall not say."""
    add_option(decoding, DecodingOptions, "num_captions")
    add_option(decoding, DecodingOptions, "banned_words", action="append")
    add_option(decoding, DecodingOptions, "prompt")
    add_option(decoding, DecodingOptions, "must_include", action="append")

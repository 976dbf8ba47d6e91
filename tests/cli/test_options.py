"""The options that several commands share, in their help."""

from __future__ import annotations

import dataclasses
import re

from captioner.cli import entry as cli
from captioner.cli.options import DECODING_ARGUMENTS, SAMPLING_ARGUMENTS
from captioner.decoding.options import DecodingOptions
from helpers.commands import help_of


def test_the_help_states_the_decoders_defaults() -> None:
    defaults = {field.name: str(field.default) for field in dataclasses.fields(DecodingOptions)}
    stated = {
        name: match[1]
        for name, _, _, text in (*DECODING_ARGUMENTS, *SAMPLING_ARGUMENTS)
        if (match := re.search(r"\(default: (.*)\)$", text))
    }
    without_number = {"num_captions", "sample", "prompt", "must_include", "style"}
    without_number |= {"banned_words", "joining_words"}
    assert stated.pop("style") == "its first"
    assert (stated.pop("joining_words"),) == DecodingOptions().joining_words
    assert stated == {n: d for n, d in defaults.items() if n not in without_number}
    assert defaults["num_captions"] == "1"
    assert "(jsonl and tsv; default: 1)" in " ".join(help_of("caption").split())


def test_the_command_line_offers_every_decoding_option() -> None:
    offered = {
        action.dest
        for action in cli.make_parser()
        ._subparsers._group_actions[0]  # type: ignore[union-attr]
        .choices["caption"]
        ._actions
    }
    assert {field.name for field in dataclasses.fields(DecodingOptions)} <= offered

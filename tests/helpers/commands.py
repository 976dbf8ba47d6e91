"""What the command line offers."""

from __future__ import annotations

import argparse

from captioner.cli import entry as cli


def help_of(command: str) -> str:
    parser = cli.make_parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return str(subparsers.choices[command].format_help())

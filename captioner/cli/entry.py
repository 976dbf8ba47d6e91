"""The `captioner` command: hand the arguments to the file of the command that they name.

Exit codes: 0 all went well; 1 some images failed; 2 the command cannot be carried out as given;
130 interrupted; 141 the reader of standard output went away.

What needs torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from captioner.cli.options import shown_lines
from captioner.cli.parser import Parser
from captioner.cli.training_help import short_help, with_long_help
from captioner.errors import CaptionerError
from captioner.version import __version__

COMMANDS = {
    "caption": "describe photos",
    "fill": "fill in a sentence about a photo",
    "tag": "describe videos: segments, tags, subtitles",
    "report": "a page to find and correct captions",
    "review": "correct captions on a page",
    "explain": "show where a caption's words look",
    "evaluate": "score a model on data",
    "calibrate": "measure how sure tags are",
    "export": "turn a training checkpoint into a model",
    "report-training": "plot training runs",
}
"""Name of a command -> its purpose. Its file adds its arguments."""

TRAINING_COMMANDS = {
    "fit": "train a captioner from a YAML configuration",
    "validate": "score a training checkpoint on the dev split",
    "test": "score a training checkpoint on the test split",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        argv: the arguments after the program's name; those of the process by default.
    """
    with warnings.catch_warnings():
        # Pillow warns of damaged metadata without saying in which file. Errors are reported.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(arguments: list[str]) -> int:
    try:
        if arguments and arguments[0] in TRAINING_COMMANDS:
            return _train(arguments)
        parser = make_parser(arguments[0] if arguments else None)
        if not arguments:
            parser.print_help()
            return 0
        if set(arguments) == {"--version", "--verbose"}:
            from captioner.cli.about import lines_about

            print(f"captioner {__version__}", *lines_about(), sep="\n")
            return 0
        args = parser.parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = args.command
        code = command(args)
        sys.stdout.flush()
        return code
    except CaptionerError as error:
        print(f"captioner: error: {shown_lines(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("captioner: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes standard output when it exits, which would fail again and be reported.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # Any path in any option can be too long for its file system.
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = shown_lines(os.fsdecode(error.filename or ""))
        print(f"captioner: error: {name}: file name too long", file=sys.stderr)
        return 2


def make_parser(named: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; it imports no torch.

    Args:
        named: the command that is parsed; there are no others then. None, or what is not the
            name of a command that is parsed here: all of them.
    """
    parser = Parser(
        prog="captioner",
        description="Describe photos and videos in words; train and score the models that do.",
        epilog="`captioner COMMAND --help` shows the options of a command, with examples.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"captioner {__version__}",
        help="show the version; with --verbose also what computes on this machine, and why",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in [named] if named in COMMANDS else COMMANDS:
        _add_command(commands, name)
    if named in COMMANDS:
        return parser
    for name, purpose in TRAINING_COMMANDS.items():
        # Only for the list in --help: main() hands these over before it parses.
        commands.add_parser(name, help=purpose, add_help=False)
    return parser


def _add_command(commands: Any, name: str) -> None:
    parser = commands.add_parser(
        name,
        help=COMMANDS[name],
        description=COMMANDS[name].capitalize() + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Those of all commands take some hundredths of a second to import.
    file = name.replace("-", "_")
    getattr(import_module(f"captioner.cli.{file}"), f"add_{file}")(parser)


def _train(arguments: Sequence[str]) -> int:
    from captioner.files.writing import keep_matplotlib_in_cache

    if (text := short_help(arguments)) is not None:
        print(text, end="")
        return 0
    keep_matplotlib_in_cache()
    try:
        from captioner.training.lightning_cli import main as train
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "captioner":
            raise
        raise CaptionerError(
            f"`captioner {arguments[0]}` needs {error.name}, which is not installed; "
            'pip install "captioner[train]"'
        ) from error
    return train(with_long_help(arguments))

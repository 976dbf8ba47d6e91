"""The parser of the commands: it says mistakes in a few lines, and what was perhaps meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from captioner.cli.options import shown_lines
from captioner.files.escaping import shown
from captioner.files.recognising import VIDEO, recognise

_NUMBER = re.compile(r"-\d+|-\d*\.\d+")  # as argparse knows negative numbers


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` with a usage of one or two lines.

    A command or an option that does not exist is reported with the similar ones that do.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def format_usage(self) -> str:
        """The command with what it needs; the options are listed by ``--help``."""
        formatter = self.formatter_class(prog=f"{self.prog} [options]")
        needed = [action for action in self._actions if action.required]
        formatter.add_usage(self.usage, needed, [])
        return formatter.format_help()

    def format_help(self) -> str:
        """The whole help, under the same usage."""
        self.usage = self.format_usage().removeprefix("usage: ").strip().replace("%", "%%")
        try:
            return super().format_help()
        finally:
            self.usage = None

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As the parser of the standard library, after a look at the names."""
        if args is not None:
            self._check_names(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with code 2 after the mistake, the usage and where to read on."""
        self.exit(
            2,
            f"captioner: error: {shown_lines(message)}\n{self.format_usage()}"
            f"`{self.prog} --help` lists all {'commands' if self._commands else 'options'}\n",
        )

    def _check_names(self, arguments: Sequence[str]) -> None:
        for argument in arguments:
            if argument == "--":
                return  # What follows are paths.
            if self._commands and argument[:1] != "-":
                if argument not in self._commands:
                    self.error(_no_command(argument, self._commands))
                return  # What follows is looked at by the command's own parser.
            if self._is_unknown(argument):
                name = argument.partition("=")[0]
                self.error(f"there is no option {name}" + meant(name, self._option_string_actions))

    @property
    def _commands(self) -> Collection[str]:
        groups = [] if self._subparsers is None else self._subparsers._group_actions
        return groups[0].choices or () if groups else ()  # type: ignore[return-value]

    def _is_unknown(self, argument: str) -> bool:
        known = self._option_string_actions
        name = argument.partition("=")[0]
        if argument[:1] != "-" or argument == "-" or " " in argument or _NUMBER.fullmatch(argument):
            return False  # a value
        if argument[:2] in known and f"-{name}" not in known:
            return False  # -oFILE; but -output is not -o with the rest as a file
        return name not in known


def meant(name: str, names: Iterable[str]) -> str:
    """``; did you mean ...?`` with those of the names that are similar, empty if none is."""
    plain = {each.lstrip("-"): each for each in names}
    wanted = name.lstrip("-").replace("_", "-")
    longer = [each for each in plain if wanted and each.startswith(wanted)]
    longer += [each for each in plain if len(wanted) > 3 and f"-{wanted}" in each]
    similar = longer or difflib.get_close_matches(wanted, plain, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(plain[each] for each in similar[:2])}?" if similar else ""


def _no_command(name: str, commands: Collection[str]) -> str:
    path = Path(name)
    if not path.exists():
        return f"there is no command {name!r}{meant(name, commands)}"
    command, what = ("tag", "videos") if recognise(path) == VIDEO else ("caption", "images")
    return f"{shown(path)} is not a command: `captioner {command} {shown(path)}` describes {what}"

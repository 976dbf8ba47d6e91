"""Options of the command line that are made of the fields of a dataclass."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest

from captioner.cli.options import add_option, add_options, options_of, with_flags
from captioner.errors import CaptionerError
from captioner.options import check_options, option


@dataclass(frozen=True)
class Tea:
    """Options of every kind."""

    cups: int = option(2, "how many", metavar="N", minimum=1)
    spoons: int = option(0, "how many")
    max_heat: float = option(90.0, "how hot", minimum=0, maximum=100)
    sugar: float | None = option(None, "how sweet", kind=float, above=0, default_text="none")
    leaf: str = option("green", "which", choices=("green", "black"))
    milk: bool = option(False, "white")
    lid: bool = option(True, "covered")
    guests: tuple[str, ...] = option(("me",), "who", metavar="NAMES")
    herbs: tuple[str, ...] = option((), "what", flag="--add")
    note: str | None = option(None, "beside it", kind=str)
    unnamed: int = 5

    def __post_init__(self) -> None:
        check_options(self)
        if self.milk and self.max_heat > 95:
            raise ValueError(f"max_heat={self.max_heat:g} with milk=True: lower max_heat")


def parse(*arguments: str) -> Tea:
    parser = argparse.ArgumentParser()
    names = ("cups", "max_heat", "sugar", "leaf", "milk", "lid", "guests")
    add_options(parser, Tea, *names)
    add_option(parser, Tea, "herbs", action="append")
    return options_of(Tea, parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Tea()),
        (["--cups", "3", "--max-heat", "5.5"], Tea(cups=3, max_heat=5.5)),
        (["--sugar", "0.5", "--leaf", "black"], Tea(sugar=0.5, leaf="black")),
        (["--milk", "--no-lid"], Tea(milk=True, lid=False)),
        (["--guests", "a, b,", "--add", "mint", "--add", "sage, dry"],
         Tea(guests=("a", "b"), herbs=("mint", "sage, dry"))),
        (["--guests", ""], Tea(guests=())),
    ],
)  # fmt: skip
def test_values_reach_the_options(arguments: list[str], expected: Tea) -> None:
    assert parse(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cups", "0"], "argument --cups: '0': give a whole number of at least 1"),
        (["--cups", "1.5"], "argument --cups: '1.5': give a whole number of at least 1"),
        (["--max-heat", "nan"], "argument --max-heat: 'nan': give a number from 0 to 100"),
        (["--sugar", "0"], "argument --sugar: '0': give a number above 0"),
        (["--leaf", "red"], "argument --leaf: invalid choice: 'red'"),
    ],
)
def test_values_out_of_bounds_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_options_that_do_not_go_together_are_named_as_on_the_command_line() -> None:
    with pytest.raises(CaptionerError) as error:
        parse("--milk", "--max-heat", "99")
    assert str(error.value) == "--max-heat 99 with --milk: lower --max-heat"


def test_what_stands_in_paths_and_quotes_is_not_the_name_of_an_option() -> None:
    paths = "a/max_heat.png, max_heat/a.png, 'max_heat' and a/cups=2/b"
    assert with_flags(paths, Tea) == paths
    message = (
        "settings.brew.max_heat: 5 there, 6 now (settings.cups: 1 there, 2 now); leave max_heat"
    )
    assert with_flags(message, Tea) == (
        "--max-heat: 5 there, 6 now (--cups: 1 there, 2 now); leave --max-heat"
    )


def test_the_help_states_the_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Tea)
    stated = {action.dest: action.help for action in parser._actions}
    del stated["help"]
    assert stated == {
        "cups": "how many (default: 2)",
        "spoons": "how many (default: 0)",
        "max_heat": "how hot (default: 90)",
        "sugar": "how sweet (default: none)",
        "leaf": "which (default: green)",
        "milk": "white",
        "lid": "covered (default: --lid)",
        "guests": "who (default: me)",
        "herbs": "what",
        "note": "beside it",
    }


def test_what_is_not_given_is_as_in_the_base() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Tea)
    base = Tea(cups=7, leaf="black", unnamed=1)
    assert options_of(Tea, parser.parse_args(["--cups", "4"]), base) == Tea(
        4, leaf="black", unnamed=1
    )

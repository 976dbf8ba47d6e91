"""How mistakes in names and arguments are said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from captioner.cli import entry as cli

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"

CAPTION = (
    "usage: captioner caption [options] PATH [PATH ...]\n`captioner caption --help` lists all "
    "options\n"
)
COMMANDS = "usage: captioner [options] COMMAND ...\n`captioner --help` lists all commands\n"


@pytest.mark.parametrize(
    ("arguments", "message", "usage"),
    [
        (["captoin", "a.jpg"], "there is no command 'captoin'; did you mean caption?", COMMANDS),
        (["fitt"], "there is no command 'fitt'; did you mean fit?", COMMANDS),
        (["xyzzy"], "there is no command 'xyzzy'", COMMANDS),
        (["--verson"], "there is no option --verson; did you mean --version?", COMMANDS),
        (
            ["cat.jpg"],
            "cat.jpg is not a command: `captioner caption cat.jpg` describes images",
            COMMANDS,
        ),
        (
            ["slideshow.mp4"],
            "slideshow.mp4 is not a command: `captioner tag slideshow.mp4` describes videos",
            COMMANDS,
        ),
        (["caption"], "the following arguments are required: PATH", CAPTION),
        (
            ["caption", "x", "--outptu=y"],
            "there is no option --outptu; did you mean --output?",
            CAPTION,
        ),
        (
            ["caption", "x", "-output", "y"],
            "there is no option -output; did you mean --output?",
            CAPTION,
        ),
        (
            ["caption", "x", "--beam_size", "2"],
            "there is no option --beam_size; did you mean --beam-size?",
            CAPTION,
        ),
        (
            ["caption", "--confidence", "2"],
            "there is no option --confidence; did you mean --min-confidence?",
            CAPTION,
        ),
        (["caption", "x", "--zzz"], "there is no option --zzz", CAPTION),
        (
            ["caption", "x", "--workers", "-1"],
            "argument --workers: '-1': give a whole number of at least 0",
            CAPTION,
        ),
    ],
)
def test_a_mistake_takes_three_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    usage: str,
) -> None:
    for name in ("cat.jpg", "slideshow.mp4"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr() == ("", f"captioner: error: {message}\n{usage}")


def test_alone_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    alone = capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert alone == capsys.readouterr()
    assert alone.out.startswith("usage: captioner [options] COMMAND ...\n")
    assert "    caption " in alone.out


@pytest.mark.parametrize("arguments", [["-oout.csv"], ["-o", "out.csv"], ["--", "-x.jpg"]])
def test_short_options_and_names_with_a_dash_are_no_mistakes(arguments: list[str]) -> None:
    args = cli.make_parser().parse_args(["caption", "a.jpg", *arguments])
    assert (args.output, args.paths) in [("out.csv", ["a.jpg"]), (None, ["a.jpg", "-x.jpg"])]

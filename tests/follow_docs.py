"""Do what README.md and the other documents say, command by command, and see whether it works.

    python tests/follow_docs.py                                  # installs what they say, too
    python tests/follow_docs.py --python .venv/bin/python        # with what is installed there
    python tests/follow_docs.py --only README.md docs/review.md
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python tests/follow_docs.py   # an older CPU

Each document is followed in a copy of the repository's tracked files, with files under the names
that the documents use (`photos/`, `clip.mp4`, `data/flickr8k`) made of the example files. Prints a
line for each command, with its exit code and its seconds. Trainings are made short by documented
options, which are printed; what is left out is printed with the reason. `documented/plan.py` lists
both. Ends with 1 if a command fails, prints something else than its document shows, or if an entry
of those lists fits no command any longer.

Needs a POSIX system with bash and git, nothing else before the commands install it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from documented.commands import Command, commands_of
from documented.plan import BEFORE, INSTALLS, PROGRAMS, as_run, outdated, reason_to_leave_out
from documented.running import Outcome, Reader
from documented.stand_ins import lay_out

ROOT = Path(__file__).parents[1]
SHOWN_LINES = 15
"""Of what a failed command printed."""


def documents() -> list[str]:
    """The documents for users, in the order in which they are followed."""
    others = sorted((ROOT / "docs").glob("*.md"))
    return ["README.md", "data/README.md", *(f"docs/{each.name}" for each in others)]


def copy_repository(folder: Path) -> None:
    """The tracked files as they are now: what a clone holds after the next commit."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not yet deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def environment(python: Path, work: Path) -> dict[str, str]:
    """That of the commands: an activated environment, and a cache of their own."""
    changed = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    changed |= {"XDG_CACHE_HOME": str(work / "cache"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    left = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return left | changed


def make_environment(work: Path) -> Path:
    """A fresh virtual environment; its interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
    print(f"made a virtual environment in {time.perf_counter() - start:.1f} s", flush=True)
    return work / "venv" / "bin" / "python"


def with_what_goes_before(page: str, commands: Sequence[Command]) -> Iterator[Command]:
    """The commands of a document, after those that its reader has run already."""
    for text in BEFORE.get(page, ()):
        yield Command(page, 0, -2, text)
    yield from commands


def installing_first(commands: Sequence[Command]) -> list[Command]:
    """The commands, after the first that installs: a page may show what comes out before it."""
    first = next(each for each in commands if re.match(INSTALLS, each.text))
    return [first, *(each for each in commands if each is not first)]


def show(command: Command, verdict: str, said: str, outcome: Outcome | None = None) -> None:
    """A line for a command; below it what it printed, if it failed."""
    place = f"{command.page}:{command.line}" if command.line else f"{command.page} (before)"
    figures = " " * 15
    if outcome is not None:
        code = "-" if outcome.code is None else outcome.code
        figures = f"{code!s:>4} {outcome.seconds:8.1f} s"
    print(f"{place:<26} {verdict:<8} {figures}  {said}", flush=True)
    if outcome is not None and outcome.trouble is not None:
        printed = outcome.printed.strip().splitlines()[-SHOWN_LINES:]
        print("\n".join(f"    {line}" for line in [outcome.trouble, *printed]), flush=True)


def follow(page: str, commands: Sequence[Command], reader: Reader, installs: bool) -> Counter[str]:
    """Run the commands of a document; how many were ok, failed or left out."""
    counts: Counter[str] = Counter()
    installed = [name for name in PROGRAMS if shutil.which(name)]
    for command in with_what_goes_before(page, commands):
        why = reason_to_leave_out(command.text, installed, installs=installs)
        if why is not None:
            verdict = "left out"
            show(command, verdict, f"{command.text}   ({why})")
        else:
            text = as_run(command.text)
            outcome = reader.run(command, text)
            verdict = "ok" if outcome.trouble is None else "FAILED"
            show(command, verdict, text, outcome)
            if verdict == "FAILED" and re.match(INSTALLS, command.text):
                sys.exit("without what this command installs nothing else can be tried")
        counts[verdict] += 1
    return counts


def main() -> int:
    pages = documents()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", type=Path, help="interpreter of an environment with captioner; nothing installs"
    )
    parser.add_argument(
        "--only", nargs="+", choices=pages, default=pages, metavar="PAGE", help="these documents"
    )
    parser.add_argument("--limit-s", type=float, default=1800, metavar="S", help="for each command")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in a new folder that stays")
    args = parser.parse_args()
    if args.python is None and "README.md" not in args.only:
        parser.error("--only without README.md needs --python: it is README.md that installs")

    commands = {page: commands_of(page, (ROOT / page).read_text("utf-8")) for page in pages}
    if args.python is None:
        commands["README.md"] = installing_first(commands["README.md"])
    work = args.keep or Path(tempfile.mkdtemp(prefix="captioner-docs-"))
    work.mkdir(parents=True, exist_ok=True)
    start, counts = time.perf_counter(), Counter[str]()
    try:
        # Not resolved: a virtual environment's interpreter is a link.
        python = args.python.absolute() if args.python else make_environment(work)
        print(f"{'command of':<26} {'':<8} exit {'time':>10}  ran")
        for page in args.only:
            folder = work / page.replace("/", "-").removesuffix(".md")
            copy_repository(folder)
            lay_out(folder)
            reader = Reader(folder, environment(python, work), args.limit_s)
            counts += follow(page, commands[page], reader, installs=args.python is None)
    finally:
        if args.keep is None:
            shutil.rmtree(work, ignore_errors=True)
    unused = outdated([command for each in commands.values() for command in each])
    for entry in unused:
        print(f"tests/documented/plan.py: no documented command fits {entry!r}")
    summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    print(f"{counts.total()} commands: {summary}; {time.perf_counter() - start:.0f} s")
    return 1 if counts["FAILED"] or unused else 0


if __name__ == "__main__":
    sys.exit(main())

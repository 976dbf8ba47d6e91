"""ExifTool, kept running: one process reads and writes the metadata of many files.

https://exiftool.org/exiftool_pod.html, "-stay_open": arguments come line by line, and ``-execute``
runs them. ``-q`` keeps it from saying when it is ready: ``-echo3`` says so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

from captioner.errors import CaptionerError

MAX_SECONDS = 60.0
"""After which ExifTool is ended: the largest photos take a hundredth of it."""

INSTALL = (
    "Debian and Ubuntu: sudo apt install libimage-exiftool-perl; macOS: brew install exiftool; "
    "Windows: winget install OliverBetz.ExifTool; others: https://exiftool.org/install.html"
)

# ExifTool waits for ever for arguments that a killed process will never send. `cat` ends with that
# process, and what follows ends ExifTool.
_UNTIL_THE_END = '{ cat; printf "%s\\n" -stay_open False; } | "$0" "$@"'
_READY = "{ready}"
_RUN = ("-echo3", _READY, "-execute", "")


class ExifToolError(Exception):
    """Why one file could not be read or written, in a few words without its path."""


def find_exiftool() -> str:
    """The path of the program.

    Raises:
        CaptionerError: it is not installed; says how to install it.
    """
    found = shutil.which("exiftool")
    if found is None:
        raise CaptionerError(f"ExifTool is not installed ({INSTALL})")
    return found


class ExifTool:
    """To be closed; the process starts when it is first asked for something."""

    def __init__(self) -> None:
        """Find the program; CaptionerError as `find_exiftool`."""
        self._program = find_exiftool()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def read(self, file: Path, tags: Sequence[str]) -> dict[str, Any]:
        """What a file holds: ``Group:Tag`` -> text, or a list of texts.

        Args:
            file: an absolute path; its name has no line end and no ``%``, its folder may.
            tags: which ones, such as ``IPTC:Caption-Abstract``.

        Raises:
            ExifToolError: it cannot be read.
        """
        answer = self._ask(file, ["-json", "-G1", "-q", "-q", *(f"-{tag}" for tag in tags)])
        start = answer.find("[{")
        try:
            # Numbers as they are spelled: "1.50" is a text here.
            (found,) = json.loads(answer[start:], parse_int=str, parse_float=str)
        except ValueError:
            raise ExifToolError(_reason(answer)) from None
        return dict(found)

    def write(self, file: Path, output: str, changes: Sequence[tuple[str, str]]) -> None:
        """Write a changed copy of a file, beside it.

        Args:
            file: as for `read`.
            output: the name of the copy, which does not exist.
            changes: pairs of tag and text; several pairs of one tag make a list, an empty text
                removes the tag.

        Raises:
            ExifToolError: it cannot be written.
        """
        lines = [f"-{tag}={_as_html(text)}" for tag, text in changes]
        answer = self._ask(file, ["-E", "-q", "-q", *lines, "-o", self._named(file, output)])
        if not file.with_name(output).exists():
            raise ExifToolError(_reason(answer))

    def _named(self, file: Path, name: str) -> str:
        """The path to give. ExifTool is started in a folder whose name it would misunderstand."""
        folder = file.parent
        # Line ends end an argument, `%d` and the like stand for parts of names in ``-o``.
        if not {"\n", "\r", "%"} & set(str(folder)):
            return str(folder / name)
        if folder != self._folder:
            self.close()
            self._folder = folder
        return name

    def _ask(self, file: Path, arguments: Sequence[str]) -> str:
        name = self._named(file, file.name)
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        timer = Timer(MAX_SECONDS, _kill, [process])
        timer.start()
        lines: list[bytes] = []
        try:
            process.stdin.write(os.fsencode("\n".join([*arguments, name, *_RUN])))
            process.stdin.flush()
            for line in process.stdout:
                if line.rstrip() == _READY.encode():
                    return b"".join(lines).decode(errors="replace")
                lines.append(line)
        except OSError:
            pass  # It has ended.
        except BaseException:
            self._end()  # What it is writing must not appear later.
            raise
        finally:
            timer.cancel()
        self._end()
        raise ExifToolError(f"ExifTool ended, or took longer than {MAX_SECONDS:.0f} s")

    def _start(self) -> subprocess.Popen[bytes]:
        # The first argument keeps out the user's own configuration.
        command = [self._program, "-config", "", "-stay_open", "True", "-@", "-", "-common_args"]
        command += ["-charset", "utf8"]
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            command += ["-charset", "filename=utf8"]
        else:
            # In a session of its own: Ctrl-C is ours to handle. Copies of photos are private.
            options = {"start_new_session": True, "umask": 0o077}
            command = ["sh", "-c", _UNTIL_THE_END, *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            **options,
        )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            _wait(process)

    def close(self) -> None:
        """Let the process end; the next request starts a new one."""
        process, self._process = self._process, None
        self._folder = None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            if sys.platform == "win32":
                process.stdin.write(b"-stay_open\nFalse\n")
            process.stdin.close()
        timer = Timer(MAX_SECONDS, _kill, [process])
        timer.start()
        try:
            _wait(process)
        finally:
            timer.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Until the process and those it has started are gone: all of them hold its output open."""
    assert process.stdin is not None and process.stdout is not None
    process.stdout.read()
    process.wait()
    process.stdout.close()
    with suppress(OSError):
        process.stdin.close()


def _as_html(text: str) -> str:
    """The text on one line, for ``-E``: what a line cannot hold becomes a reference."""
    return "".join(
        char if char.isascii() and char.isalnum() else f"&#{ord(char)};" for char in text
    )


def _reason(answer: str) -> str:
    found = [line for line in answer.splitlines() if line.startswith("Error: ")]
    if not found:
        return "ExifTool cannot change it"
    return found[0].removeprefix("Error: ").rpartition(" - ")[0] or found[0]

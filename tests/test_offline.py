"""No command opens a socket or writes anything but its output and its cache.

Watched from outside, by strace, in a home of its own; where CI seems to run, some libraries keep
quiet about themselves, so nothing says so here. The first of the commands is watched with a copy of
captioner that does not switch ONNX Runtime's reports off, to see that the check would fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import captioner
from captioner.model.caption_model import CaptionModel
from helpers.heic import heic
from helpers.images import quadrants
from helpers.programs import program
from helpers.raw import dng

EXAMPLES = Path(__file__).parents[1] / "data" / "examples"
PACKAGE = Path(captioner.__file__).parent
SWITCH = 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"\n'
ALIVE_S = 30
"""ONNX Runtime looks up a host within 20 seconds."""

SAYS_CI = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "GITLAB_CI", "BUILD_ID")
CALLS = "socket,bind,connect,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
CALLS += ",link,linkat,symlink,symlinkat,unlink,unlinkat,truncate"
PLACES = ("/dev/null", "/dev/shm/", "/dev/pts/", "/dev/tty", "/proc/self/", "pipe:")

RUN_ALL = """
import json, os, sys, time
import captioner
from captioner.cli import entry as cli
package, alive_s, commands = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
assert os.path.dirname(captioner.__file__) == package, captioner.__file__
for number, arguments in enumerate(commands):
    code = cli.main(arguments)
    assert code == 0, (arguments, code)
    if number == 0:
        assert "onnxruntime" in sys.modules  # used by the first one: now its time counts
        ends_s = time.monotonic() + alive_s
while time.monotonic() < ends_s and not os.path.exists("enough"):
    time.sleep(0.02)
"""


def watched(
    code: str, arguments: Sequence[str], folder: Path, telltale: Path | None = None
) -> tuple[list[str], list[str]]:
    """Run Python code in a folder.

    Args:
        code: what is run; it may end when there is a file ``enough``.
        arguments: of the code.
        folder: the code runs in ``folder/out``.
        telltale: there is enough once this exists and the code has used a network.

    Returns:
        The calls that have to do with a network, and what was written, created, renamed or removed
        outside of ``folder/out``, of the folder for temporary files and of captioner's cache.
    """
    home, log = folder / "home", folder / "log"
    for each in (home, folder / "out", folder / "temporary"):
        each.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name not in SAYS_CI}
    env |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    env["TMPDIR"] = str(folder / "temporary")  # where Python tries whether it could
    # A copy of captioner may lie in the folder.
    env["PYTHONPATH"] = os.pathsep.join(map(str, (folder, PACKAGE.parent)))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "ORT_DISABLE_TELEMETRY"):
        env.pop(name, None)
    command = [program("strace"), "-f", "--seccomp-bpf", "-qq", "-e", f"trace={CALLS}"]
    command += ["-o", str(log), sys.executable, "-c", code, *arguments]
    errors = folder / "errors"
    with errors.open("w") as said:
        process = subprocess.Popen(command, cwd=folder / "out", env=env, stdout=said, stderr=said)
    if telltale is not None:
        _wait_for_calls(process, log, telltale)
        (folder / "out" / "enough").touch()
    assert process.wait() == 0, errors.read_text()
    own = (str(folder / "out"), env["TMPDIR"], str(home / ".cache" / "captioner"), *PLACES)
    lines = log.read_text(errors="replace").splitlines()
    written = sorted({path for line in lines for path in _written(line, folder / "out")})
    return (
        [line for line in _without_look_at_ipv6(lines) if _is_network(line)],
        [path for path in written if not path.startswith(own) and path not in _parents(own)],
    )


def _wait_for_calls(process: subprocess.Popen[bytes], log: Path, telltale: Path) -> None:
    """Wait until a process has used a network and made a file, or has ended."""
    calls = 0
    while not log.exists() and process.poll() is None:
        time.sleep(0.02)
    with log.open(errors="replace") as lines:
        while process.poll() is None and not (calls and telltale.exists()):
            calls += sum(map(_is_network, lines))
            time.sleep(0.02)


def _without_look_at_ipv6(lines: Sequence[str]) -> list[str]:
    """Without a socket that is bound to this machine's own address, and then closed.

    By that urllib3 finds out whether there is IPv6, when it is imported: by s3fs, which Lightning
    imports where it is installed. A connection of such a socket stays.
    """
    process_of = [line.partition(" ")[0] for line in lines]
    left = []
    for number, line in enumerate(lines):
        is_ipv6 = re.search(r"\bsocket\(AF_INET6, SOCK_STREAM", line)
        own = (
            lines[i] for i in range(number + 1, len(lines)) if process_of[i] == process_of[number]
        )
        following = next(own, "") if is_ipv6 else ""
        if not re.search(r'\bbind\(.*htons\(0\).*"::1"', following):
            left.append(line)
    return left


def _is_network(line: str) -> bool:
    # A pair of local sockets joins two processes of ours; a named one would be connected to.
    return bool(re.search(r"\bconnect\(|\bsocket\((?!AF_UNIX)", line))


def _written(line: str, here: Path) -> list[str]:
    if re.search(r"\) += -1 ", line):
        return []
    call = re.search(r"\b(\w+)\(", line)
    if call is None or call[1] in ("socket", "bind", "connect"):
        return []
    if call[1].startswith("open") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE", line):
        return []
    return [os.path.normpath(here / path) for path in re.findall(r'"((?:[^"\\]|\\.)*)"', line)]


def _parents(places: Sequence[str]) -> set[str]:
    """What has to be created for the cache."""
    return {str(parent) for place in places for parent in Path(place).parents}


@pytest.fixture
def commands(
    tmp_path: Path, tagging_model: CaptionModel, make_shapes: Callable[[Path, int], Path]
) -> list[list[str]]:
    """What is run in ``tmp_path / "watched" / "out"``."""
    assert tagging_model.path is not None
    model = ["--model", str(tagging_model.path), "--device", "cpu"]
    photos, data = tmp_path / "photos", make_shapes(tmp_path / "shapes", 20)
    mine = tmp_path / "watched" / "out" / "mine"  # whose captions go into the images
    for folder in (photos, mine):
        folder.mkdir(parents=True)
        for name in ("cat.jpg", "coffee.jpg"):
            shutil.copy(EXAMPLES / name, folder)
    clip = str(shutil.copy(EXAMPLES / "slideshow.mp4", tmp_path / "clip.mp4"))
    # HEIC and raw photos are decoded by other processes.
    heic(photos / "x.heic", quadrants())
    dng(photos / "y.dng", np.zeros((192, 256, 3), np.uint8))
    network = ["name=timm/tf_efficientnet_lite0", "weights=imagenet", "image_size=32"]
    sizes = ["decoder.hidden_size=16", "decoder.embed_size=16", "decoder.heads=2"]
    fit = ["fit", *(f"--model.encoder.{each}" for each in network)]
    fit += [*(f"--model.{each}" for each in sizes), f"--data.root={data}", "--run_dir=run"]
    fit += ["--data.batch_size=8", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    return [
        ["caption", str(photos), "--output", "captions.jsonl", *model],
        ["caption", str(photos), "--output", "page.html", *model],
        ["caption", str(photos), "--output", "x", "--format", "xmp", *model],
        ["caption", str(mine), "--output", "embedded.csv", "--embed", *model],
        ["report", "captions.jsonl", "--output", "report.html", *model],
        ["explain", str(photos / "cat.jpg"), *model],
        ["fill", str(photos / "cat.jpg"), "a ___ dog", *model],
        ["tag", clip, "--output-dir", "tags", *model],
        ["tag", clip, "--output-dir", "tags-again", "--reader", "opencv", *model],
        ["evaluate", "--data", str(data), "--split", "test", "--output", "s.json", *model],
        fit,
        ["report-training", "run", "--output", "figures"],
    ]


@pytest.mark.usefixtures("exiftool")
def test_no_command_talks_to_anyone_or_writes_elsewhere(
    commands: list[list[str]], tmp_path: Path
) -> None:
    arguments = [str(PACKAGE), str(ALIVE_S), json.dumps(commands)]
    network_calls, elsewhere = watched(RUN_ALL, arguments, tmp_path / "watched")
    assert network_calls == []
    assert elsewhere == []


@pytest.mark.usefixtures("exiftool")
def test_without_its_switch_onnx_runtime_is_seen(commands: list[list[str]], tmp_path: Path) -> None:
    if tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 32):
        pytest.skip("older releases report nothing on Linux")
    copy = tmp_path / "watched" / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / "networks" / "onnx_runtime.py"
    before, switch, after = module.read_text().partition(SWITCH)
    assert switch
    module.write_text(before + after)
    arguments = [str(copy), str(ALIVE_S), json.dumps(commands[:1])]
    place = tmp_path / "watched" / "home" / ".cache" / "Microsoft"
    network_calls, elsewhere = watched(RUN_ALL, arguments, tmp_path / "watched", place)
    assert network_calls
    assert elsewhere and all(path.startswith(str(place)) for path in elsewhere)


SPEAKS = """
import os, pathlib, socket, subprocess, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
pathlib.Path("mine").write_text("x")
place = pathlib.Path.home() / ".cache" / "Microsoft"
place.mkdir(parents=True)
subprocess.run([sys.executable, "-c", f"open({str(place / 'id')!r}, 'w')"], check=True)
"""


def test_what_speaks_or_writes_elsewhere_is_seen(tmp_path: Path) -> None:
    network_calls, elsewhere = watched(SPEAKS, [], tmp_path / "watched")
    assert len(network_calls) == 1
    assert "AF_INET" in network_calls[0]
    microsoft = str(tmp_path / "watched" / "home" / ".cache" / "Microsoft")
    assert elsewhere == [microsoft, f"{microsoft}/id"]

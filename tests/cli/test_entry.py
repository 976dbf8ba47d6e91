"""The command line as a whole: commands, exit codes, a real process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import captioner
from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from helpers.commands import help_of

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption", "nowhere"], "captioner: error: nowhere does not exist"),
        (["caption", "photos", "--model", "no.safetensors"], "model no.safetensors: no such file"),
        (["caption"], "the following arguments are required: PATH"),
        (["caption", f"{'x' * 300}.jpg"], "x.jpg cannot be read: file name too long"),
        (["caption", "photos", "--output", f"{'x' * 300}.csv"], "x.csv: file name too long"),
        # Its folder has a longer name than the page.
        (["caption", "photos", "--output", f"{'x' * 250}.html"], "x_files: file name too long"),
        (["caption", "photos", "--model", f"{'x' * 300}.safetensors"], "file name too long"),
        (["tag", f"{EXAMPLES}/slideshow.mp4", "--output-dir", "x" * 300], "file name too long"),
    ],
)
def test_mistakes_end_with_2_and_their_name(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "no\x1b[2J\x9bsuch.jpg"],
        ["caption", "photos", "--model", "no\x1b[2J.safetensors"],
        ["caption", "photos", "--output", "no\x1b[2J/such.foo"],
        ["caption", "photos", "--device", "cpu\x1b[2J"],
        ["evaluate", "--data", "no\x1b[2Jsuch"],
        ["export", "--checkpoint", "no\x1b[2J.ckpt", "--output", "x.safetensors"],
        ["tag", "no\x1b[2J.mp4", "--output-dir", "tags"],
    ],
)
def test_no_message_steers_the_terminal(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert "\\x1b[2J" in err
    assert err.replace("\n", "").isprintable()


@pytest.mark.parametrize("command", ["caption", "fill", "evaluate", "export"])
def test_the_examples_in_the_help_parse(command: str) -> None:
    lines = [
        shlex.split(line[2:].split("  ")[0])[1:]
        for line in help_of(command).partition("example")[2].splitlines()
        if line.startswith("  captioner ")
    ]
    assert len(lines) >= 2
    for arguments in lines:
        assert callable(cli.make_parser().parse_args(arguments).command)


def captioner_process(*arguments: str, **options) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    # From another folder, the package is found where these tests found it.
    environment["PYTHONPATH"] = str(Path(captioner.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "captioner", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        **options,
    )


def test_the_process_exits_with_the_code_and_prints_the_captions(
    photos: Path, model_file: Path, model: CaptionModel
) -> None:
    (photos / "b.jpg").write_bytes(b"no image")
    process = captioner_process("caption", "photos", "--model", str(model_file), "--device", "cpu")
    out, err = process.communicate(timeout=300)
    texts = [model.caption([photos / name])[0].text for name in ("a.png", "sub/a.png")]
    assert process.returncode == 1
    assert out == f"photos/a.png\t{texts[0]}\nphotos/sub/a.png\t{texts[1]}\n"
    assert "photos/b.jpg: not an image Pillow can read" in err
    assert "2 captioned, 1 failed" in err


def test_a_closed_pipe_is_no_traceback(photos: Path, model_file: Path) -> None:
    process = captioner_process(
        *("caption", "photos", "--model", str(model_file), "--workers", "0", "--quiet")
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=300) == 141


def test_ctrl_c_ends_with_130_and_keeps_what_was_written(photos: Path, model_file: Path) -> None:
    for index in range(2000):  # Many more than are captioned before the signal arrives.
        os.link(photos / "a.png", photos / f"x{index:04}.png")
    process = captioner_process(
        *("caption", "photos", "--model", str(model_file), "--batch-size", "1", "--device", "cpu"),
        *("--output", "out.jsonl"),
    )
    output = photos.parent / "out.jsonl"
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == (
        "captioner: finished work is saved: run the same command again to resume\n"
        "captioner: interrupted\n"
    )
    records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert 1 <= len(records) < 2003
    assert records[0]["file_name"] == "a.png"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"captioner {captioner.__version__}\n"


@pytest.mark.parametrize(
    ("is_installed", "expected"),
    [
        (True, "the CNN runs in onnxruntime (float32 on a CPU), "),
        (False, "the CNN runs in torch (ONNX Runtime is not installed "),
    ],
)
def test_the_engine_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_installed: bool,
    expected: str,
) -> None:
    monkeypatch.setattr("captioner.model.device.torch.cuda.is_available", lambda: False)
    if not is_installed:
        monkeypatch.setitem(sys.modules, "captioner.networks.onnx_runtime", None)
    assert cli.main(["--version", "--verbose"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"captioner {captioner.__version__}"
    assert any(line.startswith(expected) for line in others)

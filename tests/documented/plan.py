"""What is changed of the documented commands before they run, and which are left out, and why.

An entry that fits no documented command any longer is an error: the lists stay as short as can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from documented.commands import Command

LEFT_OUT: Mapping[str, str] = {
    r"python -m pytest\b": "the test suite: .ci/run runs it",
    r"MASTER_ADDR=|torchrun |srun |ray (get|start|stop)": "several machines are not at hand",
    r"captioner (caption '|tag )s3://": "no object store is at hand; test_s3.py starts one",
    r"captioner fit .* 's3://": "the same; tests/training/test_stream_s3.py starts one",
    r"captioner caption 'data/\*\.parquet'": "no table with images is made here",
    r"python tests/fuzz/fuzz_guided\.py": "atheris is not installed by any extra",
}
"""Pattern of a command's beginning -> why it does not run."""

INSTALLS = r"(python -m )?pip install\b"
"""What changes the environment, and does not run where the environment is given."""

PROGRAMS = ("exiftool", "sqlite3")
"""Programs of others: where one is not installed, its commands are left out."""

PLACEHOLDERS: Mapping[str, str] = {"FOLDER": ".", "SEED": "1", "{0000..0099}": "{0000..0001}"}
"""Words of the documents that a reader replaces -> what they become."""

_SHORT_FIT = (
    "--trainer.max_epochs=1 --trainer.limit_train_batches=1 --trainer.limit_val_batches=1 "
    "--data.batch_size=2 --trainer.check_val_every_n_epoch=1 --trainer.enable_progress_bar=false"
)

_FEW = "--data.dev_fraction=0.5"
"""Of so few images none may be held out otherwise."""

REDUCED: Mapping[str, str] = {
    r"captioner fit --config\b": _SHORT_FIT,
    r"captioner calibrate --model mine\.safetensors --data photos/": "--dev-fraction 0.5",
    r"captioner review\b": "--no-browser",
    r"python data/make_shapes\.py\b": "--images 60",
    r"python tests/fuzz/fuzz_images\.py\b": "--cases 20",
    r"python benchmarks/caption\.py": "--only start",
    r"python benchmarks/scale\.py speed\b": "--shards 2 --each 2",
    r"python benchmarks/corrections\.py\b": f"--teach 6 --seeds 1 {_FEW} {_SHORT_FIT}",
    r"python benchmarks/fine_tune\.py\b": (
        f"--teach 4 --score 4 --limit 4 --seeds 1 {_FEW} {_SHORT_FIT}"
    ),
}
"""Pattern of a command's beginning -> options that are added: documented ones, for hours or for a
browser."""

BEFORE: Mapping[str, tuple[str, ...]] = {
    "docs/languages.md": (
        "captioner fit --config configs/language_zh.yaml",
        "captioner export --checkpoint runs/language_zh/checkpoints/best.ckpt --without-cnn"
        " --output mine.safetensors",
    ),
    "docs/python.md": ("python data/make_shapes.py shapes",),
    "docs/review.md": (
        "captioner caption photos/ --output captions.jsonl",
        "captioner caption photos/ --output captions.csv",
        "captioner caption photos/ --format txt",
    ),
    "docs/training.md": ("captioner caption photos/ --output photos/metadata.jsonl",),
}
"""Document -> what its reader has run before, as another document or its text says."""


def reason_to_leave_out(text: str, installed: Iterable[str], *, installs: bool) -> str | None:
    """Why a command does not run; None if it does.

    Args:
        text: of the command.
        installed: the `PROGRAMS` that are installed.
        installs: whether commands that install run.
    """
    if not installs and re.match(INSTALLS, text):
        return "--python gives the environment"
    program = text.split(maxsplit=1)[0]
    if program in PROGRAMS and program not in installed:
        return f"{program} is not installed"
    return next((why for pattern, why in LEFT_OUT.items() if re.match(pattern, text)), None)


def as_run(text: str) -> str:
    """A command with its placeholders replaced, and with the options that make it short."""
    for placeholder, value in PLACEHOLDERS.items():
        text = re.sub(rf"(?<![A-Z]){re.escape(placeholder)}(?![A-Z])", value, text)
    added = [options for pattern, options in REDUCED.items() if re.match(pattern, text)]
    return " ".join([text, *added])


def outdated(commands: Iterable[Command]) -> list[str]:
    """The entries of the lists that fit no command."""
    texts = [command.text for command in commands]
    texts += [text for before in BEFORE.values() for text in before]
    pages = {command.page for command in commands}
    patterns = [*LEFT_OUT, *REDUCED, *PROGRAMS]
    return [
        *(each for each in patterns if not any(re.match(each, text) for text in texts)),
        *(each for each in PLACEHOLDERS if not any(each in text for text in texts)),
        *(each for each in BEFORE if each not in pages),
    ]

"""Read what `captioner fit` logged: the scalars of every run below a folder.

A run is a folder with TensorBoard's event files or a ``metrics.csv``; what `captioner fit` writes
to ``RUN/metrics/version_N/metrics.csv`` belongs to ``RUN``, one file for each time it was started.
Event files are read where there are any, with TensorBoard's own reader; they hold the same numbers.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.writing import cannot_read
from captioner.text.tokenizer import tokenize

EVENTS = "events.out.tfevents"
TABLE = "metrics.csv"
STEP, EPOCH = "step", "epoch"


@dataclass(frozen=True)
class Run:
    """The scalars of one training run.

    Attributes:
        name: its folder, relative to the one that was looked through.
        scalars: name (``train/loss``) -> optimiser step -> value; both rising, values finite.
        epochs: optimiser step -> number of the epoch, from 1, for all steps that it was logged for.
    """

    name: str
    scalars: Mapping[str, Mapping[int, float]]
    epochs: Mapping[int, int]

    def by_step(self, scalar: str) -> tuple[list[int], list[float]]:
        """Steps and values, both empty if it was not logged."""
        values = self.scalars.get(scalar, {})
        return list(values), list(values.values())

    def by_epoch(self, scalar: str) -> tuple[list[int], list[float]]:
        """Epochs, from 1, and the last value in each."""
        found = {
            self.epochs[step]: value
            for step, value in self.scalars.get(scalar, {}).items()
            if step in self.epochs
        }
        return list(found), list(found.values())


@dataclass
class _Log:
    """What is read of a run until it is sorted."""

    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)

    def add(self, name: str, step: int, value: float) -> None:
        if name == EPOCH:
            self.epochs[step] = round(value) + 1
        elif math.isfinite(value):
            # A resumed run repeats steps: the last value counts.
            self.scalars.setdefault(name, {})[step] = value


def read_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """All runs below a folder that have logged something, by name, and warnings.

    Returns:
        The runs, and a line for each that has logged nothing yet or is damaged.

    Raises:
        CaptionerError: there is no such folder, or no run in it has logged anything.
    """
    if not folder.is_dir():
        raise CaptionerError(
            f"{shown(folder)} is not a folder: give a --run_dir of `captioner fit`, or the folder "
            "of several"
        )
    runs, warnings = [], []
    for place, files in sorted(_files_of_runs(folder).items()):
        name = place.relative_to(folder).as_posix()
        log = _Log()
        warnings += [f"{shown(place)}: {line}" for line in _read(files, log)]
        if not log.scalars:
            warnings.append(f"{shown(place)}: nothing is logged there yet")
            continue
        scalars = {name: dict(sorted(log.scalars[name].items())) for name in sorted(log.scalars)}
        name = folder.resolve().name if name == "." else name
        runs.append(Run(name, scalars, dict(sorted(log.epochs.items()))))
    if not runs:
        reason = "; ".join(warnings) or f"no {EVENTS}* and no {TABLE} lies there or below"
        raise CaptionerError(f"{shown(folder)} holds no run to report: {reason}")
    return runs, warnings


def _files_of_runs(folder: Path) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            if name.startswith(EVENTS) or name == TABLE:
                path = Path(place, name)
                found.setdefault(_run_of(path, folder), []).append(path)
    return found


def _run_of(path: Path, top: Path) -> Path:
    place = path.parent
    is_version = re.fullmatch(r"version_\d+", place.name) is not None
    if path.name == TABLE and is_version and place.parent.name == "metrics" and place != top:
        return place.parent.parent if place.parent != top else place
    return place


def _read(files: Iterable[Path], log: _Log) -> Iterator[str]:
    """Read a run; gives warnings about its files."""
    events = [path for path in files if path.name.startswith(EVENTS)]
    tables = [path for path in files if path.name == TABLE]
    lines = list(_read_events(events[0].parent, log)) if events else []
    if log.scalars:
        return iter(lines)
    return iter(
        [*lines, *(line for path in sorted(tables, key=_version) for line in _rows(path, log))]
    )


def _version(path: Path) -> int:
    number = path.parent.name.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


def _read_events(folder: Path, log: _Log) -> Iterator[str]:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError:
        return iter(())  # The tables say the same.
    try:
        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1})
        reader.Reload()
        for name in reader.Tags()["scalars"]:
            for event in reader.Scalars(name):
                log.add(name, int(event.step), float(event.value))
    except Exception as error:  # its parsers raise whatever damage makes them raise
        return iter([f"its event files are damaged ({type(error).__name__}); read up to there"])
    return iter(())


def _rows(path: Path, log: _Log) -> Iterator[str]:
    bad = 0
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(line.replace("\0", "") for line in file):
                bad += not _add_row(row, log)
    except OSError as error:
        raise cannot_read(path, error) from None
    except csv.Error:
        bad += 1
    if bad:
        yield f"{bad} damaged lines of {path.name} were left out"


def _add_row(row: Mapping[str | None, Any], log: _Log) -> bool:
    try:
        step = int(row[STEP])
        values = {name: float(text) for name, text in row.items() if name and text}
    except (KeyError, TypeError, ValueError):
        return False
    for name, value in values.items():
        if name != STEP:
            log.add(name, step, value)
    return True


# --- what else can be plotted --------------------------------------------------------------


@dataclass(frozen=True)
class CaptionStatistics:
    """Captions of many images.

    Attributes:
        captions: how many.
        distinct_captions: how many different ones.
        lengths: number of words -> captions, by rising length.
        words: word -> how often, most frequent first.
    """

    captions: int
    distinct_captions: int
    lengths: Mapping[int, int]
    words: Mapping[str, int]

    @property
    def mean_length(self) -> float:
        """Words per caption."""
        return sum(length * count for length, count in self.lengths.items()) / self.captions


def read_captions(path: Path) -> CaptionStatistics:
    """Count the words of a JSONL file of `captioner caption`; images that failed do not count.

    Raises:
        CaptionerError: it cannot be read, or holds no captions; names the line.
    """
    texts = []
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            raise CaptionerError(
                f"{shown(path)}, line {number}: no record of a caption; give a file of "
                "`captioner caption --output captions.jsonl`"
            ) from None
        if isinstance(text, str):
            texts.append(" ".join(tokenize(text)))
    if not texts:
        raise CaptionerError(f"{shown(path)} holds no caption")
    lengths = Counter(len(text.split()) for text in texts)
    words = Counter(word for text in texts for word in text.split())
    return CaptionStatistics(
        len(texts), len(set(texts)), dict(sorted(lengths.items())), dict(words.most_common())
    )


def read_calibration(path: Path) -> dict[str, Any]:
    """The report of `captioner calibrate`, with ``scores`` and ``coverage``.

    Raises:
        CaptionerError: it cannot be read or is something else.
    """
    try:
        report = json.loads(_text_of(path))
        for each in report["scores"]["bins"]:
            _numbers(each, "predicted", "observed", "tags")
        for each in report["coverage"]:
            _numbers(each, "share", "predicted", "right", "cider_d")
        _numbers(report["scores"], "brier", "calibration_error")
    except (ValueError, KeyError, TypeError):
        raise CaptionerError(
            f"{shown(path)} is not a report of `captioner calibrate --report`"
        ) from None
    return dict(report)


def read_comparison(path: Path) -> dict[str, list[dict[str, float]]]:
    """The table of a comparison, as docs/cells.csv is one: row -> the figures of its runs.

    Raises:
        CaptionerError: it cannot be read, or has other columns.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    try:
        for row in csv.DictReader(_text_of(path).splitlines()):
            figures = {"bleu_4": float(row["bleu_4"]), "cider_d": float(row["cider_d"])}
            rows.setdefault(row["cell"], []).append(figures)
    except (KeyError, TypeError, ValueError, csv.Error):
        rows = {}
    if not rows:
        raise CaptionerError(
            f"{shown(path)}: needs the columns cell, bleu_4 and cider_d, with a line for each run"
        )
    return rows


def _numbers(values: Mapping[str, Any], *names: str) -> None:
    for name in names:
        float(values[name])


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise cannot_read(path, error) from None
    except UnicodeDecodeError:
        raise CaptionerError(f"{shown(path)} is not UTF-8 text") from None

"""Figures of training: learning curves, validation metrics, calibration, captions, comparisons.

Runs differ in colour, in dashes and in markers, so that they can be distinguished in print without
colour. The colours are those of Okabe and Ito (2008), which colour-blind people can distinguish.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from captioner.files.writing import replace_bytes
from captioner.training import outcome
from captioner.training.report import CaptionStatistics, Run

FORMATS = ("png", "svg")
METRICS = {f"val/{name}": title for name, title in outcome.METRICS.items()}
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (8, 2)))
MARKERS = "osD^vXP<>"
# Of names of runs: matplotlib brings a font with Latin and Arabic letters, systems bring these.
CHINESE = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "SimSun", "PingFang SC")
STYLE: Any = {
    "font.family": [
        "DejaVu Sans",
        *filter({font.name for font in font_manager.fontManager.ttflist}.__contains__, CHINESE),
    ],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.hashsalt": "captioner",  # the same figure has the same bytes
}


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` into a folder, whole or not at all.

    Raises:
        CaptionerError: they cannot be written.
    """
    paths = []
    for format in FORMATS:
        data = io.BytesIO()
        metadata = {"Date": None} if format == "svg" else None
        with matplotlib.rc_context(STYLE):
            figure.savefig(data, format=format, dpi=150, metadata=metadata)
        paths.append(folder / f"{name}.{format}")
        replace_bytes(paths[-1], [data.getvalue()])
    return paths


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Loss, reward where there is one, and learning rate over the optimiser's steps.

    The training loss of a self-critical run is not a cross-entropy: its reward is shown instead.
    """
    panels = ["loss"]
    panels += ["reward"] * any("train/reward" in run.scalars for run in runs)
    panels += ["rate"] * any("train/learning_rate" in run.scalars for run in runs)
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(len(panels), 1, height=2.6, runs=len(runs), sharex=True)
        by_name = dict(zip(panels, axes, strict=True))
        for place, run in enumerate(runs):
            _draw_learning(by_name, run, place, len(runs))
        by_name["loss"].set_ylabel("loss (nats per word)")
        if "reward" in by_name:
            by_name["reward"].set_ylabel("reward of sampled captions")
        if "rate" in by_name:
            by_name["rate"].set_ylabel("learning rate of the decoder")
        axes[-1].set_xlabel("optimiser steps")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].set_xlim(left=0)
        # A smoothed target costs more: the two losses do not measure over-fitting.
        figure.suptitle(
            "Learning curves: training, with label smoothing (thin); validation (thick)"
        )
        _legend(figure, axes)
    return figure


def _draw_learning(axes: Mapping[str, Axes], run: Run, place: int, runs: int) -> None:
    style = _style(place)
    line = {key: style[key] for key in ("color", "linestyle")}
    if "train/reward" in run.scalars:
        axes["reward"].plot(*run.by_step("train/reward"), **line, linewidth=1)
    else:
        axes["loss"].plot(*run.by_step("train/loss"), **line, linewidth=0.8)
    axes["loss"].plot(*run.by_step("val/loss"), **style, label=run.name)
    if "train/learning_rate" in run.scalars:
        axes["rate"].plot(*run.by_step("train/learning_rate"), **line, linewidth=1)


def validation_metrics(runs: Sequence[Run]) -> Figure:
    """BLEU-1 to 4, ROUGE-L and CIDEr-D by epoch, times 100 as papers print them."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(2, 3, height=2.4, runs=len(runs), sharex=True)
        for panel, (scalar, title) in zip(axes, METRICS.items(), strict=True):
            for place, run in enumerate(runs):
                epochs, values = run.by_epoch(scalar)
                panel.plot(
                    epochs, [100 * value for value in values], **_style(place), label=run.name
                )
            panel.set_title(title)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        for panel in axes[3:]:
            panel.set_xlabel("epoch")
        for panel in axes[::3]:
            panel.set_ylabel("score × 100")
        figure.suptitle("Metrics on the validation images")
        _legend(figure, axes)
    return figure


def calibration(report: Mapping[str, Any]) -> Figure:
    """How far confidence can be trusted, and what dropping the least certain captions gains.

    Left the reliability of tags, in the middle risk and coverage of captions (El-Yaniv and Wiener
    2010), right their CIDEr-D.
    """
    bins, coverage, scores = report["scores"]["bins"], report["coverage"], report["scores"]
    shares = [each["share"] for each in coverage]
    with matplotlib.rc_context(STYLE):
        figure, (tags, risk, cider) = _panels(1, 3, height=3.2, runs=0)
        tags.plot([0, 1], [0, 1], color="#888888", linestyle=":", label="as promised")
        predicted = [each["predicted"] for each in bins]
        tags.plot(predicted, [each["observed"] for each in bins], **_style(2), label="tags")
        tags.set(xlabel="confidence of the tags", ylabel="share that is right", title="Tags")
        tags.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        label = f"Brier {scores['brier']:.3f}\nECE {scores['calibration_error']:.3f}"
        tags.text(0.95, 0.05, label, ha="right", va="bottom", transform=tags.transAxes)
        wrong = [1 - each["right"] for each in coverage]
        risk.plot(shares, wrong, **_style(0), label="observed")
        wrong = [1 - each["predicted"] for each in coverage]
        risk.plot(shares, wrong, **_style(1), label="predicted")
        risk.set(ylabel="share of content words that are wrong", title="Captions: risk")
        cider.plot(shares, [100 * each["cider_d"] for each in coverage], **_style(0))
        cider.set(ylabel="CIDEr-D × 100", title="Captions: quality")
        for panel in (risk, cider):
            panel.set(xlabel="coverage: surest captions kept", xlim=(0, 1.03))
            panel.xaxis.set_major_formatter(PercentFormatter(1))
        risk.set_ylim(bottom=0)
        tags.legend(loc="upper left")
        risk.legend(loc="best")
    return figure


def caption_statistics(statistics: CaptionStatistics) -> Figure:
    """Lengths of captions, and how often each word is said, over its rank."""
    words = list(statistics.words.values())
    with matplotlib.rc_context(STYLE):
        figure, (length, rank) = _panels(1, 2, height=3.2, runs=0)
        length.bar(
            list(statistics.lengths), list(statistics.lengths.values()), color="#0072B2", width=0.8
        )
        length.set(xlabel="words of a caption", ylabel="captions")
        length.set_title(f"Lengths: {statistics.mean_length:.1f} words on average")
        length.xaxis.set_major_locator(MaxNLocator(integer=True))
        rank.loglog(range(1, len(words) + 1), words, color="#000000", marker=".", linestyle="none")
        rank.set(xlabel="rank of the word", ylabel="times said")
        rank.set_title(f"Vocabulary: {len(words):,} words said")
        share = statistics.distinct_captions / statistics.captions
        figure.suptitle(f"{statistics.captions:,} captions, {share:.0%} of them different")
    return figure


def comparison(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Every run as a point, and the mean of each row as a line."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panels(1, 2, height=3, runs=0)
        for panel, (key, title) in zip(
            axes, {"bleu_4": "BLEU-4", "cider_d": "CIDEr-D"}.items(), strict=True
        ):
            for place, runs in enumerate(rows.values()):
                values = [run[key] for run in runs]
                mean = sum(values) / len(values)
                panel.plot([place] * len(values), values, "o", color="#0072B2", alpha=0.8)
                panel.hlines(mean, place - 0.25, place + 0.25, color="#000000")
                panel.annotate(f"{mean:.1f}", (place + 0.28, mean), va="center")
            panel.set_xticks(range(len(rows)), list(rows))
            panel.set(xlim=(-0.6, len(rows) - 0.3), title=title, ylabel="score × 100")
            panel.grid(visible=False, axis="x")
        figure.suptitle("Points: runs; lines: their means (the axes do not start at 0)")
    return figure


def _panels(
    rows: int, columns: int, *, height: float, runs: int, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    legend = 0.25 * -(-runs // 3)  # inches, three names side by side
    figure = Figure(figsize=(8.4, rows * height + 0.4 + legend), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=sharex, squeeze=False)
    return figure, [panel for row in axes for panel in row]


def _style(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, handlelength=3.5)

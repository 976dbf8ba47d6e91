"""How well cuts are found, by captioner and by PySceneDetect's detectors at their defaults.

    python benchmarks/shots.py               # the table of docs/video-tags.md
    python benchmarks/shots.py --clips       # the same for each clip
    python benchmarks/shots.py --seed 7      # other photos, movements and times

Most clips are made from the photos in ``data/examples``, so that their cuts are known; in four
real films they were marked by eye. A cut counts as found if one is reported within 0.1 s of
it; of a fade or a dissolve, if one is reported while it lasts, or within 0.1 s of that. Each cut
counts once: what else is reported is false.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shot_clips import Span, made_clips, real_clips, write

from captioner.video.opening import open_video
from captioner.video.shots import find_cuts

TOLERANCE_S = 0.1

# --- detectors -----------------------------------------------------------------------------


def by_captioner(path: Path) -> list[float]:
    """The cuts that `captioner tag` finds, in seconds."""
    with open_video(path) as video:
        return [frame.time_s for frame, is_cut in find_cuts(video) if is_cut]


def by_scenedetect(name: str) -> Callable[[Path], list[float]]:
    """What finds cuts with one of PySceneDetect's detectors."""
    import scenedetect

    def find(path: Path) -> list[float]:
        scenes = scenedetect.detect(str(path), getattr(scenedetect, name)())
        return [start.seconds for start, _ in scenes[1:]]

    return find


DETECTORS: dict[str, Callable[[Path], list[float]]] = {
    "captioner": by_captioner,
    **{
        name: by_scenedetect(f"{name}Detector")
        for name in ("Content", "Adaptive", "Histogram", "Hash")
    },
}


# --- scores --------------------------------------------------------------------------------


@dataclass
class Score:
    """Cuts that are there, that were found, and that were reported wrongly."""

    cuts: int = 0
    found: int = 0
    false: int = 0

    def add(self, other: Score) -> None:
        """Count those of another clip, too."""
        self.cuts += other.cuts
        self.found += other.found
        self.false += other.false

    @property
    def precision(self) -> float:
        """Share of what was reported that is a cut."""
        return self.found / max(1, self.found + self.false)

    @property
    def recall(self) -> float:
        """Share of the cuts that were reported."""
        return self.found / max(1, self.cuts)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        return 2 * self.found / max(1, self.cuts + self.found + self.false)


def score(cuts: Sequence[Span], reported_s: Sequence[float]) -> Score:
    """Compare what was reported with what is there; each cut is found once at most."""
    left = list(reported_s)
    found = 0
    for start_s, end_s in cuts:
        hits = [each for each in left if start_s - TOLERANCE_S <= each <= end_s + TOLERANCE_S]
        if hits:
            left.remove(hits[0])
            found += 1
    return Score(len(cuts), found, len(left))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--clips", action="store_true", help="a line for each clip as well")
    parser.add_argument("--only", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    args = parser.parse_args()
    kinds: dict[str, dict[str, Score]] = {}
    seconds = dict.fromkeys(args.only, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        made = ((each, write(each, Path(folder) / "clip.mp4")) for each in made_clips(args.seed))
        for clips in (made, real_clips()):
            for clip, path in clips:
                of_kind = kinds.setdefault(clip.kind, {name: Score() for name in args.only})
                for name in args.only:
                    start = time.perf_counter()
                    reported = DETECTORS[name](path)
                    seconds[name] += time.perf_counter() - start
                    result = score(clip.cuts, reported)
                    of_kind[name].add(result)
                    if args.clips:
                        times = " ".join(f"{each:.2f}" for each in reported)
                        print(f"{clip.kind}: {clip.name}: {name}: {result}: {times}", flush=True)
    _print(kinds, seconds)


def _print(kinds: dict[str, dict[str, Score]], seconds: dict[str, float]) -> None:
    names = list(seconds)
    print("| | cuts | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    totals = {name: Score() for name in names}
    for kind, scores in kinds.items():
        cells = [f"{each.found} + {each.false}" for each in scores.values()]
        print(f"| {kind} | {next(iter(scores.values())).cuts} | " + " | ".join(cells) + " |")
        for name, each in scores.items():
            totals[name].add(each)
    for label in ("precision", "recall", "F1"):
        cells = [f"{getattr(totals[name], label.lower()):.2f}" for name in names]
        print(f"| {label} | | " + " | ".join(cells) + " |")
    print("| seconds | | " + " | ".join(f"{seconds[name]:.0f}" for name in names) + " |")


if __name__ == "__main__":
    main()

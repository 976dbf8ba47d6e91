"""METEOR 1.5 and SPICE: Java programs, run through pycocoevalcap (extra `java-metrics`)."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError
from captioner.text.scores import (
    Candidates,
    Metric,
    Scores,
    check_candidates,
    mean_scores,
)

Texts = dict[str, list[str]]


class Meteor(Metric):
    """METEOR 1.5 for English, 0 to 1 (Denkowski and Lavie 2014)."""

    def evaluate(self, candidates: Candidates) -> dict[str, Scores]:
        """Score one caption of every image; METEOR of the corpus is not the mean of the images'.

        Raises:
            CaptionerError: the images differ; Java or the package is missing or fails.
        """
        check_candidates(candidates, self.references)
        scorer = _java_module("METEOR").Meteor()
        try:
            corpus, scores = scorer.compute_score(*_java_input(self, candidates))
        except (OSError, ValueError) as error:
            # Left locked, the scorer would wait for itself for ever when it is deleted; and closing
            # the dead program's input fails, once.
            scorer.lock.release()
            with contextlib.suppress(OSError):
                scorer.meteor_p.stdin.close()
            raise CaptionerError(
                f"METEOR: Java failed ({error}); it may need 2 GB of free memory"
            ) from error
        per_image = dict(zip(candidates, map(float, scores), strict=True))
        return {"METEOR": Scores(float(corpus), per_image)}


class Spice(Metric):
    """SPICE for English, 0 to 1 (Anderson et al. 2016)."""

    def evaluate(self, candidates: Candidates) -> dict[str, Scores]:
        """Score one caption of every image; the corpus score is the mean of theirs.

        Raises:
            CaptionerError: the images differ; Java, the package or its models are missing or fail.
        """
        check_candidates(candidates, self.references)
        module = _java_module("SPICE")
        # The package would start a large download at this point, which a metric should not.
        if not list((Path(module.__file__).parent / "lib").glob("stanford-corenlp-*-models.jar")):
            raise CaptionerError(
                "SPICE needs the Stanford CoreNLP models: run "
                "python -m pycocoevalcap.spice.get_stanford_models once, or leave SPICE out"
            )
        try:
            _, scores = module.Spice().compute_score(*_java_input(self, candidates))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise CaptionerError(
                f"SPICE: Java failed ({error}); it may need 8 GB of free memory"
            ) from error
        by_id = dict(zip(sorted(candidates), scores, strict=True))  # the package sorts the images
        return {"SPICE": mean_scores({i: float(by_id[i]["All"]["f"]) for i in candidates})}


def _java_module(name: str) -> Any:
    if shutil.which("java") is None:
        raise CaptionerError(f"{name} needs Java: install a Java runtime, or leave {name} out")
    try:
        return importlib.import_module(f"pycocoevalcap.{name.lower()}.{name.lower()}")
    except ModuleNotFoundError as error:
        raise CaptionerError(
            f'{name} needs pycocoevalcap: pip install "captioner[java-metrics]", or leave {name} '
            "out"
        ) from error


def _java_input(metric: Metric, candidates: Candidates) -> tuple[Texts, Texts]:
    """References and candidates as pycocoevalcap takes them: words joined by spaces."""
    references, tokenize = metric.references, metric.tokenize
    return (
        {i: [" ".join(tokenize(text)) for text in references[i]] for i in candidates},
        {i: [" ".join(tokenize(text))] for i, text in candidates.items()},
    )

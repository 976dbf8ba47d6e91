"""How near captions are to people's captions: all metrics together, on raw strings.

Candidates are one string per image id, references a list of strings per image id, for the same
images; both go through the same ``tokenize``. Given the same words, BLEU, ROUGE-L and CIDEr-D equal
those of pycocoevalcap, the code of the COCO caption server (arXiv:1504.00325), and need no Java.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from captioner.text.bleu import Bleu
from captioner.text.cider import CiderD
from captioner.text.java_metrics import Meteor, Spice
from captioner.text.meteor_stem import MeteorStem
from captioner.text.options import EXTRA_METRICS, ScoringOptions
from captioner.text.ptb_tokenizer import PTB_RULE, ptb_tokenize
from captioner.text.rouge import RougeL
from captioner.text.scores import Candidates, Metric, References, Scores, Tokenize
from captioner.text.segmentation import scoring_rule, tokenize_to_score

STANDARD: tuple[type[Metric], ...] = (Bleu, RougeL, CiderD)
EXTRA: dict[str, type[Metric]] = dict(zip(EXTRA_METRICS, (Meteor, MeteorStem, Spice), strict=True))


@dataclass(frozen=True)
class CaptionScores:
    """All metrics by name, such as "BLEU-4": of the corpus, and of each image by its id."""

    values: dict[str, float]
    per_image: dict[str, dict[str, float]]


def rule_of(options: ScoringOptions) -> tuple[str, Tokenize]:
    """The name of the rule that splits captions, with its version, and what splits them."""
    if options.tokenizer == "ptb":
        return PTB_RULE, ptb_tokenize
    split = functools.partial(tokenize_to_score, language=options.language)
    return scoring_rule(options.language), split


def score_captions(
    candidates: Candidates, references: References, options: ScoringOptions | None = None
) -> CaptionScores:
    """Compute BLEU-1 to 4, ROUGE-L and CIDEr-D, and the further metrics that are asked for.

    Args:
        candidates: image id -> its caption.
        references: image id -> what people said of it.
        options: the tokenizer of both, and the further metrics.

    Raises:
        CaptionerError: the images differ, one has no references, or a metric cannot run here.
    """
    options = options or ScoringOptions()
    words = functools.cache(rule_of(options)[1])

    def evaluate(kind: type[Metric]) -> dict[str, Scores]:
        return kind(references, tokenize=words).evaluate(candidates)

    # First, because what is missing on this machine should be reported before the work.
    extras = [evaluate(EXTRA[name]) for name in options.metrics]
    scores: dict[str, Scores] = {}
    for found in (*map(evaluate, STANDARD), *extras):
        scores |= found
    return CaptionScores(
        {name: score.corpus for name, score in scores.items()},
        {i: {name: score.per_image[i] for name, score in scores.items()} for i in candidates},
    )

"""How near captions are to people's captions: BLEU, ROUGE-L and CIDEr-D on raw strings.

Candidates are one string per image id, references a list of strings per image id, for the same
images; both go through the same ``tokenize``. Every function raises ``CaptionerError`` when the
images differ or one has no references. Given the same tokens, all numbers equal those of
pycocoevalcap, the code of the COCO caption server (arXiv:1504.00325), and need no Java. METEOR 1.5
and SPICE are Java programs and run through that package.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError

Candidates = Mapping[str, str]
References = Mapping[str, Sequence[str]]
Tokenize = Callable[[str], list[str]]
NGram = tuple[str, ...]

MAX_N = 4
CIDER_SIGMA = 6.0  # words
ROUGE_BETA = 1.2  # recall counts beta ** 2 times as much as precision
# pycocoevalcap's guards against division by zero; they show in the scores of short captions.
_BLEU_TINY, _BLEU_SMALL = 1e-15, 1e-9


@dataclass(frozen=True)
class Scores:
    """One metric: the mean over the images, and the score of each image by its id."""

    mean: float
    per_image: dict[str, float]


@dataclass(frozen=True)
class BleuScores:
    """BLEU-1 to BLEU-n of the whole corpus (not a mean over images), and of each image alone."""

    corpus: tuple[float, ...]
    per_image: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class CaptionScores:
    """All metrics by name, such as "BLEU-4": of the corpus, and of each image by its id."""

    values: dict[str, float]
    per_image: dict[str, dict[str, float]]


def _check_references(references: References) -> None:
    if not references:
        raise CaptionerError("references: there are none; give at least one image's captions")
    for image_id, captions in references.items():
        if isinstance(captions, str) or not captions:
            raise CaptionerError(
                f"references: image {image_id!r} has {captions!r}; "
                "give a list with at least one caption, or leave the image out"
            )


def _check_pairs(candidates: Candidates, references: References) -> None:
    _check_references(references)
    for image_id in [*candidates, *references]:
        if image_id not in references or image_id not in candidates:
            lacks = "no candidate" if image_id in references else "no references"
            raise CaptionerError(
                f"metrics: image {image_id!r} has {lacks}; use the same image ids for both, and "
                "score every image (an empty caption counts)"
            )


def _mean(per_image: dict[str, float]) -> Scores:
    return Scores(math.fsum(per_image.values()) / len(per_image), per_image)


def _ngram_counts(tokens: Sequence[str], max_n: int = MAX_N) -> Counter[NGram]:
    """Count the n-grams of one caption, n = 1 to ``max_n`` together."""
    return Counter(
        tuple(tokens[start : start + n])
        for n in range(1, max_n + 1)
        for start in range(len(tokens) - n + 1)
    )


def bleu(
    candidates: Candidates, references: References, *, tokenize: Tokenize, max_n: int = MAX_N
) -> BleuScores:
    """BLEU-1 to BLEU-``max_n``, 0 to 1 (Papineni et al. 2002, section 2.3).

    Clipped n-gram precision with the brevity penalty exp(1 - r / c), r the sum of the closest
    reference lengths. Not smoothed, but for pycocoevalcap's constants.
    """
    _check_pairs(candidates, references)
    rows = [
        _bleu_counts(tokenize(text), [tokenize(r) for r in references[image_id]], max_n)
        for image_id, text in candidates.items()
    ]
    corpus = _bleu_scores([sum(column) for column in zip(*rows, strict=True)])
    return BleuScores(corpus, dict(zip(candidates, map(_bleu_scores, rows), strict=True)))


class SentenceBleu:
    """BLEU-4 of single captions against fixed references: a reward that is cheap to call often.

    The same number as :func:`bleu` gives an image alone: 0 without a common run of four words.

    Args:
        references: image id -> its captions.
        tokenize: raw caption -> words.
    """

    def __init__(self, references: References, *, tokenize: Tokenize) -> None:
        _check_references(references)
        self._references = {
            image_id: _bleu_references([tokenize(text) for text in captions], MAX_N)
            for image_id, captions in references.items()
        }

    def score(self, candidates: Iterable[tuple[str, Sequence[str]]]) -> list[float]:
        """Score (image id, words) pairs, each 0 to 1; an image may come any number of times."""
        scores: list[float] = []
        for image_id, tokens in candidates:
            if image_id not in self._references:
                raise CaptionerError(f"metrics: image {image_id!r} has no references; give some")
            counts = _bleu_matches(tokens, self._references[image_id], MAX_N)
            scores.append(_bleu_scores(counts)[-1])
        return scores


# One image: the most that any of its references has of each n-gram, and the references' lengths.
_BleuReferences = tuple[Counter[NGram], list[int]]


def _bleu_references(references: Sequence[Sequence[str]], max_n: int) -> _BleuReferences:
    most: Counter[NGram] = Counter()
    for reference in references:
        most |= _ngram_counts(reference, max_n)
    return most, [len(reference) for reference in references]


def _bleu_counts(candidate: list[str], references: list[list[str]], max_n: int) -> list[int]:
    return _bleu_matches(candidate, _bleu_references(references, max_n), max_n)


def _bleu_matches(candidate: Sequence[str], references: _BleuReferences, max_n: int) -> list[int]:
    """Return what BLEU adds up: length, reference length, ``max_n`` matches, ``max_n`` attempts."""
    most, lengths = references
    matched = [0] * max_n
    for ngram, count in _ngram_counts(candidate, max_n).items():
        matched[len(ngram) - 1] += min(count, most[ngram])
    length = len(candidate)
    # Of two equally close reference lengths the shorter.
    reference_length = min((abs(each - length), each) for each in lengths)[1]
    return [length, reference_length, *matched, *(max(0, length - n) for n in range(max_n))]


def _bleu_scores(counts: Sequence[int]) -> tuple[float, ...]:
    length, reference_length, *ngrams = counts
    max_n = len(ngrams) // 2
    ratio = (length + _BLEU_TINY) / (reference_length + _BLEU_SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for n, (matched, attempts) in enumerate(zip(ngrams[:max_n], ngrams[max_n:], strict=True), 1):
        product *= (matched + _BLEU_TINY) / (attempts + _BLEU_SMALL)
        scores.append(penalty * product ** (1 / n))
    return tuple(scores)


def rouge_l(candidates: Candidates, references: References, *, tokenize: Tokenize) -> Scores:
    """ROUGE-L, 0 to 1: F-measure of the longest common subsequence (Lin 2004, Eqs. 2-4).

    beta is 1.2. The best precision and the best recall over the references are combined, even
    when they come from two references, as pycocoevalcap does.
    """
    _check_pairs(candidates, references)
    return _mean(
        {
            image_id: _rouge_one(tokenize(text), [tokenize(r) for r in references[image_id]])
            for image_id, text in candidates.items()
        }
    )


def _rouge_one(candidate: list[str], references: list[list[str]]) -> float:
    # An empty caption counts as one empty word, as in pycocoevalcap.
    candidate = candidate or [""]
    pairs = [(_common_subsequence(r or [""], candidate), len(r) or 1) for r in references]
    precision = max(common for common, _ in pairs) / len(candidate)
    recall = max(common / length for common, length in pairs)
    if precision == 0:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, row by row of the usual table."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for column, other in enumerate(right, 1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many images' references each n-gram occurs, out of how many images."""

    counts: Mapping[NGram, int]
    images: int

    @classmethod
    def from_references(cls, references: References, tokenize: Tokenize) -> DocumentFrequency:
        """Count over the references of the given images."""
        _check_references(references)
        counts: Counter[NGram] = Counter()
        for captions in references.values():
            counts.update({ngram for text in captions for ngram in _ngram_counts(tokenize(text))})
        return cls(counts, len(references))

    def idf(self, ngram: NGram) -> float:
        """Return log(images / images with the n-gram); an unseen n-gram counts as seen once."""
        return math.log(self.images / max(1, self.counts.get(ngram, 0)))


# One image: n-gram -> its (reference index, count) pairs; for each reference and n, one over the
# norm of its tf-idf vector; the length of each reference.
_CiderReferences = tuple[dict[NGram, tuple[tuple[int, int], ...]], list[list[float]], list[int]]


class CiderD:
    """CIDEr-D against fixed references: a metric, and a reward that is cheap to call often.

    Vedantam et al. 2015 (arXiv:1411.5726), Eq. 1 for the tf-idf weights g and the CIDEr-D equation:
    10 / C * sum over the C references r of exp(-(length difference)^2 / (2 sigma^2)) *
    min(g(c), g(r)) . g(r) / (|g(c)| |g(r)|), averaged over n-grams of 1 to 4 words; no stemming.

    For rewards with an end-of-sentence word (self-critical training), let ``tokenize`` append it,
    here and in the document frequency, and end the candidates with it.

    Args:
        references: image id -> its captions.
        tokenize: raw caption -> words.
        document_frequency: that of the training split for rewards; by default of ``references``.
            With a single image all weights, and so all scores, are zero.
    """

    def __init__(
        self,
        references: References,
        *,
        tokenize: Tokenize,
        document_frequency: DocumentFrequency | None = None,
    ) -> None:
        _check_references(references)
        df = document_frequency or DocumentFrequency.from_references(references, tokenize)
        self.document_frequency = df
        # The same few patterns of counts, and n-grams, come again and again: shared to save memory.
        shared: dict[Any, Any] = {}
        self._references = {
            image_id: self._prepare([tokenize(text) for text in captions], shared)
            for image_id, captions in references.items()
        }

    def _prepare(self, references: list[list[str]], shared: dict[Any, Any]) -> _CiderReferences:
        counts: dict[NGram, tuple[tuple[int, int], ...]] = {}
        scales: list[list[float]] = []
        for index, tokens in enumerate(references):
            squares = [0.0] * MAX_N
            for ngram, count in _ngram_counts(tokens).items():
                squares[len(ngram) - 1] += (count * self.document_frequency.idf(ngram)) ** 2
                pattern = (*counts.get(ngram, ()), (index, count))
                counts[shared.setdefault(ngram, ngram)] = shared.setdefault(pattern, pattern)
            scales.append(_cider_scales(squares))
        return counts, scales, [len(tokens) for tokens in references]

    def score(self, candidates: Iterable[tuple[str, Sequence[str]]]) -> list[float]:
        """Score (image id, words) pairs, each 0 to 10; an image may come any number of times."""
        scores: list[float] = []
        for image_id, tokens in candidates:
            if image_id not in self._references:
                raise CaptionerError(f"metrics: image {image_id!r} has no references; give some")
            scores.append(self._score_one(tokens, self._references[image_id]))
        return scores

    def _score_one(self, tokens: Sequence[str], references: _CiderReferences) -> float:
        counts, all_scales, lengths = references
        squares = [0.0] * MAX_N
        dots = [[0.0] * MAX_N for _ in lengths]
        for ngram, count in _ngram_counts(tokens).items():
            idf, n = self.document_frequency.idf(ngram), len(ngram) - 1
            squares[n] += (count * idf) ** 2
            for index, reference_count in counts.get(ngram, ()):
                dots[index][n] += min(count, reference_count) * reference_count * idf * idf
        own_scales, total = _cider_scales(squares), 0.0
        for dot, scales, length in zip(dots, all_scales, lengths, strict=True):
            penalty = math.exp(-((len(tokens) - length) ** 2) / (2 * CIDER_SIGMA**2))
            total += penalty * sum(map(math.prod, zip(dot, scales, own_scales, strict=True)))
        return 10 * total / (MAX_N * len(lengths))


def _cider_scales(squares: Iterable[float]) -> list[float]:
    return [1 / math.sqrt(square) if square > 0 else 0.0 for square in squares]


def cider_d(
    candidates: Candidates,
    references: References,
    *,
    tokenize: Tokenize,
    document_frequency: DocumentFrequency | None = None,
) -> Scores:
    """CIDEr-D, 0 to 10, which pycocoevalcap calls "CIDEr"; see :class:`CiderD`.

    For evaluation the document frequency is that of ``references``: leave it out.
    """
    _check_pairs(candidates, references)
    scorer = CiderD(references, tokenize=tokenize, document_frequency=document_frequency)
    scores = scorer.score((image_id, tokenize(text)) for image_id, text in candidates.items())
    return _mean(dict(zip(candidates, scores, strict=True)))


def meteor(candidates: Candidates, references: References, *, tokenize: Tokenize) -> Scores:
    """METEOR 1.5 for English, 0 to 1 (Denkowski and Lavie 2014), through pycocoevalcap.

    ``mean`` is METEOR's own score of the corpus, not the mean over the images. Raises
    ``CaptionerError`` also when Java or the package is missing or fails.
    """
    _check_pairs(candidates, references)
    scorer = _java_module("METEOR").Meteor()
    try:
        corpus, scores = scorer.compute_score(*_java_input(candidates, references, tokenize))
    except (OSError, ValueError) as error:
        # Left locked, the scorer would wait for itself for ever when it is deleted; and closing the
        # dead program's input fails, once.
        scorer.lock.release()
        with contextlib.suppress(OSError):
            scorer.meteor_p.stdin.close()
        raise CaptionerError(f"METEOR: Java failed ({error}); it may need 2 GB free") from error
    return Scores(float(corpus), dict(zip(candidates, map(float, scores), strict=True)))


def spice(candidates: Candidates, references: References, *, tokenize: Tokenize) -> Scores:
    """SPICE for English, 0 to 1 (Anderson et al. 2016), through pycocoevalcap.

    Raises ``CaptionerError`` also when Java, the package or its models are missing or fail.
    """
    _check_pairs(candidates, references)
    module = _java_module("SPICE")
    # The package would start a large download at this point, which a metric should not.
    if not list((Path(module.__file__).parent / "lib").glob("stanford-corenlp-*-models.jar")):
        raise CaptionerError(
            "SPICE needs the Stanford CoreNLP models: run "
            "python -m pycocoevalcap.spice.get_stanford_models once, or leave SPICE out"
        )
    try:
        _, scores = module.Spice().compute_score(*_java_input(candidates, references, tokenize))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise CaptionerError(f"SPICE: Java failed ({error}); it may need 8 GB free") from error
    by_id = dict(zip(sorted(candidates), scores, strict=True))  # the package sorts the images
    return _mean({image_id: float(by_id[image_id]["All"]["f"]) for image_id in candidates})


def _java_module(name: str) -> Any:
    if shutil.which("java") is None:
        raise CaptionerError(f"{name} needs Java: install a Java runtime, or leave it out")
    try:
        return importlib.import_module(f"pycocoevalcap.{name.lower()}.{name.lower()}")
    except ModuleNotFoundError as error:
        raise CaptionerError(f"{name}: run pip install pycocoevalcap, or leave it out") from error


def _java_input(
    candidates: Candidates, references: References, tokenize: Tokenize
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return references and candidates as pycocoevalcap wants them: words joined by spaces."""
    return (
        {i: [" ".join(tokenize(text)) for text in references[i]] for i in candidates},
        {i: [" ".join(tokenize(text))] for i, text in candidates.items()},
    )


_EXTRA: dict[str, Callable[..., Scores]] = {"METEOR": meteor, "SPICE": spice}


def score_captions(
    candidates: Candidates, references: References, *, tokenize: Tokenize, extra: Sequence[str] = ()
) -> CaptionScores:
    """Compute BLEU-1 to 4, ROUGE-L and CIDEr-D, and those named in ``extra`` (METEOR, SPICE).

    Raises ``CaptionerError`` also when a metric in ``extra`` is unknown or cannot run here.
    """
    _check_pairs(candidates, references)
    for name in extra:
        if name not in _EXTRA:
            raise CaptionerError(f"metric {name!r} is unknown; choose from {', '.join(_EXTRA)}")
    tokenize = functools.cache(tokenize)
    # First, because what is missing on this machine should be said before the work.
    extras = {name: _EXTRA[name](candidates, references, tokenize=tokenize) for name in extra}
    all_n = bleu(candidates, references, tokenize=tokenize)
    scores = {
        f"BLEU-{n + 1}": Scores(all_n.corpus[n], {i: one[n] for i, one in all_n.per_image.items()})
        for n in range(MAX_N)
    }
    scores["ROUGE-L"] = rouge_l(candidates, references, tokenize=tokenize)
    scores["CIDEr-D"] = cider_d(candidates, references, tokenize=tokenize)
    scores |= extras
    return CaptionScores(
        {name: score.mean for name, score in scores.items()},
        {i: {name: score.per_image[i] for name, score in scores.items()} for i in candidates},
    )

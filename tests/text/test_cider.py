"""CIDEr-D against pycocoevalcap and values worked out by hand, and as a reward."""

from __future__ import annotations

import math

import pytest
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer

from captioner.errors import CaptionerError
from captioner.text.cider import CiderD, DocumentFrequency
from captioner.text.scores import Scores
from captioner.text.tokenizer import tokenize
from helpers.captions import CANDIDATES, REFERENCES, Texts, joined


def cider_d(
    candidates: dict[str, str], references: Texts, frequency: DocumentFrequency | None = None
) -> Scores:
    scorer = CiderD(references, tokenize=tokenize, document_frequency=frequency)
    return scorer.evaluate(candidates)["CIDEr-D"]


def test_cider_d_equals_pycocoevalcap(corpus: tuple[dict[str, str], Texts]) -> None:
    expected, each = Cider().compute_score(*joined(*corpus))
    scores = cider_d(*corpus)
    assert scores.corpus == pytest.approx(expected, abs=1e-9)
    assert list(scores.per_image) == list(corpus[0])
    assert list(scores.per_image.values()) == pytest.approx(list(each), abs=1e-9)


def test_cider_d_with_another_document_frequency_equals_pycocoevalcap() -> None:
    # As many images as in REFERENCES, since pycocoevalcap takes that number from the references.
    other = {str(n): [f"a dog runs {n}", "the man rides a wave"] for n in range(len(REFERENCES))}
    frequency = DocumentFrequency.from_references(other, tokenize)
    scorer = CiderScorer()
    gts, res = joined(CANDIDATES, REFERENCES)
    for image_id, candidate in res.items():
        scorer += (candidate[0], gts[image_id])
    scorer.document_frequency.update(frequency.counts)
    scores = cider_d(CANDIDATES, REFERENCES, frequency)
    expected = scorer.compute_cider()
    assert list(scores.per_image.values()) == pytest.approx(expected, abs=1e-9)
    assert scores.corpus != cider_d(CANDIDATES, REFERENCES).corpus


def test_cider_d_by_hand() -> None:
    candidates = {"same": "a b", "shorter": "c d", "repeated": "f f"}
    references = {"same": ["a b"], "shorter": ["c d e"], "repeated": ["f"]}
    scores = cider_d(candidates, references)
    # Every n-gram occurs in one image of three, so all weights are equal and cancel.
    penalty = math.exp(-1 / 72)  # one word of difference, sigma 6
    assert scores.per_image == pytest.approx(
        {
            "same": 10 * (1 + 1) / 4,  # cosine 1 for one and two words, no longer n-grams
            "shorter": 10 * (2 / math.sqrt(2 * 3) + 1 / math.sqrt(2)) / 4 * penalty,
            "repeated": 10 * 0.5 / 4 * penalty,  # min(2, 1) * 1 / (2 * 1)
        }
    )


def test_document_frequency_counts_images_not_captions() -> None:
    references = {"x": ["a dog", "a dog runs"], "y": ["a cat"], "z": ["the cat"]}
    frequency = DocumentFrequency.from_references(references, tokenize)
    assert frequency.images == 3
    assert frequency.counts[("a",)] == 2
    assert frequency.counts[("a", "dog")] == 1
    assert frequency.counts[("a", "dog", "runs")] == 1
    assert frequency.idf(("a",)) == pytest.approx(math.log(3 / 2))
    assert frequency.idf(("a", "dog")) == pytest.approx(math.log(3))
    assert frequency.idf(("never", "seen")) == pytest.approx(math.log(3))


def test_rewards_come_in_the_order_of_the_candidates() -> None:
    scorer = CiderD(REFERENCES, tokenize=tokenize)
    expected = cider_d(CANDIDATES, REFERENCES).per_image
    pairs = [(image_id, tokenize(text)) for image_id, text in CANDIDATES.items()]
    assert scorer.score(pairs) == pytest.approx(list(expected.values()))
    # Several samples of one image, in any order, and again.
    dog, ball = expected["dog.jpg"], expected["ball.jpg"]
    samples = [pairs[0], pairs[5], ("dog.jpg", []), pairs[0]]
    assert scorer.score(iter(samples)) == pytest.approx([dog, ball, 0, dog])
    assert scorer.score([]) == []


def test_rewards_see_the_end_of_the_sentence() -> None:
    def with_end(text: str) -> list[str]:
        return [*tokenize(text), "<eos>"]

    frequency = DocumentFrequency.from_references(REFERENCES, with_end)
    scorer = CiderD(REFERENCES, tokenize=with_end, document_frequency=frequency)
    finished = ["a", "boy", "kicks", "a", "ball", "<eos>"]
    whole, cut = scorer.score([("ball.jpg", finished), ("ball.jpg", finished[:-1])])
    assert whole > cut > 0


def test_rewards_refuse_what_has_no_references() -> None:
    with pytest.raises(CaptionerError, match=r"image 'x' has \[\]"):
        CiderD({"x": []}, tokenize=tokenize)
    with pytest.raises(CaptionerError, match="there are none"):
        DocumentFrequency.from_references({}, tokenize)
    with pytest.raises(CaptionerError, match="image 'y' has no references"):
        CiderD({"x": ["a"]}, tokenize=tokenize).score([("x", ["a"]), ("y", ["a"])])

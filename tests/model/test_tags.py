"""Tags of captions made by hand: exact evidence, exact probabilities, exact order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from captioner.errors import CaptionerError
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import (
    CLIP,
    FEATURES,
    SEEN_AT_LEAST,
    Evidence,
    Tag,
    TagCalibration,
    caption_confidence,
    evidence_of,
    sigmoid,
    tags_of,
)
from captioner.text.lexicon import NO_LEMMA, Lemma, Lexicon

DOG, RUN = Lemma("dog", "noun", 0.4), Lemma("run", "verb", 0.2)
RACE_NOUN, RACE_VERB = Lemma("race", "noun", 0.1), Lemma("race", "verb", 0.1)
LEMMAS = [DOG, RUN, RACE_NOUN, RACE_VERB]
WORDS = {
    "a": NO_LEMMA,
    "dog": 0,
    "dogs": 0,
    "runs": 1,
    "running": 1,
    "race": 2,
    "racing": 3,
    "and": NO_LEMMA,
}
LEXICON = Lexicon(list(WORDS), LEMMAS, list(WORDS.values()))


def candidate(text: str, probs: list[float], log_prob: float, confidence: float = 0.5) -> Candidate:
    return Candidate(text, log_prob, confidence, tuple(text.split()), tuple(probs))


# The captions have 3/4 and 1/4 of the probability of the two.
RESULT = CaptionResult(
    (
        candidate("a dog runs", [0.9, 0.8, 0.5, 0.7], math.log(0.03), confidence=0.6),
        candidate("dogs and dogs race", [0.1, 0.9, 0.95, 0.25, 0.9], math.log(0.01)),
    )
)


WEIGHTS = (0.5, 0.25, -1.0, 2.0, 0.0, 1.5, 3.0, 0.75, -0.5)


def weighted(**weights: float) -> TagCalibration:
    """A calibration of these weights and otherwise zeros."""
    return TagCalibration(tuple(weights.get(name, 0.0) for name in FEATURES))


def test_evidence_comes_from_every_caption() -> None:
    found = evidence_of(RESULT, LEXICON)
    assert list(found) == [DOG, RUN, RACE_NOUN]
    masses = [found[lemma].mass for lemma in (DOG, RUN, RACE_NOUN)]
    # Both captions say "dog", the second one twice: still once each.
    assert masses == pytest.approx([1.0, 0.75, 0.25], abs=1e-12)
    assert found[DOG].word_prob == 0.95  # of the second "dogs"
    assert found[DOG].position == 0  # of the first
    assert found[RUN] == Evidence(found[RUN].mass, 0.5, 0.6, 2)
    assert found[RACE_NOUN] == Evidence(found[RACE_NOUN].mass, 0.25, 0.6, 3)


def test_features_in_their_order() -> None:
    features = Evidence(mass=0.75, word_prob=0.5, confidence=0.8, position=3).features()
    assert features == pytest.approx((1, 1, 0.75, 0, math.log(4), 0.25, 0, 0, 0), abs=1e-12)
    assert len(features) == len(FEATURES)
    both = Evidence(mass=1.0, word_prob=0.9, confidence=0.5, position=0, seen=0.2).features()
    seen = math.log(1 / 4)
    expected = (1, 1, 1, math.log(9), 0, 1, math.log(9), seen, seen)
    assert both == pytest.approx(expected, abs=1e-12)
    unsaid = Evidence(mass=0.0, word_prob=0.0, confidence=0.5, position=0, seen=0.2).features()
    assert unsaid == pytest.approx((1, 0, 0, 0, 0, 0, 0, seen, 0), abs=1e-12)


def test_certain_words_have_finite_features() -> None:
    edge = math.log((1 - CLIP) / CLIP)
    features = Evidence(1.0, 1.0, 0.0, 0, seen=1.0).features()
    assert features == pytest.approx((1, 1, 1, edge, -edge, 1, edge, edge, edge))


def test_tags_carry_the_calibrated_probability() -> None:
    calibration = weighted(bias=-1.0, mass=2.0, word=0.5)
    tags = tags_of(RESULT, LEXICON, calibration)
    assert [(tag.name, tag.type) for tag in tags] == [
        ("dog", "noun"),
        ("run", "verb"),
        ("race", "noun"),
    ]
    expected = [
        1 / (1 + math.exp(-(-1 + 2 * 1.0 + 0.5 * math.log(19)))),
        1 / (1 + math.exp(-(-1 + 2 * 0.75))),
        1 / (1 + math.exp(-(-1 + 2 * 0.25 + 0.5 * math.log(1 / 3)))),
    ]
    assert [tag.confidence for tag in tags] == pytest.approx(expected, abs=1e-12)


def test_without_calibration_the_score_is_share_times_probability() -> None:
    tags = tags_of(RESULT, LEXICON)
    assert [tag.name for tag in tags] == ["dog", "run", "race"]
    assert [tag.confidence for tag in tags] == pytest.approx([0.95, 0.375, 0.0625], abs=1e-12)


def test_equal_confidence_is_sorted_by_name_then_type() -> None:
    result = CaptionResult((candidate("running racing race dogs", [0.5] * 5, -3.0),))
    assert tags_of(result, LEXICON) == (
        Tag("dog", "noun", 0.5),
        Tag("race", "noun", 0.5),
        Tag("race", "verb", 0.5),
        Tag("run", "verb", 0.5),
    )


def test_a_caption_cut_before_its_end_has_as_many_probabilities_as_words() -> None:
    result = CaptionResult((candidate("a dog", [0.9, 0.8], -1.0),))
    assert tags_of(result, LEXICON) == (Tag("dog", "noun", 0.8),)


def test_captions_without_content_have_no_tags() -> None:
    assert tags_of(CaptionResult((candidate("a and", [0.9, 0.8, 0.7], -1.0),)), LEXICON) == ()
    assert tags_of(CaptionResult((candidate("", [0.7], -1.0),)), LEXICON) == ()


def test_very_improbable_captions_still_have_shares() -> None:
    result = CaptionResult(
        (candidate("dog", [0.5, 1.0], -5000.0), candidate("run runs", [0.5] * 3, -9000.0))
    )
    assert [tag.confidence for tag in tags_of(result, LEXICON)] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("logit", "probability"), [(0, 0.5), (math.log(3), 0.75), (-1e4, 0.0), (1e4, 1.0)]
)
def test_sigmoid(logit: float, probability: float) -> None:
    assert sigmoid(logit) == pytest.approx(probability, abs=1e-12)


# --- the description -----------------------------------------------------------------------


def described() -> dict[str, Any]:
    return TagCalibration(WEIGHTS, {"split": "dev", "decoding": {"beam_size": 3}}).to_dict()


def test_it_is_described_with_the_names_of_its_weights() -> None:
    data = described()
    assert data == {
        "weights": {
            "bias": 0.5,
            "said": 0.25,
            "mass": -1.0,
            "word": 2.0,
            "caption": 0.0,
            "early": 1.5,
            "word_early": 3.0,
            "seen": 0.75,
            "said_seen": -0.5,
        },
        "fitted_on": {"split": "dev", "decoding": {"beam_size": 3}},
    }
    read = TagCalibration.from_dict(json.loads(json.dumps(data)))
    assert read == TagCalibration(WEIGHTS, data["fitted_on"])
    # A table has no order.
    data["weights"] = dict(reversed(data["weights"].items()))
    assert TagCalibration.from_dict(data) == read


def test_what_an_older_calibration_does_not_weigh_counts_for_nothing() -> None:
    data = described()
    for name in ("said", "seen", "said_seen"):
        del data["weights"][name]
    weights = dict(zip(FEATURES, TagCalibration.from_dict(data).weights, strict=True))
    assert weights == {**data["weights"], "said": 0.0, "seen": 0.0, "said_seen": 0.0}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("weights"), "'weights' and 'fitted_on' must be tables"),
        (lambda d: d.pop("fitted_on"), "'weights' and 'fitted_on' must be tables"),
        (lambda d: d.update(weights=[1, 2, 3, 4, 5, 6]), "must be tables"),
        (lambda d: d.update(fitted_on="dev"), "must be tables"),
        (lambda d: d["weights"].pop("bias"), "and this version for bias, said,"),
        (lambda d: d["weights"].update(colour=1), "and this version for bias, said,"),
        (lambda d: d["weights"].update(mass="1"), "'1' is not a weight"),
        (lambda d: d["weights"].update(mass=None), "None is not a weight"),
        (lambda d: d["weights"].update(mass=True), "True is not a weight"),
        (lambda d: d["weights"].update(mass=[1.0]), "[1.0] is not a weight"),
        (lambda d: d["weights"].update(mass=float("nan")), "nan is not a weight"),
        (lambda d: d["weights"].update(mass=float("-inf")), "-inf is not a weight"),
        (lambda d: d["weights"].update(mass=10**400), "is not a weight"),
    ],
)
def test_a_damaged_description_is_refused(
    edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    data = described()
    edit(data)
    with pytest.raises(CaptionerError) as caught:
        TagCalibration.from_dict(data)
    assert message in str(caught.value)
    assert str(caught.value).startswith("tag calibration: ")


@pytest.mark.parametrize("data", [None, [], "weights", 3])
def test_a_description_that_is_no_table(data: Any) -> None:
    with pytest.raises(CaptionerError, match="tag calibration: a table was expected"):
        TagCalibration.from_dict(data)


def test_a_calibration_has_a_weight_for_every_feature() -> None:
    with pytest.raises(CaptionerError, match="2 weights, and there are 9 features"):
        TagCalibration((1.0, 2.0))


# --- the confidence of a caption -----------------------------------------------------------


def test_a_caption_is_as_sure_as_its_content_words_are_in_the_mean() -> None:
    calibration = TagCalibration((0.2, 0.1, 0.5, 0.3, 0.1, 0.4, -0.2, 0.3, 0.2))
    evidence = evidence_of(RESULT, LEXICON)
    # "a dog runs": the race is in the other caption only, and "a" says nothing.
    expected = (calibration.probability(evidence[DOG]) + calibration.probability(evidence[RUN])) / 2
    assert caption_confidence(RESULT, LEXICON, calibration) == pytest.approx(expected, abs=1e-12)
    # A word that is said twice counts once.
    twice = CaptionResult((candidate("dogs and dogs", [0.1, 0.9, 0.95, 0.9], -1.0),))
    (only,) = evidence_of(twice, LEXICON).values()
    assert caption_confidence(twice, LEXICON, calibration) == calibration.probability(only)


def test_a_caption_without_content_is_not_sure_at_all() -> None:
    calibration = weighted(bias=5.0)
    empty = CaptionResult((candidate("a and", [0.9, 0.8, 0.7], -1.0),))
    assert caption_confidence(empty, LEXICON, calibration) == 0.0


def test_all_that_was_considered_is_evidence() -> None:
    shown = CaptionResult(RESULT.candidates[:1], RESULT.candidates)
    assert evidence_of(shown, LEXICON) == evidence_of(RESULT, LEXICON)
    alone = CaptionResult(RESULT.candidates[:1])
    assert list(evidence_of(alone, LEXICON)) == [DOG, RUN]


# --- the classifier's opinion ----------------------------------------------------------------


def test_what_is_seen_is_evidence_beside_what_is_said() -> None:
    seen = CaptionResult(RESULT.candidates, seen={DOG: 0.9, RACE_NOUN: 0.01, RACE_VERB: 0.3})
    found = evidence_of(seen, LEXICON)
    assert list(found) == [DOG, RUN, RACE_NOUN, RACE_VERB]
    # "run" is none that the classifier knows.
    assert [found[lemma].seen for lemma in (DOG, RUN, RACE_NOUN)] == [0.9, RUN.frequency, 0.01]
    assert found[RACE_VERB] == Evidence(0.0, 0.0, 0.6, 0, 0.3)
    said = evidence_of(RESULT, LEXICON)
    assert found[DOG] == replace(said[DOG], seen=0.9)
    assert all(evidence.seen is None for evidence in said.values())


def test_tags_that_no_caption_says() -> None:
    unlikely = CaptionResult(RESULT.candidates, seen={RACE_VERB: 0.99 * SEEN_AT_LEAST})
    assert len(tags_of(unlikely, LEXICON)) == 3
    seen = CaptionResult(RESULT.candidates, seen={RACE_VERB: 0.3})
    # Without a calibration the higher of both scores counts.
    assert tags_of(seen, LEXICON)[2] == Tag("race", "verb", 0.3)
    (race,) = (
        tag
        for tag in tags_of(seen, LEXICON, weighted(bias=0.5, mass=9.0, seen=2.0))
        if tag.type == "verb" and tag.name == "race"
    )
    assert race.confidence == pytest.approx(sigmoid(0.5 + 2 * math.log(3 / 7)), abs=1e-12)

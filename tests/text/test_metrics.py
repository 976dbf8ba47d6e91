"""The metrics against pycocoevalcap, against values worked out by hand, and on bad input."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

from captioner.errors import CaptionerError
from captioner.text.metrics import (
    CiderD,
    DocumentFrequency,
    SentenceBleu,
    bleu,
    cider_d,
    meteor,
    rouge_l,
    score_captions,
    spice,
)
from captioner.text.tokenizer import tokenize

FLICKR8K = Path(__file__).parents[3] / "shared" / "flickr8k" / "Flickr8k.token.txt"

REFERENCES = {
    "dog.jpg": [
        "A brown dog runs through the grass .",
        "The dog is running across a green field",
        "A dog with a red collar runs in the grass.",
        "Brown dog running outdoors",
        "a large dog races over the man 's lawn",
    ],
    "surf.jpg": [
        "A man rides a wave on a surfboard.",
        "A surfer in a black wetsuit rides a big wave",
        "Someone is surfing in the ocean",
        "The surfer's board cuts through the white water",
        "A man surfing a wave",
    ],
    "girl.jpg": [
        "A little girl in a pink dress climbs the stairs.",
        "A child in a pink t-shirt goes up a set of stairs",
        "The girl walks up the steps",
        "A young girl climbing wooden stairs",
        "A small child climbs into a wooden house .",
    ],
    "bike.jpg": [
        "A man on a bicycle jumps over a ramp.",
        "A cyclist does a trick in the air",
        "Man doing a stunt on his bike, high in the air",
        "A biker is in mid-air over a dirt ramp",
        "A boy jumps his bike",
    ],
    "snow.jpg": [
        "Two people hike up a snowy mountain.",
        "Two hikers with backpacks climb a mountain covered in snow",
        "Hikers in the snow",
        "Two men walk uphill in deep snow.",
    ],
    "ball.jpg": [
        "A boy in a blue shirt kicks a soccer ball.",
        "The boy is kicking a ball on the field",
        "Children play soccer",
        "Two boys play with a ball in the grass",
        "A boy kicks a ball",
    ],
    "pool.jpg": ["A girl jumps into a swimming pool", "A girl is jumping into the blue water."],
    "one.jpg": ["dogs"],
    "rock.jpg": [
        "A climber in a red helmet hangs from a rock.",
        "A man climbs a steep rock face",
        "A rock climber is scaling a cliff",
        "A person climbing a rock wall with ropes",
        "Man rock climbing",
    ],
    "beach.jpg": [
        "A group of friends sits on the beach at sunset.",
        "People are sitting on the sand near the ocean",
        "Four people watch the sunset at the beach",
        "Friends on a beach",
        "Several people sit in a circle on the beach.",
    ],
}
CANDIDATES = {
    "dog.jpg": "A brown dog is running through the grass",
    "surf.jpg": "A surfer rides a wave",
    "girl.jpg": "",  # nothing
    "bike.jpg": "a a a a a man man",  # repeated words
    "snow.jpg": "snow",  # one word
    "ball.jpg": "A boy kicks a ball",  # equal to a reference
    "pool.jpg": "a zebra reads yesterday's newspaper",  # nothing in common but one word
    "one.jpg": "dogs",
    "rock.jpg": "a man climbs a steep rock face while a man climbs a steep rock face with a rope",
    "beach.jpg": "the beach the ocean people on of group a",  # the words, in no order
}

Texts = dict[str, list[str]]


def flickr8k() -> tuple[dict[str, str], Texts]:
    """Return the first caption of 400 images as candidates, and the others as references."""
    captions: Texts = {}
    for line in FLICKR8K.read_text(encoding="utf-8").splitlines()[:2000]:
        name, text = line.split("\t")
        captions.setdefault(name.split("#")[0], []).append(text)
    return {i: c[0] for i, c in captions.items()}, {i: c[1:] for i, c in captions.items()}


@pytest.fixture(params=["written here", "flickr8k"], scope="module")
def corpus(request: pytest.FixtureRequest) -> tuple[dict[str, str], Texts]:
    if request.param == "written here":
        return CANDIDATES, REFERENCES
    if not FLICKR8K.is_file():
        pytest.skip("Flickr8k is not beside the repository")
    return flickr8k()


def joined(candidates: dict[str, str], references: Texts) -> tuple[Texts, Texts]:
    """Return the same tokens as pycocoevalcap takes them: references first."""
    gts = {i: [" ".join(tokenize(text)) for text in references[i]] for i in candidates}
    return gts, {i: [" ".join(tokenize(text))] for i, text in candidates.items()}


def test_bleu_equals_pycocoevalcap(corpus: tuple[dict[str, str], Texts]) -> None:
    expected, each = Bleu(4).compute_score(*joined(*corpus), verbose=0)
    scores = bleu(*corpus, tokenize=tokenize)
    assert scores.corpus == pytest.approx(expected, abs=1e-9)
    assert list(scores.per_image) == list(corpus[0])
    for n in range(4):
        ours = [image[n] for image in scores.per_image.values()]
        assert ours == pytest.approx(each[n], abs=1e-9)
    two = bleu(*corpus, tokenize=tokenize, max_n=2)
    assert two.corpus == pytest.approx(expected[:2], abs=1e-9)


def test_sentence_bleu_equals_bleu_of_each_image(corpus: tuple[dict[str, str], Texts]) -> None:
    candidates, references = corpus
    scorer = SentenceBleu(references, tokenize=tokenize)
    alone = scorer.score((image_id, tokenize(text)) for image_id, text in candidates.items())
    assert alone == [image[3] for image in bleu(*corpus, tokenize=tokenize).per_image.values()]
    with pytest.raises(CaptionerError, match="image 'elsewhere' has no references"):
        scorer.score([("elsewhere", ["a"])])
    with pytest.raises(CaptionerError, match="references: there are none"):
        SentenceBleu({}, tokenize=tokenize)


def test_rouge_l_equals_pycocoevalcap(corpus: tuple[dict[str, str], Texts]) -> None:
    expected, each = Rouge().compute_score(*joined(*corpus))
    scores = rouge_l(*corpus, tokenize=tokenize)
    assert scores.mean == pytest.approx(expected, abs=1e-9)
    assert list(scores.per_image) == list(corpus[0])
    assert list(scores.per_image.values()) == pytest.approx(list(each), abs=1e-9)


def test_cider_d_equals_pycocoevalcap(corpus: tuple[dict[str, str], Texts]) -> None:
    expected, each = Cider().compute_score(*joined(*corpus))
    scores = cider_d(*corpus, tokenize=tokenize)
    assert scores.mean == pytest.approx(expected, abs=1e-9)
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
    scores = cider_d(CANDIDATES, REFERENCES, tokenize=tokenize, document_frequency=frequency)
    expected = scorer.compute_cider()
    assert list(scores.per_image.values()) == pytest.approx(expected, abs=1e-9)
    assert scores.mean != cider_d(CANDIDATES, REFERENCES, tokenize=tokenize).mean


def test_empty_references_equal_pycocoevalcap() -> None:
    candidates = {"both": "...", "reference": "a dog", "one of two": "a dog", "fourth": "a b c"}
    references = {
        "both": [""],
        "reference": ["!"],
        "one of two": ["", "a dog runs"],
        "fourth": ["a b c d e f"],
    }
    gts, res = joined(candidates, references)
    for expected, ours in [
        (Rouge().compute_score(gts, res), rouge_l(candidates, references, tokenize=tokenize)),
        (Cider().compute_score(gts, res), cider_d(candidates, references, tokenize=tokenize)),
    ]:
        assert ours.mean == pytest.approx(expected[0], abs=1e-9)
        assert list(ours.per_image.values()) == pytest.approx(list(expected[1]), abs=1e-9)
    corpus, each = Bleu(4).compute_score(gts, res, verbose=0)
    scores = bleu(candidates, references, tokenize=tokenize)
    assert scores.corpus == pytest.approx(corpus, abs=1e-9)
    for n in range(4):
        ours_n = [image[n] for image in scores.per_image.values()]
        assert ours_n == pytest.approx(each[n], abs=1e-9)


def test_bleu_by_hand() -> None:
    # The example of Papineni et al. 2002, section 2.1: "the" is clipped to two.
    papineni = bleu(
        {"x": "the the the the the the the"},
        {"x": ["The cat is on the mat.", "There is a cat on the mat."]},
        tokenize=tokenize,
    )
    assert papineni.corpus[0] == pytest.approx(2 / 7, abs=1e-6)
    assert papineni.corpus[1] == pytest.approx(0, abs=1e-6)
    # Every n-gram right, half as long: only the brevity penalty exp(1 - 4 / 2).
    short = bleu({"x": "a b"}, {"x": ["a b c d"]}, tokenize=tokenize)
    assert short.corpus[:2] == pytest.approx([math.exp(-1)] * 2, abs=1e-6)
    # References of 2 and 4 words are equally close to 3 words: the shorter counts, no penalty.
    close = bleu({"x": "a b c"}, {"x": ["d d d d", "a b"]}, tokenize=tokenize)
    assert close.corpus[:2] == pytest.approx([2 / 3, math.sqrt(2 / 3 * 1 / 2)], abs=1e-6)


def test_bleu_of_the_corpus_is_not_the_mean_of_the_images() -> None:
    candidates = {"x": "a b", "y": "c c c c c c"}
    references = {"x": ["a b"], "y": ["c d e f g h"]}
    scores = bleu(candidates, references, tokenize=tokenize)
    assert scores.corpus[0] == pytest.approx(3 / 8, abs=1e-6)
    assert scores.per_image["x"][0] == pytest.approx(1, abs=1e-6)
    assert scores.per_image["y"][0] == pytest.approx(1 / 6, abs=1e-6)


def test_rouge_l_by_hand() -> None:
    candidates = {"lin": "police kill the gunman", "short": "a b", "two": "a b x", "none": "x"}
    references = {
        "lin": ["police killed the gunman"],  # Lin 2004: 3 of 4 words in order
        "short": ["a b c d"],  # precision 1, recall 1/2
        "two": ["a b c d", "x"],  # precision 2/3 from the first, recall 1 from the second
        "none": ["a"],
    }
    scores = rouge_l(candidates, references, tokenize=tokenize)
    assert scores.per_image == pytest.approx(
        {
            "lin": 0.75,
            "short": 2.44 * 0.5 / (0.5 + 1.44),
            "two": 2.44 * (2 / 3) / (1 + 1.44 * 2 / 3),
            "none": 0.0,
        }
    )
    assert scores.mean == pytest.approx(sum(scores.per_image.values()) / 4)


def test_cider_d_by_hand() -> None:
    candidates = {"same": "a b", "shorter": "c d", "repeated": "f f"}
    references = {"same": ["a b"], "shorter": ["c d e"], "repeated": ["f"]}
    scores = cider_d(candidates, references, tokenize=tokenize)
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
    expected = cider_d(CANDIDATES, REFERENCES, tokenize=tokenize).per_image
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


def test_score_captions_has_all_metrics_by_name() -> None:
    scores = score_captions(CANDIDATES, REFERENCES, tokenize=tokenize)
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert list(scores.values) == names
    assert list(scores.per_image) == list(CANDIDATES)
    assert all(list(image) == names for image in scores.per_image.values())
    all_bleu = bleu(CANDIDATES, REFERENCES, tokenize=tokenize)
    rouge = rouge_l(CANDIDATES, REFERENCES, tokenize=tokenize)
    cider = cider_d(CANDIDATES, REFERENCES, tokenize=tokenize)
    assert tuple(scores.values.values()) == (*all_bleu.corpus, rouge.mean, cider.mean)
    for image_id, image in scores.per_image.items():
        assert tuple(image.values()) == (
            *all_bleu.per_image[image_id],
            rouge.per_image[image_id],
            cider.per_image[image_id],
        )


def test_spelling_that_the_tokenizer_levels_costs_nothing() -> None:
    candidates = {"x": "A man\u2019s T-shirt, on the dogs\u2019 bed", "y": "Two cats"}
    references = {"x": ["a man 's t-shirt on the dogs bed ."], "y": ["two cats"]}
    scores = score_captions(candidates, references, tokenize=tokenize)
    assert scores.per_image["x"] == pytest.approx(
        {"BLEU-1": 1, "BLEU-2": 1, "BLEU-3": 1, "BLEU-4": 1, "ROUGE-L": 1, "CIDEr-D": 10}, abs=1e-6
    )


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider_d, meteor, spice, score_captions])
@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ({"x": "a", "y": "b"}, {"x": ["a"]}, "image 'y' has no references"),
        ({"x": "a"}, {"x": ["a"], "z": ["b"]}, "image 'z' has no candidate"),
        ({"x": "a"}, {"x": []}, r"image 'x' has \[\]; give a list with at least one caption"),
        ({"x": "a"}, {"x": "a dog"}, "image 'x' has 'a dog'; give a list"),
        ({"x": "a"}, {}, "references: there are none"),
        ({}, {}, "references: there are none"),
    ],
)
def test_pairs_that_do_not_match_are_refused(
    metric: Callable[..., object], candidates: dict[str, str], references: Texts, message: str
) -> None:
    with pytest.raises(CaptionerError, match=message):
        metric(candidates, references, tokenize=tokenize)


def test_rewards_refuse_what_has_no_references() -> None:
    with pytest.raises(CaptionerError, match=r"image 'x' has \[\]"):
        CiderD({"x": []}, tokenize=tokenize)
    with pytest.raises(CaptionerError, match="there are none"):
        DocumentFrequency.from_references({}, tokenize)
    with pytest.raises(CaptionerError, match="image 'y' has no references"):
        CiderD({"x": ["a"]}, tokenize=tokenize).score([("x", ["a"]), ("y", ["a"])])


def test_unknown_extra_metrics_are_refused() -> None:
    with pytest.raises(CaptionerError, match="'meteor' is unknown; choose from METEOR, SPICE"):
        score_captions(CANDIDATES, REFERENCES, tokenize=tokenize, extra=["meteor"])


@pytest.mark.parametrize("name", ["METEOR", "SPICE"])
def test_missing_java_is_said(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaptionerError, match=f"{name} needs Java: install a Java runtime"):
        score_captions(CANDIDATES, REFERENCES, tokenize=tokenize, extra=[name])


@pytest.mark.skipif(os.name == "nt", reason="the broken java is a shell script")
def test_broken_java_is_an_error_and_not_a_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(CaptionerError, match="METEOR: Java failed"):
        meteor(CANDIDATES, REFERENCES, tokenize=tokenize)


def spice_models() -> list[Path]:
    spec = find_spec("pycocoevalcap.spice")
    assert spec is not None and spec.origin is not None
    return list((Path(spec.origin).parent / "lib").glob("stanford-corenlp-*-models.jar"))


@pytest.mark.usefixtures("java")
@pytest.mark.skipif(bool(spice_models()), reason="the models are there")
def test_spice_does_not_download_its_models() -> None:
    with pytest.raises(CaptionerError, match="run python -m pycocoevalcap.spice.get_stanford"):
        spice(CANDIDATES, REFERENCES, tokenize=tokenize)
    assert spice_models() == []


@pytest.mark.slow
@pytest.mark.usefixtures("java")
def test_meteor_runs_beside_the_others() -> None:
    scores = score_captions(CANDIDATES, REFERENCES, tokenize=tokenize, extra=["METEOR"])
    assert list(scores.values)[-1] == "METEOR"
    assert 0 < scores.values["METEOR"] < 1
    assert scores.per_image["ball.jpg"]["METEOR"] == pytest.approx(1.0)
    assert scores.per_image["girl.jpg"]["METEOR"] == 0

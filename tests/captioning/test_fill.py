"""Blanks of a sentence, against the posterior over all fillings, and through the command line."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import captioner
from captioner.captioning.fill import fill_images
from captioner.cli import entry as cli
from captioner.decoding import blanks
from captioner.decoding.blanks import Fillings, result_of, search_fillings
from captioner.decoding.options import FillOptions
from captioner.decoding.sentences import parse_blanks
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile
from captioner.model.caption_model import CaptionModel
from captioner.model.shipped import load_model
from helpers.step_functions import (
    BOS,
    EOS,
    SPECIAL,
    Recurrent,
    Table,
    chain_log_probs,
    table_step,
    tables,
)

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"
NAMES = ["<pad>", "<bos>", "<eos>", "<unk>", "d", "e", "f", "g", "h"]


def search(logits: torch.Tensor, sentence: Sequence[int | None], beam_size: int) -> Fillings:
    return search_fillings(
        table_step,
        Table(logits),
        sentence,
        beam_size=beam_size,
        bos=BOS,
        eos=EOS,
        never=SPECIAL,
        device="cpu",
    )


def posterior(
    logits: torch.Tensor, sentence: Sequence[int | None]
) -> dict[tuple[int, ...], tuple[float, float]]:
    """Probability and sentence log-probability of every filling, the most probable first."""
    found = {}
    for ids in itertools.product(range(4, logits.shape[-1]), repeat=sentence.count(None)):
        rest = iter(ids)
        whole = [next(rest) if word is None else word for word in sentence]
        found[ids] = sum(chain_log_probs(logits, [*whole, EOS]))
    total = sum(map(math.exp, found.values()))
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return {ids: (math.exp(log_prob) / total, log_prob) for ids, log_prob in ranked}


SENTENCES = [
    (None,),
    (None, 4),
    (5, None, 4, 6),
    (5, None),
    (None, None),
    (None, 4, None, 5),
    (4, None, None, None),
]


@pytest.mark.parametrize("cells", [1, 30, 4_000_000])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_all_fillings_considered_give_the_posterior(
    sentence: tuple[int | None, ...], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blanks, "CELLS", cells)  # blocks of 1, of 3 and of all
    logits = tables(images=1, words=5, max_length=5, seed=len(sentence))
    expected = posterior(logits[0], sentence)
    found = search(logits, sentence, beam_size=125)
    assert found.lost == -math.inf
    words = [None if word is None else NAMES[word] for word in sentence]
    result = result_of(found, words, NAMES, top=1000)
    assert result.considered == len(expected) == 5 ** sentence.count(None)
    assert result.unexplored == 0.0
    assert [f.words for f in result.fillings] == [
        tuple(NAMES[word] for word in ids) for ids in expected
    ]
    for filling, (share, log_prob) in zip(result.fillings, expected.values(), strict=True):
        assert filling.probability == pytest.approx(share, rel=1e-4)
        assert filling.log_prob == pytest.approx(log_prob, abs=1e-4)
    for place, blank in enumerate(result.blanks):
        marginal = {NAMES[word]: 0.0 for word in range(4, 9)}
        for ids, (share, _) in expected.items():
            marginal[NAMES[ids[place]]] += share
        assert dict(blank) == pytest.approx(marginal, rel=1e-4)
        assert [p for _, p in blank] == sorted((p for _, p in blank), reverse=True)


@pytest.mark.parametrize("beam_size", [1, 4, 20])
@pytest.mark.parametrize("cells", [1, 4_000_000])
@pytest.mark.parametrize("seed", range(5))
def test_the_share_of_what_was_not_considered_is_bounded(
    seed: int, beam_size: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blanks, "CELLS", cells)
    sentence = (None, 6, None, None)
    logits = tables(images=1, words=5, max_length=5, seed=seed)
    expected = posterior(logits[0], sentence)
    found = search(logits, sentence, beam_size)
    result = result_of(found, ["x"] * 4, NAMES, top=1000)
    ids = [tuple(row) for row in found.ids.tolist()]
    assert len(ids) == len(set(ids)) == beam_size
    missed = 1 - sum(expected[each][0] for each in ids)
    assert 0 < missed <= result.unexplored < 1
    for each, share in zip(
        ids, (found.log_probs - found.log_probs.logsumexp(0)).exp(), strict=True
    ):
        true = expected[each][0]
        assert share * (1 - result.unexplored) <= true * (1 + 1e-5)
        assert true <= share * (1 + 1e-5)
    # What was given up, to the digit: the kept ones are the best begun sentences.
    if beam_size == 20:
        begun = sorted(
            (
                sum(chain_log_probs(logits[0], [a, 6, b]))
                for a, b in itertools.product(range(4, 9), repeat=2)
            ),
            reverse=True,
        )
        assert math.exp(found.lost) >= sum(map(math.exp, begun[20:])) * (1 - 1e-5)


def test_states_follow_their_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recurrent(seed=1, words=6)
    feature = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    results = []
    for cells in (10, 4_000_000):
        monkeypatch.setattr(blanks, "CELLS", cells)
        found = search_fillings(
            model.step,
            model.first(feature),
            (None, 5, None, 7),
            beam_size=36,
            bos=BOS,
            eos=EOS,
            never=SPECIAL,
            device="cpu",
        )
        results.append(found)
        assert len(found.ids) == 36
        for (a, b), log_prob in zip(found.ids.tolist(), found.log_probs.tolist(), strict=True):
            state, last, total = model.first(feature), BOS, 0.0
            for word in (a, 5, b, 7, EOS):
                with torch.no_grad():
                    logits, state = model.step(torch.tensor([[last]]), state)
                total += logits[0, 0].log_softmax(-1)[word].item()
                last = word
            assert log_prob == pytest.approx(total, abs=1e-4)
    assert torch.equal(results[0].ids, results[1].ids)


def test_a_sentence_that_cannot_be_is_named() -> None:
    logits = tables(images=1, words=3, max_length=3, seed=0)
    logits[..., 5] = -math.inf
    with pytest.raises(CaptionerError, match="no word can fill the blank"):
        search(logits, (None, 5), 10)
    (filled,) = [search(logits, (4, None), 10)]
    assert sorted(filled.ids[:, 0].tolist()) == [4, 6]  # 5 cannot be
    logits[..., 4] = math.nan
    with pytest.raises(CaptionerError, match=r"not numbers \(NaN\)"):
        search(logits, (4, None), 10)


# --- sentences and options -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("A ___ dog runs, through the ______.", ("a", None, "dog", "runs", "through", "the", None)),
        ("_ __", (None, None)),
        ("the ___'s t-shirt", ("the", None, "'s", "t-shirt")),
        ("(___)", (None,)),
    ],
)
def test_blanks_are_found(sentence: str, words: tuple[str | None, ...]) -> None:
    assert parse_blanks(sentence) == words


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("a dog", "sentence 'a dog': there is no blank in it; write ___"),
        ("a ___s", "'___s' is not a whole word; a blank stands for one word"),
        ("a snow___ dog", "'snow___' is not a whole word"),
        ("a t-___", "'t-___' is not a whole word"),
        ("foo_bar", "'foo_bar' is not a whole word"),
    ],
)
def test_what_is_no_blank_is_refused(sentence: str, message: str) -> None:
    with pytest.raises(CaptionerError) as error:
        parse_blanks(sentence)
    assert message in str(error.value)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="top=0: give a whole number of at least 1"):
        FillOptions(top=0)
    with pytest.raises(ValueError, match="beam_size='5': give a whole number"):
        FillOptions(beam_size="5")  # type: ignore[arg-type]


# --- the model and the command line --------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> CaptionModel:
    return load_model(device="cpu")


def test_the_shipped_model_fills_as_it_scores_whole_sentences(shipped: CaptionModel) -> None:
    photo = EXAMPLES / "raccoon.jpg"
    (result,) = shipped.fill([photo], "a ___ and white dog", FillOptions(top=10_000))
    assert result.considered == len(shipped.tokenizer.words) and result.unexplored == 0.0
    assert math.fsum(f.probability for f in result.fillings) == pytest.approx(1.0)
    assert result.fillings[0].text == "a black and white dog"
    for filling in result.fillings[:3]:
        prompted = captioner.DecodingOptions(prompt=filling.text, max_length=5, beam_size=1)
        said = shipped.caption([photo], prompted)[0].candidates[0]
        assert said.text == filling.text
        assert said.log_prob == pytest.approx(filling.log_prob, abs=1e-4)


def test_words_behind_the_blank_count() -> None:
    shipped = load_model("flickr8k", device="cpu")  # it takes the raccoon for a dog
    photo = EXAMPLES / "raccoon.jpg"
    # To the left of the blank both are the same.
    best = [
        shipped.fill([photo], sentence)[0].fillings[0].words[0]
        for sentence in ("a ___ is running in the water", "a ___ dog is running in the water")
    ]
    assert best == ["dog", "black"]


@pytest.fixture
def model_file(tiny_model: CaptionModel, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    tiny_model.save(path, half=False)
    return path


def fill(
    capsys: pytest.CaptureFixture[str], model_file: Path, *arguments: str
) -> tuple[int, str, str]:
    try:
        code = cli.main(["fill", *arguments, "--model", str(model_file), "--device", "cpu"])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_lines_for_people_and_for_machines(
    capsys: pytest.CaptureFixture[str],
    model_file: Path,
    photo_folder: Path,
    bad_files: dict[str, Path],
) -> None:
    bad = photo_folder / "bad.jpg"
    bad.write_bytes(bad_files["text"].read_bytes())
    sentence = "a ___ runs in the ___"
    arguments = (str(photo_folder), sentence, "--top", "2")
    code, out, err = fill(capsys, model_file, *arguments, "--format", "jsonl")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert len(records) == 9 and records[0]["file_name"] == "a.jpg"
    assert f"captioner: {bad}: " in err and err.endswith("captioner: 8 filled in, 1 failed\n")
    model = CaptionModel.load(model_file, device="cpu")
    for record in records:
        assert record["sentence"] == sentence
        if record["file_name"] == "bad.jpg":
            assert record["error"] and record["fillings"] is None and record["blanks"] is None
            continue
        (expected,) = model.fill([photo_folder / record["file_name"]], sentence, FillOptions(top=2))
        assert record["error"] is None
        assert record["considered"] == 14**2 and record["unexplored"] == 0.0
        assert [f["text"] for f in record["fillings"]] == [f.text for f in expected.fillings]
        assert [f["probability"] for f in record["fillings"]] == [
            round(f.probability, 6) for f in expected.fillings
        ]
        assert [len(blank) for blank in record["blanks"]] == [2, 2]
        first = record["fillings"][0]
        assert first["text"] == "a {} runs in the {}".format(*first["words"])

    code, out, _ = fill(capsys, model_file, *arguments, "--quiet")
    lines = out.splitlines()
    assert code == 1 and len(lines) == 8 * 5
    assert lines[0] == str(photo_folder / "a.jpg")
    best = records[0]["fillings"][0]
    assert lines[1] == f"  {best['probability']:6.1%}  {best['text']}"
    assert lines[3].startswith("  blank 1: ") and lines[4].startswith("  blank 2: ")


def test_what_was_not_looked_at_is_said(
    capsys: pytest.CaptureFixture[str], model_file: Path, photo_folder: Path
) -> None:
    photo = str(photo_folder / "a.jpg")
    code, out, err = fill(capsys, model_file, photo, "a ___ ___ dog", "--beam-size", "20")
    assert code == 0 and err == "captioner: 1 filled in, 0 failed\n"
    assert out.splitlines()[-1].startswith("  20 fillings were looked at; at most ")
    assert out.endswith("% of the probability lies in others\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a dog"], "there is no blank in it"),
        (["a ___ zebra"], "the word 'zebra' is not in the model's vocabulary of 14 words"),
    ],
)
def test_bad_sentences_are_refused(
    capsys: pytest.CaptureFixture[str],
    model_file: Path,
    photo_folder: Path,
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = fill(capsys, model_file, str(photo_folder / "a.jpg"), *arguments)
    assert (code, out) == (2, "") and message in err and err.startswith("captioner: error: ")


def test_a_missing_file_is_refused(capsys: pytest.CaptureFixture[str], model_file: Path) -> None:
    code, out, err = fill(capsys, model_file, "no such.jpg", "a ___ dog")
    assert (code, out) == (2, "") and "no such.jpg" in err


def test_python_takes_images_and_files(tiny_model: CaptionModel, photo_folder: Path) -> None:
    assert tiny_model.fill([], "a ___") == []
    with pytest.raises(CaptionerError, match="no blank"):
        fill_images(tiny_model, [], "a dog")
    paths = [photo_folder / "a.jpg", photo_folder / "b.PNG"]
    together = tiny_model.fill(paths, "a ___ dog")
    alone = tiny_model.fill(str(paths[0]), "a ___ dog")
    assert [f.words for f in alone.fillings] == [f.words for f in together[0].fillings]
    assert str(alone) == f"{alone.fillings[0].text} ({alone.fillings[0].probability:.2f})"
    files = [SourceFile(path, path.name) for path in paths]
    for one, record in zip(together, fill_images(tiny_model, files, "a ___ dog"), strict=True):
        assert record.result is not None
        assert [f.words for f in record.result.fillings] == [f.words for f in one.fillings]
    assert tiny_model.training is False

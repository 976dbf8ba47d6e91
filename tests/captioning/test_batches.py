"""Captioning many files with a real (untrained) model: order, batches, bad files, clean ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import PIL
import pytest

from captioner.captioning.batches import CaptionRecord, caption_images
from captioner.captioning.formats import open_writer
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError
from captioner.files.finding import SourceFile
from captioner.images.kinds import find_images
from captioner.model.caption_model import CaptionModel
from captioner.model.results import Candidate, CaptionResult
from captioner.model.tags import Tag, tags_of
from helpers.images import noise

pytestmark = pytest.mark.arithmetic

OPTIONS = DecodingOptions(beam_size=2, num_captions=2, max_length=6)


def readers() -> list[str]:
    """Names of the threads that read images and still run."""
    return [t.name for t in threading.enumerate() if t.name.startswith("captioner-read")]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_every_file_gets_the_captions_it_gets_alone_in_the_order_given(
    tiny_model: CaptionModel, photo_folder: Path, batch_size: int, workers: int
) -> None:
    files = list(find_images(photo_folder))
    records = list(
        caption_images(tiny_model, files, OPTIONS, batch_size=batch_size, workers=workers)
    )
    assert [(record.file_name, record.path, record.error) for record in records] == [
        (file.name, file.path, None) for file in files
    ]
    alone = [tiny_model.caption([file.path], OPTIONS)[0] for file in files]
    assert len({result.text for result in alone}) > 1
    for record, result in zip(records, alone, strict=True):
        assert record.result is not None
        assert [c.text for c in record.result.candidates] == [c.text for c in result.candidates]
        assert record.result.confidence == pytest.approx(result.confidence, abs=1e-5)
    assert readers() == []


def test_files_may_be_given_as_they_are_on_the_command_line(
    tiny_model: CaptionModel, photo_folder: Path
) -> None:
    files = list(find_images(photo_folder))
    expected = [(record.path, record.result) for record in caption_images(tiny_model, files)]
    paths = [file.path for file in files]
    for given in (str(photo_folder), photo_folder, f"{photo_folder}/**", paths, iter(paths)):
        records = list(caption_images(tiny_model, given))
        assert [(record.path, record.result) for record in records] == expected
    assert str(records[0]) == f"{paths[0]}: {expected[0][1]}"
    assert list(caption_images(tiny_model, [])) == []
    for given, message in (
        ("gone", "gone does not exist"),
        (["https://example.org/a.jpg"], "is a URL"),
        (7, "7 is not a path: give files, folders or patterns"),
    ):
        with pytest.raises(CaptionerError, match=message):
            caption_images(tiny_model, given)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_records_in_their_place(
    tiny_model: CaptionModel,
    photo_folder: Path,
    bad_files: dict[str, Path],
    special_files: dict[str, Path],
    workers: int,
) -> None:
    bad = [
        (bad_files["truncated jpg"], "truncated file"),
        (bad_files["text"], "not an image Pillow can read"),
        (bad_files["empty"], "empty file"),
        (special_files["a named pipe"], "a named pipe, not a regular file"),
        (Path("gone.jpg"), "file not found"),
    ]
    good = list(find_images(photo_folder))
    mixed: list[tuple[SourceFile, str | None]] = [(file, None) for file in good]
    for index, (path, reason) in enumerate(bad):
        mixed.insert(index * 2, (SourceFile(path, path.name), reason))
    records = list(
        caption_images(
            tiny_model, [file for file, _ in mixed], OPTIONS, batch_size=2, workers=workers
        )
    )
    assert [(record.file_name, record.error) for record in records] == [
        (file.name, reason) for file, reason in mixed
    ]
    assert all((record.result is None) == (record.error is not None) for record in records)
    texts = [record.result.text for record in records if record.result is not None]
    assert texts == [tiny_model.caption([file.path], OPTIONS)[0].text for file in good]


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_but_bad_files_and_nothing_at_all(
    tiny_model: CaptionModel, bad_files: dict[str, Path], workers: int
) -> None:
    files = [SourceFile(path, path.name) for path in bad_files.values()]
    records = list(caption_images(tiny_model, files, batch_size=3, workers=workers))
    assert [record.file_name for record in records] == [file.name for file in files]
    assert all(record.error and record.result is None for record in records)
    assert list(caption_images(tiny_model, [], workers=workers)) == []


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_an_image_of_one_line_does_not_end_the_job(
    tiny_model: CaptionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: str
) -> None:
    noise(0, 5000, 1).save(tmp_path / "thin.png")
    noise(0).save(tmp_path / "usual.png")
    monkeypatch.setattr(tiny_model, "transform", replace(tiny_model.transform, resize=resize))
    thin, usual = caption_images(tiny_model, find_images(tmp_path), OPTIONS)
    old_pillow = resize == "pad" and int(PIL.__version__.partition(".")[0]) < 13
    assert thin.error == ("5000 x 1 pixels are too narrow for the model" if old_pillow else None)
    assert usual.result is not None


@pytest.mark.parametrize(
    ("workers", "most"),
    # One batch and the two, but for an image, that the CNN sees meanwhile; with threads another one
    # ahead and a file for each thread.
    [(0, 4 + 7), (1, 4 + 7 + 4 + 1), (3, 4 + 7 + 4 + 3)],
)
def test_files_are_taken_as_they_are_needed(
    tiny_model: CaptionModel, tmp_path: Path, workers: int, most: int
) -> None:
    noise(0).save(tmp_path / "x.png")
    taken = 0

    def endless() -> Iterator[SourceFile]:
        nonlocal taken
        while True:
            taken += 1
            yield SourceFile(tmp_path / "x.png", str(taken))

    records = caption_images(tiny_model, endless(), OPTIONS, batch_size=4, workers=workers)
    assert taken == 0
    for count in range(1, 13):
        assert next(records).file_name == str(count)
        batches = (count + 3) // 4
        assert taken == most + 4 * (batches - 1)
    records.close()
    assert readers() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_of_bad_files_does_not_pile_up_behind_a_good_one(
    tiny_model: CaptionModel, tmp_path: Path, workers: int
) -> None:
    noise(0).save(tmp_path / "x.png")

    def endless() -> Iterator[SourceFile]:
        yield SourceFile(tmp_path / "x.png", "good")
        while True:
            yield SourceFile(tmp_path / "gone.png", "bad")

    records = caption_images(tiny_model, endless(), OPTIONS, batch_size=4, workers=workers)
    assert next(records).file_name == "good"
    assert next(records).error == "file not found"
    records.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_from_the_listing_ends_the_threads(
    tiny_model: CaptionModel, tmp_path: Path, workers: int, error: type[BaseException]
) -> None:
    noise(0).save(tmp_path / "x.png")

    def breaking() -> Iterator[SourceFile]:
        for index in range(10):
            yield SourceFile(tmp_path / "x.png", str(index))
        raise error

    seen = []
    with pytest.raises(error):
        for record in caption_images(
            tiny_model, breaking(), OPTIONS, batch_size=2, workers=workers
        ):
            seen.append(record.file_name)
    assert seen == [str(index) for index in range(len(seen))]
    assert len(seen) >= (10 if error is OSError else 2)  # what was taken before is captioned
    assert readers() == []


def test_threads_end_when_the_generator_is_left(
    tiny_model: CaptionModel, photo_folder: Path
) -> None:
    records = caption_images(tiny_model, find_images(photo_folder), batch_size=1, workers=2)
    next(records)
    assert len(readers()) == 2
    records.close()
    assert readers() == []


def test_a_large_jpeg_gets_the_captions_of_the_full_decode(
    tiny_model: CaptionModel, tmp_path: Path
) -> None:
    noise(5, 1600, 1200).save(tmp_path / "large.jpg")
    (record,) = caption_images(tiny_model, find_images(tmp_path), OPTIONS)
    full = tiny_model.caption([noise(5, 1600, 1200)], OPTIONS)[0]
    assert record.result is not None
    assert record.result.text == full.text
    assert record.result.confidence == pytest.approx(full.confidence, abs=5e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: at least 1 image"),
        ({"workers": -1}, "workers=-1: give 0 or the number of threads"),
    ],
)
def test_options_are_checked_by_the_call(
    tiny_model: CaptionModel, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        caption_images(tiny_model, [], **options)  # type: ignore[arg-type]


def test_options_that_do_not_suit_the_model_end_everything(
    tiny_model: CaptionModel, photo_folder: Path
) -> None:
    options = DecodingOptions(banned_words=("two words",))
    with pytest.raises(CaptionerError, match="two words"):
        list(caption_images(tiny_model, find_images(photo_folder), options, workers=2))
    assert readers() == []


# --- records -------------------------------------------------------------------------------

FINISHED = Candidate("a dog", -1.234567, 0.66266, ("a", "dog"), (0.5, 0.123456, 0.99999))
CUT_OFF = Candidate("a man's dog", -3.5, 0.25, ("a", "man", "'s", "dog"), (0.5, 0.5, 0.25, 0.125))
RECORD = CaptionRecord(
    "sub/a.jpg", Path("photos/sub/a.jpg"), CaptionResult((FINISHED, CUT_OFF)), None
)
FAILED = CaptionRecord("b.jpg", Path("photos/b.jpg"), None, "truncated file")


def test_a_record_as_primitives() -> None:
    assert RECORD.to_dict() == {
        "file_name": "sub/a.jpg",
        "text": "a dog",
        "confidence": 0.6627,
        "calibrated": False,
        "error": None,
    }
    assert FAILED.to_dict() == {
        "file_name": "b.jpg",
        "text": None,
        "confidence": None,
        "calibrated": None,
        "error": "truncated file",
    }


def test_a_record_with_its_candidates() -> None:
    assert RECORD.to_dict(candidates=True)["candidates"] == [
        {
            "text": "a dog",
            "log_prob": -1.2346,
            "avg_logprob": -0.4115,
            "words": [["a", 0.5], ["dog", 0.1235], [None, 1.0]],
        },
        {
            "text": "a man's dog",
            "log_prob": -3.5,
            "avg_logprob": -0.875,
            "words": [["a", 0.5], ["man", 0.5], ["'s", 0.25], ["dog", 0.125]],
        },
    ]
    assert FAILED.to_dict(candidates=True)["candidates"] == []


def test_the_models_own_candidates_survive_json(
    tiny_model: CaptionModel, photo_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "captions.jsonl"
    with open_writer(output) as writer:
        for record in caption_images(tiny_model, find_images(photo_folder), OPTIONS):
            writer.write(record.to_dict(candidates=True), record.path)
    lines = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert len(lines) == 8
    for line in lines:
        assert len(line["candidates"]) == 2
        assert line["candidates"][0]["text"] == line["text"]
        assert 0 < line["confidence"] <= 1
        for candidate in line["candidates"]:
            probs = [prob for _, prob in candidate["words"]]
            assert all(0 <= prob <= 1 for prob in probs)
            assert None not in [word for word, _ in candidate["words"]][:-1]


def test_samples_depend_on_the_place_in_the_run_and_not_on_the_batches(
    tiny_model: CaptionModel, photo_folder: Path
) -> None:
    options = DecodingOptions(sample=True, max_length=6, seed=3)
    files = list(find_images(photo_folder))
    runs = [
        [
            record.result.text
            for record in caption_images(tiny_model, files, options, batch_size=batch_size)
            if record.result is not None
        ]
        for batch_size in (1, 2, 5)
    ]
    assert len(runs[0]) == len(files)
    assert runs[0] == runs[1] == runs[2]
    same = [files[0]] * 4
    drawn = [r.result for r in caption_images(tiny_model, same, options, batch_size=1)]
    assert len({result.text for result in drawn if result is not None}) > 1


def test_a_large_jpeg_gets_the_same_captions_alone_and_in_a_folder(
    tiny_model: CaptionModel, tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    noise(5, 1600, 1200).save(path, quality=90)
    assert tiny_model.transform.min_side == 3 * 64
    (record,) = caption_images(tiny_model, find_images(path), OPTIONS)
    assert record.result == tiny_model.caption([path], OPTIONS)[0]


# --- tags ----------------------------------------------------------------------------------


def test_tags_come_from_three_captions_whatever_number_is_shown(
    tagging_model: CaptionModel, photo_folder: Path
) -> None:
    lexicon = tagging_model.lexicon
    assert lexicon is not None
    files = list(find_images(photo_folder))
    one = DecodingOptions(beam_size=3, max_length=6)
    three = DecodingOptions(beam_size=3, num_captions=3, max_length=6)
    records = list(caption_images(tagging_model, files, one, min_tag_confidence=0.0))
    for record, file in zip(records, files, strict=True):
        (full,) = tagging_model.caption([file.path], three)
        assert record.result is not None and record.tags is not None
        assert [c.text for c in record.result.candidates] == [full.text]
        expected = tags_of(full, lexicon)
        assert {(tag.name, tag.type) for tag in record.tags} == {
            (tag.name, tag.type) for tag in expected
        }
        for tag, alone in zip(record.tags, expected, strict=True):
            assert tag.confidence == pytest.approx(alone.confidence, abs=1e-4)
    sure = list(caption_images(tagging_model, files, one, min_tag_confidence=0.2))
    for record, kept in zip(records, sure, strict=True):
        assert record.tags is not None
        assert kept.tags == tuple(tag for tag in record.tags if tag.confidence >= 0.2)
    assert any(record.tags for record in sure)


def test_a_record_with_its_tags() -> None:
    record = replace(RECORD, tags=(Tag("dog", "noun", 0.87654), Tag("run", "verb", 0.5)))
    assert record.to_dict()["tags"] == [
        {"name": "dog", "type": "noun", "confidence": 0.8765},
        {"name": "run", "type": "verb", "confidence": 0.5},
    ]
    assert "tags" not in RECORD.to_dict()


def test_tags_are_refused_before_any_work(
    tiny_model: CaptionModel, tagging_model: CaptionModel
) -> None:
    with pytest.raises(CaptionerError, match="this model has no lexicon"):
        caption_images(tiny_model, [], min_tag_confidence=0.2)
    with pytest.raises(ValueError, match="min_tag_confidence=1.5: give a number from 0 to 1"):
        caption_images(tagging_model, [], min_tag_confidence=1.5)


def test_a_greedy_caption_is_all_the_evidence_there_is(
    tagging_model: CaptionModel, photo_folder: Path
) -> None:
    options = DecodingOptions(beam_size=1, max_length=6)
    (record, *_) = caption_images(
        tagging_model, find_images(photo_folder), options, min_tag_confidence=0.0
    )
    assert record.result is not None and record.tags is not None
    lexicon = tagging_model.lexicon
    assert lexicon is not None
    said = {lexicon.lemma_of(word) for word in record.result.candidates[0].words} - {None}
    assert {tag.name for tag in record.tags} == {lemma.name for lemma in said if lemma}


# --- captions that are not sure enough -----------------------------------------------------


def test_unsure_captions_are_marked_and_left_out_of_their_records(
    tagging_model: CaptionModel, photo_folder: Path, tmp_path: Path
) -> None:
    files = list(find_images(photo_folder))
    sure = [r.result.confidence for r in caption_images(tagging_model, files, OPTIONS) if r.result]
    least = sorted(sure)[3]
    records = list(caption_images(tagging_model, files, OPTIONS, min_confidence=least + 1e-6))
    assert [record.unsure for record in records] == [value <= least + 1e-6 for value in sure]
    assert sum(record.unsure for record in records) == 4
    output = tmp_path / "captions.tsv"
    with open_writer(output) as writer:
        for record in records:
            writer.write(record.to_dict(), record.path)
    assert len(output.read_text("utf-8").splitlines()) == 4
    left_out = next(record for record in records if record.unsure).to_dict(candidates=True)
    assert (left_out["text"], left_out["candidates"], left_out["error"]) == (None, [], None)
    assert left_out["confidence"] > 0
    with pytest.raises(ValueError, match="min_confidence=-0.1: give a number from 0 to 1"):
        caption_images(tagging_model, files, min_confidence=-0.1)

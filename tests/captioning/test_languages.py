from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from captioner.captioning.batches import CaptionRecord
from captioner.model.results import Candidate, CaptionResult

SCHEMA = Path(__file__).resolve().parents[2] / "docs/captions.schema.json"
RECORDS = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
ENGLISH = Candidate("a dog", -1.25, 0.6, ("a", "dog"), (0.5, 0.5, 1.0))


def test_a_record_in_another_language_names_it() -> None:
    result = CaptionResult(
        (Candidate("一只狗", -1.0, 0.5, ("一只", "狗"), (0.5, 0.5)),), language="zh"
    )
    record = CaptionRecord("a.jpg", Path("a.jpg"), result, None).to_dict()
    RECORDS.validate(record)
    assert record == {
        "file_name": "a.jpg",
        "text": "一只狗",
        "confidence": 0.5,
        "calibrated": False,
        "language": "zh",
        "error": None,
    }


def test_a_record_in_several_languages() -> None:
    chinese = CaptionResult((Candidate("狗", -1.0, 0.5, ("狗",), (0.5,)),), language="zh")
    hund = Candidate("ein Hund", -1.0, 0.25, ("ein", "hund"), (0.25, 0.25))
    german = CaptionResult((hund,), language="de")
    result = CaptionResult((ENGLISH,), other_languages={"zh": chinese, "de": german})
    unsure = frozenset({"de"})
    record = CaptionRecord("a.jpg", Path("a.jpg"), result, None, unsure_languages=unsure)
    RECORDS.validate(record.to_dict(candidates=True))
    assert record.to_dict() == {
        "file_name": "a.jpg",
        "text": "a dog",
        "confidence": 0.6,
        "calibrated": False,
        "language": "en",
        "other_languages": {
            "zh": {"text": "狗", "confidence": 0.5, "calibrated": False},
            "de": {"text": None, "confidence": 0.25, "calibrated": False},
        },
        "error": None,
    }
    others = record.to_dict(candidates=True)["other_languages"]
    assert others["zh"]["candidates"][0]["words"] == [["狗", 0.5]]
    assert others["de"]["candidates"] == []

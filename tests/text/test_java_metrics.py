"""METEOR and SPICE: what is missing is reported, nothing is downloaded, and METEOR runs."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.text.java_metrics import Meteor, Spice
from captioner.text.metrics import score_captions
from captioner.text.options import ScoringOptions
from captioner.text.tokenizer import tokenize
from helpers.captions import CANDIDATES, REFERENCES


@pytest.mark.parametrize("name", ["METEOR", "SPICE"])
def test_missing_java_is_reported(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaptionerError, match=f"{name} needs Java.*leave {name} out"):
        score_captions(CANDIDATES, REFERENCES, ScoringOptions(metrics=(name,)))


@pytest.mark.skipif(os.name == "nt", reason="the broken java is a shell script")
def test_broken_java_is_an_error_and_not_a_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(CaptionerError, match="METEOR: Java failed"):
        Meteor(REFERENCES, tokenize=tokenize).evaluate(CANDIDATES)


def spice_models() -> list[Path]:
    spec = find_spec("pycocoevalcap.spice")
    assert spec is not None and spec.origin is not None
    return list((Path(spec.origin).parent / "lib").glob("stanford-corenlp-*-models.jar"))


@pytest.mark.usefixtures("java")
@pytest.mark.skipif(bool(spice_models()), reason="the models are there")
def test_spice_does_not_download_its_models() -> None:
    with pytest.raises(CaptionerError, match="run python -m pycocoevalcap.spice.get_stanford"):
        Spice(REFERENCES, tokenize=tokenize).evaluate(CANDIDATES)
    assert spice_models() == []


@pytest.mark.slow
@pytest.mark.usefixtures("java")
def test_meteor_runs() -> None:
    scores = Meteor(REFERENCES, tokenize=tokenize).evaluate(CANDIDATES)["METEOR"]
    assert 0 < scores.corpus < 1
    assert scores.per_image["ball.jpg"] == pytest.approx(1.0)
    assert scores.per_image["girl.jpg"] == 0

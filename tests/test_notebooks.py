"""The notebooks run from top to bottom, say what is true, and are saved with their plots."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import captioner

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = ["01_memory.ipynb", "02_captioning.ipynb"]
LARGEST = 1_500_000  # bytes
CELLS_CSV = """cell,seed,parameters,epochs,seconds_per_epoch,bleu_4,cider_d
rnn,1,5000000,10,70,18.0,44.0
rnn,2,5000000,10,72,18.2,44.4
gru,1,5010000,10,80,19.0,47.0
gru,2,5010000,10,82,19.2,49.0
lstm,1,4990000,10,90,19.0,48.5
lstm,2,4990000,10,92,19.4,48.7
"""


def read(name: str) -> Any:
    return nbformat.read(FOLDER / name, as_version=4)


def run(name: str, values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Execute a copy in reduced mode; `values` is a dict expression over its names, for JSON."""
    copy = tmp_path / name
    shutil.copyfile(FOLDER / name, copy)
    monkeypatch.setenv("CAPTIONER_NOTEBOOK_QUICK", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("FLICKR8K", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(copy, as_version=4)
    asked = f"import json; print(json.dumps({values}, default=lambda x: x.tolist()))"
    notebook.cells.append(nbformat.v4.new_code_cell(asked))
    client = NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},  # where the data is found from
    )
    client.execute()  # raises CellExecutionError at the first error
    found: dict[str, Any] = json.loads(notebook.cells[-1].outputs[-1].text)
    return found


def test_the_gated_cells_remember_the_first_word_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "cells.csv"
    table.write_text(CELLS_CSV, encoding="utf-8")
    names = ("untrained_shares", "after", "sizes", "step_time", "source", "recall", "VERDICTS")
    values = "{" + ", ".join(f"'{name}': {name}" for name in names) + "}"
    values = values.replace(
        "'sizes': sizes",
        "'sizes': {c: parameters(c, INPUTS, SYMBOLS, HIDDEN[c]) for c in CELLS}",
    )
    values = values[:-1] + f", 'described': describe_cells(read_cells(Path({str(table)!r})))" + "}"
    found = run("01_memory.ipynb", values, tmp_path, monkeypatch)

    shares = found["untrained_shares"]  # of 20 inputs, the oldest first
    assert {cell: len(parts) for cell, parts in shares.items()} == dict.fromkeys(shares, 20)
    assert all(abs(sum(parts) - 1) < 1e-5 for parts in shares.values())
    assert shares["GRU"][0] > 10 * shares["RNN"][0]
    assert shares["LSTM"][0] > 10 * shares["RNN"][0]
    assert all(parts[0] < parts[-1] for parts in shares.values())

    sizes = list(found["sizes"].values())
    assert max(sizes) - min(sizes) < 0.05 * min(sizes), "equal budgets"
    assert set(found["after"]) == set(found["step_time"]) == {"RNN", "GRU", "LSTM"}
    assert found["source"] == "sentences of the small grammar"
    assert all(0 <= a <= 1 for rows in found["recall"].values() for row in rows for a in row)
    assert len(found["VERDICTS"]) == 7

    described = found["described"].splitlines()
    assert described[2] == ("| RNN | 2 | 5,000,000 | 18.10 ± 0.10 | 44.20 ± 0.20 | 71.00 ± 1.00 |")
    assert described[-3:] == [
        "By CIDEr-D the order is LSTM, GRU, RNN; from first to last it is 4.40 points.",
        "Every run of the LSTM was better than every run of the RNN.",
        "An epoch took least time with the RNN and most with the LSTM.",
    ]


def test_the_sentence_is_the_one_that_the_model_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (
        "{'mine': mine, 'text': result.text, 'confidence': result.confidence, "
        "'sums': attention_sums, 'words': words_said, 'grid': list(features.grid.shape), "
        "'log_probs': [beam.log_prob for beam in finished], "
        "'falling': [[beam.log_prob for beam in kept + lost] for kept, lost in steps]}"
    )
    found = run("02_captioning.ipynb", values, tmp_path, monkeypatch)

    model, photo = captioner.load_model(device="cpu"), ROOT / "data" / "examples" / "stairs.jpg"
    answer = model.caption([photo], captioner.DecodingOptions(num_captions=3))[0]
    assert found["mine"] == answer.text
    own = model.caption([photo])[0]  # as the model's file says
    assert (found["text"], found["confidence"]) == (own.text, pytest.approx(own.confidence, 1e-4))
    assert found["words"] == [*answer.candidates[0].words, "(end)"]
    assert found["log_probs"] == pytest.approx([c.log_prob for c in answer.candidates], abs=1e-3)
    assert found["sums"] == pytest.approx([1.0] * len(found["words"]), abs=1e-5)
    assert found["grid"] == [1, 81, 1280]
    # What is kept is better than what is lost.
    assert all(step == sorted(step, reverse=True) for step in found["falling"])


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_notebook_was_run_in_full_and_in_order(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "no litter"
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) >= 5
    assert notebook.metadata.kernelspec.name == "python3"


def test_the_saved_memory_test_is_no_reduced_run() -> None:
    texts = [
        str(output.get("data", {}).get("text/markdown"))
        for cell in read("01_memory.ipynb").cells
        for output in cell.get("outputs", [])
    ]
    assert any("d = 120" in text for text in texts)


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_notebook_is_small_and_tells_nothing_of_the_machine(name: str) -> None:
    path = FOLDER / name
    assert path.stat().st_size < LARGEST
    for cell in read(name).cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), *map(str, output.get("traceback", []))]
            texts += [t for kind, t in output.get("data", {}).items() if kind != "image/png"]
        for text in texts:
            assert not re.search(r"(?:^|[\s'\"(=])(?:/[a-z]\w*){2,}|[A-Z]:\\\\", text), text


def test_every_notebook_is_tested() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == NAMES

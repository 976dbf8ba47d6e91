"""Grids for sentences without photos, composed of those of photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.data.datasets import Example
from captioner.errors import CaptionerError
from captioner.images.transform import ImageTransform
from captioner.model.checkpoints import load_checkpoint
from captioner.model.tag_head import TagHead
from captioner.text.lexicon import Lemma, Lexicon
from captioner.text.tokenizer import Tokenizer
from captioner.training.batches import CaptionedImages
from captioner.training.imagined import Imagination
from captioner.training.lightning_cli import main
from helpers.models import make_model

WORDS = ("dog", "cat", "grass", "sofa", "bird", "the")
R, D = 20, 6
SHOWN = round(0.15 * R)
CAPTIONS = [("the dog", "grass"), ("cat", "the sofa"), ("dog", "sofa"), ("grass",)]


@pytest.fixture
def photos() -> list[CaptionedImages]:
    """Two sources of photos; the second has two views of each."""
    draw = np.random.default_rng(0)
    made = []
    for views, captions in ((1, CAPTIONS[:2]), (2, CAPTIONS[2:])):
        examples = [Example(f"{texts}", Path("none"), texts) for texts in captions]
        cache = draw.normal(size=(len(examples) * views, R, D)).astype(np.float16)
        cache.flags.writeable = False
        made.append(
            CaptionedImages(
                examples,
                Tokenizer(WORDS),
                ImageTransform(),
                max_words=5,
                cache=cache,
                views=views,
            )
        )
    return made


@pytest.fixture
def imagination(photos: list[CaptionedImages]) -> Imagination:
    lemmas = [Lemma(word, "noun", 0.5 - place / 10) for place, word in enumerate(WORDS[:5])]
    lexicon = Lexicon(WORDS, lemmas, [0, 1, 2, 3, 4, -1])
    torch.manual_seed(0)
    return Imagination(photos, lexicon, TagHead(D, 4))  # of all lemmas but the bird


def grids(photos: list[CaptionedImages]) -> list[np.ndarray]:
    """Of every view of every photo: 0, 1, two of 2, two of 3."""
    return [row for source in photos if source.cache is not None for row in source.cache]


def drawn(imagination: Imagination, sentence: str, count: int = 200) -> list[np.ndarray]:
    return [imagination.grid(sentence, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize(
    ("sentence", "places"),
    [
        ("the dog grass", {0}),  # more in common than with 2 and 3
        ("the sofa cat", {1}),
        ("sofa dog dog", {2, 3}),  # both views
        ("grass", {0, 4, 5}),  # 0 shows a dog besides
        ("the bird", {0, 1, 2, 3, 4, 5}),  # nothing that the classifier knows
    ],
)
def test_a_sentence_gets_the_grid_of_a_photo_that_shows_the_same(
    photos: list[CaptionedImages],
    imagination: Imagination,
    sentence: str,
    places: set[int],
) -> None:
    kept, found = grids(photos), drawn(imagination, sentence)
    whole = [[place for place, each in enumerate(kept) if (each == grid).all()] for grid in found]
    assert {place for [place] in filter(None, whole)} >= places
    share = sum(bool(places.intersection(here)) for here in whole) / len(whole)
    assert share > 0.95


def test_what_the_photo_lacks_is_shown_by_the_cells_of_another_that_show_it_best(
    photos: list[CaptionedImages], imagination: Imagination
) -> None:
    kept, weights = grids(photos), imagination._weights[WORDS.index("grass")]
    with_grass = [kept[0], kept[4], kept[5]]
    best = [each[np.argsort(each.astype(np.float32) @ weights)[-SHOWN:]] for each in with_grass]
    chosen = set()
    for grid in drawn(imagination, "the cat on the grass"):
        is_cat = (grid == kept[1]).all(axis=1)
        if is_cat.sum() == R - SHOWN:  # else it is composed on another photo
            [number] = [n for n, cells in enumerate(best) if same_rows(cells, grid[~is_cat])]
            chosen.add(number)
    assert chosen == {0, 1, 2}


def same_rows(one: np.ndarray, other: np.ndarray) -> bool:
    return sorted(map(tuple, one.tolist())) == sorted(map(tuple, other.tolist()))


def test_the_same_draw_composes_the_same(imagination: Imagination) -> None:
    sentences = ("the cat on the grass", "sofa", "")
    for sentence in sentences:
        first, again = (imagination.grid(sentence, np.random.default_rng(5)) for _ in range(2))
        assert first.dtype == np.float16
        assert np.array_equal(first, again)


# --- in a training ---------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A model with a tag classifier."""
    model = make_model()
    words = model.tokenizer.words
    nouns = ("dog", "snow", "man", "grass", "boat")
    lemmas = [Lemma(noun, "noun", 0.5) for noun in nouns]
    model.lexicon = Lexicon(words, lemmas, [nouns.index(w) if w in nouns else -1 for w in words])
    model.tag_head = TagHead(model.encoder.feature_size, len(nouns)).requires_grad_(False)
    model.save(tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    with Path("photos", "metadata.jsonl").open("w") as lines:
        for index in range(9):
            pixels = np.random.default_rng(index).integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"photos/{index}.png")
            caption = ("a dog runs in the snow", "the man jumps", "a boat")[index % 3]
            split = "train" if index < 6 else "dev"
            record = {"file_name": f"{index}.png", "captions": [caption], "split": split}
            lines.write(json.dumps(record) + "\n")
    Path("text.txt").write_text("the dog in the boat\nthe man runs\n" * 5)
    sources = [
        {"name": "photos", "root": "photos"},
        {"name": "text", "root": "text.txt", "format": "text"},
    ]

    def run(*options: str, text_only: bool = False) -> int:
        given = sources[1:] if text_only else sources
        return main(
            [
                *("fit", "--data.sources", json.dumps(given), "--data.min_count=1"),
                *("--data.cache_dir=cache", "--data.batch_size=4", "--trainer.max_epochs=1"),
                *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *options),
            ]
        )

    return run


@pytest.mark.usefixtures("one_thread")
def test_sentences_teach_the_decoder_to_look(fit: Callable[..., int], start: Path) -> None:
    before = make_model().decoder.grid_projection.weight
    moved = {}
    for imagine in ("true", "false"):
        run = [f"--run_dir={imagine}", f"--data.imagine={imagine}", "--model.weight_decay=0"]
        assert fit("--model.objective=language", f"--model.init_from={start}", *run) == 0
        model = load_checkpoint(Path(imagine, "checkpoints", "last.ckpt"))
        assert model.provenance["steps"] == 4  # 6 photos and 10 sentences
        moved[imagine] = (model.decoder.grid_projection.weight - before.half()).abs().max()
    assert moved["true"] > 1e-3
    assert moved["false"] < 1e-4  # an image of zeros says nothing about the weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "model.objective=cross_entropy has none; use model.objective=language"),
        (
            ["--model.objective=language", "--model.encoder.trainable=1"],
            "data.imagine=true: needs model.encoder.trainable=none",
        ),
        (
            ["--model.objective=language", "--data.augment=true"],
            "data.views=0 keeps none of random views; give a number of views",
        ),
        (
            [
                "--model.objective=language",
                "--model.encoder={name: timm/test_resnet, weights: none, image_size: 64}",
            ],
            "data.imagine=true: the model to start from has no tag classifier",
        ),
    ],
)
def test_what_cannot_be_imagined_is_refused(
    fit: Callable[..., int], options: list[str], message: str
) -> None:
    with pytest.raises(CaptionerError) as caught:
        fit("--data.imagine=true", *options)
    assert message in str(caught.value)


def test_sentences_alone_are_refused(fit: Callable[..., Any], start: Path) -> None:
    with pytest.raises(CaptionerError):
        fit(
            *("--data.imagine=true", "--model.objective=language"),
            f"--model.init_from={start}",
            text_only=True,
        )

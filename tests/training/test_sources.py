"""Several data sets in one training: what comes how often, in which style, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.data.sources import (
    DataSource,
    check_no_photo_twice,
    language_of_sources,
    load_source,
    styles_of,
)
from captioner.errors import CaptionerError
from captioner.images.reading import read_image
from captioner.model.checkpoints import load_checkpoint
from captioner.networks.configs import EncoderConfig
from captioner.networks.encoder import Encoder
from captioner.training.datamodule import CaptionDataModule
from captioner.training.lightning_cli import main

FROZEN = EncoderConfig(name="timm/test_resnet", weights="none", image_size=64)
LAST_STAGE = EncoderConfig(
    name="timm/test_efficientnet", weights="none", image_size=64, trainable=1
)

pytestmark = [pytest.mark.arithmetic, pytest.mark.usefixtures("one_thread")]


def make_set(folder: Path, seed: int, train: int, dev: int, captions: list[str]) -> Path:
    """Images of noise, each another, in two subfolders by turns."""
    folder.mkdir()
    with (folder / "metadata.jsonl").open("w") as lines:
        for index in range(train + dev):
            pixels = np.random.default_rng([seed, index]).integers(0, 256, (6, 8, 3), np.uint8)
            name = f"{'even' if index % 2 == 0 else 'odd'}/{index:02d}.png"
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).resize((80, 60)).save(folder / name)
            split = "train" if index < train else "dev"
            record = {"file_name": name, "captions": captions, "split": split}
            lines.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture
def people(tmp_path: Path) -> Path:
    captions = ["a dog runs", "the dog is running", "a brown dog"]
    return make_set(tmp_path / "people", 1, 12, 4, captions)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return make_set(tmp_path / "machine", 2, 10, 0, ["an image of a dog"])


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt.gz"
    with gzip.open(path, "wt") as file:
        file.write("a dog runs on grass\n\n  the dog is brown \n")
    return path


@pytest.fixture
def make(people: Path, machine: Path, tmp_path: Path) -> Callable[..., CaptionDataModule]:
    def make(
        of_people: dict[str, Any] | None = None,
        of_machine: dict[str, Any] | None = None,
        **options: Any,
    ) -> CaptionDataModule:
        sources = [
            DataSource(str(people), "people", **{"style": "people", **(of_people or {})}),
            DataSource(str(machine), "machine", **{"style": "machine", **(of_machine or {})}),
        ]
        given = {"encoder": FROZEN, "min_count": 1, "batch_size": 4, "sources": sources}
        data = CaptionDataModule(**{**given, "cache_dir": str(tmp_path / "cache"), **options})
        data.setup("fit")
        return data

    return make


# --- one source ----------------------------------------------------------------------------


def test_images_are_named_after_their_source_and_chosen_by_their_names(people: Path) -> None:
    found = load_source(DataSource(str(people), "here", only=["even/*"]))
    assert [each.image_id for each in found.examples] == [
        f"here/even/{index:02d}.png" for index in range(0, 16, 2)
    ]
    assert found.splits == {"train": 6, "dev": 2}


def test_sentences_without_images_are_a_source(words: Path) -> None:
    found = load_source(DataSource(str(words), "text", format="text"))
    assert [(each.image_id, each.captions) for each in found.examples] == [
        ("text/1", ("a dog runs on grass",)),
        ("text/3", ("the dog is brown",)),
    ]
    assert found.splits == {"train": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name='': give each source a name"),
        ({"name": "a/b"}, "name='a/b': give each source a name without a slash"),
        ({"weight": 0.0}, r"source x: weight=0.0: must be above 0"),
        ({"captions": -1}, "source x: captions=-1: must be at least 0"),
        ({"views": 0}, "source x: views=0: must be at least 1"),
        ({"min_captions": 0}, "source x: min_captions=0: must be at least 1"),
        ({"language": "German"}, "source x: language='German': give a tag such as en, zh, de, ar"),
    ],
)
def test_options_of_a_source_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSource(**{"root": "here", "name": "x", **options})


def test_what_cannot_be_read_is_named(tmp_path: Path, people: Path) -> None:
    for source, message in (
        (
            DataSource(str(tmp_path / "nowhere"), "x"),
            "data.sources, x: .*nowhere: there is no such",
        ),
        (
            DataSource(str(people), "x", only=["blue/*"]),
            r"data.sources, x: only=\['blue/\*'\] matches none of the 16 images .* even/00.png",
        ),
        (DataSource(str(people / "odd" / "01.png"), "x", "text"), "x: .*01.png: .* UTF-8"),
        (DataSource(str(tmp_path / "no.txt"), "x", "text"), "x: .*no.txt: .*No such file"),
    ):
        with pytest.raises(CaptionerError, match=message):
            load_source(source)


# --- several -------------------------------------------------------------------------------


def test_styles_are_those_of_all_sources_or_of_none() -> None:
    one, two = DataSource("a", "a", style="people"), DataSource("b", "b", style="web")
    three, none = DataSource("c", "c", style="people"), DataSource("d", "d")
    assert styles_of([one, two, three]) == ("people", "web")
    assert styles_of([none]) == ()
    with pytest.raises(CaptionerError, match="d has no style, a has"):
        styles_of([one, none])


@pytest.mark.parametrize(
    ("languages", "default", "found"),
    [(("", ""), None, None), (("", ""), "de", "de"), (("zh", "zh"), None, "zh")],
)
def test_the_language_is_that_of_all_sources(
    languages: tuple[str, str], default: str | None, found: str | None
) -> None:
    sources = [DataSource("x", f"{n}", language=each) for n, each in enumerate(languages)]
    assert language_of_sources(sources, default) == found


@pytest.mark.parametrize(
    ("languages", "default", "message"),
    [
        (("de", ""), None, "second has no language, others have; name one for each source"),
        (("de", "zh"), None, "first is in de, second in zh; a decoder has one language"),
        (("de", ""), "en", "first is in de, second in en"),
    ],
)
def test_sources_in_several_languages_are_refused(
    languages: tuple[str, str], default: str | None, message: str
) -> None:
    names = ("first", "second")
    sources = [DataSource("x", n, language=each) for n, each in zip(names, languages, strict=True)]
    with pytest.raises(CaptionerError, match=message):
        language_of_sources(sources, default)


def test_a_photo_in_two_sources_is_named(people: Path, machine: Path) -> None:
    twin = machine / "twin.png"
    twin.write_bytes((people / "odd" / "01.png").read_bytes())
    lines = (machine / "metadata.jsonl").read_text().splitlines()
    lines.append(json.dumps({"file_name": "twin.png", "captions": ["x"], "split": "train"}))
    (machine / "metadata.jsonl").write_text("\n".join(lines))
    sets = [load_source(DataSource(str(each), each.name)).examples for each in (people, machine)]
    with pytest.raises(CaptionerError, match=r"01.png and .*twin.png are the same photo|twin.png"):
        check_no_photo_twice(sets)


def test_the_data_are_named_once(people: Path) -> None:
    source = DataSource(str(people), "people")
    for options, message in (
        ({}, "data.root=None, data.sources=None: name the data with one"),
        ({"root": str(people), "sources": [source]}, "name the data with one of the two"),
        ({"sources": [source, source]}, "two are called 'people'"),
    ):
        with pytest.raises(CaptionerError, match=message):
            CaptionDataModule(**options)


def test_images_of_all_sources_come_with_their_styles(
    make: Callable[..., CaptionDataModule],
) -> None:
    data = make()
    found = [
        (data.examples["train"][index].image_id.split("/")[0], style)
        for batch in data.train_dataloader()
        for index, style in zip(batch.indices.tolist(), batch.styles.tolist(), strict=True)
    ]
    assert sorted(found) == [("machine", 1)] * 10 + [("people", 0)] * 12
    # The machine's captions have no dev split: people's validate for both.
    assert [each.image_id.split("/")[0] for each in data.examples["dev"]] == ["people"] * 4


def test_a_weight_says_how_often_images_come(make: Callable[..., CaptionDataModule]) -> None:
    data = make({"weight": 2.0}, {"weight": 0.3})
    loader = data.train_dataloader()

    def epoch(number: int) -> list[int]:
        loader.sampler.set_epoch(number)  # type: ignore[union-attr]
        return [index for batch in loader for index in batch.indices.tolist()]

    first, second = epoch(0), epoch(1)
    for order in (first, second):
        assert len(order) == 27
        assert sorted(index for index in order if index < 12) == sorted([*range(12)] * 2)
        assert len({index for index in order if index >= 12}) == 3
    assert first == epoch(0)
    assert {i for i in first if i >= 12} != {i for i in second if i >= 12}


def test_captions_are_drawn_anew_in_every_epoch(make: Callable[..., CaptionDataModule]) -> None:
    data = make({"captions": 2})
    dataset = data._datasets["train"]
    ids = [data.tokenizer.encode(text) for text in data.examples["train"][0].captions]
    drawn = [[each[1:-1] for each in dataset[epoch, 0][1]] for epoch in range(20)]
    assert all(len(each) == 2 and each[0] != each[1] for each in drawn)
    assert {tuple(words) for each in drawn for words in each} == set(map(tuple, ids))
    assert drawn[3] == [each[1:-1] for each in dataset[3, 0][1]]
    assert len(data._datasets["dev"][0, 0][1]) == 3  # validation has all


def test_images_with_few_captions_and_without_rewards_are_left_out(
    make: Callable[..., CaptionDataModule],
) -> None:
    assert len(make(None, {"min_captions": 2}).examples["train"]) == 12
    assert len(make(None, {"rewards": False}).examples["train"]) == 22
    assert len(make(None, {"rewards": False}, objective="self_critical").examples["train"]) == 12


# --- what frozen layers give ---------------------------------------------------------------


def test_frozen_layers_are_run_once_for_each_view(
    make: Callable[..., CaptionDataModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    data = make({"views": 3}, encoder=LAST_STAGE, augment=True, views=2)
    torch.manual_seed(0)
    encoder = Encoder(LAST_STAGE).eval()
    assert 0 < encoder.frozen_layers < len(encoder.graph.nodes)
    dataset = data._datasets["train"]
    maps = [dataset[epoch, 1][0] for epoch in range(6)]
    assert {each.dtype for each in maps} == {torch.float16}
    assert torch.equal(maps[0], maps[3]) and not torch.equal(maps[0], maps[1])
    assert torch.equal(dataset[0, 13][0], dataset[2, 13][0])  # of the machine's there are two
    example = data.examples["train"][1]
    assert data.view is not None
    view = data.view(read_image(example.path, min_side=64), example, 2)
    with torch.inference_mode():
        whole = encoder(encoder.transform(view)[None]).grid
        finished = encoder.finish(maps[1][None].float()).grid  # epoch 1, image 1: view 2
    assert torch.allclose(finished, whole, atol=0.02 * float(whole.abs().max()))
    dev = data._datasets["dev"][0, 0][0]
    assert dev.dtype == torch.float16 and dev.shape == maps[0].shape


def test_views_of_an_encoder_that_is_trained_whole_are_refused(
    make: Callable[..., CaptionDataModule],
) -> None:
    whole = EncoderConfig(name="timm/test_resnet", weights="none", image_size=64, trainable="all")
    with pytest.raises(CaptionerError, match="data.views=1: nothing of timm/test_resnet stays"):
        make(encoder=whole, views=1)
    with pytest.raises(CaptionerError, match="data.views=2: without data.augment"):
        make(views=2)


# --- the stages through the command line ---------------------------------------------------


def test_words_photos_and_rewards_one_after_the_other(
    people: Path, machine: Path, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = "--model.decoder={hidden_size: 16, embed_size: 16, heads: 2, dropout: 0.1}"
    sources = [
        {"name": "people", "root": str(people), "only": ["even/*"], "style": "people"},
        {"name": "others", "root": str(people), "only": ["odd/*"], "style": "people"},
        {"name": "machine", "root": str(machine), "style": "machine", "rewards": False},
        {"name": "text", "root": str(words), "format": "text", "style": "people"},
    ]
    common = [
        *("--model.encoder={name: timm/test_resnet, weights: none, image_size: 64}", small),
        *("--data.sources", json.dumps(sources), "--data.min_count=1", "--data.lexicon=none"),
        *("--data.cache_dir=cache", "--data.batch_size=4", "--trainer.max_epochs=1"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
    ]
    stages = {
        "words": ["--model.objective=language", "--checkpoint.monitor=val/loss"],
        "photos": ["--model.init_from=words/checkpoints/best.ckpt"],
        "rewards": [
            *("--model.init_from=photos/checkpoints/best.ckpt", "--model.objective=self_critical"),
            "--model.samples=2",
        ],
    }
    seen = {}
    for name, options in stages.items():
        assert main(["fit", *common, *options, f"--run_dir={name}"]) == 0
        seen[name] = load_checkpoint(Path(name, "checkpoints", "best.ckpt"))
        with Path(name, "metrics", "version_0", "metrics.csv").open(newline="") as file:
            [row] = [row for row in csv.DictReader(file) if row["val/cider_d"]]
        scores = [float(row[f"val/{part}cider_d"]) for part in ("people/", "others/", "")]
        assert scores[2] == pytest.approx((scores[0] + scores[1]) / 2)
    assert {model.decoder.config.styles for model in seen.values()} == {("people", "machine")}
    # Words that only sentences without photos have are not learnt.
    assert "grass" not in seen["words"].tokenizer.words
    steps = {name: model.provenance["steps"] for name, model in seen.items()}
    # 12 photos of people, 10 of the machine and 2 sentences; 22 photos; 12 with rewards.
    assert steps == {"words": 6, "photos": 6, "rewards": 3}
    film = json.dumps([{**sources[0], "style": "film"}])
    for start, known in (("photos", "it knows people, machine"), ("none", "it knows none")):
        if start == "none":
            plain = json.dumps([{**sources[0], "style": ""}])
            assert main(["fit", *common, "--data.sources", plain, "--run_dir=none"]) == 0
        again = [f"--model.init_from={start}/checkpoints/best.ckpt", "--run_dir=film"]
        with pytest.raises(CaptionerError, match=f"does not know the style 'film'; {known}"):
            main(["fit", *common, "--data.sources", film, *again])
    described = seen["photos"].provenance["data"]["sources"]
    assert [each["name"] for each in described] == ["people", "others", "machine", "text"]

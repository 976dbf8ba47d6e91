"""Training that starts from a model: its settings, its words, and what of it still holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from captioner.cli import entry as cli
from captioner.cli.options import NOT_CALIBRATED
from captioner.decoding.options import DecodingOptions
from captioner.model.caption_model import CaptionModel
from captioner.model.checkpoints import load_checkpoint
from captioner.model.familiarity import Familiarity
from captioner.model.shipped import load_model
from captioner.model.tag_head import TagHead
from captioner.model.tags import FEATURES, TagCalibration
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.text.lexicon import Lemma, Lexicon
from captioner.text.tokenizer import Tokenizer
from helpers.images import noise
from helpers.training import QUIET

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["a", "dog", "runs"]
CAPTIONS = ["A dog runs.", "A lynx runs.", "Two lynxes run!"]
NEW = ("lynx", "lynxes", "run", "two")


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A model file with settings, a way of captioning, and all that calibration gives."""
    torch.manual_seed(3)
    model = CaptionModel.build(
        EncoderConfig("timm/test_resnet", "none", image_size=32, resize="pad"),
        DecoderConfig("gru", hidden_size=12, embed_size=10, heads=2, dropout=0.25, tied=False),
        Tokenizer(WORDS),
    )
    lemmas = [Lemma("dog", "noun", 0.5), Lemma("run", "verb", 0.25)]
    model.lexicon = Lexicon(WORDS, lemmas, [-1, 0, 1])
    model.tag_calibration = TagCalibration((0.0,) * len(FEATURES))
    pooled = torch.rand(8, model.encoder.feature_size)
    model.familiarity = Familiarity.fit(pooled[:4], pooled[4:])
    model.tag_head = TagHead(model.encoder.feature_size, 2)
    model.decoding = DecodingOptions(beam_size=2, tag_weight=0.5)
    model.save(tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Twelve captioned images, which no split is named for; "lynx" and "run" come four times."""
    folder = tmp_path / "own"
    folder.mkdir()
    lines = []
    for place in range(12):
        noise(place).save(folder / f"{place}.png")
        record = {"file_name": f"{place}.png", "text": CAPTIONS[place % len(CAPTIONS)]}
        lines.append(json.dumps(record) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def fit(own: Path, tmp_path: Path) -> Callable[..., int]:
    """Run `captioner fit` on the twelve images, with no setting of the networks."""

    def fit(*options: str) -> int:
        places = [f"--data.root={own}", f"--run_dir={tmp_path / 'run'}"]
        places += [f"--data.cache_dir={tmp_path / 'cache'}", "--data.dev_fraction=0.3"]
        more = ["--data.min_count=2", "--trainer.max_epochs=1"]
        return cli.main(["fit", *QUIET, *places, *more, *options])

    return fit


def test_settings_left_out_are_the_models(
    fit: Callable[..., int], start: Path, tmp_path: Path
) -> None:
    given = ("--model.decoder.cell=gru", "--model.decoder.dropout=0.5")
    assert fit(f"--model.init_from={start}", *given) == 0
    model = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    first = CaptionModel.load(start, device="cpu")
    assert model.encoder.config == EncoderConfig("timm/test_resnet", image_size=32, resize="pad")
    assert model.decoder.config == DecoderConfig(
        "gru", hidden_size=12, embed_size=10, heads=2, dropout=0.5, tied=False
    )
    assert model.decoding == first.decoding
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert saved["model"]["encoder"]["image_size"] == 32
    assert saved["model"]["decoder"]["embed_size"] == 10
    # Every setting is in the saved configuration, and all agree with the model.
    again = ["fit", "--config", str(tmp_path / "run/config.yaml"), f"--run_dir={tmp_path / '2'}"]
    assert cli.main(again) == 0


@pytest.mark.parametrize(
    ("option", "has"),
    [
        ("model.decoder.heads=8", 2),  # what it is by default
        ("model.decoder.cell=lstm", "gru"),
        ("model.decoder.tied=True", False),
        ("model.decoder.attention=layered", "spatial"),  # and no further layer
        ("model.decoder.layers=2", 1),  # that does not attend
        ("model.encoder.image_size=64", 32),
        ("model.encoder.image_size=None", 32),
        ("model.encoder.resize=squash", "pad"),
    ],
)
def test_a_setting_that_is_not_the_models_is_refused(
    fit: Callable[..., int],
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    has: object,
) -> None:
    part, name = option.partition("=")[0].split(".")[1:]
    value: object = yaml.safe_load(option.partition("=")[2].replace("None", "null"))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"model": {part: {name: value}}}))
    for given in ([f"--{option}".replace("None", "null")], [f"--config={config}"]):
        assert fit(*given, f"--model.init_from={start}") == 2
        assert capsys.readouterr().err == (
            f"captioner: error: {option}: the model of init_from={start} has {has}; leave "
            f"{option.partition('=')[0]} out, or start from another model\n"
        )


def test_a_decoder_that_gets_a_further_layer_says_the_same_at_first(
    fit: Callable[..., int], own: Path, start: Path, tmp_path: Path
) -> None:
    layers = ("--model.decoder.attention=layered", "--model.decoder.layers=2")
    nothing_learnt = ("--model.lr_decoder=1e-30", "--data.min_count=100")
    assert fit(f"--model.init_from={start}", *layers, *nothing_learnt) == 0
    grown = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert grown.decoder.config.layers == len(grown.decoder.attending()) == 2
    photos = [own / "0.png", own / "1.png"]
    options = DecodingOptions(num_captions=2)
    before = CaptionModel.load(start, device="cpu").caption(photos, options)
    for old, new in zip(before, grown.caption(photos, options), strict=True):
        assert [each.text for each in new.candidates] == [each.text for each in old.candidates]
        probs = torch.tensor([each.log_prob for each in old.candidates])
        torch.testing.assert_close(torch.tensor([each.log_prob for each in new.candidates]), probs)


def test_new_words_are_learnt_with_their_lemmas(
    fit: Callable[..., int], start: Path, tmp_path: Path
) -> None:
    assert fit(f"--model.init_from={start}") == 0
    model = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert set(model.tokenizer.words[:3]) == set(WORDS)
    assert set(model.tokenizer.words[3:]) == set(NEW)
    lexicon = model.lexicon
    assert lexicon is not None
    assert [(lemma.name, lemma.type) for lemma in lexicon.lemmas[:2]] == [
        ("dog", "noun"),
        ("run", "verb"),
    ]
    assert lexicon.lemma_of("run") == lexicon.lemmas[1]
    assert lexicon.lemma_of("lynx") == lexicon.lemmas[2]
    assert lexicon.lemma_of("two") is None


def test_rewards_and_rare_words_leave_the_vocabulary_as_it_is(
    fit: Callable[..., int], start: Path, tmp_path: Path
) -> None:
    for name, options in (
        ("rare", ["--data.min_count=100"]),
        ("rewards", ["--model.objective=self_critical"]),
    ):
        run = tmp_path / name
        assert fit(f"--model.init_from={start}", *options, f"--run_dir={run}") == 0
        assert load_checkpoint(run / "checkpoints/last.ckpt").tokenizer.words == tuple(WORDS)


@pytest.mark.parametrize("trainable", ["none", "1"])
def test_what_training_makes_untrue_is_left_out(
    fit: Callable[..., int], start: Path, tmp_path: Path, trainable: str
) -> None:
    assert fit(f"--model.init_from={start}", f"--model.encoder.trainable={trainable}") == 0
    checkpoint = str(tmp_path / "run/checkpoints/best.ckpt")
    output = tmp_path / "mine.safetensors"
    assert cli.main(["export", "--checkpoint", checkpoint, "--output", str(output)]) == 0
    first, model = CaptionModel.load(start), CaptionModel.load(output)
    assert model.tag_calibration is None
    assert model.decoding == first.decoding
    for part in ("familiarity", "tag_head"):
        kept, old = getattr(model, part), getattr(first, part)
        if trainable == "none":
            assert all(map(torch.equal, kept.state_dict().values(), old.state_dict().values()))
        else:
            assert kept is None


def test_the_shipped_model_learns_from_own_captions(
    fit: Callable[..., int], own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (own / "metadata.jsonl").read_text().replace("lynx", "zorblax")
    (own / "metadata.jsonl").write_text(text)
    assert fit("--model.init_from=default", "--model.lr_decoder=1e-4") == 0
    best, output = tmp_path / "run/checkpoints/best.ckpt", tmp_path / "mine.safetensors"
    assert cli.main(["export", "--checkpoint", str(best), "--output", str(output)]) == 0
    shipped, model = load_model(), CaptionModel.load(output)
    words = len(shipped.tokenizer.words)
    assert model.tokenizer.words[:words] == shipped.tokenizer.words
    assert set(model.tokenizer.words[words:]) == {"zorblax", "zorblaxes"}
    assert model.encoder.config.image_size == shipped.encoder.config.image_size
    assert model.decoding == shipped.decoding
    assert model.provenance["init_from"] == "default"
    lost = f"captioner: {NOT_CALIBRATED}\n"
    assert capsys.readouterr().err.endswith(lost)
    for name, calibrated in ((str(output), False), ("default", True)):
        captions = tmp_path / f"{calibrated}.jsonl"
        arguments = ["caption", str(own / "0.png"), f"--model={name}", f"--output={captions}"]
        assert cli.main(arguments) == 0
        assert (lost in capsys.readouterr().err) is not calibrated
        assert json.loads(captions.read_text())["calibrated"] is calibrated

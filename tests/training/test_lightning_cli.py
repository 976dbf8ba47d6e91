"""`captioner fit | validate | test`: shipped configurations, interrupted runs, users' mistakes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from captioner.cli import entry as cli
from captioner.data.datasets import load_caption_data
from captioner.model.checkpoints import export_checkpoint, load_checkpoint
from captioner.training import lightning_cli as training_cli
from captioner.training.task import CaptionTask
from helpers.training import QUIET, TINY, arguments, read, scores

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# Those of several sources, of corrections and of languages have tests of their own.
ONE_SOURCE = [
    path for path in CONFIGS if not path.stem.startswith(("world_", "corrections", "language_"))
]

pytestmark = [pytest.mark.arithmetic, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def layouts(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images and captions in every format that a shipped configuration names."""
    examples = load_caption_data(shapes).examples
    top = tmp_path_factory.mktemp("layouts")
    flickr, karpathy = top / "flickr", top / "karpathy"
    for folder in (flickr / "Images", karpathy / "val2014"):
        folder.mkdir(parents=True)
        for example in examples:
            shutil.copy(example.path, folder)
    lines = [f"{each.path.name}#0\t{each.captions[0]}\n" for each in examples]
    (flickr / "Flickr8k.token.txt").write_text("".join(lines))
    for split in ("train", "dev", "test"):
        names = [f"{each.path.name}\n" for each in examples if each.split == split]
        (flickr / f"Flickr_8k.{split}Images.txt").write_text("".join(names))
    images = [
        {
            "filename": each.path.name,
            "filepath": "val2014",
            "split": "val" if each.split == "dev" else each.split,
            "sentences": [{"raw": each.captions[0]}],
        }
        for each in examples
    ]
    (karpathy / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return {"flickr": flickr, "karpathy": karpathy, "jsonl": shapes, "auto": shapes}


@pytest.fixture(scope="module")
def world(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forty images as the data sets of several sources that the world configurations name."""
    examples = load_caption_data(shapes).examples
    top = tmp_path_factory.mktemp("world")
    photos, flickr = top / "data" / "photos", top / "data" / "flickr8k"
    sources = ("coco", "flickr8k", "pascal", "coco_machine", "flickr30k", "web", "landscape")
    lines: dict[str, list[str]] = {"train": [], "dev": []}
    tokens = []
    for number, example in enumerate(examples):
        source = sources[number % len(sources)]
        folder = flickr / "Images" if source == "flickr8k" else photos / source
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(example.path, folder)
        several = 1 if source in ("coco_machine", "web", "landscape") else 3
        captions = [f"{example.captions[0]} {'again ' * n}" for n in range(several)]
        if source == "flickr8k":
            tokens += [f"{example.path.name}#{n}\t{text}\n" for n, text in enumerate(captions)]
            continue
        split = "dev" if source == "coco" and number % 2 else "train"
        record = {"file_name": f"{source}/{example.path.name}", "captions": captions}
        lines[split].append(json.dumps(record) + "\n")
    for split, rows in lines.items():
        (photos / f"{split}.jsonl").write_text("".join(rows))
    (flickr / "Flickr8k.token.txt").write_text("".join(tokens))
    names = sorted(file.name for file in (flickr / "Images").iterdir())
    (flickr / "Flickr_8k.trainImages.txt").write_text("\n".join(names[:-2]))
    (flickr / "Flickr_8k.devImages.txt").write_text("\n".join(names[-2:]))
    for name in ("coco_text", "flickr30k_text"):
        with gzip.open(photos / f"{name}.txt.gz", "wt") as file:
            file.writelines(f"{example.captions[0]}\n" for example in examples)
    return top


# --- the shipped configurations ------------------------------------------------------------


@pytest.fixture(scope="module")
def start(layouts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that a second stage can begin with."""
    folder = tmp_path_factory.mktemp("start")
    config = ["--config", str(ROOT / "configs" / "flickr8k_lstm_attention.yaml")]
    places = [f"--data.root={layouts['flickr']}", f"--run_dir={folder / 'run'}"]
    places += [f"--data.cache_dir={folder / 'cache'}"]
    assert cli.main(["fit", *config, *TINY, *QUIET, *places, "--trainer.max_epochs=1"]) == 0
    return folder / "run" / "checkpoints" / "best.ckpt"


SMALL_GRAPH = ("--model.encoder.name=timm/test_efficientnet", "--model.encoder.image_size=64")


def test_the_stages_of_the_world_train_one_after_the_other(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    before: list[str] = []
    for stage in (
        "frozen",
        "finetune",
        "decoder",
        "finetune_again",
        "self_critical",
        "larger",
        "larger_rewards",
        "more_sentences",
        "second_sentences",
        "second_finetune",
        "second_rewards",
        "words",
        "layers",
        "layers_finetune",
        "layers_rewards",
    ):
        if stage == "words":
            before = []
        path = ROOT / "configs" / f"world_{stage}.yaml"
        config = yaml.safe_load(path.read_text())
        run = tmp_path / stage
        options = [*TINY, *SMALL_GRAPH, *QUIET, *before, f"--data.cache_dir={tmp_path / 'cache'}"]
        if stage.startswith(("larger", "more", "second")):
            options += ["--model.encoder.image_size=96"]
        options += ["--trainer.max_epochs=1", "--trainer.val_check_interval=1.0"]
        options += ["--trainer.check_val_every_n_epoch=1"]
        options += ["--trainer.accelerator=cpu", "--data.batch_size=8", f"--run_dir={run}"]
        assert cli.main(["fit", "--config", str(path), *options]) == 0
        before = [f"--model.init_from={run / 'checkpoints' / 'best.ckpt'}"]
        model = load_checkpoint(run / "checkpoints" / "best.ckpt")
        assert model.decoder.config.styles[0] == "people"
        assert model.encoder.config.trainable == config["model"]["encoder"]["trainable"]
        described = model.provenance["data"]["sources"]
        assert [each["name"] for each in described] == [
            each["name"] for each in config["data"]["sources"]
        ]
        means = scores(run), scores(run, name="val/people/cider_d")
        flickr = scores(run, name="val/flickr8k/cider_d")
        assert [means[0][0]] == [pytest.approx((means[1][0] + flickr[0]) / 2)]


@pytest.mark.parametrize("path", ONE_SOURCE, ids=lambda path: path.stem)
def test_every_shipped_configuration_trains(
    path: Path, layouts: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = yaml.safe_load(path.read_text())
    options = [*TINY, *QUIET, "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    options += [f"--data.root={layouts[config['data']['format']]}", f"--run_dir={tmp_path / 'run'}"]
    options += [f"--data.cache_dir={tmp_path / 'cache'}"]
    if config["model"].get("init_from"):
        options += [f"--model.init_from={request.getfixturevalue('start')}"]
    assert cli.main(["fit", "--config", str(path), *options]) == 0
    model = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    for part, named in (("encoder", model.encoder.config), ("decoder", model.decoder.config)):
        for name, value in config["model"].get(part, {}).items():
            if not any(option.startswith(f"--model.{part}.{name}=") for option in TINY):
                assert getattr(named, name) == value
    assert model.provenance["data"]["images"] == {"train": 32, "dev": 4, "test": 4}
    assert len(scores(tmp_path / "run")) == 1


def test_an_epochs_seconds_are_logged_without_those_of_its_validation(
    layouts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, clock, waited_s = CaptionTask._score, time.perf_counter, 0

    def slow_score(self: CaptionTask, name: str, split: str) -> None:
        nonlocal waited_s
        waited_s += 7000
        score(self, name, split)

    monkeypatch.setattr(CaptionTask, "_score", slow_score)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + waited_s)
    options = [f"--data.root={layouts['flickr']}", f"--run_dir={tmp_path / 'run'}"]
    options += [f"--data.cache_dir={tmp_path / 'cache'}", "--trainer.max_epochs=2"]
    config = str(ROOT / "configs" / "flickr8k_lstm_attention.yaml")
    assert cli.main(["fit", "--config", config, *TINY, *QUIET, *options]) == 0
    assert waited_s == 2 * 7000
    seconds = scores(tmp_path / "run", name="train/epoch_seconds")
    assert len(seconds) == 2
    assert all(0 < each < 7000 for each in seconds)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_configuration_has_its_own_folder_and_says_where_its_data_are(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["run_dir"] == f"runs/{path.stem}"
    data_set = path.stem.partition("_")[0]
    if data_set == "world":
        roots = {source["root"].split("/")[1] for source in config["data"]["sources"]}
        assert roots == {"photos", "flickr8k"}
    elif data_set == "language":
        language = path.stem.partition("_")[2]
        people, *translated = config["data"]["sources"]
        assert people["root"] == f"data/languages/{language}.jsonl"
        assert people["images"] == "data/flickr8k/Images"
        for source in translated:
            assert source["root"] == f"data/languages/{language}_{source['name']}.jsonl"
            assert source["images"] == "data/photos"
        assert {source["language"] for source in config["data"]["sources"]} == {language}
    else:
        assert config["data"]["root"] == f"data/{data_set}"
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("attention", ["none", "spatial"])
def test_the_flickr8k_configurations_differ_in_cell_and_attention_alone(
    cell: str, attention: str
) -> None:
    name = f"flickr8k_{cell}" + ("_attention" if attention == "spatial" else "")
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    base = yaml.safe_load((ROOT / "configs" / "flickr8k_lstm_attention.yaml").read_text())
    base["run_dir"] = f"runs/{name}"
    base["model"]["decoder"] |= {"cell": cell, "attention": attention}
    assert config == base


def test_the_saved_configuration_gives_the_same_run_again(
    fit: Callable[..., int], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--model.encoder.trainable=1", "--trainer.max_epochs=2", "--data.augment=true")
    assert fit(first, *options, "--seed_everything=11") == 0
    saved = yaml.safe_load((first / "config.yaml").read_text())
    assert (saved["seed_everything"], saved["model"]["encoder"]["trainable"]) == (11, "1")
    again = ["fit", "--config", str(first / "config.yaml"), f"--run_dir={second}"]
    assert cli.main(again) == 0
    assert scores(first) == scores(second)
    one, two = read(first)["state_dict"], read(second)["state_dict"]
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    saved["run_dir"] = str(second)
    assert yaml.safe_load((second / "config.yaml").read_text()) == saved


def test_another_seed_is_another_run(fit: Callable[..., int], tmp_path: Path) -> None:
    for seed in (1, 2):
        assert fit(tmp_path / str(seed), f"--seed_everything={seed}", "--trainer.max_epochs=1") == 0
    one, two = (read(tmp_path / str(seed))["state_dict"] for seed in (1, 2))
    assert not torch.equal(one["model.decoder.key.weight"], two["model.decoder.key.weight"])


# --- the run's folder ----------------------------------------------------------------------


def test_what_a_run_leaves(finished: Path) -> None:
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*")}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert names - events == {
        "config.yaml",
        "hparams.yaml",
        "checkpoints",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics",
        "metrics/version_0",
        "metrics/version_0/metrics.csv",
    }


def test_a_second_run_into_the_same_folder_is_refused(
    fit: Callable[..., int], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert fit(finished) == 2
    assert capsys.readouterr().err.endswith(
        f"captioner: error: {finished} already holds a run: resume it (--ckpt_path last), or "
        "choose another folder (--run_dir)\n"
    )
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize(("command", "prefix"), [("validate", "val"), ("test", "test")])
def test_a_checkpoint_is_scored_and_the_scores_are_printed(
    finished: Path, capsys: pytest.CaptureFixture[str], command: str, prefix: str
) -> None:
    before = {path.name for path in finished.iterdir()}
    config = ["--config", str(finished / "config.yaml")]
    assert cli.main([command, *config, "--ckpt_path=last"]) == 0
    printed = capsys.readouterr().out
    versions = sorted((finished / "metrics").iterdir())
    newest = int(versions[-1].name.removeprefix("version_"))
    (loss,) = scores(finished, newest, f"{prefix}/loss")
    (cider_d,) = scores(finished, newest, f"{prefix}/cider_d")
    lines = [line.split() for line in printed.splitlines()]
    assert ["CIDEr-D", f"{100 * cider_d:.2f}"] in lines
    assert ["loss", f"{loss:.2f}"] in lines
    assert f"{prefix}/" not in printed
    if command == "validate":
        assert loss == pytest.approx(scores(finished, 0, "val/loss")[-1], abs=1e-6)
    assert {path.name for path in finished.iterdir()} == before  # its curves are left alone


def test_a_checkpoint_becomes_a_model_that_captions(
    finished: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    checkpoint = str(finished / "checkpoints" / "best.ckpt")
    assert cli.main(["export", "--checkpoint", checkpoint, "--output", str(path)]) == 0
    capsys.readouterr()
    image = next((shapes / "images").iterdir())
    assert cli.main(["caption", str(image), "--model", str(path), "--device=cpu"]) == 0
    name, _, text = capsys.readouterr().out.strip().partition("\t")
    model = export_checkpoint(checkpoint, tmp_path / "again.safetensors")
    assert (name, text) == (str(image), model.caption([image])[0].text)


def test_a_trial_run_leaves_no_checkpoint(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit(tmp_path / "run", "--trainer.fast_dev_run=true") == 0
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_few_batches_can_be_learnt_by_heart(fit: Callable[..., int], tmp_path: Path) -> None:
    assert fit(tmp_path / "run", "--trainer.overfit_batches=2") == 0
    assert len(scores(tmp_path / "run", 0, "train/loss")) == 4 * 2


# --- users' mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model.hiden=3"],
            r"unrecognized arguments: --model\.hiden=3\n\(`captioner fit --help-all`",
        ),
        (
            ["--model.decoder.cell=lstmm"],
            r"error: model\.decoder\.cell='lstmm': choose one of rnn, gru, lstm",
        ),
        (["--model.decoder.heads=5"], r"heads=5: hidden_size=16 is not a multiple of it"),
        (
            ["--model.encoder.trainable=some"],
            r"error: model\.encoder\.trainable='some': use none, all, or a number",
        ),
        (["--model.encoder.name=timm/nope"], r"timm/nope: timm \S+ has no such model"),
        (["--model.val_beam_size=0"], r"beam_size=0"),
        (["--model.lr_decoder=fast"], r'"model\.lr_decoder":\s+Expected a <class \'float\'>'),
        (["--model.label_smoothing=2"], r"model\.label_smoothing=2\.0: must be at least 0 and"),
        (["--model.init_from=no.safetensors"], r"no\.safetensors: no such file"),
        (["--data.root=nowhere"], r"nowhere: there is no such file or folder"),
        (["--data.format=flick"], r"format is 'flick'; give one of: auto, flickr"),
        (["--data.min_count=1000"], r"min_count is 1000, and none of the"),
        (["--trainer.precision=17"], r'"trainer\.precision"'),
        (["--trainer.accelerator=abacus"], r"invalid accelerator name: `accelerator='abacus'`"),
        (
            ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp_spawn"],
            r"trainer\.strategy=ddp_spawn: several processes train with ddp; use --trainer\.st",
        ),
        (["--trainer.max_epochs=-1"], r"trainer\.max_epochs=-1 sets no end"),
        (["--trainer.max_steps=5"], r"max_steps=5: training is counted in epochs"),
        (["--seed_everything=-1"], r"seed_everything=-1: must be from 0 to 4294967295"),
        (["--last.every_n_steps=-1"], r"last\.every_n_steps=-1: must be at least 0"),
        (["--ckpt_path=no.ckpt"], r"checkpoint no\.ckpt: no such file; give another --ckpt_path"),
        (["--ckpt_path=best"], r"checkpoints/best\.ckpt: no such file"),
        (["--config=no.yaml"], r"File does not exist: '.*no\.yaml'"),
        (["--run_dir=/dev/null/run"], r"cannot write /dev/null/run: Not a directory; choose anot"),
    ],
    ids=lambda value: value[0][2:] if isinstance(value, list) else "",
)
def test_mistakes_end_with_one_clear_message(
    fit: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert fit(tmp_path / "run", *options) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_notebook_is_told_to_start_several_processes_from_a_terminal(
    fit: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pytorch_lightning.trainer.connectors import accelerator_connector

    monkeypatch.setattr(accelerator_connector, "_IS_INTERACTIVE", True)
    options = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    assert fit(tmp_path / "run", *options) == 2
    assert "trainer.devices: Python in a notebook" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_failed_run_leaves_only_what_was_there(fit: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/notes.txt").write_text("mine")
    for run in ("runs/new/deep", "runs"):
        assert fit(tmp_path / run, "--data.min_count=1000") == 2
    assert (tmp_path / "runs/notes.txt").read_text() == "mine"
    assert not (tmp_path / "runs/new").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  hiden: 3\n", "'model.hiden'"),
        ("mdel:\n  lr_decoder: 1\n", "'mdel.lr_decoder'"),
        ("model: [\n", "config"),
        ("data:\n  root: 3\n", "data.root"),
    ],
)
def test_a_mistake_in_a_configuration_is_named(
    fit: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    message: str,
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    places = [f"--config={tmp_path / 'config.yaml'}", f"--run_dir={tmp_path / 'run'}"]
    if "root" not in text:
        places.append("--data.root=nowhere")
    assert cli.main(["fit", *places]) == 2
    error = capsys.readouterr().err
    assert error.startswith("captioner: error: ")
    assert message in error
    assert "usage:" not in error


def test_no_options_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit"]) == 2
    assert capsys.readouterr().err == (
        "captioner: error: the following arguments are required: fit.data.root\n"
        "(give them in a file with --config; `captioner fit --help-all` lists all options)\n"
    )


@pytest.mark.parametrize("command", ["validate", "test"])
def test_scoring_needs_a_checkpoint(
    finished: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, "--config", str(finished / "config.yaml")]) == 2
    assert f"error: {command} scores a checkpoint: name one with" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(
    fit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    assert fit(tmp_path / "run", f"--ckpt_path={tmp_path / 'bad.ckpt'}") == 2
    message = (
        f"checkpoint {tmp_path / 'bad.ckpt'}: refused, it is not a plain checkpoint of "
        "`captioner fit`, or damaged"
    )
    assert message in capsys.readouterr().err


class Trap:
    """Unpickling this would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (f"{os.environ['TRAP']}",)


def test_no_code_in_a_checkpoint_is_run(
    fit: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    torch.save({"captioner": Trap(), "state_dict": {}}, tmp_path / "trap.ckpt")
    for option in (
        f"--ckpt_path={tmp_path / 'trap.ckpt'}",
        f"--model.init_from={tmp_path}/trap.ckpt",
    ):
        assert fit(tmp_path / "run", option) == 2
        assert "plain checkpoint of `captioner fit`" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()
    assert fit(tmp_path / "run", "--weights_only=false") == 2  # is not offered


def test_a_checkpoint_of_other_data_or_another_network_is_refused(
    fit: Callable[..., int], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = f"--ckpt_path={finished / 'checkpoints' / 'last.ckpt'}"
    for option, message in (
        ("--data.min_count=12", "the checkpoint's vocabulary (17 words) is not that of the data"),
        ("--model.decoder.hidden_size=32", "with model.decoder.hidden_size=16, the configuration"),
        ("--model.encoder.trainable=all", "with model.encoder.trainable=none, the configuration"),
        ("--seed_everything=5", "the checkpoint's encoder has other weights than model.encoder"),
    ):
        assert fit(tmp_path / "run", last, option) == 2
        assert message in capsys.readouterr().err


def test_the_short_help_states_what_options_do_by_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 45
    assert text.count("\n  --") in range(20, 27)
    assert text.count("\n  captioner fit ") == 4
    with pytest.raises(SystemExit):
        cli.main(["fit", "--data.root=x", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    defaults = re.findall(r"--([a-z_.]+) [^-]*?\(default: ([^)]+)\)", text)
    assert len(defaults) >= 15
    for name, value in defaults:
        found = config
        for part in name.split("."):
            found = found[part]
        assert str(found).lower() == value, name


def test_the_long_help_shows_all_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", "--help-all"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: captioner [options] fit")
    for option in ("--data.root", "--model.decoder.cell", "--run_dir", "--last.every_n_steps"):
        assert option in printed
    assert "model.encoder --> data.encoder" in printed
    assert "--weights_only" not in printed


# --- a process of its own ------------------------------------------------------------------


def test_a_real_process_says_only_what_matters(shapes: Path, tmp_path: Path) -> None:
    options = arguments(shapes, tmp_path, tmp_path / "run", "--trainer.max_epochs=1")
    options.remove("--trainer.log_every_n_steps=1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "captioner", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    score = f"{100 * scores(tmp_path / 'run')[0]:.2f}"
    assert done.stdout == (
        f"best validation CIDEr-D: {score}, run/checkpoints/best.ckpt\n"
        "next: captioner export --checkpoint run/checkpoints/best.ckpt --output run.safetensors\n"
    )
    said = [line for line in done.stderr.splitlines() if "computed once" not in line]
    with contextlib.suppress(ValueError):
        said.remove("TPU available: False, using: 0 TPU cores")
    assert said == [
        "Seed set to 0",
        said[1],
        f"{shapes}: jsonl data, images: train 32, dev 4, test 4",
        "`Trainer.fit` stopped: `max_epochs=1` reached.",
        said[-1],
    ]
    assert said[-1].startswith(f"captioner: the validation CIDEr-D stayed near zero ({score}): ")
    assert said[1].startswith("GPU available: ")


def test_the_quiet_ends_with_the_command(fit: Callable[..., int], tmp_path: Path) -> None:
    import logging
    import warnings

    before = list(warnings.filters)
    assert fit(tmp_path / "run", "--data.root=nowhere") == 2
    assert list(warnings.filters) == before
    for name in training_cli.MUTED_LOGGERS:
        assert logging.getLogger(name).filters == []

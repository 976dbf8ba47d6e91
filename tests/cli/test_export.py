"""`captioner export`, in process, with a tiny untrained model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from captioner.cli import entry as cli
from captioner.model.caption_model import CaptionModel
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.text.tokenizer import Tokenizer


def test_export_makes_a_model_that_captions_alike(run, photos: Path, model: CaptionModel) -> None:
    torch.save(
        {
            "captioner": model.description(),
            "state_dict": {f"model.{name}": t for name, t in model.state_dict().items()},
        },
        "last.ckpt",
    )
    code, out, _ = run("export", "--checkpoint", "last.ckpt", "--output", "new.safetensors")
    assert code == 0
    content = Path("new.safetensors").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert out == f"new.safetensors: {len(content) / 1e6:.1f} MB, sha256 {digest}\n"
    new = CaptionModel.load("new.safetensors", device="cpu")
    assert new.caption([photos / "a.png"]) == model.caption([photos / "a.png"])
    code, _, err = run("export", "--checkpoint", "last.ckpt", "--output", "new.safetensors")
    assert code == 2
    assert "--overwrite" in err
    overwrite = ["--output", "new.safetensors", "--overwrite"]
    assert run("export", "--checkpoint", "last.ckpt", *overwrite)[0] == 0


def test_export_refuses_what_is_no_checkpoint(run, photos: Path) -> None:
    Path("bad.ckpt").write_bytes(b"no checkpoint")
    code, _, err = run("export", "--checkpoint", "bad.ckpt", "--output", "new.safetensors")
    assert code == 2
    assert "checkpoint bad.ckpt: refused" in err
    assert not Path("new.safetensors").exists()
    code, _, err = run("export", "--checkpoint", "no.ckpt", "--output", "new.safetensors")
    assert code == 2
    assert "checkpoint no.ckpt: no such file" in err


def test_a_model_file_has_decoding_defaults_of_its_own(run, photos: Path) -> None:
    tokenizer = Tokenizer(["a", "dog", "runs"])
    encoder = EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64)
    shape = {"hidden_size": 16, "embed_size": 16, "heads": 2}
    torch.manual_seed(0)
    model = CaptionModel.build(encoder, DecoderConfig(**shape, styles=("people", "web")), tokenizer)
    for parameter in model.decoder.parameters():
        parameter.data.mul_(3)  # as decided as trained ones
    torch.nn.init.normal_(model.decoder.style_embedding.weight, std=5.0)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"captioner": model.description(), "state_dict": state}, "last.ckpt")
    own = ["--style", "web", "--beam-size", "2", "--max-length", "4", "--no-repeat-ngram", "0"]
    assert run("export", "--checkpoint", "last.ckpt", "--output", "own.safetensors", *own)[0] == 0
    assert run("export", "--checkpoint", "last.ckpt", "--output", "plain.safetensors")[0] == 0

    def caption(*options: str) -> str:
        code, out, _ = run("caption", "photos/a.png", *options)
        assert code == 0
        return str(out)

    plain, kept = ["--model", "plain.safetensors"], ["--model", "own.safetensors"]
    assert caption(*kept) == caption(*plain, *own)
    assert caption(*kept) != caption(*plain)
    given = ["--style", "people", "--max-length", "3"]
    assert caption(*kept, *given) == caption(*plain, *own, *given)
    loaded = CaptionModel.load("own.safetensors", device="cpu")
    assert loaded.caption([photos / "a.png"])[0].text in caption(*kept)
    for command in (["caption", "photos/a.png", *plain], ["export", "--checkpoint", "last.ckpt"]):
        more = ["--output", "x.jsonl", "--style", "film"]
        code, _, err = run(*command, *more)
        assert code == 2
        assert "style 'film': this model knows people, web" in err
        assert not Path("x.jsonl").exists()


def test_an_output_that_is_a_device_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", "any.ckpt", "--output", os.devnull, "--overwrite"]
    assert cli.main(["export", *arguments]) == 2
    assert f"output {os.devnull} is not a regular file" in capsys.readouterr().err

"""What a command pays for when it starts. Who may import whom is in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import captioner


def modules_after(code: str, cwd: Path) -> set[str]:
    """Names in `sys.modules` after running code in a fresh interpreter."""
    script = f"import sys\n{code}\nprint('\\n'.join(['MODULES', *sys.modules]))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=True
    )
    return set(run.stdout.rpartition("MODULES\n")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["caption", "--help"],
        ["fill", "--help"],
        ["evaluate", "--help"],
        ["tag", "--help"],
        ["calibrate", "--help"],
        ["export", "--help"],
        ["report", "--help"],
        ["explain", "--help"],
        ["review", "--help"],
        ["report-training", "--help"],
        ["fit", "--help"],
        ["validate", "--help"],
    ],
)
def test_help_is_instant(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "from captioner.cli.entry import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
    )
    loaded = modules_after(code, tmp_path)
    assert "captioner.cli.entry" in loaded
    assert (
        loaded & {"torch", "torchvision", "timm", "numpy", "PIL", "pytorch_lightning", "jinja2"}
        == set()
    )
    assert loaded & {"matplotlib", "tensorboard", "nltk", "sklearn", "starlette"} == set()
    assert loaded & {"fsspec", "s3fs", "pyarrow", "ray"} == set()


def test_importing_the_package_loads_no_torch(tmp_path: Path) -> None:
    loaded = modules_after("import captioner; assert captioner.__version__", tmp_path)
    assert "captioner" in loaded
    assert (
        loaded & {"torch", "numpy", "PIL", "pytorch_lightning", "captioner.model.caption_model"}
        == set()
    )


def test_captioning_a_photo_loads_no_lightning(tmp_path: Path) -> None:
    # The model is tiny and untrained: what is imported does not depend on its weights.
    code = """
from pathlib import Path
from PIL import Image
import captioner
from captioner.cli.entry import main
from captioner.networks.configs import DecoderConfig
from captioner.networks.configs import EncoderConfig
from captioner.text.tokenizer import Tokenizer
model = captioner.CaptionModel.build(
    EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64),
    DecoderConfig(hidden_size=16, embed_size=16, heads=1),
    Tokenizer(["a", "dog"]),
)
model.save("tiny.safetensors")
Image.new("RGB", (80, 60), "red").save("red.png")
assert main(["caption", "red.png", "--model", "tiny.safetensors", "--device", "cpu"]) == 0
"""
    loaded = modules_after(code, tmp_path)
    assert "captioner.captioning.batches" in loaded
    assert loaded & {"pytorch_lightning", "lightning", "torchmetrics", "jsonargparse"} == set()
    assert loaded & {"nltk", "sklearn", "scipy"} == set()  # `evaluate` and `calibrate` need them
    # Nor what only shards and stores need.
    assert loaded & {"fsspec", "s3fs", "aiohttp", "pyarrow", "ray"} == set()
    assert "captioner.shards.run" not in loaded
    assert (
        loaded & {"captioner.training.task", "captioner.training.datamodule", "tensorboard"}
        == set()
    )


def test_the_shipped_model_needs_no_library_of_cnns(tmp_path: Path) -> None:
    code = """
from PIL import Image
from captioner.cli.entry import main
Image.new("RGB", (80, 60), "red").save("red.png")
assert main(["caption", "red.png", "--device", "cpu"]) == 0
"""
    loaded = modules_after(code, tmp_path)
    assert "captioner.networks.cnn_graph" in loaded
    # These take as long to import as torch itself.
    assert loaded & {"timm", "torchvision", "torch._dynamo", "sympy"} == set()


def test_the_public_names_are_what_the_modules_define() -> None:
    from captioner.captioning.batches import CaptionRecord, caption_images
    from captioner.captioning.fill import fill_images
    from captioner.captioning.job import CaptionJob
    from captioner.captioning.run import open_caption_job
    from captioner.cli.entry import main
    from captioner.data.datasets import load_caption_data
    from captioner.decoding.blanks import FillResult
    from captioner.decoding.options import DecodingOptions, FillOptions
    from captioner.errors import CaptionerError
    from captioner.evaluation.evaluate import evaluate
    from captioner.images.kinds import find_images
    from captioner.images.reading import ImageError
    from captioner.model.caption_model import CaptionModel
    from captioner.model.checkpoints import export_checkpoint
    from captioner.model.results import Candidate, CaptionResult
    from captioner.model.shipped import load_model
    from captioner.model.tags import Tag
    from captioner.tagging.options import TagOptions
    from captioner.tagging.timeline import Segment, VideoTag
    from captioner.tagging.videos import VideoTags, tag_video, tag_videos
    from captioner.text.options import ScoringOptions
    from captioner.version import __version__
    from captioner.video.finding import find_videos
    from captioner.video.frames import VideoError
    from captioner.video.options import SamplingOptions

    expected = {
        "__version__": __version__,
        "Candidate": Candidate,
        "CaptionJob": CaptionJob,
        "CaptionModel": CaptionModel,
        "CaptionRecord": CaptionRecord,
        "CaptionResult": CaptionResult,
        "CaptionerError": CaptionerError,
        "DecodingOptions": DecodingOptions,
        "FillOptions": FillOptions,
        "FillResult": FillResult,
        "ImageError": ImageError,
        "SamplingOptions": SamplingOptions,
        "ScoringOptions": ScoringOptions,
        "Segment": Segment,
        "Tag": Tag,
        "TagOptions": TagOptions,
        "VideoError": VideoError,
        "VideoTag": VideoTag,
        "VideoTags": VideoTags,
        "caption_images": caption_images,
        "evaluate": evaluate,
        "export_checkpoint": export_checkpoint,
        "fill_images": fill_images,
        "find_images": find_images,
        "find_videos": find_videos,
        "load_caption_data": load_caption_data,
        "load_model": load_model,
        "main": main,
        "open_caption_job": open_caption_job,
        "tag_video": tag_video,
        "tag_videos": tag_videos,
    }
    assert {name: getattr(captioner, name) for name in captioner.__all__} == expected
    assert set(captioner.__all__) <= set(dir(captioner))
    with pytest.raises(AttributeError, match="no attribute 'tag_audio'"):
        captioner.tag_audio  # noqa: B018

"""Describe photos and videos in words with a CNN encoder and a recurrent decoder.

>>> import captioner
>>> model = captioner.load_model()
>>> model.caption(["data/examples/stairs.jpg"])[0].text  # doctest: +SKIP

The names below are imported when they are first used: `import captioner` alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from captioner.version import __version__

if TYPE_CHECKING:
    from captioner.captioning.batches import caption_images
    from captioner.captioning.fill import fill_images
    from captioner.captioning.job import CaptionJob
    from captioner.captioning.run import open_caption_job
    from captioner.cli.entry import main
    from captioner.data.datasets import load_caption_data
    from captioner.decoding.options import DecodingOptions, FillOptions
    from captioner.errors import CaptionerError
    from captioner.evaluation.evaluate import evaluate
    from captioner.images.kinds import find_images
    from captioner.model.caption_model import CaptionModel
    from captioner.model.checkpoints import export_checkpoint
    from captioner.model.shipped import load_model
    from captioner.tagging.videos import VideoTags, tag_video, tag_videos
    from captioner.text.options import ScoringOptions

__all__ = [
    "CaptionJob",
    "CaptionModel",
    "CaptionerError",
    "DecodingOptions",
    "FillOptions",
    "ScoringOptions",
    "VideoTags",
    "__version__",
    "caption_images",
    "evaluate",
    "export_checkpoint",
    "fill_images",
    "find_images",
    "load_caption_data",
    "load_model",
    "main",
    "open_caption_job",
    "tag_video",
    "tag_videos",
]

_MODULE_OF = {
    "CaptionJob": "captioner.captioning.job",
    "CaptionModel": "captioner.model.caption_model",
    "CaptionerError": "captioner.errors",
    "DecodingOptions": "captioner.decoding.options",
    "FillOptions": "captioner.decoding.options",
    "ScoringOptions": "captioner.text.options",
    "VideoTags": "captioner.tagging.videos",
    "caption_images": "captioner.captioning.batches",
    "evaluate": "captioner.evaluation.evaluate",
    "export_checkpoint": "captioner.model.checkpoints",
    "fill_images": "captioner.captioning.fill",
    "find_images": "captioner.images.kinds",
    "load_caption_data": "captioner.data.datasets",
    "load_model": "captioner.model.shipped",
    "main": "captioner.cli.entry",
    "open_caption_job": "captioner.captioning.run",
    "tag_video": "captioner.tagging.videos",
    "tag_videos": "captioner.tagging.videos",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'captioner' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})

"""Describe photos and videos in words with a CNN encoder and a recurrent decoder.

>>> import captioner
>>> model = captioner.load_model()
>>> model.caption("data/examples/stairs.jpg").text  # doctest: +SKIP

The names below are imported when they are first used: `import captioner` alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from captioner.version import __version__

if TYPE_CHECKING:
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
    from captioner.video.finding import find_videos
    from captioner.video.frames import VideoError
    from captioner.video.options import SamplingOptions

__all__ = [
    "Candidate",
    "CaptionJob",
    "CaptionModel",
    "CaptionRecord",
    "CaptionResult",
    "CaptionerError",
    "DecodingOptions",
    "FillOptions",
    "FillResult",
    "ImageError",
    "SamplingOptions",
    "ScoringOptions",
    "Segment",
    "Tag",
    "TagOptions",
    "VideoError",
    "VideoTag",
    "VideoTags",
    "__version__",
    "caption_images",
    "evaluate",
    "export_checkpoint",
    "fill_images",
    "find_images",
    "find_videos",
    "load_caption_data",
    "load_model",
    "main",
    "open_caption_job",
    "tag_video",
    "tag_videos",
]

_MODULE_OF = {
    "Candidate": "captioner.model.results",
    "CaptionJob": "captioner.captioning.job",
    "CaptionModel": "captioner.model.caption_model",
    "CaptionRecord": "captioner.captioning.batches",
    "CaptionResult": "captioner.model.results",
    "CaptionerError": "captioner.errors",
    "DecodingOptions": "captioner.decoding.options",
    "FillOptions": "captioner.decoding.options",
    "FillResult": "captioner.decoding.blanks",
    "ImageError": "captioner.images.reading",
    "SamplingOptions": "captioner.video.options",
    "ScoringOptions": "captioner.text.options",
    "Segment": "captioner.tagging.timeline",
    "Tag": "captioner.model.tags",
    "TagOptions": "captioner.tagging.options",
    "VideoError": "captioner.video.frames",
    "VideoTag": "captioner.tagging.timeline",
    "VideoTags": "captioner.tagging.videos",
    "caption_images": "captioner.captioning.batches",
    "evaluate": "captioner.evaluation.evaluate",
    "export_checkpoint": "captioner.model.checkpoints",
    "fill_images": "captioner.captioning.fill",
    "find_images": "captioner.images.kinds",
    "find_videos": "captioner.video.finding",
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

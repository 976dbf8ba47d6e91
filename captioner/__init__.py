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
    from captioner.decoding.blanks import FillOptions
    from captioner.decoding.search import DecodingOptions
    from captioner.errors import CaptionerError
    from captioner.model.caption_model import CaptionModel, load_model
    from captioner.tagging.videos import VideoTags, tag_video, tag_videos

__all__ = [
    "CaptionModel",
    "CaptionerError",
    "DecodingOptions",
    "FillOptions",
    "VideoTags",
    "__version__",
    "caption_images",
    "fill_images",
    "load_model",
    "tag_video",
    "tag_videos",
]

_MODULE_OF = {
    "CaptionModel": "captioner.model.caption_model",
    "CaptionerError": "captioner.errors",
    "DecodingOptions": "captioner.decoding.search",
    "FillOptions": "captioner.decoding.blanks",
    "caption_images": "captioner.captioning.batches",
    "fill_images": "captioner.captioning.fill",
    "load_model": "captioner.model.caption_model",
    "VideoTags": "captioner.tagging.videos",
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

"""Make a captioner ready to learn another language: what it sees stays, its words go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from captioner.model.caption_model import CaptionModel
from captioner.networks.decoder import Decoder
from captioner.text.tokenizer import Tokenizer

OF_WORDS = ("embedding.weight", "output.weight", "output.bias")
"""Weights of the decoder that belong to single words."""


@torch.no_grad()
def start_language(model: CaptionModel, tokenizer: Tokenizer, styles: Sequence[str] = ()) -> None:
    """Give a captioner new words; the rest of its decoder stays as it is.

    Recurrence, attention and readout have learnt from many images where to look and in which order
    to say things. That is a better start for a language with few captions than weights drawn at
    random. What the old words were needed for goes: lexicon, tag calibration and tag classifier.

    Args:
        model: changed in place.
        tokenizer: the new words, whose weights are drawn at random.
        styles: that the captions in the new language have. The old default style becomes part of
            the weights.
    """
    old = model.decoder
    config = replace(old.config, styles=tuple(styles))
    decoder = Decoder(config, len(tokenizer), old.pooled_projection.in_features)
    state = decoder.state_dict()
    kept = old.state_dict()
    if old.config.styles:
        style = kept.pop("style_embedding.weight")[old.style]
        kept["pooled_projection.bias"] = kept["pooled_projection.bias"] + style
    state |= {name: tensor for name, tensor in kept.items() if name not in OF_WORDS}
    decoder.load_state_dict(state)
    model.decoder = decoder.to(model.device).train(old.training)
    model.tokenizer = tokenizer
    model.lexicon = model.tag_calibration = model.tag_head = None
    model.decoding = replace(model.decoding, style=None, tag_weight=0.0)

"""A captioner as JSON: what its file holds in addition to the weights, and the parts made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from captioner.decoding.options import DecodingOptions
from captioner.images.transform import ImageTransform
from captioner.model.familiarity import Familiarity
from captioner.model.model_file import entries_under
from captioner.model.tag_head import TagHead
from captioner.model.tags import TagCalibration
from captioner.networks.backbones import check_encoder_fits
from captioner.networks.cnn_graph import CnnGraph
from captioner.networks.configs import DecoderConfig, EncoderConfig
from captioner.networks.decoder import Decoder
from captioner.networks.encoder import Encoder
from captioner.networks.int8 import Int8
from captioner.networks.pretrained import is_file_name
from captioner.networks.weights import ShapesOnly, ZerosOnly
from captioner.text.languages import DEFAULT_LANGUAGE
from captioner.text.lexicon import Lexicon
from captioner.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel

KEPT_OPTIONS = (
    "beam_size",
    "max_length",
    "length_penalty",
    "no_repeat_ngram",
    "tag_weight",
    "style",
)
"""Options of the search that a model file can have values of its own for."""


class Parts(NamedTuple):
    """What a captioner is made of: its arguments, its way of captioning, and its weights."""

    encoder: Encoder
    decoder: Decoder
    tokenizer: Tokenizer
    transform: ImageTransform
    provenance: dict[str, Any]
    lexicon: Lexicon | None
    tag_calibration: TagCalibration | None
    familiarity: Familiarity | None
    tag_head: TagHead | None
    int8: Int8 | None
    decoding: DecodingOptions
    tensors: dict[str, Tensor]


def describe(model: CaptionModel) -> dict[str, Any]:
    """All that it takes, with the weights, to build the model again, JSON primitives."""
    encoder = asdict(model.encoder.config)
    if is_file_name(encoder["weights"]):
        # Where a file lay on one machine is of no use to another, and nobody's business.
        encoder["weights"] = f"./{Path(encoder['weights']).name}"
    description: dict[str, Any] = {
        "encoder": encoder,
        "decoder": {**asdict(model.decoder.config), "styles": list(model.decoder.config.styles)},
        "tokenizer": model.tokenizer.to_dict(),
        "transform": model.transform.to_dict(),
        "provenance": model.provenance,
    }
    if kept := {
        name: getattr(model.decoding, name)
        for name in KEPT_OPTIONS
        if getattr(model.decoding, name) != getattr(DecodingOptions(), name)
    }:
        description["decoding"] = kept
    # Not all models have these three, and readers that do not know them pass over them.
    if not model.encoder.graph.needs_library:
        description["encoder_graph"] = model.encoder.graph.to_dict()
    if model.lexicon is not None:
        description["lexicon"] = model.lexicon.to_dict()
    if model.tag_calibration is not None:
        description["tag_calibration"] = model.tag_calibration.to_dict()
    return description


def read_parts(description: Mapping[str, Any], state: Mapping[str, Tensor]) -> Parts:
    """Build the parts of :func:`describe`'s model; weights are not yet in them.

    The description and the weights are compared first: a crafted one gets no memory that the
    weights do not take anyway.

    Raises:
        CaptionerError, KeyError, TypeError, ValueError, AttributeError, RuntimeError or
        OverflowError: when the two do not fit together, or are not of a captioner.
    """
    tokenizer = Tokenizer.from_dict(description["tokenizer"])
    encoder = EncoderConfig(**description["encoder"])
    decoder = DecoderConfig(**description["decoder"])
    transform = ImageTransform.from_dict(description["transform"])
    provenance = dict(description["provenance"])
    lexicon, tag_calibration = _read_tagging(description, tokenizer)
    tensors = dict(state)
    if decoder.tied and "decoder.embedding.weight" in tensors:
        tensors["decoder.output.weight"] = tensors["decoder.embedding.weight"]
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    layers = description.get("encoder_graph")
    graph = None if layers is None else CnnGraph.from_dict(layers)
    _check_decoder_fits(decoder, len(tokenizer), entries_under(shapes, "decoder."))
    check_encoder_fits(encoder, entries_under(shapes, "encoder."), graph)
    known = None if graph is None else (graph, transform)
    network = Encoder(encoder, load_weights=False, graph=known)
    # Where another version of timm has another one, the model's own counts.
    network.transform = transform
    with ZerosOnly():
        words = Decoder(decoder, len(tokenizer), network.feature_size)
    return Parts(
        network,
        words,
        tokenizer,
        transform,
        provenance,
        lexicon,
        tag_calibration,
        _read_familiarity(tensors, network.feature_size),
        _read_tag_head(tensors, lexicon, network.feature_size),
        _read_int8(tensors),
        read_decoding(description.get("decoding", {})),
        tensors,
    )


def read_decoding(kept: Mapping[str, Any]) -> DecodingOptions:
    """The model's own way of captioning.

    Raises:
        ValueError: an option is not one that a file keeps, or has a value that cannot be used.
    """
    if unknown := sorted(set(kept) - set(KEPT_OPTIONS)):
        raise ValueError(f"decoding has the unknown option {unknown[0]!r}")
    return DecodingOptions(**kept)


def _read_tagging(
    description: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[Lexicon | None, TagCalibration | None]:
    """The parts that a model needs for tags only, None where a description lacks them."""
    lexicon, calibration = description.get("lexicon"), description.get("tag_calibration")
    return (
        None
        if lexicon is None
        else Lexicon.from_dict(lexicon, tokenizer.words, tokenizer.segmentation),
        None if calibration is None else TagCalibration.from_dict(calibration),
    )


def _read_familiarity(state: Mapping[str, Tensor], feature_size: int) -> Familiarity | None:
    """The part that detects unfamiliar images, None where the tensors have none."""
    tensors = entries_under(state, "familiarity.")
    if not tensors:
        return None
    found = Familiarity.from_state(tensors)
    if len(found.mean) != feature_size:
        raise ValueError(
            f"its familiarity is of {len(found.mean)} features, the encoder has {feature_size}"
        )
    return found


def _read_int8(state: Mapping[str, Tensor]) -> Int8 | None:
    """What the CNN needs for int8, None where the tensors have none of it."""
    tensors = entries_under(state, "int8.")
    return Int8.from_state(tensors) if tensors else None


def _read_tag_head(
    state: Mapping[str, Tensor], lexicon: Lexicon | None, feature_size: int
) -> TagHead | None:
    """The classifier of lemmas, None where the tensors have none."""
    tensors = entries_under(state, "tag_head.")
    if not tensors:
        return None
    found = TagHead.from_state(tensors)
    known = 0 if lexicon is None else len(lexicon)
    if len(found) > known or found.linear.in_features != feature_size:
        raise ValueError(
            f"its tag classifier is of {len(found)} lemmas and {found.linear.in_features} features,"
            f" the lexicon has {known} and the encoder {feature_size}"
        )
    return found


def _check_decoder_fits(
    config: DecoderConfig, vocab_size: int, shapes: Mapping[str, torch.Size]
) -> None:
    """Compare a file's tensors with the decoder they are said to be of, before it takes memory."""
    wrong = ["rnn"] if config.layers > len(shapes) else []
    if not wrong:
        feature_size = shapes["pooled_projection.weight"][-1:].numel()
        with ShapesOnly():
            wanted = Decoder(config, vocab_size, feature_size).state_dict()
        wrong = [name for name, tensor in wanted.items() if shapes.get(name) != tensor.shape]
    if wrong:
        raise ValueError(
            f"tensors of the decoder are missing or of another shape ({', '.join(wrong[:3])})"
        )


def check_values(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that would load, but not as what they are or without making sense."""
    for name, tensor in tensors.items():
        model_has = wanted.get(name)
        if model_has is not None and tensor.is_floating_point() != model_has.is_floating_point():
            raise ValueError(f"{name} is of type {tensor.dtype}, wanted {model_has.dtype}")
        if tensor.is_floating_point() and not is_finite(tensor):
            raise ValueError(f"a value of {name} is not finite: the file is damaged")


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is infinite or not a number."""
    # Such a value would make the sum one, and a sum is found ten times as fast. Only a sum that is
    # too large for its type says nothing.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def is_calibrated(model: CaptionModel) -> bool:
    """Whether somebody has measured what its confidences are worth (`captioner calibrate`)."""
    return model.lexicon is not None and model.tag_calibration is not None


def has_lost_calibration(model: CaptionModel) -> bool:
    """Whether it was trained on from another model, and nobody has calibrated it since."""
    runs = model.provenance.get("averaged", [model.provenance])
    started = isinstance(runs, list) and any(
        isinstance(run, Mapping) and run.get("init_from") for run in runs
    )
    return started and not is_calibrated(model)


def describe_model(model: CaptionModel) -> dict[str, Any]:
    """What distinguishes a model from others, JSON primitives.

    Raises:
        CaptionerError: it was not loaded from a file.
    """
    tags = "none" if model.lexicon is None else "raw"
    if is_calibrated(model):
        tags = "calibrated"
    about: dict[str, Any] = {
        "sha256": model.sha256,
        "encoder": model.encoder.config.name,
        "tag_confidence": tags,
    }
    if model.others or model.language != DEFAULT_LANGUAGE:
        about["language"] = model.language
    if model.others:
        about["other_languages"] = {other.language: other.sha256 for other in model.others}
    return about

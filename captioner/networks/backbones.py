"""The CNNs of timm and torchvision: built by their library once, and then known by their layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from captioner.errors import CaptionerError
from captioner.images.transform import INTERPOLATIONS, ImageTransform
from captioner.networks.cnn_graph import CnnGraph, GraphNetwork
from captioner.networks.cnn_tracing import graph_network
from captioner.networks.cnn_values import UnknownLayer
from captioner.networks.configs import EncoderConfig
from captioner.networks.pretrained import (
    WEIGHT_PACKAGES,
    fetching,
    first_line,
    in_torch_hub,
    is_file_name,
    read_packaged,
)
from captioner.networks.weights import ShapesOnly

# What torchvision networks have after their last grid: not part of an encoder.
BEHIND_THE_GRID = ("AuxLogits.", "aux1.", "aux2.", "classifier.", "fc.", "head.", "heads.")


def build_backbone(
    config: EncoderConfig, load_weights: bool
) -> tuple[GraphNetwork, ImageTransform]:
    """The network of a CNN's layers up to its grid, and the transform of its images.

    Args:
        config: which CNN and which weights; those of a file are left to the caller.
        load_weights: ``False``: the network only, and nothing is downloaded.

    Raises:
        CaptionerError: when the name or the weights are unknown or missing, or it has no grid.
    """
    library, _, name = config.name.partition("/")
    build = _timm_backbone if library == "timm" else _torchvision_backbone
    network, transform = build(name, config, load_weights)
    try:
        layers = graph_network(
            network.eval(), blank_image(transform), headless=library == "torchvision"
        )
    except UnknownLayer as error:
        reason = first_line(error)
        raise CaptionerError(f"encoder {config.name}: {reason}; choose another CNN") from error
    return layers.requires_grad_(True), transform


def blank_image(transform: ImageTransform) -> torch.Tensor:
    """An image of zeros (1, 3, height, width), of the transform's size."""
    width, height = transform.size
    return torch.zeros(1, 3, height, width)


def _timm_backbone(
    name: str, config: EncoderConfig, load_weights: bool
) -> tuple[nn.Module, ImageTransform]:
    import timm  # not at the top: only the encoder that is asked for is paid for

    if not timm.is_model(name):
        raise CaptionerError(
            f"encoder timm/{name}: timm {timm.__version__} has no such model; "
            "`python -c 'import timm; print(timm.list_models())'` lists them"
        )
    weights = config.weights if load_weights else "none"
    if weights not in ("imagenet", "none") and not is_file_name(weights):
        raise CaptionerError(
            f"weights={weights!r} for timm/{name}: use imagenet, none or a file, such as "
            f"./{weights}.pth"
        )
    model = _untrained_timm(name)
    if weights == "imagenet":
        package = WEIGHT_PACKAGES.get(name.removesuffix(".in1k"))
        if package is None:
            model = _download_timm(name)
        else:
            model.load_state_dict(read_packaged(*package, model))
    data: Any = model.pretrained_cfg
    side = data["input_size"][-1]
    known = data["interpolation"] if data["interpolation"] in INTERPOLATIONS else "bicubic"
    return model, ImageTransform(
        (side, side), config.resize, known, tuple(data["mean"]), tuple(data["std"])
    )


def _untrained_timm(name: str) -> nn.Module:
    try:
        return _build_timm(name)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise CaptionerError(
            f"encoder timm/{name}: cannot be built as a grid encoder ({first_line(error)}); "
            "choose another CNN"
        ) from error


def _build_timm(name: str, **options: Any) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, num_classes=0, global_pool="", **options)
    if isinstance(getattr(model, "pre_logits", None), nn.Module):
        # VGG's fully connected layers, as convolutions, would shrink the grid to one cell.
        model.pre_logits = nn.Identity()
    return model


def _download_timm(name: str) -> nn.Module:
    """A timm model with its default weights, out of Hugging Face's cache or from the network."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    data: Any = timm.get_pretrained_cfg(name)
    if data is None or not (data.hf_hub_id or data.url):
        raise CaptionerError(
            f"weights=imagenet for timm/{name}: timm has none; use weights: none, or a file"
        )
    url = f"{constants.ENDPOINT}/{data.hf_hub_id}" if data.hf_hub_id else data.url
    cached = None if data.hf_hub_id else in_torch_hub(data.url)
    if data.hf_hub_id and not data.custom_load:
        cached = try_to_load_from_cache(data.hf_hub_id, "model.safetensors")
    # A file that is there is read at once: timm would ask the network about it first.
    overlay = {"file": cached} if isinstance(cached, str) else {}
    with fetching(f"weights=imagenet for timm/{name}", url, cached=bool(overlay)):
        return _build_timm(name, pretrained=True, pretrained_cfg_overlay=overlay)


def _torchvision_backbone(
    name: str, config: EncoderConfig, load_weights: bool
) -> tuple[nn.Module, ImageTransform]:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise CaptionerError(
            f"encoder torchvision/{name}: no such classification model; "
            "`python -c 'import torchvision.models as m; print(m.list_models(module=m))'` "
            "lists them"
        )
    enum = models.get_model_weights(name)
    chosen = _torchvision_weights(name, enum, config.weights if load_weights else "none")
    # The transform is that of the weights, also where they come out of a captioner's file next.
    data = enum.__members__.get(config.weights, enum["DEFAULT"]).transforms()
    side = data.crop_size[0]
    transform = ImageTransform(
        (side, side), config.resize, data.interpolation.value, tuple(data.mean), tuple(data.std)
    )
    if chosen is None:
        model = _untrained_torchvision(name)
    else:
        what = f"weights={config.weights} for torchvision/{name}"
        with fetching(what, chosen.url, cached=in_torch_hub(chosen.url) is not None):
            model = models.get_model(name, weights=chosen)
    return model, transform


def _torchvision_weights(name: str, enum: Any, weights: str) -> Any:
    """The member of the weights enum that is meant, None for no weights or a file."""
    if weights == "none" or is_file_name(weights):
        return None
    try:
        return enum["DEFAULT" if weights == "imagenet" else weights]
    except KeyError:
        known = ", ".join([*enum.__members__, "imagenet", "none"])
        raise CaptionerError(
            f"weights={weights!r} for torchvision/{name}: use one of {known}, or a file"
        ) from None


def _untrained_torchvision(name: str) -> nn.Module:
    from torchvision import models

    if name not in ("googlenet", "inception_v3"):
        model: nn.Module = models.get_model(name, weights=None)
        return model
    # Their own initialisation takes many seconds. `transform_input` is on with ImageNet weights:
    # it must be on without, or a captioner would compute something else once saved and loaded.
    return models.get_model(  # type: ignore[no-any-return]
        name, weights=None, init_weights=False, transform_input=True
    )


def check_encoder_fits(
    config: EncoderConfig, shapes: Mapping[str, torch.Size], graph: CnnGraph | None = None
) -> None:
    """Compare a file's tensors with the network they are said to be of, before it takes memory.

    Args:
        config: of the encoder.
        shapes: of the tensors of its ``state_dict``.
        graph: the network's layers, where the file has them.

    Raises:
        CaptionerError: when the network is unknown or has other tensors.
    """
    library, _, name = config.name.partition("/")
    build = _untrained_timm if library == "timm" else _untrained_torchvision
    try:
        with ShapesOnly():
            network = (build(name) if graph is None else GraphNetwork(graph)).state_dict()
    except (CaptionerError, RuntimeError, TypeError, ValueError):
        return  # Building it for real says more.
    wrong = [
        layer
        for layer, tensor in network.items()
        if shapes.get(f"backbone.{layer}") != tensor.shape
        and not (library == "torchvision" and layer.startswith(BEHIND_THE_GRID))
    ]
    if wrong:
        raise CaptionerError(
            f"{len(wrong)} of the tensors of {config.name} are missing or of another shape "
            f"({', '.join(wrong[:3])})"
        )

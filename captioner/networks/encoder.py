"""Image batch -> grid features, by a CNN of timm or torchvision."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captioner.errors import CaptionerError
from captioner.images.transform import ImageTransform
from captioner.networks.backbones import blank_image, build_backbone
from captioner.networks.cnn_graph import CnnGraph, GraphNetwork
from captioner.networks.configs import EncoderConfig
from captioner.networks.features import ImageFeatures, as_cells
from captioner.networks.pretrained import first_line, is_file_name, read_weights
from captioner.networks.stages import last_cut, stages_of
from captioner.networks.weights import ZerosOnly


class Encoder(nn.Module):
    """A CNN without its classifier: images (B, 3, height, width) -> :class:`ImageFeatures`.

    Attributes:
        backbone: its layers.
        transform: how an image becomes its input; size and normalisation are the backbone's.
        feature_size: D.
        grid_shape: ``(rows, columns)`` of the grid of an image of ``transform.size``; R of them.

    Args:
        config: which CNN and which weights.
        load_weights: ``False`` builds the network only, for weights that are loaded next; nothing
            is downloaded then.
        graph: the network's layers and its transform, where a model file has them: no library has
            to be imported then, which takes longer than to caption an image.

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
        if graph is None:
            self.backbone, own = build_backbone(config, load_weights)
        else:
            with ZerosOnly():
                self.backbone = GraphNetwork(graph[0])
            own = graph[1]
        if load_weights and is_file_name(config.weights):
            path = Path(config.weights).expanduser()
            self.backbone.load_state_dict(read_weights(path, self.backbone))
        side = config.image_size
        self.transform = own if side is None else replace(own, size=(side, side))
        _, self.feature_size, rows, columns = self._grid_shape()
        self.grid_shape = rows, columns
        self._set_trainable(stages_of(self.backbone))
        # Depthwise convolutions run several times faster on a CPU in this memory layout.
        self.backbone.to(memory_format=torch.channels_last)
        self.train()

    def forward(self, images: Tensor) -> ImageFeatures:
        """Encode images (B, 3, height, width), float32 as the transform scales them."""
        images = images.contiguous(memory_format=torch.channels_last)
        return ImageFeatures.from_grid(as_cells(self.backbone(images)))

    @property
    def graph(self) -> CnnGraph:
        """The backbone's layers."""
        return self.backbone.graph

    def _grid_shape(self) -> torch.Size:
        """That of the grid (1, D, h, w) of an image."""
        try:
            shape = self.backbone.eval().shapes(self.transform.size)[-1]
        except (RuntimeError, AssertionError, ValueError) as error:
            width, height = self.transform.size
            raise CaptionerError(
                f"encoder {self.config.name}: cannot look at {width} x {height} pixels "
                f"({first_line(error)}); give another image_size, or null for its own"
            ) from error
        # The image is square, and a map that is not square has its channels last.
        if len(shape) != 4 or shape[2] != shape[3]:
            raise CaptionerError(
                f"encoder {self.config.name}: it gives no grid of features (B, D, h, w); "
                "choose a CNN"
            )
        return shape

    @cached_property
    def frozen_layers(self) -> int:
        """How many of the graph's layers training leaves as they are.

        What they give can be computed once and kept; :meth:`finish` runs the others.
        """
        blank = blank_image(self.transform).to(next(self.parameters()).device)
        return last_cut(self.backbone, blank)

    @cached_property
    def frozen_shape(self) -> tuple[int, int, int]:
        """Shape (h, w, C) of the map that the frozen layers give."""
        blank = blank_image(self.transform).to(next(self.parameters()).device)
        with torch.no_grad():
            values = self.backbone.values(blank)
            _, channels, height, width = next(islice(values, self.frozen_layers, None)).shape
        return height, width, channels

    def frozen_state(self) -> dict[str, Tensor]:
        """Weights and statistics of what training leaves as it is, by their names."""
        state = self.state_dict()
        if self.config.frozen:
            return state
        frozen = self.graph.nodes[: self.frozen_layers]
        layers = tuple(f"backbone.{node.module}." for node in frozen if node.module)
        return {name: each for name, each in state.items() if f"{name}.".startswith(layers)}

    def finish(self, maps: Tensor) -> ImageFeatures:
        """Features of what the frozen layers gave, kept as (B, h, w, C)."""
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


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))

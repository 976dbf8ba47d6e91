"""The encoder as inference runs it: BatchNorm folded into the convolutions, weights cast once.

On a CPU it runs in ONNX Runtime, in float32 or int8, where that knows all of its layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from captioner.errors import CaptionerError
from captioner.images.transform import ImageTransform
from captioner.networks.cnn_graph import CnnGraph, GraphNetwork, Node
from captioner.networks.encoder import Encoder
from captioner.networks.features import ImageFeatures, as_cells
from captioner.networks.int8 import Int8
from captioner.networks.precisions import PRECISIONS
from captioner.networks.stages import first_layers, rebuilt
from captioner.networks.weights import versions

_DTYPES = dict(zip(PRECISIONS, (None, torch.bfloat16, torch.float16, None), strict=True))

CHUNK = 4
"""Images that torch encodes at once on a CPU: of more, the maps leave its caches."""


class FastNetwork:
    """A CNN, or its first layers, as inference runs it.

    Attributes:
        engine: what computes, ``onnxruntime`` or ``torch``.
        why_torch: why torch does; empty if it does not.

    Args:
        network: in eval mode, and this object's own.
        transform: of its images.
        precision: one of :data:`PRECISIONS`.
        device: where it computes.
        int8: what the CNN needs for the precision int8.

    Raises:
        CaptionerError: it cannot be computed in int8.
    """

    def __init__(
        self,
        network: GraphNetwork,
        transform: ImageTransform,
        precision: str,
        device: torch.device,
        int8: Int8 | None = None,
    ) -> None:
        self._transform = transform
        self._dtype = _DTYPES[precision]
        self._device = device
        # bfloat16 has the range of float32, so that all can be cast; of float16 torch knows better.
        self._cast = self._dtype is torch.bfloat16
        self._onnx: Callable[[Tensor, int | None], Tensor] | None = None
        self.why_torch = _why_torch(network, precision, device)
        if not self.why_torch:
            from captioner.networks.onnx_runtime import OnnxNetwork

            self._onnx = OnnxNetwork(network, transform, int8)
        if self._onnx is None:
            if precision == "int8":
                raise CaptionerError(
                    f"precision int8: only ONNX Runtime computes it, and {self.why_torch}; leave "
                    "the precision out"
                )
            self._network = network.to(torch.bfloat16 if self._cast else None)
            self._network.to(memory_format=torch.channels_last)
        self.engine = "torch" if self._onnx is None else "onnxruntime"

    @torch.no_grad()
    def __call__(self, pixels: Tensor, threads: int | None = None) -> Tensor:
        """The last layer's map (B, C, h, w), float32.

        Args:
            pixels: (B, 3, height, width), uint8 as `ImageTransform.pixels` gives it, or float32
                that is scaled already.
            threads: that ONNX Runtime computes with; None for as many as torch has.
        """
        if self._onnx is not None:
            return self._onnx(pixels, threads)
        chunk = CHUNK if self._device.type == "cpu" else len(pixels)
        parts = torch.split(pixels, max(1, chunk))
        return torch.cat([self._map(part) for part in parts])

    def _map(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self._device, non_blocking=True)
        if pixels.dtype == torch.uint8:
            pixels = self._transform.scale(pixels)
        if self._cast:
            pixels = pixels.to(torch.bfloat16)
        autocast = self._dtype is not None and not self._cast
        with torch.autocast(self._device.type, self._dtype, enabled=autocast):
            grid: Tensor = self._network(pixels.contiguous(memory_format=torch.channels_last))
        return grid.float()


class FastEncoder:
    """A copy of an encoder for inference; computes what the encoder does, up to rounding.

    Attributes:
        engine: what computes, ``onnxruntime`` or ``torch``.
        why_torch: why torch does; empty if it does not.
        takes_one: whether images are best given to it one at a time.

    Args:
        encoder: whose weights are taken as they are now.
        precision: one of :data:`PRECISIONS`.
        int8: what the CNN needs for the precision int8.

    Raises:
        CaptionerError: it cannot be computed in int8.
    """

    def __init__(self, encoder: Encoder, precision: str, int8: Int8 | None = None) -> None:
        self.source_version = versions(encoder), precision
        device = next(encoder.parameters()).device
        network = without_batch_norm(encoder.backbone)
        if precision != "int8":
            int8 = None
        elif int8 is None:
            raise CaptionerError(
                "precision int8: the model's file lacks what this needs; `captioner calibrate` "
                "measures it, or leave the precision out"
            )
        else:
            int8.check_fits(network.graph)
        self._network = FastNetwork(network, encoder.transform, precision, device, int8)
        self.engine, self.why_torch = self._network.engine, self._network.why_torch
        self.takes_one = self.engine == "onnxruntime"

    @property
    def lanes(self) -> int:
        """How many threads call :meth:`maps` at once to keep all of the processor busy."""
        return torch.get_num_threads() if self.takes_one else 1

    @property
    def search_threads(self) -> int:
        """How many threads the search has meanwhile.

        It is the smaller part of the work. More threads would wait for each other, and spin.
        """
        threads = torch.get_num_threads()
        return max(1, threads // 4) if self.takes_one else threads

    def is_current(self, encoder: Encoder, precision: str) -> bool:
        """Whether it still is the copy of this encoder, with the weights that it has now."""
        return self.source_version == (versions(encoder), precision)

    def __call__(self, pixels: Tensor) -> ImageFeatures:
        """Features, float32, of images (B, 3, height, width); see :meth:`maps`."""
        return self.features(self.maps(pixels))

    def maps(self, pixels: Tensor, threads: int | None = None) -> Tensor:
        """The CNN's last map (B, D, h, w), float32; may be called by several threads at once.

        Args:
            pixels: (B, 3, height, width), uint8 as `ImageTransform.pixels` gives it, or float32
                that is scaled already.
            threads: that ONNX Runtime computes with; None for as many as torch has.
        """
        return self._network(pixels, threads)

    @staticmethod
    def features(maps: Tensor) -> ImageFeatures:
        """What the decoder sees of maps (B, D, h, w)."""
        return ImageFeatures.from_grid(as_cells(maps))


def frozen_part(encoder: Encoder) -> FastNetwork:
    """The layers that training leaves as they are, as inference runs them, in float32.

    All of them of a frozen encoder; else those before :attr:`Encoder.frozen_layers`.
    """
    device = next(encoder.parameters()).device
    network = encoder.backbone
    if not encoder.config.frozen:
        assert encoder.frozen_layers, "everything is trained"
        network = first_layers(network, encoder.frozen_layers)
    return FastNetwork(without_batch_norm(network), encoder.transform, "fp32", device)


def without_batch_norm(network: GraphNetwork) -> GraphNetwork:
    """A copy for inference: BatchNorms are part of the convolutions before them.

    (Jacob et al. 2018, section 3.2.) A BatchNorm that does not read a convolution, or not alone,
    stays; what only training needs is left out.
    """
    readers = Counter(read for node in network.graph.nodes for read in node.inputs)
    values = [0]  # what each value of the network is in the copy
    nodes: list[Node] = []
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for node in network.graph.nodes:
        inputs = tuple(values[read] for read in node.inputs)
        before = nodes[inputs[0] - 1] if inputs[0] else node
        if node.op == "batch_norm" and before.op == "conv" and readers[node.inputs[0]] == 1:
            nodes[inputs[0] - 1] = replace(before, bias=True)
            _fold(state, before.module, node)
            values.append(inputs[0])
        elif node.op in ("dropout", "drop_depth"):
            values.append(inputs[0])
        else:
            nodes.append(replace(node, inputs=inputs))
            values.append(len(nodes))
    made = rebuilt(network, CnnGraph(tuple(nodes)), state)
    made.take_shapes(network, values)
    return made


def _fold(state: dict[str, Tensor], conv: str, norm: Node) -> None:
    parts = ("running_mean", "running_var", "weight", "bias", "num_batches_tracked")
    mean, variance, scale, bias, _ = (state.pop(f"{norm.module}.{part}") for part in parts)
    state[f"{conv}.weight"], state[f"{conv}.bias"] = fuse_conv_bn_weights(
        state[f"{conv}.weight"], state.get(f"{conv}.bias"), mean, variance, norm.eps, scale, bias
    )


def _why_torch(network: GraphNetwork, precision: str, device: torch.device) -> str:
    """Why a network does not run in ONNX Runtime; empty if it does."""
    if device.type != "cpu":
        return f"the device is {device.type}"
    if _DTYPES[precision] is not None:
        return f"the precision is {precision}"
    if network.graph.needs_library:
        return "the CNN has layers that only its library computes"
    try:
        import captioner.networks.onnx_runtime  # noqa: F401
    except ImportError:
        return "ONNX Runtime is not installed (pip install onnx onnxruntime)"
    return ""

"""The graph that is read of a library's CNN computes what the CNN does, in torch and ONNX."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captioner.images.transform import ImageTransform
from captioner.networks.cnn_graph import CnnGraph, GraphNetwork
from captioner.networks.cnn_tracing import graph_network
from captioner.networks.cnn_values import UnknownLayer
from captioner.networks.fast_encoder import without_batch_norm
from captioner.networks.stages import stages_of
from helpers.encoders import difference, make_encoder, trained_norms

pytestmark = pytest.mark.arithmetic

EXAMPLE = torch.zeros(1, 3, 64, 64)
# The CNN, where in torchvision's its grid is, the BatchNorms that cannot be folded into a
# convolution before them, and the number of stages.
CNNS = [
    ("timm/tf_efficientnet_lite0", "", 0, 5),
    ("timm/efficientnet_b0", "", 0, 5),
    ("timm/mobilenetv3_small_050", "", 0, 5),
    ("timm/resnet18", "", 0, 5),
    ("timm/convnext_atto", "", 0, 4),
    ("timm/convnextv2_atto", "", 0, 4),
    ("timm/test_convnext", "", 0, 4),
    ("timm/regnety_002", "", 0, 5),
    ("timm/res2net50_26w_4s", "", 0, 5),
    ("timm/rexnet_100", "", 0, 5),
    ("timm/vgg11_bn", "", 0, 5),
    ("torchvision/mobilenet_v3_small", "features", 0, 5),
    ("torchvision/vgg11", "features", 0, 5),
    ("torchvision/vgg11_bn", "features", 0, 5),
    ("torchvision/efficientnet_b0", "features", 0, 5),
    ("torchvision/squeezenet1_1", "features", 0, 4),
    ("torchvision/shufflenet_v2_x0_5", "conv5", 0, 4),
    ("torchvision/regnet_y_400mf", "trunk_output", 0, 5),
    ("torchvision/googlenet", "inception5b.cat", 0, 5),
    pytest.param("torchvision/convnext_tiny", "features", 0, 4, marks=pytest.mark.slow),
    pytest.param("torchvision/densenet121", "features.norm5", 62, 5, marks=pytest.mark.slow),
    pytest.param("timm/densenet121", "", 62, 5, marks=pytest.mark.slow),
    pytest.param("timm/hrnet_w18_small", "", 0, 5, marks=pytest.mark.slow),
    pytest.param("timm/ghostnet_050", "", 0, 5, marks=pytest.mark.slow),
]
"""What only the library computes of some CNNs, and their number of stages."""
PARTLY_KNOWN = [
    ("timm/ecaresnet26t", {"EcaModule"}, 5),
    ("timm/mobilevit_xs", {"MobileVitBlock"}, 5),
    pytest.param("timm/resnest14d", {"SplitAttn"}, 5, marks=pytest.mark.slow),
]


def library_cnn(name: str) -> nn.Module:
    torch.manual_seed(0)
    library, _, model = name.partition("/")
    if library == "timm":
        import timm

        found: nn.Module = timm.create_model(model, num_classes=0, global_pool="")
        if isinstance(getattr(found, "pre_logits", None), nn.Module):
            found.pre_logits = nn.Identity()
    else:
        from torchvision import models

        slow = {"init_weights": False, "transform_input": True} if model == "googlenet" else {}
        found = models.get_model(model, weights=None, **slow)
    trained_norms(found)
    return found.eval()


def grid_of(network: nn.Module, place: str, images: Tensor) -> Tensor:
    """What the library itself gives."""
    if not place:
        found: Tensor = network(images)
        return found
    from torchvision.models.feature_extraction import create_feature_extractor

    extractor = create_feature_extractor(network, {place: "grid"}, suppress_diff_warning=True)
    with torch.no_grad():
        grid: Tensor = extractor(images)["grid"]
    return torch.relu(grid) if "densenet" in type(network).__name__.lower() else grid


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(("name", "place", "norms", "stages"), CNNS)
@torch.no_grad()
def test_the_graph_computes_what_the_cnn_does(
    name: str, place: str, norms: int, stages: int
) -> None:
    library = library_cnn(name)
    network = graph_network(library, EXAMPLE, headless=bool(place))
    assert not network.graph.needs_library
    assert len(stages_of(network)) == stages
    state = library.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = grid_of(library, place, images)
    assert difference(network(images), expected) < 1e-5
    again = CnnGraph.from_dict(json.loads(json.dumps(network.graph.to_dict())))
    assert again == network.graph
    folded = without_batch_norm(network)
    assert norms_in(folded) == norms
    assert difference(folded(images), expected) < 1e-4
    from captioner.networks.onnx_runtime import OnnxNetwork

    for each in (network, folded):
        assert difference(OnnxNetwork(each, ImageTransform((64, 64)))(images), expected) < 1e-4


@pytest.mark.parametrize(("name", "kinds", "stages"), PARTLY_KNOWN)
@torch.no_grad()
def test_what_is_not_known_stays_the_librarys(name: str, kinds: set[str], stages: int) -> None:
    library = library_cnn(name)
    network = graph_network(library, EXAMPLE)
    assert network.graph.needs_library
    assert {type(layer).__name__ for layer in network.of_library.values()} <= kinds
    assert len(stages_of(network)) == stages
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert difference(network(images), library(images)) < 1e-5
    assert difference(without_batch_norm(network)(images), library(images)) < 1e-4
    assert list(network.state_dict()) == list(dict.fromkeys(network.state_dict()))
    assert set(network.state_dict()) == set(library.state_dict())
    with pytest.raises(ValueError, match="a layer that only a library computes"):
        CnnGraph.from_dict(network.graph.to_dict())


def test_depths_are_drawn_in_training_only() -> None:
    network = make_encoder("torchvision/efficientnet_b0").backbone
    images = torch.rand(2, 3, 64, 64)
    shares = [node.number for node in network.graph.nodes if node.op == "drop_depth"]
    assert max(shares) == pytest.approx(0.175)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        network.train()
        assert not torch.equal(network(images), network(images))


class ReadTwice(nn.Module):
    """The convolution's output is read by a BatchNorm and by the sum behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.conv(images)
        return found + self.norm(found)


class UsedTwice(nn.Module):
    """One convolution with a BatchNorm for each of its two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, images: Tensor) -> Tensor:
        for norm in self.norms:
            images = norm(self.conv(images))
        return images


class Branches(nn.Module):
    """What runs depends on the image: nothing that can be traced."""

    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class Sorted(nn.Module):
    """What no graph knows, in the network itself."""

    def forward(self, images: Tensor) -> Any:
        return torch.sort(images, dim=1)[0]


class Flat(nn.Module):
    """No grid comes out."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_a_norm_that_does_not_read_alone_stays() -> None:
    library = ReadTwice().eval()
    trained_norms(library)
    folded = without_batch_norm(graph_network(library, EXAMPLE))
    assert norms_in(folded) == 1
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(folded(images), library(images))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (UsedTwice, "two layers have the same name"),
        (Branches, "control flow"),
        (Sorted, "sort"),
        (Flat, "no grid"),
    ],
)
def test_what_is_no_plain_list_of_layers_is_refused(kind: type[nn.Module], reason: str) -> None:
    with pytest.raises(UnknownLayer, match=reason):
        graph_network(kind().eval(), EXAMPLE)


def test_a_part_that_branches_is_left_to_its_library() -> None:
    library = nn.Sequential()
    library.add_module("conv", nn.Conv2d(3, 4, 3))
    library.add_module("odd", Branches())
    network = graph_network(library.eval(), EXAMPLE)
    assert isinstance(network, GraphNetwork)
    assert [node.op for node in network.graph.nodes] == ["conv", "library"]

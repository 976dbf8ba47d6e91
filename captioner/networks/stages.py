"""A CNN in two parts: the layers that are trained, and those before them that stay as they are."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from captioner.networks.cnn_graph import CnnGraph, GraphNetwork, Node
from captioner.networks.weights import ZerosOnly


def stages_of(network: GraphNetwork) -> list[list[nn.Parameter]]:
    """Parameters by stage, first to last: the layers whose maps have shrunk equally often.

    Stages follow the order in which layers run: one that works at the size of the stage before,
    beside one that shrinks the map, belongs to the stage that has begun.
    """
    strides = [1]  # by how much each value has shrunk
    stages: dict[int, list[nn.Parameter]] = {}
    for node in network.graph.nodes:
        strides.append(_stride(node, max(strides[read] for read in node.inputs)))
        if parameters := network.parameters_of(node):
            stages.setdefault(max(strides), []).extend(parameters)
    return [stages[stride] for stride in sorted(stages)]


def _stride(node: Node, before: int) -> int:
    if node.op == "upsample":
        return max(1, before // node.kernel[0])
    return before * node.stride[0]


def last_cut(network: GraphNetwork, example: Tensor) -> int:
    """How many layers can run once and for all because no parameter up to there is trained.

    Among the places where everything after reads nothing from before but one map, the last whose
    map is at most twice the smallest: little is kept, and little is run again.

    Args:
        network: some of its parameters may be trained.
        example: an input (1, 3, height, width).
    """
    nodes = network.graph.nodes
    trained = [
        place
        for place, node in enumerate(nodes)
        if any(each.requires_grad for each in network.parameters_of(node))
    ]
    with torch.no_grad():
        sizes = [value.numel() for value in network.values(example)]
    # The first value that anything after value n reads, n itself left out.
    reads = [min(node.inputs) for node in nodes]
    cuts = [
        n for n in range(min(trained, default=len(nodes)) + 1) if min(reads[n:], default=n) >= n
    ]
    smallest = min(sizes[n] for n in cuts)
    return max(n for n in cuts if sizes[n] <= 2 * smallest)


def first_layers(network: GraphNetwork, count: int) -> GraphNetwork:
    """The network's first layers as a network, with the same weights."""
    state = network.state_dict()
    return rebuilt(network, CnnGraph(network.graph.nodes[:count]), state)


def rebuilt(network: GraphNetwork, graph: CnnGraph, state: dict[str, Tensor]) -> GraphNetwork:
    """A network of another graph with these weights, for inference; more may be given.

    Layers that only the library computes are copies of the network's.
    """
    wanted = {node.module for node in graph.nodes}
    of_library = {
        name: copy.deepcopy(layer) for name, layer in network.of_library.items() if name in wanted
    }
    with ZerosOnly():
        made = GraphNetwork(graph, of_library)
    made.load_state_dict({name: state[name] for name in made.state_dict()}, assign=True)
    return made.requires_grad_(False).eval()

"""The weights of an ONNX model, layer by layer, and copies of it that have lost some of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.checks import require_choice, require_whole
from igonnx.errors import InputError
from igonnx.graph.node_view import captures
from igonnx.model import Model, ModelSource, is_floating

__all__ = ["Draw", "Layer", "randomised", "weighted_layers"]

Draw = Literal["normal", "shuffle"]

# Operators whose constant floating inputs are learnt. Resize, Clip, Pad and their like have constants too, and so have
# quantised operators, whose codes are no floats; Sub and Div are mostly preprocessing.
PRODUCTS = ("Conv", "ConvTranspose", "DeformConv", "FusedConv", "Gemm", "MatMul", "FusedMatMul")
STATISTICS = ("Batch", "Instance", "Layer", "Group", "RMS", "SkipLayer", "EmbedLayer")
SUMS = ("Add", "Mul", "Expand", "Concat")  # biases, scales, tokens, where they are no masks
RECURRENT = ("RNN", "GRU", "LSTM", "If", "Loop", "Scan")
NORMALISING = tuple(f"{kind}Normalization" for kind in STATISTICS)
LEARNING = frozenset(
    (*PRODUCTS, *SUMS, *RECURRENT, *NORMALISING, "Einsum", "Gather", "PRelu", "Attention")
)
# What stands behind another layer's product and belongs to it: bias, scale, normalisation.
FOLLOWING = frozenset(["Add", "Mul", "BatchNormalization"])


@dataclass(frozen=True)
class Layer:
    """One layer of a model: `name`, that of its first weight, and the names of its weights (initializers)."""

    name: str
    weights: tuple[str, ...]


def weighted_layers(model: ModelSource, output: str | None = None) -> list[Layer]:
    """The layers with weights on the way to an output (default: the first floating one), from the bottom to the top.

    A layer is a node with learnt weights (convolution, matrix product, recurrence, embedding, normalisation, scale,
    bias: their constant floating inputs of two elements or more) and the biases, scales and batch normalisations right
    behind it. Weights that several nodes share belong to the topmost. The order is that of the nodes in the file.
    """
    loaded = Model.load(model)
    graph = loaded.ir.graph
    weights = {
        value
        for value in graph.initializers.values()
        if is_floating(value) and _elements(value) > 1
    }
    needed = _ancestors(loaded.find_output(output))
    found: list[list[str]] = []
    behind: dict[ir.Value, list[str]] = {}  # of the outputs of a layer's nodes, its weights
    taken: set[ir.Value] = set()
    own: dict[ir.Node, list[ir.Value]] = {}
    for node in reversed(list(graph)):
        if node in needed and node.op_type in LEARNING:
            read = [value for value in _read(node) if value in weights and value not in taken]
            own[node] = [one for one in read if node.op_type not in SUMS or not _is_mask(one)]
            taken.update(own[node])
    for node in graph:
        if node not in own or not own[node]:
            continue
        names = [cast("str", value.name) for value in own[node]]
        data = [behind[value] for value in node.inputs if value in behind]
        if node.op_type in FOLLOWING and data:
            data[0].extend(names)
            layer = data[0]
        else:
            found.append(layer := names)
        behind.update(dict.fromkeys(node.outputs, layer))
    return [Layer(names[0], tuple(names)) for names in found]


def randomised(
    model: ModelSource, weights: Collection[str], *, seed: int = 0, draw: Draw = "normal"
) -> Model:
    """A copy of a model, for an `Explainer`, in which these weights (initializers) are random; `to_proto` tells it.

    `draw`: "normal", from the normal distribution with the weight's own mean and standard deviation, but where all its
    elements have one sign, which then means something (variances), shuffled; "shuffle": its own elements in another
    order, always. What a weight becomes depends on the seed and its name only. The model itself and its file stay
    as they are. Raises `InputError` for names that are no floating weights.
    """
    require_choice("draw", draw, Draw)
    require_whole("seed", seed, 0)
    loaded = Model.load(model)
    copy = loaded.with_graph(loaded.clone())
    initializers = copy.ir.graph.initializers
    for name in weights:
        value = initializers.get(name)
        if value is None or value.const_value is None or not is_floating(value):
            raise InputError(f"{loaded.name}: {name!r} is no floating weight of the model")
        array = value.const_value.numpy()
        random = np.random.default_rng([seed, *name.encode()])
        value.const_value = ir.tensor(_drawn(array, random, draw), name=name)
    return copy


def _drawn(array: NDArray[Any], random: np.random.Generator, draw: Draw) -> NDArray[Any]:
    numbers = array.astype(np.float64)
    one_sign = (numbers >= 0).all() or (numbers <= 0).all()
    if draw == "shuffle" or one_sign:
        return random.permutation(array.ravel()).reshape(array.shape)
    return random.normal(numbers.mean(), numbers.std(), array.shape).astype(array.dtype)


def _elements(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.size


def _is_mask(value: ir.Value) -> bool:
    """Whether a constant of three elements or more has one or two values only, by a sample of it."""
    size = _elements(value)
    if value.const_value is None or size < 3:
        return False
    sample = value.const_value.numpy().ravel()[:: max(1, size // 1000)]
    return len(np.unique(sample)) < 3


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node reads, its subgraphs included."""
    return [*(value for value in node.inputs if value is not None), *captures(node)]


def _ancestors(output: ir.Value) -> set[ir.Node]:
    """The nodes that `output` depends on."""
    found: set[ir.Node] = set()
    waiting = [output]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            waiting.extend(_read(node))
    return found

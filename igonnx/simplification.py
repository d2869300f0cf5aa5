"""Rewrites that leave the function as it is and make its gradient cheaper: the explainer's own copy gets them.

Weights from an external file are read into memory first, unless they are so many that rewritten ones might not fit into
a protobuf of 2 GB.

BatchNormalization with constant statistics is affine per channel, so behind a convolution of constant weights it melts
into them. ONNX Runtime does the same in the forward pass, but it cannot on the way back: there the scale would stay one
more pass over every activation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import constant_of
from igonnx.graph.symbolic_sizes import settle_sizes
from igonnx.model import Model
from igonnx.narrowing import narrow

__all__ = ["is_light", "simplified"]

# Twice this, for weights that run forwards and backwards, stays below a protobuf's limit.
_LIGHT = 700 * 2**20


def simplified(model: Model, keep: Collection[str]) -> Model:
    """A copy of `model` with batch normalisations folded, sizes settled and single places chosen early.

    Tensors named in `keep` stay as they are.
    """
    copy = model.with_graph(model.clone())
    if is_light(copy):
        _read_weights(copy)
    kept = {*keep, *(info.name for info in model.outputs)}
    op = GraphBuilder(copy.ir, scope="folded")
    settle_sizes(op)
    for node in list(copy.ir.graph):
        if node.op_type == "BatchNormalization":
            _fold(op, node, kept)
        elif node.op_type == "Identity":
            _bypass(node, kept)
    passes.RemoveUnusedNodesPass()(copy.ir)  # what only sizes were read from is read no more
    narrow(op, kept)
    passes.RemoveUnusedNodesPass()(copy.ir)
    return copy


def is_light(model: Model) -> bool:
    """Whether the weights of `model` may be rewritten and stored in the graph itself, twice over."""
    weights = model.ir.graph.initializers.values()
    return sum(w.const_value.nbytes for w in weights if w.const_value is not None) <= _LIGHT


def _read_weights(model: Model) -> None:
    for value in model.ir.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)


def _bypass(node: ir.Node, kept: Collection[str]) -> None:
    """Read the constant that an Identity copies; exporters write weights that are equal so."""
    source, copy = cast("ir.Value", node.inputs[0]), node.outputs[0]
    if source.is_initializer() and not source.is_graph_input() and copy.name not in kept:
        copy.replace_all_uses_with(source)


def _fold(op: GraphBuilder, node: ir.Node, kept: Collection[str]) -> None:
    """Fold one BatchNormalization into the Conv that alone feeds it, where all parameters are constants in memory."""
    source = cast("ir.Value", node.inputs[0])
    conv = source.producer()
    if conv is None or conv.op_type != "Conv" or len(source.uses()) != 1 or source.name in kept:
        return
    training = node.attributes.get("training_mode")
    if (
        node.outputs[0].name in kept
        or len(node.outputs) > 1
        or (training is not None and training.as_int())
    ):
        return
    parameters = _constants(node.inputs[1:5])
    weights = _constants(conv.inputs[1:])
    if parameters is None or weights is None:
        return
    epsilon = node.attributes.get("epsilon")
    weight = weights[0]
    # In the precision and order of ONNX Runtime's own folding: what is explained then are the activations of the model
    # as it is run, to the last bit, and a ReLU passes the same ones.
    exact = weight.dtype if weight.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    scale, shift, mean, variance = (array.astype(exact, copy=False) for array in parameters)
    added = exact.type(1e-5 if epsilon is None else epsilon.as_float())
    factor = scale / np.sqrt(variance + added)
    columns = factor.reshape(-1, *[1] * (weight.ndim - 1))
    folded = (weight * columns).astype(weight.dtype)
    biased = len(weights) > 1
    moved = (
        (weights[1].astype(exact) - mean) * factor + shift if biased else shift - mean * factor
    ).astype(weight.dtype)
    conv.resize_inputs(3)
    conv.replace_input_with(1, op.constant(folded))
    conv.replace_input_with(2, op.constant(moved))
    node.outputs[0].replace_all_uses_with(source)
    op.graph.remove(node, safe=True)


def _constants(values: Sequence[ir.Value | None]) -> list[NDArray[np.floating]] | None:
    """The arrays of `values`, or None unless all are constants that no caller can feed and that lie in memory."""
    arrays = []
    for value in values:
        constant = constant_of(value)
        if constant is None:
            return None
        # Weights still in a file stay there: folded ones would have to fit into the protobuf.
        if isinstance(constant, ir.ExternalTensor):
            return None
        arrays.append(cast("NDArray[np.floating]", constant.numpy()))
    return arrays

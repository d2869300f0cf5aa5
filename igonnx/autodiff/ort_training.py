"""A second gradient builder: onnxruntime-training's own, with the contract of `igonnx.gradient`.

It knows fewer operators, its graphs run in its own runtime only, and it is no faster. It is there as a second opinion:
two derivations of the same gradient that share no rule. The wheel (onnxruntime-training, or onnxruntime-training-cpu)
takes the place of onnxruntime: both cannot be installed at once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.selection import tensors_to_explain
from igonnx.autodiff.transform import differentiable_sources
from igonnx.errors import EngineError, ModelError, UnsupportedOperatorError
from igonnx.model import Model, ModelSource

__all__ = ["gradient"]

# Opset 21, the newest that the last of these wheels reads, came with IR 10: a newer stamp says nothing that it needs.
_NEWEST_IR_VERSION = 10
_NOT_INSTALLED = (
    "this needs onnxruntime-training in the place of onnxruntime: in a virtual environment of its own, "
    "pip install 'igonnx[training]'"
)


def gradient(
    model: ModelSource, *, wrt: Sequence[str] | str | None = None, output: str | None = None
) -> onnx.ModelProto:
    """Build the gradient of `output` with respect to the tensors `wrt` with onnxruntime-training.

    Arguments, inputs and outputs are those of `igonnx.gradient`: ``cotangent_<output>`` goes in and ``grad_<name>``
    comes out, beside the model's own. The graph uses com.microsoft operators that only that runtime has. Weights in
    external files are taken into the graph.

    Raises:
        EngineError: onnxruntime-training is not installed.
        ModelError: the model cannot be read (by igonnx, or because it is newer than that runtime), is over 2 GB, has no
            differentiable path, or the builder fails on it.
        UnsupportedOperatorError: the builder has no gradient for an operator; the message names it.
        InputError: an unknown name, or a tensor that is not floating.

    """
    builder = _builder()
    loaded = Model.load(model)
    target = loaded.find_output(output).name or ""
    chosen = tensors_to_explain(loaded, wrt, loaded.find_output(output))
    names = [value.name or "" for value in chosen]
    copy = loaded.with_graph(loaded.clone())
    _refuse_taken_names(copy.ir.graph, target, names)
    _mend(copy.ir.graph)
    _refuse_known_mistakes(copy, target, names)
    # Left without a loss of its own, the builder starts from this name: as an input it is the cotangent.
    seed = copy.find_output(target)
    copy.ir.graph.inputs.append(ir.val(f"{target}_grad", shape=seed.shape, type=seed.type))
    result = ir.from_proto(_build(builder, copy, target, names))
    return _in_our_names(result, loaded, target, names)


def _builder() -> Callable[..., Any]:
    """The wheel's class GradientGraphBuilder, made to keep quiet."""
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder, SessionOptions
    except ImportError as error:
        raise EngineError(_NOT_INSTALLED) from error
    options = SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, not also printed
    return functools.partial(GradientGraphBuilder, options=options)


def _build(
    builder: Callable[..., Any], model: Model, output: str, names: Sequence[str]
) -> onnx.ModelProto:
    """What the builder makes of `model`: the gradient of each tensor t is called <t>_grad."""
    ir.external_data.load_to_model(model.ir)
    model.ir.ir_version = min(model.ir.ir_version, _NEWEST_IR_VERSION)
    try:
        data = ir.to_proto(model.ir).SerializeToString()
    except ValueError as error:
        raise ModelError(
            f"{model.name}: over 2 GB with its weights, which onnxruntime-training cannot take"
        ) from error
    try:
        building = builder(data, {output}, set(names), "")
        building.build()
        return onnx.load_model_from_string(building.get_model())
    except RuntimeError as error:  # the runtime's only kind here
        _refuse(model.name, " ".join(str(error).split()))


def _refuse(name: str, message: str) -> NoReturn:
    """Raise what the builder's `message` means."""
    import onnxruntime

    who = f"onnxruntime-training {onnxruntime.__version__}"
    unknown = re.search(r"gradient builder has not been registered: (\S+) for node ?(.*)", message)
    if unknown:
        operator, node = unknown.groups()
        raise UnsupportedOperatorError(
            f"{name}: {who} has no gradient for operator {operator} (node {node!r})"
        )
    newest = re.search(r"Opset (\d+) is under development.* till opset (\d+)", message)
    if newest:
        raise ModelError(
            f"{name}: opset {newest[1]}, and {who} reads opset {newest[2]} at most: re-export the model"
        )
    # Without the folder in which the runtime was compiled.
    raise ModelError(f"{name}: {who} failed on it: {re.sub(r'^/[^ ]*/', '', message)}")


def _mend(graph: ir.Graph) -> None:
    """Write the same model in the form that the builder expects."""
    for node in list(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "LayerNormalization":
            _complete_layer_normalization(graph, node)
        if node.op_type == "Dropout":
            _drop_dropout(graph, node)
        _separate_repeated_inputs(graph, node)


def _drop_dropout(graph: ir.Graph, node: ir.Node) -> None:
    """Outside training, Dropout is the identity: the builder would scale the gradient, or fail without a mask."""
    training = node.inputs[2].const_value if len(node.inputs) > 2 and node.inputs[2] else None
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    used = mask is not None and (mask.uses() or mask in graph.outputs)
    if not used and (len(node.inputs) < 3 or (training is not None and not training.numpy())):
        node.op_type = "Identity"
        node.attributes.clear()
        node.resize_inputs(1)
        node.resize_outputs(1)


def _complete_layer_normalization(graph: ir.Graph, node: ir.Node) -> None:
    """Switch on the optional outputs and the optional bias, without which the builder fails.

    (`i < node_->OutputDefs().size() was false`: it reads mean and inverse deviation from them.)
    """
    node.resize_outputs(3)
    for value, suffix in zip(node.outputs[1:], ("mean", "deviation"), strict=True):
        value.name = value.name or f"{node.outputs[0].name}_{suffix}"
    scale = node.inputs[1]
    if len(node.inputs) == 2 and scale is not None and scale.const_value is not None:
        name = f"{node.outputs[0].name}_no_bias"
        zeros = ir.tensor(np.zeros_like(scale.const_value.numpy()), name=name)
        bias = ir.Value(name=name, shape=scale.shape, type=scale.type, const_value=zeros)
        graph.register_initializer(bias)
        node.resize_inputs(3)
        node.replace_input_with(2, bias)


def _separate_repeated_inputs(graph: ir.Graph, node: ir.Node) -> None:
    """Mul(x, x) becomes Mul(x, Identity(x)): the builder calls both of its gradients x_grad, and then fails."""
    for index, value in enumerate(node.inputs):
        if value is not None and value in node.inputs[:index]:
            name = f"{node.outputs[0].name}_input_{index}"
            copied = ir.Node("", "Identity", [value], name=name)
            copied.outputs[0].name = name
            copied.outputs[0].shape, copied.outputs[0].type = value.shape, value.type
            graph.insert_before(node, copied)
            node.replace_input_with(index, copied.outputs[0])


def _refuse_known_mistakes(model: Model, output: str, names: Sequence[str]) -> None:
    """Refuse what the builder takes and differentiates wrongly, or what makes its runtime crash (found by testing)."""
    nodes = list(model.ir.graph)
    reached = {model.find_tensor(name) for name in names}
    computed = [value for node in nodes for value in node.outputs]
    carried = set(
        differentiable_sources(model.ir.graph, model.find_output(output), [*reached, *computed])
    )
    for node in nodes:
        wanted = [value for value in node.inputs if value in reached and value in carried]
        if not wanted:
            continue
        reached.update(node.outputs)
        reason = _known_mistake(node, wanted) if node.domain in ("", "ai.onnx") else ""
        if reason:
            raise UnsupportedOperatorError(
                f"{model.name}: onnxruntime-training has a wrong gradient for {node.op_type} (node {node.name!r}) "
                f"with {reason}"
            )


def _known_mistake(node: ir.Node, wanted: Sequence[ir.Value | None]) -> str:
    """What about `node` the builder overlooks, if the gradients of the inputs `wanted` cross it; or an empty string."""
    same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    dilated = any(d != 1 for d in node.attributes.get_ints("dilations", ()))
    axes = _axes(node.inputs[0] if node.inputs else None)
    match node.op_type:
        case "Conv" if same:
            return "auto_pad SAME"
        case "Conv" if len(axes) == 5 and node.attributes.get_int("group", 1) > 1:
            return "groups and three spatial axes"
        case "Gelu" if node.attributes.get_string("approximate", "none") != "none":
            return "approximate"
        case "Where" if any(_is_widened(value, node.inputs) for value in wanted):
            return "broadcasting"
        case "Split" if not all(value.uses() or value.is_graph_output() for value in node.outputs):
            return "an output that nobody uses"
        case "MaxPool" | "AveragePool" if node.attributes.get_int("ceil_mode", 0):
            return "ceil_mode"
        case "MaxPool" if node.attributes.get_int("storage_order", 0):
            return "storage_order"
        case "MaxPool" if dilated and any(node.attributes.get_ints("pads", ())):
            return "dilations and pads: a window may lie in the padding alone"
        # Its kernel takes the shape of the gradient, but for the batch axis, from the file: others are overrun.
        case "MaxPool" | "AveragePool" if not all(isinstance(axis, int) for axis in axes[1:]):
            return "an image whose size is not fixed in the model"
        case "AveragePool" if same or dilated or len(axes) == 5:
            return "auto_pad SAME, dilations or three spatial axes"
    return ""


def _is_widened(value: ir.Value | None, others: Sequence[ir.Value | None]) -> bool:
    """Whether broadcasting with `others` repeats `value` along an axis, or may do so."""
    own = _axes(value)[::-1]
    for other in others:
        axes = _axes(other)[::-1]
        pairs = zip(own, axes, strict=False)
        if len(axes) > len(own) or any(b != 1 and (a != b or a is None) for a, b in pairs):
            return True
    return False


def _axes(value: ir.Value | None) -> tuple[int | str | None, ...]:
    """Size, symbol or None per axis; two unknown ones where not even the rank is known."""
    if value is None or value.shape is None:
        return (None, None)
    return tuple(axis if isinstance(axis, int) else axis.value for axis in value.shape)


def _in_our_names(
    built: ir.Model, model: Model, output: str, names: Sequence[str]
) -> onnx.ModelProto:
    """The builder's graph with inputs and outputs as `igonnx.gradient` has them."""
    graph = built.graph
    values = {value.name: value for node in graph for value in node.outputs}
    values.update((value.name, value) for value in graph.inputs)
    missing = [name for name in names if f"{name}_grad" not in values]
    if missing:
        raise ModelError(f"{model.name}: onnxruntime-training built no gradient for {missing[0]!r}")
    values[f"{output}_grad"].name = f"cotangent_{output}"
    outputs = [values[info.name] for info in model.outputs]
    for name in names:
        outputs.append(_shaped_like(values[name], values[f"{name}_grad"], graph))
    graph.outputs[:] = outputs
    passes.RemoveUnusedNodesPass()(built)
    passes.RemoveUnusedOpsetsPass()(built)
    return ir.to_proto(built)


def _shaped_like(source: ir.Value, gradient: ir.Value, graph: ir.Graph) -> ir.Value:
    """The output grad_<source>: the builder confuses [] with [1], and what has another size must not pass silently."""
    shape = ir.Node("", "Shape", [source], name=f"grad_{source.name}_shape")
    shape.outputs[0].name = shape.name
    allow = [ir.AttrInt64("allowzero", 1)]
    node = ir.Node("", "Reshape", [gradient, shape.outputs[0]], allow, name=f"grad_{source.name}")
    graph.extend([shape, node])
    result = node.outputs[0]
    result.name, result.shape, result.type = f"grad_{source.name}", source.shape, source.type
    return result


def _refuse_taken_names(graph: ir.Graph, output: str, names: Sequence[str]) -> None:
    taken = {value.name for value in [*graph.inputs, *graph.initializers.values()]}
    taken.update(value.name for node in graph for value in node.outputs)
    ours = [f"cotangent_{output}", *(f"grad_{name}" for name in names)]
    for name in [*ours, *(f"{name}_grad" for name in taken)]:
        if name in taken:
            raise ModelError(f"the model already has a tensor called {name!r}: rename it first")

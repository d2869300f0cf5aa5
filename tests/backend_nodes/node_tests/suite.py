"""The tests themselves: one model, its inputs and what it should give, as the onnx package makes them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

__all__ = ["FLOATING", "NodeTest", "element_type", "is_floating_value", "load"]

# A value of a test: an array, a list of values (a sequence), or None (an optional that is empty).
Value = NDArray[Any] | list[Any] | None

FLOATING = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
}


@dataclass(frozen=True)
class NodeTest:
    """One test of the onnx package: `feeds` and `expected` by name."""

    name: str
    model: onnx.ModelProto
    feeds: dict[str, Value]
    expected: dict[str, Value]

    @property
    def floating_inputs(self) -> list[str]:
        """Inputs that hold reals, in a sequence or an optional too."""
        return [v.name for v in self.model.graph.input if element_type(v.type) in FLOATING]

    @property
    def floating_outputs(self) -> list[str]:
        """Outputs that hold reals."""
        return [v.name for v in self.model.graph.output if element_type(v.type) in FLOATING]


@cache
def load() -> dict[str, NodeTest]:
    """All node tests by name, in the order of the onnx package."""
    with warnings.catch_warnings():
        # The modules of onnx that make the data divide by zero and overflow on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
        return {case.name: _test(case) for case in cases if case.data_sets}


def element_type(kind: onnx.TypeProto) -> int:
    """The element type of a tensor, or of the tensors in a sequence or an optional; 0 where there is none."""
    while (which := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
        kind = getattr(kind, which).elem_type
    return int(kind.tensor_type.elem_type) if which == "tensor_type" else 0


def is_floating_value(value: Value) -> bool:
    """Whether there is a real number in `value`."""
    if isinstance(value, list):
        return any(is_floating_value(item) for item in value)
    return value is not None and value.dtype.name in FLOATING.values() and value.size > 0


def _test(case: Any) -> NodeTest:
    inputs, outputs = case.data_sets[0]
    graph = case.model.graph
    return NodeTest(
        case.name,
        case.model,
        {v.name: _value(given) for v, given in zip(graph.input, inputs, strict=True)},
        {v.name: _value(given) for v, given in zip(graph.output, outputs, strict=True)},
    )


def _value(given: Any) -> Value:
    if given is None:
        return None
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    if isinstance(given, list | tuple):
        return [_value(item) for item in given]
    return np.asarray(given)

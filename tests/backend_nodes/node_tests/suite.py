"""The tests themselves: one model and its inputs each, as the onnx package makes them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from node_tests.values import FLOATING, Value, is_floating_value

__all__ = ["NodeTest", "load"]


@dataclass(frozen=True)
class NodeTest:
    """One test of the onnx package; `feeds` are its inputs by name.

    The outputs it expects are left aside: where onnxruntime computes something else, that is what is differentiated.
    """

    name: str
    model: onnx.ModelProto
    feeds: dict[str, Value]

    @property
    def has_floats(self) -> bool:
        """Whether reals go in and come out: only then can there be a derivative."""
        given = any(is_floating_value(self.feeds[name]) for name in self.floating_inputs)
        return given and bool(self.floating_outputs)

    @property
    def floating_inputs(self) -> list[str]:
        """Inputs that hold reals, in a sequence or an optional too."""
        return [v.name for v in self.model.graph.input if _element_type(v.type) in FLOATING]

    @property
    def floating_outputs(self) -> list[str]:
        """Outputs that hold reals."""
        return [v.name for v in self.model.graph.output if _element_type(v.type) in FLOATING]


@cache
def load() -> dict[str, NodeTest]:
    """All node tests by name, in the order of the onnx package."""
    with warnings.catch_warnings():
        # The modules of onnx that make the data divide by zero and overflow on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
        return {case.name: _test(case) for case in cases if case.data_sets}


def _element_type(kind: onnx.TypeProto) -> int:
    """The element type of a tensor, or of the tensors in a sequence or an optional; 0 where there is none."""
    while (which := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
        kind = getattr(kind, which).elem_type
    return int(kind.tensor_type.elem_type) if which == "tensor_type" else 0


def _test(case: Any) -> NodeTest:
    inputs, _ = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    feeds = {name: _value(given) for name, given in zip(names, inputs, strict=True)}
    return NodeTest(case.name, case.model, feeds)


def _value(given: Any) -> Value:
    if given is None:
        return None
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    if isinstance(given, list | tuple):
        return [_value(item) for item in given]
    return np.asarray(given)

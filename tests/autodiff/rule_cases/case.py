"""What a rule test is given: an operator, its attributes, and inputs that are drawn afresh for every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

Layout = Literal["static", "named", "unnamed"]
LAYOUTS: tuple[Layout, ...] = ("static", "named", "unnamed")
# A node's outputs are joined into this one, so that gradients arrive at all of them at once.
OUTPUT = "y"


def options() -> ort.SessionOptions:
    """One thread, and silence: what goes wrong is raised."""
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = 1
    chosen.log_severity_level = 4
    return chosen


@cache
def newest_opset() -> int:
    """The newest opset that both onnx and the installed onnxruntime know."""
    for opset in range(onnx.defs.onnx_opset_version(), 17, -1):
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])], "probe", [value], [result]
        )
        try:
            ort.InferenceSession(wrap(graph, opset).SerializeToString(), options())
        except Exception:
            continue
        return opset
    return 17


def wrap(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    """A model of the standard operators of `opset`, in an IR version that old runtimes read too."""
    ir_version = 8 if opset < 19 else 10
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )


@dataclass(frozen=True)
class Input:
    """One input of the node. `values` None: random reals."""

    role: Literal["explained", "fed", "held"]  # differentiated, fed at run time, or an initializer
    shape: tuple[int, ...] = ()
    values: NDArray[Any] | None = None
    low: float = -1.0
    high: float = 1.0
    away: tuple[float, ...] = ()  # kinks to keep away from
    distinct: bool = False  # no two values closer than finite differences reach
    fixed: tuple[int, ...] = ()  # axes that are static in every layout

    def draw(self, rng: np.random.Generator) -> NDArray[Any]:
        """Values for one run: float64 where they are real."""
        if self.values is not None:
            return self.values
        size = int(np.prod(self.shape))
        if self.distinct:
            steps = (rng.permutation(size) + rng.uniform(0.3, 0.7)) / max(size, 1)
            return (self.low + (self.high - self.low) * steps).reshape(self.shape)
        drawn = rng.uniform(self.low, self.high, self.shape)
        for kink in self.away:
            close = np.abs(drawn - kink) < 0.05
            drawn = np.where(close, kink + np.where(drawn < kink, -0.05, 0.05), drawn)
        return drawn

    def dimensions(self, layout: Layout, shape: Sequence[int]) -> list[int | str | None]:
        """The declared shape; `named`: equal sizes share a symbol and ones stay, `unnamed`: nothing is known."""
        if layout == "static" or self.values is not None:
            return list(shape)
        free: list[int | str | None] = [
            None if layout == "unnamed" else (1 if size == 1 else f"d{size}") for size in shape
        ]
        return [size if axis in self.fixed else free[axis] for axis, size in enumerate(shape)]


def real(*shape: int, **given: Any) -> Input:
    """A random input whose gradient is wanted."""
    return Input("explained", shape, **given)


def held(*shape: int, **given: Any) -> Input:
    """A random initializer."""
    return Input("held", shape, **given)


def constant(values: ArrayLike, dtype: Any = None) -> Input:
    """An initializer of these values (int64 for integers; reals follow the dtype of the run)."""
    array = np.asarray(values, dtype=dtype)
    return Input("held", array.shape, array)


def fed(values: ArrayLike, dtype: Any = None) -> Input:
    """These values as an input at run time, without a gradient."""
    array = np.asarray(values, dtype=dtype)
    return Input("fed", array.shape, array)


@dataclass(frozen=True)
class Case:
    """One node to differentiate."""

    operator: str
    label: str
    inputs: Sequence[Input | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (17, 99)  # 99: the newest there is
    outputs: int = 1
    used: int | None = None  # how many of the outputs are explained (default: all)
    linear: bool = False  # in what is explained: differences are exact, whatever the step
    layouts: tuple[Layout, ...] = LAYOUTS
    domain: str = ""
    tolerance: float = 0.0  # at least this, where part of the operator is float32 by definition
    # What the node computes, in NumPy, for operators without a float64 kernel in onnxruntime; None: onnx's reference.
    formula: Callable[..., NDArray[np.float64]] | None = None

    @property
    def explained(self) -> list[str]:
        """Names of the inputs whose gradients are wanted."""
        return [
            f"x{i}" for i, given in enumerate(self.inputs) if given and given.role == "explained"
        ]

    def draw(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """A value for every input, by name."""
        return {
            f"x{i}": given.draw(rng) for i, given in enumerate(self.inputs) if given is not None
        }

    def model(
        self,
        arrays: Mapping[str, NDArray[Any]],
        *,
        opset: int,
        dtype: Any,
        layout: Layout = "static",
        constants: Sequence[str] = (),
        output: Sequence[int] | None = None,
    ) -> onnx.ModelProto:
        """The one-node model; the inputs named in `constants` become initializers as well.

        `output` is the shape of the result, declared in full for static shapes and else by its rank.
        """
        inputs, initializers, names = [], [], []
        for index, given in enumerate(self.inputs):
            if given is None:
                names.append("")
                continue
            name = f"x{index}"
            names.append(name)
            array = as_dtype(arrays[name], dtype)
            if given.role == "held" or name in constants:
                initializers.append(numpy_helper.from_array(array, name))
                continue
            element = helper.np_dtype_to_tensor_dtype(array.dtype)
            dimensions = given.dimensions(layout, array.shape)
            inputs.append(helper.make_tensor_value_info(name, element, dimensions))
        count = self.outputs if self.used is None else self.used
        results = [OUTPUT] if self.outputs == 1 else [f"y{i}" for i in range(self.outputs)]
        attributes = {
            # CastLike and Cast: "real" stands for the dtype of the run
            key: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) if value == "real" else value
            for key, value in self.attributes.items()
        }
        nodes = [
            helper.make_node(
                self.operator, names, results, domain=self.domain, name="n", **attributes
            )
        ]
        if self.outputs > 1:
            initializers.append(numpy_helper.from_array(np.array([-1]), "flat"))
            flat = [f"flat{i}" for i in range(count)]
            nodes += [
                helper.make_node("Reshape", [results[i], "flat"], [flat[i]], name=flat[i])
                for i in range(count)
            ]
            nodes.append(helper.make_node("Concat", flat, [OUTPUT], axis=0, name="join"))
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        shape = [None] * len(output) if output is not None and layout != "static" else output
        result = helper.make_tensor_value_info(OUTPUT, element, shape)
        return wrap(helper.make_graph(nodes, self.operator, inputs, [result], initializers), opset)


def as_dtype(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Reals in the dtype of the run; everything else as it is."""
    return array.astype(dtype) if array.dtype == np.float64 else array

"""One node outside the standard, its attributes, and inputs that are drawn afresh for every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"
CLASSICAL = "ai.onnx.ml"
_VERSIONS = {MICROSOFT: 1, CLASSICAL: 3}


@dataclass(frozen=True)
class Input:
    """`values` None: random reals between -1 and 1, scaled. Reals that are not `held` are differentiated."""

    shape: tuple[int, ...] = ()
    values: NDArray[Any] | None = None
    held: bool = False  # an initializer
    scale: float = 1.0
    centre: float = 0.0
    away: float | None = None  # a kink to keep away from

    @property
    def explained(self) -> bool:
        return not self.held and self.values is None

    def draw(self, rng: np.random.Generator) -> NDArray[Any]:
        """Values of one run: float64 where they are real."""
        if self.values is not None:
            return self.values
        drawn = self.centre + rng.uniform(-self.scale, self.scale, self.shape)
        if self.away is not None:
            close = np.abs(drawn - self.away) < 0.1
            drawn = np.where(close, self.away + np.where(drawn < self.away, -0.1, 0.1), drawn)
        return np.asarray(drawn)


def real(*shape: int, **given: Any) -> Input:
    """A random input whose gradient is wanted."""
    return Input(shape, **given)


def held(*shape: int, **given: Any) -> Input:
    """A random initializer."""
    return Input(shape, held=True, **given)


def fed(values: ArrayLike, dtype: Any = np.int32) -> Input:
    """These values as an input at run time."""
    array = np.asarray(values, dtype)
    return Input(array.shape, array)


def constant(values: ArrayLike, dtype: Any = np.int64) -> Input:
    """These values as an initializer."""
    array = np.asarray(values, dtype)
    return Input(array.shape, array, held=True)


@dataclass(frozen=True)
class Case:
    """One node to lower. `outputs` says which outputs the node has: True for each that is compared."""

    operator: str
    label: str
    inputs: Sequence[Input | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[bool] = (True,)
    types: Mapping[int, Any] = field(default_factory=dict)  # of outputs that are no reals
    domain: str = MICROSOFT
    opsets: tuple[int, ...] = (17, 21)
    kernel: bool = True  # whether onnxruntime's CPU provider has the operator; else `expected` says what it gives
    expected: Any = None  # (inputs) -> first output, in NumPy
    differentiable: bool = True
    explained_output: int = 0
    tolerance: float = 2e-5
    slope: float | None = None  # how far the slope may be from differences; None: what these allow
    seed: int | None = None  # for what has jumps, which differences must not straddle

    def draw(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """A value for every input, by name."""
        return {f"x{i}": given.draw(rng) for i, given in enumerate(self.inputs) if given}

    @property
    def explained(self) -> list[str]:
        """Names of the inputs whose gradients are wanted."""
        return [f"x{i}" for i, given in enumerate(self.inputs) if given and given.explained]

    def model(
        self,
        arrays: Mapping[str, NDArray[Any]],
        dtype: Any,
        opset: int,
        *,
        static: bool,
        ranks: Mapping[str, int] | None = None,
    ) -> onnx.ModelProto:
        """The one-node model, with static shapes or with ranks only; `ranks` are those of the outputs."""
        inputs, initializers, names = [], [], []
        for index, given in enumerate(self.inputs):
            names.append(f"x{index}" if given else "")
            if given is None:
                continue
            array = as_dtype(arrays[f"x{index}"], dtype)
            if given.held:
                initializers.append(numpy_helper.from_array(array, f"x{index}"))
                continue
            element = helper.np_dtype_to_tensor_dtype(array.dtype)
            shape = array.shape if static else [None] * array.ndim
            inputs.append(helper.make_tensor_value_info(f"x{index}", element, shape))
        node = helper.make_node(
            self.operator,
            names,
            [f"y{i}" if used else "" for i, used in enumerate(self.outputs)],
            domain=self.domain,
            name="node",
            **self.attributes,
        )
        results = [
            helper.make_tensor_value_info(
                f"y{i}",
                helper.np_dtype_to_tensor_dtype(np.dtype(self.types.get(i, dtype))),
                None if ranks is None else [None] * ranks[f"y{i}"],
            )
            for i, used in enumerate(self.outputs)
            if used
        ]
        graph = helper.make_graph([node], "case", inputs, results, initializers)
        opsets = [helper.make_opsetid("", opset)]
        if self.domain:
            opsets.append(helper.make_opsetid(self.domain, _VERSIONS[self.domain]))
        return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 19 else 10)


def as_dtype(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Reals in the dtype of the run; everything else as it is."""
    return array.astype(dtype) if array.dtype == np.float64 else array

"""What goes into a node test and comes out of it: arrays, sequences of them, and optionals that are empty."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

__all__ = [
    "FLOATING",
    "Value",
    "epsilon_of",
    "equal",
    "finite_elements",
    "flattened",
    "is_floating_value",
    "random_direction",
    "shaped_like",
    "shifted",
]

# An array, a list of values (a sequence), or None (an optional without a value).
Value: TypeAlias = Any

FLOATING = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
}


def is_floating_value(value: Value) -> bool:
    """Whether there is a real number in `value`."""
    if isinstance(value, list):
        return any(is_floating_value(item) for item in value)
    return value is not None and value.dtype.name in FLOATING.values() and value.size > 0


def epsilon_of(value: Value) -> float:
    """The distance from one to the next number in the least precise of the dtypes of `value`."""
    if isinstance(value, list):
        return max((epsilon_of(item) for item in value), default=0.0)
    if value is None:
        return 0.0
    return {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}.get(
        value.dtype.name, 2.0**-7
    )


def random_direction(value: Value, steady: Value, rng: np.random.Generator) -> Value:
    """Normal random numbers in the shape of `value`, times `steady`."""
    if isinstance(value, list):
        return [random_direction(v, s, rng) for v, s in zip(value, steady, strict=True)]
    return None if value is None else np.asarray(rng.standard_normal(value.shape) * steady)


def finite_elements(value: Value) -> Value:
    """One where `value` is finite, zero where it is not."""
    if isinstance(value, list):
        return [finite_elements(item) for item in value]
    return None if value is None else np.isfinite(np.asarray(value, np.float64)).astype(np.float64)


def shifted(value: Value, direction: Value, position: float) -> Value:
    """`value + position * direction` in the dtype of `value`."""
    if isinstance(value, list):
        return [shifted(v, d, position) for v, d in zip(value, direction, strict=True)]
    if value is None:
        return None
    return np.asarray(value + (position * direction)).astype(value.dtype)


def flattened(value: Value) -> NDArray[np.float64]:
    """All elements of `value` in a row."""
    if isinstance(value, list):
        return np.concatenate([flattened(item) for item in value]) if value else np.zeros(0)
    return np.zeros(0) if value is None else np.asarray(value, np.float64).ravel()


def shaped_like(flat: NDArray[np.float64], like: Value) -> Value:
    """The elements `flat` in the shape of `like`."""
    if not isinstance(like, list):
        return flat.reshape(np.shape(like))
    ends = np.cumsum([flattened(item).size for item in like])
    return [
        shaped_like(part, item) for part, item in zip(np.split(flat, ends[:-1]), like, strict=True)
    ]


def equal(first: Value, second: Value) -> bool:
    """Whether both hold the same numbers."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return np.array_equal(np.asarray(first), np.asarray(second), equal_nan=is_floating_value(first))

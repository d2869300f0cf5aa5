"""What a caller passes in, checked against what the model declares: one clear line for every mismatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from igonnx.errors import InputError
from igonnx.model import Model, TensorInfo

__all__ = ["Arrays", "Baseline", "batched_inputs", "checked_baseline", "checked_inputs", "numpy_dtype"]

Arrays: TypeAlias = "ArrayLike | Mapping[str, ArrayLike]"
Baseline: TypeAlias = "float | ArrayLike | Mapping[str, float | ArrayLike] | None"


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of an ONNX dtype name such as "float32", "bfloat16" or "string"."""
    if name == "bfloat16":
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(object if name == "string" else name)


def checked_inputs(model: Model, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Arrays by input name, C-contiguous and of the model's dtypes.

    A bare array is for a model with one input. Raises `InputError` for missing or unknown names, wrong shapes, dtypes
    that would lose information, and values that are not finite.
    """
    named = _by_name(model.inputs, inputs)
    return {info.name: _checked(info, named[info.name]) for info in model.inputs}


def _by_name(declared: Sequence[TensorInfo], inputs: Arrays) -> Mapping[str, ArrayLike]:
    names = [info.name for info in declared]
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InputError(f"one array was given; the model has {len(names)} inputs: pass a dict of {names}")
        return {names[0]: inputs}
    missing = [name for name in names if name not in inputs]
    unknown = [name for name in inputs if name not in names]
    if missing or unknown:
        given = ", ".join(map(repr, inputs)) or "nothing"
        raise InputError(f"inputs given: {given}; the model expects {', '.join(map(repr, names))}")
    return inputs


def _checked(info: TensorInfo, given: ArrayLike) -> NDArray[Any]:
    array = _as_dtype(np.asarray(given), numpy_dtype(info.dtype), f"input {info.name!r}")
    if array.ndim != len(info.shape):
        raise InputError(f"input {info.name!r} has shape {list(array.shape)}; expected {_axes(info)}")
    for axis, (size, declared) in enumerate(zip(array.shape, info.shape, strict=True)):
        # The first axis counts examples: any number of them, also where the file says 1.
        if axis > 0 and isinstance(declared, int) and size != declared:
            raise InputError(f"input {info.name!r} has shape {list(array.shape)}; expected {_axes(info)}")
    if array.ndim and len(array) == 0:
        raise InputError(f"input {info.name!r} holds no examples: shape {list(array.shape)}")
    _require_finite(array, f"input {info.name!r}")
    return array


def _as_dtype(array: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """`array` as `dtype`: exact for integers and booleans, rounding allowed between floats."""
    if array.dtype == dtype:
        return np.ascontiguousarray(array).reshape(array.shape)
    floating = np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16
    convertible = array.dtype.kind in "biuf" and (floating or array.dtype.kind in "biu")
    if not convertible:
        raise InputError(f"{what} is {array.dtype}; expected {dtype}")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)
    if not floating and not np.array_equal(converted, array):
        raise InputError(f"{what} is {array.dtype} with values that {dtype} cannot hold")
    return converted


def _require_finite(array: NDArray[Any], what: str) -> None:
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
        return
    bad = ~np.isfinite(array)
    if bad.any():
        where = [int(i) for i in np.argwhere(bad)[0]]
        value = float(array[tuple(where)])
        raise InputError(f"{what} is {value} at {where} ({int(bad.sum())} such values); expected finite numbers")


def _axes(info: TensorInfo) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in info.shape) + "]"


def batched_inputs(model: Model, arrays: Mapping[str, NDArray[Any]], explained: Sequence[str]) -> list[str]:
    """Names of the inputs whose first axis counts examples.

    Explained inputs have it; another input has it when its first axis is as long as theirs and is declared symbolic,
    or fixed at the same number. Raises `InputError` when explained inputs disagree about the number of examples.
    """
    declared = {info.name: info.shape for info in model.inputs}
    lead = [name for name in explained if name in declared]
    if not lead:
        # Intermediate tensors are explained: the examples are counted by the inputs with a symbolic first axis.
        lead = [n for n, shape in declared.items() if shape and not isinstance(shape[0], int)] or [
            n for n, shape in declared.items() if shape
        ]
    counts = {name: len(arrays[name]) for name in lead}
    if explained and len(set(counts.values())) > 1 and any(name in declared for name in explained):
        raise InputError(f"inputs hold different numbers of examples: {counts}")
    total = counts[lead[0]]
    fixed = declared[lead[0]][0]
    batched = []
    for name, shape in declared.items():
        free = bool(shape) and (not isinstance(shape[0], int) or shape[0] == fixed)
        if name in explained or (free and len(arrays[name]) == total):
            batched.append(name)
    return batched


def checked_baseline(
    baseline: Baseline, x: Mapping[str, NDArray[Any]], dtype: DTypeLike
) -> dict[str, NDArray[Any]]:
    """Baselines by tensor name, of the shapes of `x` [R, ...]: zeros for None, filled for a number, else broadcast."""
    if not isinstance(baseline, Mapping):
        if len(x) > 1 and baseline is not None and np.ndim(baseline) > 0:
            raise InputError(f"one baseline array was given for {len(x)} explained tensors: pass a dict of {list(x)}")
        baseline = dict.fromkeys(x, baseline)  # type: ignore[arg-type]
    unknown = [name for name in baseline if name not in x]
    if unknown:
        raise InputError(f"baseline for {unknown[0]!r}, which is not explained; expected {', '.join(map(repr, x))}")
    return {name: _filled(baseline.get(name), array, name, np.dtype(dtype)) for name, array in x.items()}


def _filled(given: Any, x: NDArray[Any], name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    if given is None:
        return np.zeros(x.shape, dtype)
    array = _as_dtype(np.asarray(given), dtype, f"baseline of {name!r}")
    _require_finite(array, f"baseline of {name!r}")
    try:
        return np.ascontiguousarray(np.broadcast_to(array, x.shape))
    except ValueError as error:
        raise InputError(
            f"baseline of {name!r} has shape {list(array.shape)}; expected {list(x.shape)}, or a shape that "
            "broadcasts to it"
        ) from error

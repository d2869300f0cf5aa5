"""What a caller passes in, checked against what the model declares: one clear line for every mismatch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike, NDArray

from igonnx.errors import InputError
from igonnx.model import Model, TensorInfo

__all__ = [
    "Arrays",
    "Baseline",
    "BatchedInputs",
    "batched_inputs",
    "checked_baseline",
    "checked_inputs",
    "numpy_dtype",
]

Arrays: TypeAlias = "ArrayLike | Mapping[str, ArrayLike]"
Baseline: TypeAlias = "float | ArrayLike | Mapping[str, float | ArrayLike] | None"


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of an ONNX dtype name such as "float32", "bfloat16" or "string"."""
    if name == "string":
        return np.dtype(object)
    try:
        return np.dtype(name)
    except TypeError:  # bfloat16, float8e4m3fn, int4, ...
        return np.dtype(ir.DataType[name.upper()].numpy())


def checked_inputs(
    model: Model, inputs: Arrays, explained: Collection[str] = ()
) -> dict[str, NDArray[Any]]:
    """Arrays by input name, C-contiguous and of the model's dtypes.

    A bare array is for a model with one input. Raises `InputError` for missing or unknown names, wrong shapes, dtypes
    that would lose information, NaN, and infinite values in what is explained (a mask may well hold them).
    """
    named = _by_name(model.inputs, inputs)
    arrays = {}
    for info in model.inputs:
        arrays[info.name] = array = _checked(info, named[info.name])
        _require_finite(array, f"input {info.name!r}", infinite=info.name not in explained)
    return arrays


def _by_name(declared: Sequence[TensorInfo], inputs: Arrays) -> Mapping[str, ArrayLike]:
    names = [info.name for info in declared]
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InputError(
                f"one array was given; the model has {len(names)} inputs: pass a dict of {names}"
            )
        return {names[0]: inputs}
    missing = [name for name in names if name not in inputs]
    unknown = [name for name in inputs if name not in names]
    if missing or unknown:
        given = ", ".join(map(repr, inputs)) or "nothing"
        raise InputError(f"inputs given: {given}; the model expects {', '.join(map(repr, names))}")
    return inputs


def _checked(info: TensorInfo, given: ArrayLike) -> NDArray[Any]:
    what = f"input {info.name!r}"
    if info.dtype == "unknown":
        raise InputError(f"{what} is no tensor: only models with tensor inputs can be run")
    array = _as_dtype(_as_array(given, what), numpy_dtype(info.dtype), what)
    # The first axis counts examples: any number of them, also where the file says 1.
    fits = array.ndim == len(info.shape) and all(
        size == declared
        for size, declared in zip(array.shape[1:], info.shape[1:], strict=True)
        if isinstance(declared, int)
    )
    if not fits:
        raise InputError(f"{what} has shape {list(array.shape)}; expected {_axes(info)}")
    if array.ndim and len(array) == 0:
        raise InputError(f"input {info.name!r} holds no examples: shape {list(array.shape)}")
    return array


def _as_array(given: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except ValueError as error:  # lists of different lengths
        raise InputError(
            f"{what} cannot be made an array: {' '.join(str(error).split())}"
        ) from error


def _as_dtype(array: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """`array` as `dtype`: exact for integers and booleans, rounding allowed between floats."""
    strings = dtype.kind == "O"
    if array.dtype == dtype or (strings and array.dtype.kind == "U"):
        array = array.astype(dtype, copy=False)
        return np.ascontiguousarray(array).reshape(array.shape)
    floating = np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16
    if strings:
        raise InputError(f"{what} is {array.dtype}; expected strings")
    convertible = array.dtype.kind in "biuf" and (floating or array.dtype.kind in "biu")
    if not convertible:
        raise InputError(f"{what} is {array.dtype}; expected {dtype}")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)
    if not floating and not np.array_equal(converted, array):
        raise InputError(f"{what} is {array.dtype} with values that {dtype} cannot hold")
    return converted


def _require_finite(array: NDArray[Any], what: str, *, infinite: bool = False) -> None:
    """Refuse NaN, and infinite values too unless `infinite` allows them."""
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
        return
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        where = [int(i) for i in np.argwhere(bad)[0]]
        value, place = float(array[tuple(where)]), f" at {where}" if where else ""
        more = f" ({int(bad.sum())} such values)" if where else ""
        raise InputError(f"{what} is {value}{place}{more}; expected finite numbers")


def _axes(info: TensorInfo) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in info.shape) + "]"


@dataclass(frozen=True)
class BatchedInputs:
    """Names of the inputs whose first axis counts examples: those that certainly do, and those that may."""

    certain: tuple[str, ...]
    possible: tuple[str, ...]


def batched_inputs(
    model: Model, arrays: Mapping[str, NDArray[Any]], explained: Sequence[str]
) -> BatchedInputs:
    """Which inputs count examples along their first axis.

    Explained inputs do, and inputs whose first axis is declared with the same symbol or number. One with another symbol
    may, if it happens to be as long and the symbol does not also name a later axis: exporters name batch axes at will.
    Raises `InputError` when inputs disagree about the number of examples.
    """
    declared = {info.name: info.shape for info in model.inputs}
    lead = [name for name in explained if name in declared] or _counting_inputs(model)
    if not lead:
        return BatchedInputs((), ())
    for name in lead:
        if arrays[name].ndim == 0:
            raise InputError(
                f"wrt {name!r} is a scalar: it has no batch axis to explain examples along"
            )
    counts = {name: len(arrays[name]) for name in lead}
    total, first = counts[lead[0]], declared[lead[0]][0]
    same = {n: len(arrays[n]) for n, shape in declared.items() if shape and shape[0] == first}
    counts |= {n: size for n, size in same.items() if isinstance(first, str) and size != 1}
    if len(set(counts.values())) > 1:
        raise InputError(
            f"inputs hold different numbers of examples: {counts}; name those to explain with wrt="
        )
    certain, possible = [], []
    for info in model.inputs:
        name, array = info.name, arrays[info.name]
        leads = info.shape[0] if info.shape else None
        counted = array.ndim > 0 and len(array) == total
        if name in explained or (counted and leads == first and leads is not None):
            certain.append(name)
        elif counted and not isinstance(leads, int) and leads not in model.inner_symbols:
            possible.append(name)
        elif isinstance(leads, int) and len(array) != leads:
            raise InputError(
                f"input {name!r} has shape {list(array.shape)}; expected {_axes(info)}"
            )
    if not certain:
        certain, possible = possible, []
    return BatchedInputs(tuple(certain), tuple(possible))


def _counting_inputs(model: Model) -> list[str]:
    """Inputs that count the examples where intermediate tensors are explained: those with a symbolic first axis."""
    inner = model.inner_symbols
    shaped = [info for info in model.inputs if info.shape]
    symbolic = [
        info for info in shaped if not isinstance(info.shape[0], int) and info.shape[0] not in inner
    ]
    chosen = symbolic or shaped
    return [info.name for info in chosen if info.shape[0] == chosen[0].shape[0]]


def checked_baseline(
    baseline: Baseline, x: Mapping[str, NDArray[Any]], dtype: DTypeLike
) -> dict[str, NDArray[Any]]:
    """Baselines by tensor name, of the shapes of `x` [R, ...]: zeros for None, filled for a number, else broadcast."""
    named: dict[str, Any]
    if isinstance(baseline, Mapping):
        named = dict(baseline)
    else:
        if len(x) > 1 and baseline is not None and _as_array(baseline, "baseline").ndim > 0:
            raise InputError(
                f"one baseline array was given for {len(x)} explained tensors: pass a dict of {list(x)}"
            )
        named = dict.fromkeys(x, baseline)
    unknown = [name for name in named if name not in x]
    if unknown:
        raise InputError(
            f"baseline for {unknown[0]!r}, which is not explained; expected {', '.join(map(repr, x))}"
        )
    return {
        name: _filled(named.get(name), array, name, np.dtype(dtype)) for name, array in x.items()
    }


def _filled(given: Any, x: NDArray[Any], name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    if given is None:
        return np.zeros(x.shape, dtype)
    what = f"baseline of {name!r}"
    array = _as_dtype(_as_array(given, what), dtype, what)
    _require_finite(array, f"baseline of {name!r}")
    try:
        return np.ascontiguousarray(np.broadcast_to(array, x.shape))
    except ValueError as error:
        raise InputError(
            f"baseline of {name!r} has shape {list(array.shape)}; expected {list(x.shape)}, or a shape that "
            "broadcasts to it"
        ) from error

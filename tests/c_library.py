"""libigonnx through ctypes: the structs of csrc/include/igonnx/igonnx.h, and calls that raise."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

__all__ = [
    "CANCELLED",
    "DEADLINE",
    "INVALID_ARGUMENT",
    "MODEL_ERROR",
    "NOT_FINITE",
    "RULES",
    "RUNTIME_ERROR",
    "CError",
    "CExplainer",
    "CLibrary",
    "Explained",
    "Options",
    "Request",
]

INVALID_ARGUMENT, MODEL_ERROR, RUNTIME_ERROR, NOT_FINITE, DEADLINE, CANCELLED = range(1, 7)
RULES = {"gauss_legendre": 0, "trapezoid": 1, "middle": 2, "left": 3, "right": 4}
ROLES = ("explained", "per example", "shared", "output")

Progress = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_int64, ct.c_int64)


class _Error(ct.Structure):
    _fields_ = [("code", ct.c_int32), ("message", ct.c_char * 1020)]


class _Array(ct.Structure):
    _fields_ = [
        ("name", ct.c_char_p),
        ("data", ct.c_void_p),
        ("shape", ct.POINTER(ct.c_int64)),
        ("rank", ct.c_size_t),
        ("type", ct.c_int32),
    ]


class Provider(ct.Structure):
    _fields_ = [
        ("name", ct.c_char_p),
        ("keys", ct.POINTER(ct.c_char_p)),
        ("values", ct.POINTER(ct.c_char_p)),
        ("option_count", ct.c_size_t),
    ]


class Options(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("threads", ct.c_int32),
        ("batch_size", ct.c_int64),
        ("queue_limit", ct.c_size_t),
        ("name", ct.c_char_p),
        ("external_data_folder", ct.c_char_p),
        ("providers", ct.POINTER(Provider)),
        ("provider_count", ct.c_size_t),
    ]


class _TensorInfo(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("name", ct.c_char_p),
        ("shape", ct.POINTER(ct.c_int64)),
        ("rank", ct.c_size_t),
        ("type", ct.c_int32),
        ("role", ct.c_int32),
    ]


class Request(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("inputs", ct.POINTER(_Array)),
        ("input_count", ct.c_size_t),
        ("baselines", ct.POINTER(_Array)),
        ("baseline_count", ct.c_size_t),
        ("target", ct.POINTER(ct.c_int64)),
        ("target_count", ct.c_size_t),
        ("cotangent", ct.POINTER(_Array)),
        ("rule", ct.c_int32),
        ("steps", ct.c_int64),
        ("timeout_seconds", ct.c_double),
        ("cancel", ct.c_void_p),
        ("progress", Progress),
        ("user", ct.c_void_p),
    ]


class _Result(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_size_t),
        ("attribution", ct.POINTER(ct.c_void_p)),
        ("attribution_count", ct.c_size_t),
        ("score", ct.c_void_p),
        ("baseline_score", ct.c_void_p),
        ("delta", ct.c_void_p),
        ("path_score", ct.c_void_p),
        ("path_slope", ct.c_void_p),
    ]


class CError(Exception):
    """A code other than IGONNX_OK, and the message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Explained:
    values: dict[str, NDArray[Any]]
    score: NDArray[np.float64]
    baseline_score: NDArray[np.float64]
    delta: NDArray[np.float64]
    path_score: NDArray[np.float64]
    path_slope: NDArray[np.float64]


class CLibrary:
    """The functions of the library; `runtime` is ONNX Runtime's shared library."""

    def __init__(self, library: Path, runtime: Path) -> None:
        self.functions = ct.CDLL(str(library))
        self._runtime = ct.CDLL(str(runtime))
        self._runtime.OrtGetApiBase.restype = ct.c_void_p
        self.base = ct.c_void_p(self._runtime.OrtGetApiBase())
        self.functions.igonnx_cancel_token_create.restype = ct.c_void_p
        self.functions.igonnx_version.restype = ct.c_char_p
        self.functions.igonnx_input_count.restype = ct.c_size_t
        self.functions.igonnx_free.restype = None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function whose last parameter is the error; raises CError."""
        error = _Error(code=-1)
        code = getattr(self.functions, f"igonnx_{name}")(*arguments, ct.byref(error))
        assert code == error.code
        if code != 0:
            raise CError(code, error.message.decode())
        assert error.message == b""

    def create(self, model: Path | bytes, **options: Any) -> CExplainer:
        made = ct.c_void_p(1)
        chosen = ct.byref(Options(ct.sizeof(Options), **options)) if options else None
        if isinstance(model, bytes):
            source: list[Any] = [model, ct.c_size_t(len(model))]
            name = "create_from_memory"
        else:
            name, source = "create", [str(model).encode()]
        try:
            self.call(name, self.base, *source, chosen, ct.byref(made))
        except CError:
            assert made.value is None
            raise
        return CExplainer(self, made)

    def path(self, rule: int, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        count = ct.c_size_t()
        alpha, weight = np.empty(max(steps, 0) + 2), np.empty(max(steps, 0) + 2)
        self.call(
            "path",
            ct.c_int32(rule),
            ct.c_int64(steps),
            _data(alpha),
            _data(weight),
            ct.byref(count),
        )
        return alpha[: count.value], weight[: count.value]


class CExplainer:
    """An igonnx_explainer, freed at the end of a `with`."""

    def __init__(self, library: CLibrary, handle: ct.c_void_p) -> None:
        self.library, self.handle = library, handle

    def __enter__(self) -> CExplainer:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.library.functions.igonnx_free(self.handle)

    def inputs(self) -> list[tuple[str, str, list[int], int]]:
        """Role, name, shape and type of each input."""
        count = self.library.functions.igonnx_input_count(self.handle)
        return [self._info("input_info", ct.c_size_t(i)) for i in range(count)]

    def output(self) -> tuple[str, str, list[int], int]:
        return self._info("output_info")

    def _info(self, function: str, *index: Any) -> tuple[str, str, list[int], int]:
        info = _TensorInfo(ct.sizeof(_TensorInfo))
        self.library.call(function, self.handle, *index, ct.byref(info))
        return ROLES[info.role], info.name.decode(), info.shape[: info.rank], info.type

    def explain(
        self,
        inputs: NDArray[Any] | Mapping[str, NDArray[Any]],
        *,
        target: Sequence[int] | int | None = None,
        baseline: NDArray[Any] | Mapping[str, NDArray[Any]] | None = None,
        cotangent: NDArray[Any] | None = None,
        steps: int = 50,
        rule: str = "gauss_legendre",
        timeout: float = 0.0,
        cancel: ct.c_void_p | None = None,
        progress: Callable[[int, int], int] | None = None,
        **changes: Any,
    ) -> Explained:
        """Explain; `changes` are fields of the request."""
        keep: list[Any] = []
        arrays, starts = _named(inputs), _named({} if baseline is None else baseline)
        targets = [] if target is None else [target] if isinstance(target, int) else list(target)
        request = Request(
            struct_size=ct.sizeof(Request),
            inputs=_structs(arrays, keep),
            input_count=len(arrays),
            baselines=_structs(starts, keep),
            baseline_count=len(starts),
            target=(ct.c_int64 * len(targets))(*targets) if targets else None,
            target_count=len(targets),
            cotangent=None if cotangent is None else _structs({None: cotangent}, keep),
            rule=RULES[rule],
            steps=steps,
            timeout_seconds=timeout,
            cancel=cancel,
            progress=Progress(0 if progress is None else lambda _user, *rows: progress(*rows)),
        )
        for name, value in changes.items():
            setattr(request, name, value)
        if None in arrays:
            arrays = {self.inputs()[0][1]: arrays[None]}
        explained = [name for role, name, *_ in self.inputs() if role == "explained"]
        values = {
            str(name): np.full_like(a, np.nan) for name, a in arrays.items() if name in explained
        }
        examples = len(next(iter(values.values()), np.empty((1, 1))))
        points = max(steps, 0) + 2
        score, start, delta = (np.full(examples, np.nan) for _ in range(3))
        path_score, path_slope = np.empty((2, examples * points))
        result = _Result(
            ct.sizeof(_Result),
            (ct.c_void_p * len(values))(
                *(values[name].ctypes.data for name in explained if name in values)
            ),
            len(values),
            *(array.ctypes.data for array in (score, start, delta, path_score, path_slope)),
        )
        try:
            self.library.call("explain", self.handle, ct.byref(request), ct.byref(result))
        except CError:
            assert all(np.isnan(array).all() for array in (*values.values(), score, start, delta))
            raise
        used = examples * len(self.library.path(RULES[rule], steps)[0])
        paths = (path[:used].reshape(examples, -1) for path in (path_score, path_slope))
        return Explained(values, score, start, delta, *paths)


def _named(arrays: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Mapping[Any, NDArray[Any]]:
    return arrays if isinstance(arrays, Mapping) else {None: arrays}


def _data(array: NDArray[Any]) -> ct.c_void_p:
    return ct.c_void_p(array.ctypes.data)


def _structs(arrays: Mapping[Any, NDArray[Any]], keep: list[Any]) -> Any:
    """An array of igonnx_array; `keep` keeps what it points at."""
    if not arrays:
        return None
    structs = (_Array * len(arrays))()
    for struct, (name, array) in zip(structs, arrays.items(), strict=True):
        array = np.asarray(array, order="C")
        shape = (ct.c_int64 * max(array.ndim, 1))(*np.shape(array))
        keep += [array, shape]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        struct.name = None if name is None else name.encode()
        struct.data, struct.shape = array.ctypes.data, shape
        struct.rank, struct.type = array.ndim, kind
    return structs

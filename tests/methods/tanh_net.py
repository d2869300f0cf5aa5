"""A small network of two inputs, as an ONNX model and in NumPy, in double precision and with its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["CLASSES", "Arrays", "TanhNet", "as_dict", "assert_close"]

Arrays = Mapping[str, NDArray[Any]]
CLASSES = 3


@dataclass(frozen=True)
class TanhNet:
    """y = tanh(a W + b U + c) V for a [N, 2, 3] and b [N, 4], with three classes."""

    weights: dict[str, NDArray[np.float64]]

    @classmethod
    def make(cls, seed: int = 0) -> TanhNet:
        rng = np.random.default_rng(seed)
        shapes = {"w": (6, 8), "u": (4, 8), "c": (8,), "v": (8, CLASSES)}
        return cls({name: rng.normal(size=shape) / 2 for name, shape in shapes.items()})

    def onnx(self, build: Callable[..., onnx.ModelProto], dtype: Any = np.float32) -> Any:
        kind = {np.float32: "float", np.float64: "double"}[dtype]
        arrays: dict[str, Any] = {name: w.astype(dtype) for name, w in self.weights.items()}
        return build(
            f"""({kind}[N, 2, 3] a, {kind}[N, 4] b) => ({kind}[N, {CLASSES}] y) {{
                f = Flatten(a)
                p = Gemm(f, w, c)
                q = MatMul(b, u)
                h = Add(p, q)
                t = Tanh(h)
                y = MatMul(t, v)
            }}""",
            arrays,
        )

    def inputs(self, count: int, seed: int = 1, dtype: Any = np.float32) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        return {
            name: rng.normal(size=(count, *shape)).astype(dtype)
            for name, shape in {"a": (2, 3), "b": (4,)}.items()
        }

    def outputs(self, at: Arrays) -> NDArray[np.float64]:
        """[N, classes]"""
        return np.asarray(np.tanh(self._hidden(at)) @ self.weights["v"])

    def score(self, at: Arrays, target: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.take_along_axis(self.outputs(at), target[:, None], axis=1)[:, 0])

    def gradient(self, at: Arrays, target: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        back = self.weights["v"].T[target] * (1 - np.tanh(self._hidden(at)) ** 2)
        return {
            "a": (back @ self.weights["w"].T).reshape(at["a"].shape),
            "b": back @ self.weights["u"].T,
        }

    def integrated_gradients(
        self, x: Arrays, baseline: Arrays, target: NDArray[np.int64], steps: int
    ) -> dict[str, NDArray[np.float64]]:
        """By the Gauss-Legendre rule."""
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        total = {name: np.zeros(array.shape) for name, array in x.items()}
        for alpha, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            at = {name: baseline[name] + alpha * (x[name] - baseline[name]) for name in x}
            for name, gradient in self.gradient(at, target).items():
                total[name] += weight * gradient * (x[name] - baseline[name])
        return total

    def _hidden(self, at: Arrays) -> NDArray[np.float64]:
        w = self.weights
        flat = at["a"].reshape(len(at["a"]), -1).astype(np.float64)
        return np.asarray(flat @ w["w"] + at["b"].astype(np.float64) @ w["u"] + w["c"])


def as_dict(values: Any) -> dict[str, NDArray[Any]]:
    """The values of an attribution of several tensors."""
    assert isinstance(values, dict)
    return values


def assert_close(found: Any, expected: Arrays, bound: float = 2e-6) -> None:
    """Values of all tensors, each within `bound` of its largest."""
    values = as_dict(found)
    assert set(values) == set(expected)
    for name, array in expected.items():
        assert values[name].shape == array.shape
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(values[name], array, rtol=0, atol=bound * max(scale, 1e-12))

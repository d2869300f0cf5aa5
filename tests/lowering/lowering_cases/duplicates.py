"""Operators that the standard has under another name, or could have."""

from __future__ import annotations

import numpy as np

from lowering_cases.case import Case, constant, fed, held, real


def _microsoft():
    x = real(2, 3, 4)
    for axis in (0, 2, -1):
        yield Case("ExpandDims", f"{axis}", [x, constant(axis, np.int32)])
    yield Case("ExpandDims", "at run time", [x, fed(1)])
    yield Case("GatherND", "rows", [x, fed([[0, 2], [1, 1], [0, 2]], np.int64)])
    yield Case("GatherND", "slices", [x, constant([[1], [1]], np.int32)])
    yield Case("Trilu", "upper", [x])
    yield Case("Trilu", "lower", [x, constant(1)], {"upper": 0})
    pads = constant([0, 1, 0, 1, 0, 2])
    yield Case("Pad", "constant", [x, pads, held()])
    yield Case("Pad", "flat", [x, constant([[0, 1, 0, 1, 0, 2]]), held(1)])
    yield Case("Pad", "reflect", [x, pads], {"mode": "reflect"})
    yield Case("Pad", "edge", [x, pads], {"mode": "edge"})
    for mode in ("bilinear", "nearest", "bicubic"):
        grid = real(2, 3, 2, 2, scale=0.8)
        inputs = [real(2, 3, 5, 4), grid if mode == "bicubic" else held(2, 3, 2, 2)]
        yield Case(
            "GridSample", mode, inputs, {"mode": mode, "padding_mode": "border"}, tolerance=1e-4,
            slope=1e-2,  # cubic in the grid, by a wide step
        )  # fmt: skip
    yield Case("CDist", "squared", [real(3, 4), real(5, 4)])
    yield Case("CDist", "euclidean", [real(3, 4), real(5, 4)], {"metric": "euclidean"})
    yield Case("Unique", "numbers", [fed([2, 1, 1, 3, 4, 3], np.float32)], {}, (True, True, True),
               {1: np.int64, 2: np.int64})  # fmt: skip
    yield Case("UnfoldTensor", "last", [real(2, 9)], {"size": 3, "step": 2})
    yield Case("UnfoldTensor", "inner", [real(2, 7, 3)], {"size": 2, "dim": 1})
    yield Case("ConvTransposeWithDynamicPads", "pads",
               [real(1, 2, 4, 5), held(2, 3, 3, 3), constant([1, 0, 1, 1]), held(3)],
               {"strides": [2, 1]})  # fmt: skip
    yield Case("GatedAdd", "rows", [x, real(2, 3, 4), real(2, 3, 1)])
    yield Case(
        "Range", "step", [real(scale=0.1), fed(np.float32(5.3), np.float32)], differentiable=False
    )


def _complex(a, b, conjugate):
    z, w = a[..., 0] + 1j * a[..., 1], b[..., 0] + 1j * b[..., 1]
    product = z * (w.conj() if conjugate else w)
    return np.stack([product.real, product.imag], -1)


def _without_kernel():
    a, b = real(2, 3, 2), real(2, 3, 2)
    for name, conjugate in [("ComplexMul", False), ("ComplexMulConj", True)]:
        yield Case(name, "rows", [a, b], kernel=False,
                   expected=lambda a, b, c=conjugate: _complex(a, b, c))  # fmt: skip

    def rfft(x):
        spectrum = np.fft.rfft(x)
        return np.stack([spectrum.real, spectrum.imag], -1)

    yield Case("Rfft", "rows", [real(2, 3, 8)], {"signal_ndim": 1}, kernel=False, expected=rfft)
    yield Case(
        "Irfft", "rows", [real(2, 3, 5, 2)], {"signal_ndim": 1}, kernel=False,
        expected=lambda x: np.fft.irfft(x[..., 0] + 1j * x[..., 1]),
    )  # fmt: skip


CASES = [*_microsoft(), *_without_kernel()]

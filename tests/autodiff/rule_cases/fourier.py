"""DFT and STFT: lengths that are powers of two and not, cut and filled up, real and complex, one-sided."""

from __future__ import annotations

import itertools

import numpy as np

from rule_cases.case import Case, constant, fed, held, real

# ONNX Runtime's transform takes pi to nine digits.
_TOLERANCE = 1e-6


def _dft():
    shapes = [((2, 6), 1), ((1, 8), 1), ((2, 3, 5), -3), ((2, 5, 3), 1)]
    flags = itertools.product(shapes, (0, 1), (0, 1), (1, 2), (None, 4, 9))
    for index, ((shape, axis), inverse, onesided, parts, length) in enumerate(flags):
        kept = (length or 2 * (shape[axis % (len(shape) + 1)] - 1)) // 2 + 1
        # One-sided spectra come from real signals, and as many frequencies go back as the length has.
        if onesided and (
            parts == (1 if inverse else 2) or (inverse and shape[axis % (len(shape) + 1)] > kept)
        ):
            continue
        x = real(*shape, parts, fixed=(len(shape),))
        given = {"inverse": inverse, "onesided": onesided}
        label = f"{shape} axis {axis} inverse {inverse} onesided {onesided} parts {parts} length {length}"
        give = (constant, fed)[index % 2]
        lengths = None if length is None else give(np.array(length))
        yield _case(
            "DFT", label, [x, *([lengths] if lengths else [])], {**given, "axis": axis}, (17,)
        )
        inputs = [x, lengths, (fed, constant)[index % 2](np.array(axis))]
        yield _case("DFT", label + " 20", inputs, given, (20, 99))
    yield _case("DFT", "default axis", [real(2, 3, 4, 1, fixed=(3,))], {}, (17, 20))
    yield _case("DFT", "unknown parts", [real(2, 3, 2)], {}, (17, 20))


def _stft():
    for onesided, parts, step in itertools.product((0, 1), (1, 2), (2, 3, 5)):
        if onesided and parts == 2:
            continue
        x = real(2, 14, parts, fixed=(2,))
        given = {"onesided": onesided}
        label = f"onesided {onesided} parts {parts} step {step}"
        window = real(5) if step == 2 else held(4)
        inputs = [x, constant(np.array(step)), window]
        yield _case("STFT", f"{label} window", inputs, given, (17, 99), linear=False)
        inputs = [x, fed(np.array(step)), None, constant(np.array(6))]
        yield _case("STFT", label, inputs, given, (17, 99))
        inputs = [x, constant(np.array(step)), real(6), fed(np.array(6))]
        yield _case("STFT", f"{label} both", inputs, given, (17,), linear=False)


def _case(operator, label, inputs, given, opsets, linear=True):
    return Case(operator, label, inputs, given, opsets, linear=linear, tolerance=_TOLERANCE)


CASES = [*_dft(), *_stft()]

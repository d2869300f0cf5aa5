"""How the outputs of a node test move along random lines of each of its inputs.

Differences are taken per element of every output, so that a kink in one element shows. They come from the model in
float64 in onnxruntime, else from onnx's reference implementation in float64, else from the model as it is with larger
steps. A slope counts where central differences of two steps agree and the one-sided ones tend to each other.
"""

from __future__ import annotations

import contextlib
import io
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from node_tests.runtime import Runtime, RuntimeRefusal
from node_tests.suite import NodeTest, Value, is_floating_value
from node_tests.widening import in_float64, wide

__all__ = ["Findings", "Line", "examine"]

Forward = Callable[[Mapping[str, Any]], dict[str, Any]]

LINES = 2  # random directions per input
WIDE_STEPS = (1e-5, 1e-6, 1e-7, 1e-4)
NARROW_STEPS = (1.0, 0.25, 0.06, 0.015, 0.004)


@dataclass(frozen=True)
class Line:
    """What moving the input `wrt` along `direction` does to each output: slopes per element, for those that move."""

    wrt: str
    direction: Value
    slopes: dict[str, Value]


@dataclass
class Findings:
    """What is known of a test: the outputs of the model as it is, and lines; `reason` says why there are none."""

    outputs: dict[str, Value] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    reason: str = ""
    source: str = ""  # what the differences were computed with

    @property
    def pairs(self) -> dict[str, list[str]]:
        """Per output that moves, the inputs that move it."""
        found: dict[str, list[str]] = {}
        for line in self.lines:
            for output in line.slopes:
                names = found.setdefault(output, [])
                if line.wrt not in names:
                    names.append(line.wrt)
        return found


class Unsteady(Exception):
    """Differences do not settle: a kink, a jump, or rounding."""


def examine(test: NodeTest) -> Findings:
    """Run the test as it comes and take its differences."""
    if not any(is_floating_value(test.feeds[name]) for name in test.floating_inputs):
        return Findings(reason="no floating input")
    if not test.floating_outputs:
        return Findings(reason="no floating output")
    findings = Findings()
    try:
        runtime = Runtime(test.model)
        names = runtime.output_names
        findings.outputs = runtime(test.feeds, names)
        again = runtime(test.feeds, names)
    except RuntimeRefusal as error:
        findings.reason = f"onnxruntime: {error}"
        return findings
    if not all(_equal(findings.outputs[name], again[name]) for name in names):
        findings.reason = "random"
        return findings
    moving = [name for name in test.floating_outputs if is_floating_value(findings.outputs[name])]
    finite = [name for name in moving if _finite(findings.outputs[name])]
    if not finite:
        findings.reason = "output not finite" if moving else "outputs are empty"
        return findings
    _take_differences(test, findings, finite, runtime)
    return findings


def _take_differences(
    test: NodeTest, findings: Findings, outputs: list[str], runtime: Runtime
) -> None:
    """Fill `findings` from the first way of computing that settles for all inputs, or from the best one."""
    trouble = []
    best: list[Line] = []
    for source, forward, feeds, steps in _forwards(test, outputs, runtime):
        try:
            base = forward(feeds)
        except (RuntimeRefusal, _ReferenceRefusal) as error:
            trouble.append(f"{source}: {error}")
            continue
        if not all(_close(base[name], findings.outputs[name]) for name in outputs):
            trouble.append(f"{source}: gives something else")
            continue
        lines, unsteady = _lines(test, forward, feeds, base, steps)
        if len(lines) > len(best):
            best, findings.source = lines, source
        if not unsteady:
            break
        trouble += [f"{source}: {reason}" for reason in unsteady]
        if source != "float32":
            # A kink stays one in float32.
            break
    findings.lines = best
    if not best:
        findings.reason = "; ".join(trouble) if trouble else "no input moves an output"


def _forwards(
    test: NodeTest, outputs: list[str], runtime: Runtime
) -> Iterator[tuple[str, Forward, dict[str, Any], tuple[float, ...]]]:
    widened, kept = in_float64(test.model)
    feeds = {
        name: value if name in kept else wide(value) for name, value in test.feeds.items()
    }
    with contextlib.suppress(RuntimeRefusal):
        precise = Runtime(widened)
        yield "float64", lambda given: precise(given, outputs), feeds, WIDE_STEPS
    everything = {name: wide(value) for name, value in test.feeds.items()}
    with contextlib.suppress(_ReferenceRefusal):
        reference = _reference(widened, outputs)
        yield "reference", reference, everything, WIDE_STEPS
    yield "float32", lambda given: runtime(given, outputs), dict(test.feeds), NARROW_STEPS


class _ReferenceRefusal(Exception):
    """onnx's reference implementation cannot run this model."""


def _reference(model: onnx.ModelProto, outputs: list[str]) -> Forward:
    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:  # noqa: BLE001 - it raises whatever happens to go wrong
        raise _ReferenceRefusal(type(error).__name__) from error

    def forward(feeds: Mapping[str, Any]) -> dict[str, Any]:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                with contextlib.redirect_stdout(io.StringIO()):
                    results = evaluator.run(outputs, dict(feeds))
        except Exception as error:  # noqa: BLE001 - as above
            raise _ReferenceRefusal(f"{type(error).__name__}: {error}"[:200]) from error
        return {
            name: _as_arrays(value) for name, value in zip(outputs, results, strict=True)
        }

    return forward


def _lines(
    test: NodeTest,
    forward: Forward,
    feeds: Mapping[str, Any],
    base: Mapping[str, Any],
    steps: tuple[float, ...],
) -> tuple[list[Line], list[str]]:
    rng = np.random.default_rng(zlib.crc32(test.name.encode()))
    lines, unsteady = [], []
    for name in test.floating_inputs:
        if not is_floating_value(feeds[name]):
            continue
        for _ in range(LINES):
            direction = _direction(feeds[name], rng)
            try:
                slopes = _slopes(forward, feeds, base, name, direction, steps)
            except (Unsteady, RuntimeRefusal, _ReferenceRefusal) as error:
                unsteady.append(f"{name}: {error}")
                break
            if slopes:
                lines.append(Line(name, direction, slopes))
    return lines, unsteady


def _slopes(
    forward: Forward,
    feeds: Mapping[str, Any],
    base: Mapping[str, Any],
    wrt: str,
    direction: Value,
    steps: tuple[float, ...],
) -> dict[str, Value]:
    def at(position: float) -> dict[str, NDArray[np.float64]]:
        moved = forward({**feeds, wrt: _shifted(feeds[wrt], direction, position)})
        return {name: _flat(value) for name, value in moved.items()}

    middle = {name: _flat(value) for name, value in base.items()}
    reason = "?"
    for step in steps:
        ends = [at(step), at(-step), at(step / 2), at(-step / 2)]
        if any(_sizes(end) != _sizes(middle) for end in ends):
            reason = "an output changes its shape"
            continue
        slopes = {}
        try:
            for name in middle:
                values = [middle[name], *(end[name] for end in ends)]
                slope = _slope(*values, step, feeds[wrt], steps is NARROW_STEPS)
                if slope is not None:
                    slopes[name] = _unflattened(slope, base[name])
        except Unsteady as error:
            reason = str(error)
            continue
        return slopes
    raise Unsteady(reason)


def _slope(
    middle: NDArray[np.float64],
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    near_above: NDArray[np.float64],
    near_below: NDArray[np.float64],
    step: float,
    moved: Value,
    narrow: bool,
) -> NDArray[np.float64] | None:
    """d output / d position, element by element; None where it does not move; `Unsteady` where there is no such thing."""
    ends = np.stack([above, below, near_above, near_below])
    if not np.all(np.isfinite(ends)):
        raise Unsteady("not finite nearby")
    size = float(np.max(np.abs(middle), initial=1e-30))
    epsilon = _epsilon(moved) if narrow else 2.0**-52
    if np.max(np.abs(ends - middle), initial=0.0) <= 8 * epsilon * size:
        return None
    coarse = (above - below) / (2 * step)
    fine = (near_above - near_below) / step
    scale = float(np.max(np.abs(fine), initial=0.0))
    noise = 4 * epsilon * size / step
    tolerance = 5e-3 if narrow else 1e-4
    if scale == 0 or np.max(np.abs(coarse - fine)) > tolerance * scale:
        raise Unsteady("differences of two steps disagree")
    # From both sides; for a smooth function half the step halves what lies between them.
    gap = np.abs(above + below - 2 * middle) / step
    near_gap = np.abs(near_above + near_below - 2 * middle) / (step / 2)
    allowed = np.maximum(0.65 * gap if narrow else 0.0, (5e-3 if narrow else 1e-3) * scale)
    if np.any(near_gap > allowed + 8 * noise):
        raise Unsteady("a kink: one-sided differences disagree")
    return np.asarray((4 * fine - coarse) / 3)


def _epsilon(value: Value) -> float:
    if isinstance(value, list):
        return max((_epsilon(item) for item in value), default=0.0)
    if value is None:
        return 0.0
    return {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}.get(
        value.dtype.name, 2.0**-7
    )


def _direction(value: Value, rng: np.random.Generator) -> Value:
    if isinstance(value, list):
        return [_direction(item, rng) for item in value]
    return None if value is None else np.asarray(rng.standard_normal(value.shape))


def _shifted(value: Value, direction: Value, position: float) -> Value:
    if isinstance(value, list):
        return [_shifted(v, d, position) for v, d in zip(value, direction, strict=True)]
    if value is None:
        return None
    return np.asarray(value + (position * direction)).astype(value.dtype)


def _flat(value: Value) -> NDArray[np.float64]:
    if isinstance(value, list):
        return np.concatenate([_flat(item) for item in value]) if value else np.zeros(0)
    return np.zeros(0) if value is None else np.asarray(value, np.float64).ravel()


def _unflattened(flat: NDArray[np.float64], like: Value) -> Value:
    if not isinstance(like, list):
        return flat.reshape(np.shape(like))
    ends = np.cumsum([_flat(item).size for item in like])
    return [
        _unflattened(part, item)
        for part, item in zip(np.split(flat, ends[:-1]), like, strict=True)
    ]


def _sizes(values: Mapping[str, NDArray[np.float64]]) -> dict[str, int]:
    return {name: value.size for name, value in values.items()}


def _as_arrays(value: Any) -> Value:
    if isinstance(value, list | tuple):
        return [_as_arrays(item) for item in value]
    return None if value is None else np.asarray(value)


def _equal(first: Value, second: Value) -> bool:
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_equal, first, second))
    return np.array_equal(
        np.asarray(first), np.asarray(second), equal_nan=is_floating_value(first)
    )


def _finite(value: Value) -> bool:
    return bool(np.all(np.isfinite(_flat(value))))


def _close(given: Value, expected: Value) -> bool:
    first, second = _flat(given), _flat(expected)
    if first.size != second.size:
        return False
    loose = 0.05 * float(np.max(np.abs(second), initial=1e-6))
    return bool(np.all(np.abs(first - second) <= loose))

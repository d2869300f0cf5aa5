"""How the outputs of a node test move along random lines of each of its inputs.

Differences are taken per element of every output, so that a kink in one element shows. They come from the model in
float64 in onnxruntime, else from onnx's reference implementation in float64, else from the model as it is with larger
steps. A slope counts where central differences of two steps agree and the one-sided ones tend to each other.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_tests.reference import Reference, ReferenceRefusedError
from node_tests.runtime import Runtime, RuntimeRefusedError
from node_tests.suite import NodeTest
from node_tests.values import (
    Value,
    epsilon_of,
    equal,
    finite_elements,
    flattened,
    is_floating_value,
    random_direction,
    shaped_like,
    shifted,
)
from node_tests.widening import in_float64, wide

__all__ = ["Findings", "Line", "examine"]

Forward = Callable[[Mapping[str, Any]], dict[str, Any]]

LINES = 3  # random directions per input
MOST_ELEMENTS = 1000  # of an input in which kinks are looked for one by one
WIDE_STEPS = (1e-5, 1e-6, 1e-7, 1e-4)
NARROW_STEPS = (1.0, 0.25, 0.06, 0.015, 0.004)

# Why differences may not settle.
KINK = "a kink: one-sided differences disagree"
IN_FLOAT32 = "this kernel rounds to float32"


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
    trouble: list[str] = field(default_factory=list)  # what could not be found out, input by input

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


class UnsteadyError(Exception):
    """Differences do not settle: a kink, a jump, or rounding."""


def examine(test: NodeTest) -> Findings:
    """Run the test as it comes and take its differences; `RuntimeRefusedError` where onnxruntime does not run it."""
    runtime = Runtime(test.model)
    names = runtime.output_names
    findings = Findings(runtime(test.feeds, names))
    # Generators of random numbers start over at the second run.
    again = [runtime(test.feeds, names) for _ in range(2)]
    if not all(equal(findings.outputs[name], run[name]) for run in again for name in names):
        findings.reason = "the outputs are random"
        return findings
    filled = [name for name in test.floating_outputs if is_floating_value(findings.outputs[name])]
    finite = [name for name in filled if np.any(np.isfinite(flattened(findings.outputs[name])))]
    if not finite:
        findings.reason = "no output is finite" if filled else "every output is empty"
        return findings
    _take_differences(test, findings, finite, runtime)
    return findings


def _take_differences(
    test: NodeTest, findings: Findings, outputs: list[str], runtime: Runtime
) -> None:
    """Fill `findings` from the first way of computing in which every element is smooth, or from the best one."""
    trouble = findings.trouble
    best, ran = 0, False
    for source, forward, feeds, steps in _forwards(test, outputs, runtime):
        if ran and steps is NARROW_STEPS:
            break  # it has no more to say, and its long steps pass over jumps
        try:
            base = forward(feeds)
        except (RuntimeRefusedError, ReferenceRefusedError) as error:
            trouble.append(f"{source}: {error}")
            continue
        if not all(_close(base[name], findings.outputs[name]) for name in outputs):
            trouble.append(f"{source}: gives something else")
            continue
        base = {name: _known(base[name], findings.outputs[name]) for name in outputs}
        lines, steady, unsteady = _lines(test, forward, feeds, base, steps)
        trouble += [f"{source}: {reason}" for reason in unsteady]
        if lines and steady > best:
            best, findings.lines, findings.source = steady, lines, source
        if all(KINK in reason for reason in unsteady):
            break  # a kink stays one
        ran = ran or not all(IN_FLOAT32 in reason for reason in unsteady)
    if not findings.lines:
        findings.reason = "; ".join(trouble) if trouble else "no input moves an output"


def _forwards(
    test: NodeTest, outputs: list[str], runtime: Runtime
) -> Iterator[tuple[str, Forward, dict[str, Any], tuple[float, ...]]]:
    widened, kept = in_float64(test.model)
    feeds = {name: value if name in kept else wide(value) for name, value in test.feeds.items()}
    with contextlib.suppress(RuntimeRefusedError):
        precise = Runtime(widened)
        yield "float64", lambda given: precise(given, outputs), feeds, WIDE_STEPS
    everything = {name: wide(value) for name, value in test.feeds.items()}
    with contextlib.suppress(ReferenceRefusedError):
        reference = Reference(widened)
        yield "reference", lambda given: reference(given, outputs), everything, WIDE_STEPS
    yield "float32", lambda given: runtime(given, outputs), dict(test.feeds), NARROW_STEPS


def _lines(
    test: NodeTest,
    forward: Forward,
    feeds: Mapping[str, Any],
    base: Mapping[str, Any],
    steps: tuple[float, ...],
) -> tuple[list[Line], int, list[str]]:
    """Lines through every input, how many elements they move, and what was left out."""
    rng = np.random.default_rng(zlib.crc32(test.name.encode()))
    lines: list[Line] = []
    unsteady: list[str] = []
    moved = 0
    for name in test.floating_inputs:
        if not is_floating_value(feeds[name]):
            continue
        search = _Search(forward, feeds, base, name, steps)
        steady = finite_elements(feeds[name])
        found = _lines_of_input(search, steady, rng)
        if isinstance(found, str):
            unsteady.append(f"{name}: {found}")
            # Some elements may stand at a kink while others do not.
            steady = search.steady_elements()
            found = _lines_of_input(search, steady, rng) if np.any(flattened(steady)) else found
        if isinstance(found, str):
            continue
        lines += found
        moved += int(np.sum(flattened(steady)))
    return lines, moved, unsteady


def _lines_of_input(search: _Search, steady: Value, rng: np.random.Generator) -> list[Line] | str:
    """Lines along which the `steady` elements of an input move, or why there are none."""
    lines = []
    for _ in range(LINES):
        direction = random_direction(search.feeds[search.wrt], steady, rng)
        try:
            slopes = search.slopes(direction)
        except (UnsteadyError, RuntimeRefusedError, ReferenceRefusedError) as error:
            return str(error)
        if slopes:
            lines.append(Line(search.wrt, direction, slopes))
    return lines


@dataclass(frozen=True)
class _Search:
    """One input of one way of computing the outputs, around the values `base` that `feeds` give."""

    forward: Forward
    feeds: Mapping[str, Any]
    base: Mapping[str, Any]
    wrt: str
    steps: tuple[float, ...]

    def steady_elements(self) -> Value:
        """One where the outputs are smooth in that element of the input, zero where they are not."""
        given = self.feeds[self.wrt]
        steady = flattened(finite_elements(given))
        if steady.size > MOST_ELEMENTS:
            return shaped_like(np.zeros(steady.size), given)
        for index in np.flatnonzero(steady):
            one = np.zeros(steady.size)
            one[index] = 1.0
            try:
                self.slopes(shaped_like(one, given))
            except (UnsteadyError, RuntimeRefusedError, ReferenceRefusedError):
                steady[index] = 0.0
        return shaped_like(steady, given)

    def slopes(self, direction: Value) -> dict[str, Value]:
        """Slopes of the outputs that move, by the first step that settles; `UnsteadyError` where none does."""
        middle = {name: flattened(value) for name, value in self.base.items()}
        given = self.feeds[self.wrt]
        reason = "no step tried"
        for step in self.steps:
            ends = [self._at(direction, step * part) for part in (1.0, -1.0, 0.5, -0.5)]
            if any(_sizes(end) != _sizes(middle) for end in ends):
                reason = "an output changes its shape"
                continue
            slopes = {}
            try:
                for name in middle:
                    moved = np.stack([end[name] for end in ends])
                    slope = _slope(middle[name], moved, step, given, self.steps is NARROW_STEPS)
                    if slope is not None:
                        slopes[name] = shaped_like(slope, self.base[name])
            except UnsteadyError as error:
                reason = str(error)
                continue
            return slopes
        raise UnsteadyError(reason)

    def _at(self, direction: Value, position: float) -> dict[str, NDArray[np.float64]]:
        moved = shifted(self.feeds[self.wrt], direction, position)
        results = self.forward({**self.feeds, self.wrt: moved})
        return {name: flattened(value) for name, value in results.items()}


def _slope(
    middle: NDArray[np.float64], ends: NDArray[np.float64], step: float, given: Value, narrow: bool
) -> NDArray[np.float64] | None:
    """d output / d position per element; None where nothing moves, `UnsteadyError` where there is no such thing.

    `middle` are the elements of the output at zero, `ends` at one step, minus one, half and minus half a step.
    """
    known = np.isfinite(middle)
    middle, ends = np.where(known, middle, 0.0), np.where(known, ends, 0.0)
    if not np.all(np.isfinite(ends)):
        raise UnsteadyError("not finite nearby")
    size = float(np.max(np.abs(middle), initial=1e-30))
    epsilon = epsilon_of(given) if narrow else 2.0**-52
    if np.max(np.abs(ends - middle), initial=0.0) <= 8 * epsilon * size:
        return None
    if not narrow and np.array_equal(ends, ends.astype(np.float32)):
        raise UnsteadyError(IN_FLOAT32)
    above, below, near_above, near_below = ends
    coarse = (above - below) / (2 * step)
    fine = (near_above - near_below) / step
    scale = float(np.max(np.abs(fine), initial=0.0))
    noise = 4 * epsilon * size / step
    tolerance = 5e-3 if narrow else 1e-4
    if scale == 0 or np.max(np.abs(coarse - fine)) > tolerance * scale:
        raise UnsteadyError("differences of two steps disagree")
    # From both sides; for a smooth function half the step halves what lies between them.
    gap = np.abs(above + below - 2 * middle) / step
    near_gap = np.abs(near_above + near_below - 2 * middle) / (step / 2)
    allowed = np.maximum(0.65 * gap if narrow else 0.0, (5e-3 if narrow else 1e-3) * scale)
    if np.any(near_gap > allowed + 8 * noise):
        raise UnsteadyError(KINK)
    return np.asarray((4 * fine - coarse) / 3)


def _sizes(values: Mapping[str, NDArray[np.float64]]) -> dict[str, int]:
    return {name: value.size for name, value in values.items()}


def _known(value: Value, expected: Value) -> Value:
    """`value`, infinite where `expected` is not finite: there, nothing is compared."""
    return shaped_like(np.where(np.isfinite(flattened(expected)), flattened(value), np.inf), value)


def _close(given: Value, expected: Value) -> bool:
    first, second = flattened(given), flattened(expected)
    if first.size != second.size:
        return False
    # Casts to few bits overflow where float64 does not.
    known = np.isfinite(second)
    first, second = first[known], second[known]
    loose = 0.05 * float(np.max(np.abs(second), initial=1e-6))
    return bool(np.all(np.abs(first - second) <= loose))

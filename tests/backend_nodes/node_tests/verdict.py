"""igonnx's gradient of a node test, beside its differences."""

from __future__ import annotations

import enum
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

import igonnx
from node_tests.differences import Findings, Line, examine
from node_tests.runtime import Runtime, RuntimeRefusedError
from node_tests.suite import NodeTest
from node_tests.values import Value, epsilon_of, flattened

__all__ = ["Outcome", "Verdict", "judge"]

# Of the length of the terms whose sum is compared: a gradient that is wrong in one of a thousand elements shows.
TOLERANCE = {"float64": 1e-3, "float32": 2e-3, "float16": 2e-2, "bfloat16": 1e-1}


class Outcome(enum.StrEnum):
    """How a test ends."""

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"  # an igonnx.Error that says why
    FAILED = "failed"  # any other error, or onnxruntime does not run the graph
    INELIGIBLE = "ineligible"  # there is nothing to compare with
    NOT_RUN = "not run"  # onnxruntime does not run the model as it comes, or lacks bfloat16 kernels for its gradient


@dataclass(frozen=True)
class Verdict:
    """The outcome of one test and what explains it."""

    outcome: Outcome
    detail: str
    source: str = ""


def judge(test: NodeTest) -> Verdict:
    """Differentiate every output that moves by every input that moves it, and compare along each line."""
    if not test.has_floats:
        return Verdict(Outcome.INELIGIBLE, "no floating input, or no floating output")
    with np.errstate(all="ignore"):
        return _judge(test)


def _judge(test: NodeTest) -> Verdict:
    try:
        findings = examine(test)
    except RuntimeRefusedError as error:
        return Verdict(Outcome.NOT_RUN, str(error))
    if not findings.lines:
        return Verdict(Outcome.INELIGIBLE, findings.reason)
    worst = Verdict(Outcome.RIGHT, "", findings.source)
    order = [Outcome.RIGHT, Outcome.NOT_RUN, Outcome.REFUSED, Outcome.FAILED, Outcome.WRONG]
    for output, inputs in findings.pairs.items():
        outcome, detail = _judge_output(test, findings, output, inputs)
        if order.index(outcome) > order.index(worst.outcome):
            worst = Verdict(outcome, f"{output}: {detail}", findings.source)
    return worst


def _judge_output(
    test: NodeTest, findings: Findings, output: str, inputs: list[str]
) -> tuple[Outcome, str]:
    """One graph with the gradients by all `inputs`; where that is refused, one per input: a wrong one is worse."""
    outcome, detail = _judge_graph(test, findings, output, inputs)
    if outcome is Outcome.REFUSED and len(inputs) > 1:
        alone = [_judge_graph(test, findings, output, [name]) for name in inputs]
        bad = [verdict for verdict in alone if verdict[0] in (Outcome.FAILED, Outcome.WRONG)]
        return bad[0] if bad else (outcome, detail)
    return outcome, detail


def _judge_graph(
    test: NodeTest, findings: Findings, output: str, inputs: list[str]
) -> tuple[Outcome, str]:
    rng = np.random.default_rng(zlib.crc32(f"{test.name} {output}".encode()))
    cotangent = _cotangent(findings.outputs[output], rng)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            proto = igonnx.gradient(test.model, wrt=inputs, output=output)
    except igonnx.Error as error:
        return Outcome.REFUSED, " ".join(str(error).split())
    except Exception as error:
        return Outcome.FAILED, " ".join(f"{type(error).__name__}: {error}".split())
    feeds = {**test.feeds, f"cotangent_{output}": cotangent}
    try:
        gradients = Runtime(proto)(feeds, [f"grad_{name}" for name in inputs])
    except RuntimeRefusedError as error:
        lacking = "Could not find an implementation" in str(error) and _has_bfloat16(test)
        return Outcome.NOT_RUN if lacking else Outcome.FAILED, str(error)
    for line in findings.lines:
        if output in line.slopes and line.wrt in inputs:
            gradient = gradients[f"grad_{line.wrt}"]
            floor = _rounding(
                test.feeds[line.wrt], line.direction, findings.outputs[output], cotangent
            )
            problem = _compare(line, test.feeds[line.wrt], gradient, output, cotangent, floor)
            if problem:
                return Outcome.WRONG, f"d/d{line.wrt}: {problem}"
    return Outcome.RIGHT, ""


def _has_bfloat16(test: NodeTest) -> bool:
    """Whether a tensor fed to it is in bfloat16, for which onnxruntime's CPU provider has but a few kernels."""
    return any(getattr(array, "dtype", None) == ml_dtypes.bfloat16 for array in test.feeds.values())


def _compare(
    line: Line, given: Value, gradient: Value, output: str, cotangent: Value, floor: float
) -> str:
    """What is wrong with `gradient` along `line`, and by more than `floor`; empty where nothing is."""
    if isinstance(given, list) != isinstance(gradient, list):
        return "a sequence on one side only"
    if isinstance(given, list) and isinstance(gradient, list):
        shapes = [np.shape(item) for item in given], [np.shape(item) for item in gradient]
    else:
        shapes = [np.shape(given)], [np.shape(gradient)]
    if shapes[0] != shapes[1]:
        return f"shape {shapes[1]}, expected {shapes[0]}"
    ours = _terms(gradient, line.direction)
    theirs = _terms(line.slopes[output], cotangent)
    if not np.all(np.isfinite(ours)):
        return f"{np.sum(~np.isfinite(ours))} of {ours.size} elements are not finite"
    scale = float(np.hypot(np.linalg.norm(ours), np.linalg.norm(theirs)))
    error = max(0.0, abs(float(ours.sum() - theirs.sum())) - floor) / max(scale, 1e-30)
    kind = np.asarray(given[0] if isinstance(given, list) else given).dtype.name
    if error <= TOLERANCE[kind]:
        return ""
    return f"{ours.sum():.6g}, expected {theirs.sum():.6g} (relative error {error:.2g})"


def _rounding(given: Value, direction: Value, output: Value, cotangent: Value) -> float:
    """What rounding of the output is in a derivative: where a tanh saturates, its slope is less than that."""
    size = float(np.linalg.norm(flattened(given)))
    moved = float(np.linalg.norm(flattened(direction))) / max(size, 1e-30)
    rounding = 16 * epsilon_of(given) * float(np.linalg.norm(_terms(output, cotangent)))
    return rounding * min(moved, 10.0)


def _terms(first: Value, second: Value) -> Any:
    if isinstance(first, list) and isinstance(second, list):
        return np.concatenate([_terms(a, b) for a, b in zip(first, second, strict=True)])
    # Elements that stand at a kink are not moved; what the gradient says of them does not count.
    factor = np.asarray(second, np.float64)
    return np.where(factor == 0, 0.0, np.asarray(first, np.float64) * factor).ravel()


def _cotangent(output: Value, rng: np.random.Generator) -> Value:
    if isinstance(output, list):
        return [_cotangent(item, rng) for item in output]
    kind = np.asarray(output).dtype
    # Few bits, so that every dtype holds the same numbers.
    drawn = rng.standard_normal(np.shape(output)).astype(ml_dtypes.bfloat16).astype(np.float64)
    known = np.isfinite(np.asarray(output, np.float64))
    return np.asarray(np.where(known, drawn, 0.0)).astype(kind)

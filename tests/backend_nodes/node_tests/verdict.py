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
from node_tests.runtime import Runtime, RuntimeRefusal
from node_tests.suite import NodeTest, Value

__all__ = ["Outcome", "Verdict", "judge"]

# Of the length of the terms whose sum is compared: a gradient that is wrong in one of a thousand elements shows.
TOLERANCE = {"float64": 1e-3, "float32": 2e-3, "float16": 5e-2, "bfloat16": 2e-1}


class Outcome(enum.StrEnum):
    """How a test ends."""

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"  # an igonnx.Error that says why
    FAILED = "failed"  # any other error, or onnxruntime does not run the graph
    INELIGIBLE = "ineligible"  # there is nothing to compare with


@dataclass(frozen=True)
class Verdict:
    """The outcome of one test and what explains it."""

    outcome: Outcome
    detail: str
    source: str = ""


def judge(test: NodeTest) -> Verdict:
    """Differentiate every output that moves by every input that moves it, and compare along each line."""
    findings = examine(test)
    if not findings.lines:
        return Verdict(Outcome.INELIGIBLE, findings.reason)
    worst = Verdict(Outcome.RIGHT, "", findings.source)
    order = [Outcome.RIGHT, Outcome.REFUSED, Outcome.FAILED, Outcome.WRONG]
    for output, inputs in findings.pairs.items():
        outcome, detail = _judge_output(test, findings, output, inputs)
        if order.index(outcome) > order.index(worst.outcome):
            worst = Verdict(outcome, f"{output}: {detail}", findings.source)
    return worst


def _judge_output(
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
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a bug and gets reported
        return Outcome.FAILED, f"{type(error).__name__}: {error}"
    feeds = {**test.feeds, f"cotangent_{output}": cotangent}
    try:
        gradients = Runtime(proto)(feeds, [f"grad_{name}" for name in inputs])
    except RuntimeRefusal as error:
        return Outcome.FAILED, str(error)
    for line in findings.lines:
        if output in line.slopes:
            problem = _compare(
                line, test.feeds[line.wrt], gradients[f"grad_{line.wrt}"], output, cotangent
            )
            if problem:
                return Outcome.WRONG, f"d/d{line.wrt}: {problem}"
    return Outcome.RIGHT, ""


def _compare(line: Line, given: Value, gradient: Value, output: str, cotangent: Value) -> str:
    """What is wrong with `gradient` along `line`; empty where nothing is."""
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
    error = abs(float(ours.sum() - theirs.sum())) / max(scale, 1e-30)
    kind = np.asarray(given[0] if isinstance(given, list) else given).dtype.name
    if error <= TOLERANCE[kind]:
        return ""
    return f"{ours.sum():.6g}, expected {theirs.sum():.6g} (relative error {error:.2g})"


def _terms(first: Value, second: Value) -> Any:
    if isinstance(first, list) and isinstance(second, list):
        return np.concatenate([_terms(a, b) for a, b in zip(first, second, strict=True)])
    return (np.asarray(first, np.float64) * np.asarray(second, np.float64)).ravel()


def _cotangent(output: Value, rng: np.random.Generator) -> Value:
    if isinstance(output, list):
        return [_cotangent(item, rng) for item in output]
    kind = np.asarray(output).dtype
    # Few bits, so that every dtype holds the same numbers.
    drawn = rng.standard_normal(np.shape(output)).astype(ml_dtypes.bfloat16)
    return np.asarray(drawn.astype(np.float64)).astype(kind)

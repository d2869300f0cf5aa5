"""Every node test of the ONNX project that has a derivative: our gradient is right, or refused for a listed reason."""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest
from node_tests.lists import EXCLUDED, REFUSED
from node_tests.runtime import Runtime, RuntimeRefusedError
from node_tests.suite import NodeTest, load
from node_tests.verdict import Outcome, judge

CANDIDATES = {name: test for name, test in load().items() if test.has_floats}
# The fewest tests that must be right with the versions they were counted with, or newer.
COUNTED_WITH = {onnx: (1, 23), ort: (1, 31)}
LEAST_RIGHT = 970


@pytest.mark.parametrize("name", CANDIDATES)
def test_gradient(name: str):
    verdict = judge(CANDIDATES[name])
    outcome, detail = verdict.outcome, verdict.detail
    if outcome is Outcome.NOT_RUN:
        pytest.skip(f"onnxruntime: {detail}")
    if name in EXCLUDED:
        assert outcome is Outcome.INELIGIBLE, (
            f"listed as without derivative, but {outcome}: {detail}"
        )
        pytest.skip(EXCLUDED[name])
    assert outcome is not Outcome.INELIGIBLE, f"nothing to compare with and not listed: {detail}"
    if name in REFUSED and outcome is Outcome.REFUSED:
        pytest.xfail(REFUSED[name])
    assert outcome is Outcome.RIGHT, f"{outcome}: {detail}"
    assert name not in REFUSED, "right now: take it off the list of refusals"


def test_enough_are_right():
    """With `test_gradient`, in which all that is not listed is right."""
    compared = [name for name, test in CANDIDATES.items() if name not in EXCLUDED and _runs(test)]
    right = [name for name in compared if name not in REFUSED]
    assert len(right) >= 0.96 * len(compared)
    if all(_version(module) >= least for module, least in COUNTED_WITH.items()):
        assert len(right) >= LEAST_RIGHT


def test_lists_do_not_overlap():
    assert not EXCLUDED.keys() & REFUSED.keys()


def _runs(test: NodeTest) -> bool:
    try:
        runtime = Runtime(test.model)
        runtime(test.feeds, runtime.output_names)
    except RuntimeRefusedError:
        return False
    return True


def _version(module: object) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])

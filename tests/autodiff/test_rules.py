"""Every backward rule against finite differences of its operator, on random inputs."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import pytest
from rule_cases import ALL, Case
from rule_cases.case import newest_opset
from rule_cases.check import check

from igonnx.autodiff import registry

HERE = Path(__file__).parent
# Fresh inputs in every run; a failure prints the seed that repeats it.
SEED = int(os.environ.get("IGONNX_TEST_SEED", secrets.randbelow(2**31)))
COVERED = {(case.domain, case.operator) for case in ALL}
# The slope of rounding is a convention, not a limit of differences, and codes are not float64: see tests/quantised.
QUANTISED = {
    ("", "DequantizeLinear"),
    ("", "DynamicQuantizeLinear"),
    ("", "QuantizeLinear"),
    ("ai.igonnx.private", "StraightThrough"),
    ("com.microsoft", "DequantizeLinear"),
    ("com.microsoft", "MatMulBnb4"),
    ("com.microsoft", "MatMulNBits"),
    ("com.microsoft", "QuantizeLinear"),
}


def _runs():
    for case in ALL:
        for opset in dict.fromkeys(min(opset, newest_opset()) for opset in case.opsets):
            yield pytest.param(
                case, opset, id=f"{case.operator}-{case.label}-{opset}".replace(" ", "_")
            )


@pytest.mark.parametrize(("case", "opset"), list(_runs()))
def test_rule(case: Case, opset: int):
    try:
        check(case, opset, SEED)
    except Exception as error:
        error.add_note(f"repeat with IGONNX_TEST_SEED={SEED}")
        raise


# With tests of their own: what has bodies, and what is no tensor.
_SEQUENCES = (
    *("SequenceConstruct", "SequenceAt", "SequenceInsert", "SequenceErase"),
    *("ConcatFromSequence", "SplitToSequence", "Optional", "OptionalGetElement"),
)
ELSEWHERE = {
    **{("", name): HERE / "test_control_flow.py" for name in ("If", "Loop", "Scan")},
    **{("", name): HERE / "test_sequences.py" for name in _SEQUENCES},
    ("ai.igonnx", "GeluWithSlope"): HERE.parent / "native" / "test_gelu_with_slope.py",
}


@pytest.mark.parametrize("operator", sorted(ELSEWHERE), ids=lambda key: key[1])
def test_rules_tested_elsewhere_are(operator: tuple[str, str]):
    assert re.search(rf"\b{operator[1]}\b", ELSEWHERE[operator].read_text())


@pytest.mark.parametrize(
    "operator", sorted(registry.registered()), ids=lambda key: "::".join(filter(None, key))
)
def test_every_rule_has_a_case(operator: tuple[str, str]):
    assert operator in COVERED | QUANTISED | ELSEWHERE.keys(), (
        f"the rule of {operator} has no case in tests/autodiff/rule_cases"
    )


def test_case_names_are_unique():
    names = [(case.operator, case.label) for case in ALL]
    assert len(set(names)) == len(names)

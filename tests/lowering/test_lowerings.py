"""Every lowering against onnxruntime's kernel of the operator, and its gradient against differences."""

from __future__ import annotations

import os
import secrets

import pytest
from lowering_cases import ALL, Case
from lowering_cases.check import check

# Fresh inputs in every run; a failure prints the seed that repeats it.
SEED = int(os.environ.get("IGONNX_TEST_SEED", secrets.randbelow(2**31)))


def _runs():
    for case in ALL:
        for opset in case.opsets:
            name = f"{case.operator}-{case.label}-{opset}".replace(" ", "_")
            yield pytest.param(case, opset, id=name)


@pytest.mark.parametrize(("case", "opset"), list(_runs()))
def test_lowering(case: Case, opset: int):
    try:
        check(case, opset, SEED)
    except Exception as error:
        error.add_note(f"repeat with IGONNX_TEST_SEED={SEED}")
        raise


def test_case_names_are_unique():
    names = [(case.operator, case.label) for case in ALL]
    assert len(set(names)) == len(names)

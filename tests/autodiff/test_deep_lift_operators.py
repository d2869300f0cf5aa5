"""Summation to delta for every operator that has a gradient, on cases of the rule tests; the rest is refused."""

from __future__ import annotations

import os
import secrets
import zlib
from collections import defaultdict

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from rule_cases import ALL, Case
from rule_cases.case import OUTPUT, as_dtype, newest_opset, options
from rule_cases.check import session

import igonnx
from igonnx.autodiff.propagation.deep_lift import DeepLift
from igonnx.model import Model
from igonnx.row_gradient import build_row_gradient

# Fresh inputs in every run; a failure prints the seed that repeats it.
SEED = int(os.environ.get("IGONNX_TEST_SEED", secrets.randbelow(2**31)))
# Fresh cases as well, but the same in all processes of a run.
CHOICE = zlib.crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(SEED)).encode())
AT_MOST = 4  # cases of one operator

# Neither linear nor made of functions of one or two numbers.
REFUSED = frozenset(
    [
        "BitCast",
        "CumProd",
        "Det",
        "GlobalLpPool",
        "LpPool",
        "MaxRoiPool",
        "Mod",
        "ReduceProd",
        "TopK",
        "Unique",
    ]
)
# Linear in some inputs, or by some attributes, only.
PARTLY = frozenset(
    [
        "BatchNormalization",
        "DeformConv",
        "Einsum",
        "GridSample",
        "RoiAlign",
        "STFT",
        "ScatterElements",
        "ScatterND",
    ]
)


def _runs() -> list[object]:
    by_operator = defaultdict[str, list[Case]](list)
    for case in ALL:
        explained = [given for given in case.inputs if given and given.role == "explained"]
        # Scalars have no batch axis, and where nothing is in a window, the score is as low as numbers go.
        if all(given.shape for given in explained) and "taps in the padding" not in case.label:
            by_operator[case.operator].append(case)
    random = np.random.default_rng(CHOICE)
    chosen = [
        cases[int(i)]
        for cases in by_operator.values()
        for i in np.sort(random.permutation(len(cases))[:AT_MOST])
    ]
    return [
        pytest.param(case, id=f"{case.operator}-{case.label}".replace(" ", "_")) for case in chosen
    ]


@pytest.mark.parametrize("case", _runs())
def test_adds_up_or_is_refused(case: Case) -> None:
    try:
        _check(case)
    except Exception as error:
        error.add_note(f"repeat with IGONNX_TEST_SEED={SEED}")
        raise


def _check(case: Case) -> None:
    rng = np.random.default_rng([SEED, zlib.crc32(f"{case.operator}-{case.label}".encode())])
    ends = [
        {name: as_dtype(array, np.float32) for name, array in case.draw(rng).items()}
        for _ in range(2)
    ]
    proto = case.model(
        ends[0],
        opset=min(case.opsets[-1], newest_opset()),
        dtype=np.float32,
        layout=case.layouts[-1],
    )
    model = Model.load(proto)
    if model.find_output(OUTPUT).shape is None:
        pytest.skip("an output of unknown rank cannot be explained")
    refused = ""
    try:
        rows = build_row_gradient(
            model, output=OUTPUT, wrt=case.explained, batch_axis=None, propagation=DeepLift()
        )
    except igonnx.UnsupportedOperatorError as error:
        refused = str(error)
    assert bool(refused) or case.operator not in REFUSED
    if refused:
        assert case.operator in REFUSED | PARTLY
        assert f"operator {case.operator} " in refused
        return
    runtime = ort.InferenceSession(
        ir.to_proto(rows.model).SerializeToString(), options(), providers=["CPUExecutionProvider"]
    )
    taken = {value.name for value in runtime.get_inputs()}
    plain = session(proto)
    fed = {value.name: ends[0][value.name] for value in plain.get_inputs()}
    cotangent = rng.standard_normal((1, *plain.run([OUTPUT], fed)[0].shape)).astype(np.float32)

    def run(x: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {f"z:{name}": x[name] for name in case.explained}
        feeds |= {f"reference:{name}": reference[name] for name in case.explained}
        feeds |= {f"fixed:{name}": ends[0][name] for name in rows.fixed}
        feeds = {name: array for name, array in feeds.items() if name in taken}
        names = [value.name for value in runtime.get_outputs()]
        return dict(zip(names, runtime.run(None, feeds | {"cotangent": cotangent}), strict=True))

    there, back = run(*ends), run(*ends[::-1])
    change = float(there["score"].sum() - back["score"].sum())
    values = [
        there[f"gradient:{name}"].astype(np.float64) * (ends[0][name] - ends[1][name])
        for name in case.explained
    ]
    size = 1 + sum(np.abs(array).sum() for array in values)
    assert abs(sum(array.sum() for array in values) - change) <= 1e-5 * size

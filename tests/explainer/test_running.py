"""`Explainer` at work: progress, threads, what it leaves as it was."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from explaining import assert_complete, each_engine, random

import igonnx


@each_engine
@pytest.mark.parametrize(
    "options", [{"steps": 30}, {"tolerance": 0.005}], ids=["fixed", "tolerance"]
)
def test_progress_rises_to_the_total(
    mlp: onnx.ModelProto, engine: str, options: dict[str, Any]
) -> None:
    calls: list[tuple[int, int]] = []
    explainer = igonnx.Explainer(mlp, engine=engine, batch_size=7)
    explainer.integrated_gradients(
        random(3, 6), progress=lambda *call: calls.append(call), **options
    )
    done, totals = zip(*calls, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]
    assert done[0] > 0
    assert len(calls) > 3


@each_engine
@pytest.mark.parametrize(
    "options", [{"steps": 300}, {"tolerance": 0.001}], ids=["fixed", "tolerance"]
)
def test_an_exception_in_progress_stops(
    mlp: onnx.ModelProto, engine: str, options: dict[str, Any]
) -> None:
    class EnoughError(Exception):
        pass

    calls = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 2:
            raise EnoughError

    explainer = igonnx.Explainer(mlp, engine=engine, batch_size=4)
    with pytest.raises(EnoughError):
        explainer.integrated_gradients(random(3, 6), progress=stop, **options)
    assert len(calls) == 2
    assert_complete(explainer.integrated_gradients(random(3, 6), steps=100))  # and it still works


@each_engine
def test_several_threads_share_an_explainer(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, engine=engine, threads=1)
    expected = {
        count: igonnx.Explainer(mlp, engine=engine).integrated_gradients(
            random(count, 6, seed=count), target=1
        )
        for count in range(1, 5)
    }
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        count = number % 4 + 1
        start.wait()
        found = [
            explainer.integrated_gradients(random(count, 6, seed=count), target=1).values
            for _ in range(5)
        ]
        return all(np.allclose(one, expected[count].values, atol=1e-6) for one in found)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_steps_used_and_method(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    found = explainer.integrated_gradients(random(2, 6), steps=9, rule="trapezoid")
    assert found.steps_used.tolist() == [10, 10]
    assert found.method == "integrated_gradients rule=trapezoid steps=9"
    assert found.error_estimate is None
    assert len(found.path[0].alpha) == 10
    gauss = explainer.integrated_gradients(random(2, 6), steps=9)
    assert gauss.steps_used.tolist() == [9, 9]
    assert len(gauss.path[0].alpha) == 11  # the ends, for their scores
    assert gauss.path[0].weight[[0, -1]].tolist() == [0, 0]


def test_inputs_need_not_be_contiguous_and_stay_as_they_are(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = random(6, 3).T
    strided = random(6, 12)[::2, ::2]
    for given in (x, strided, x.astype(np.float64), x.tolist()):
        before = np.array(given)
        found = explainer.integrated_gradients(given, target=0, steps=3)
        np.testing.assert_array_equal(given, before)
        again = explainer.integrated_gradients(
            np.ascontiguousarray(given, np.float32), target=0, steps=3
        )
        np.testing.assert_array_equal(found.values, again.values)


def test_predict_needs_no_gradient() -> None:
    """A tree of one decision, x[0] <= 0.5: it has no gradient, and that is said only where one is asked for."""
    tree = onnx.helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[-1.0, 2.0],
    )
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [tree],
        "forest",
        [onnx.helper.make_tensor_value_info("x", floats, ["N", 2])],
        [onnx.helper.make_tensor_value_info("y", floats, ["N", 1])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    explainer = igonnx.Explainer(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    x = np.array([[0.0, 3.0], [1.0, 3.0]], np.float32)
    np.testing.assert_array_equal(explainer.predict(x)["y"], [[-1.0], [2.0]])
    with pytest.raises(igonnx.UnsupportedOperatorError, match="perturbation"):
        explainer.integrated_gradients(x)

"""Layer-wise relevance propagation through single operators: all that have a gradient, on the cases of its tests."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from rule_cases import ALL, Case
from rule_cases.case import OUTPUT, as_dtype, newest_opset
from rule_cases.check import session

from igonnx.autodiff import registry
from igonnx.autodiff.expansion import expand
from igonnx.autodiff.gradient_values import zeros_like
from igonnx.autodiff.propagation.lrp import AlphaBeta, Epsilon, Flat, Gamma, Lrp
from igonnx.autodiff.propagation.lrp_rules import REFUSED, RULES
from igonnx.autodiff.transform import differentiate
from igonnx.errors import UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder
from igonnx.model import Model

SPECS = {
    "epsilon": Lrp("lrp", Epsilon(), Epsilon()),
    "gamma": Lrp("lrp", Gamma(0.3), Gamma(0.3), bias=False),
    "alpha_beta": Lrp("lrp", AlphaBeta(2.0, 1.0), AlphaBeta(2.0, 1.0), bias=False),
    "flat": Lrp("lrp", Epsilon(), Epsilon(), Flat()),
}
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
EACH = 3  # cases per operator: every so many of those that there are
# What they put out comes in part from somewhere else: constants, the zeros of padding, the order of elements; or some
# of it is lost by definition.
NOT_CONSERVING = {"DeformConv", "MaxPool", "Pad", "Range", "Resize", "Softmax"}


def chosen() -> Iterator[tuple[Case, str]]:
    for operator, cases in itertools.groupby(ALL, key=lambda case: case.operator):
        every = list(cases)
        some = every[:: max(1, -(-len(every) // EACH))]
        yield from itertools.product(some, SPECS if operator in LAYERS else ["epsilon"])


def relevance_graph(model: onnx.ModelProto, wrt: list[str], spec: Lrp) -> onnx.ModelProto:
    """The model with outputs relevance_<name>, for the relevance output times cotangent_y of its output."""
    loaded = Model.load(model)
    copy = loaded.with_graph(loaded.clone())
    graph = copy.ir.graph
    expand(copy.ir, wrt, OUTPUT)
    op = GraphBuilder(copy.ir)
    target = copy.find_output(OUTPUT)
    cotangent = ir.val("cotangent_y", shape=target.shape, type=target.type)
    graph.inputs.append(cotangent)
    start = op.Mul(target, cotangent)
    start.shape, start.type = target.shape, target.type
    sources = [copy.find_tensor(name) for name in wrt]
    found = differentiate(op, {target: start}, sources, propagation=spec.walk())
    for source, relevance in zip(sources, found, strict=True):
        named = op.Identity(zeros_like(op, source) if relevance is None else relevance)
        named.name, named.shape, named.type = f"relevance_{source.name}", source.shape, source.type
        graph.outputs.append(named)
    passes.RemoveUnusedNodesPass()(copy.ir)
    return ir.to_proto(copy.ir)


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        pytest.param(case, rule, id=f"{rule}-{case.operator}-{case.label}".replace(" ", "_"))
        for case, rule in chosen()
    ],
)
def test_operator(case: Case, rule: str) -> None:
    """Relevance has the shape and the type of its tensor, is finite, and adds up where there is nothing but signals."""
    rng = np.random.default_rng(zlib.crc32(f"{case.operator}-{case.label}".encode()))
    arrays = case.draw(rng)
    opset = min(case.opsets[-1], newest_opset())
    for dtype in (np.float64, np.float32):
        model = case.model(arrays, opset=opset, dtype=dtype)
        try:
            forward = session(model)
            feeds = {
                value.name: as_dtype(arrays[value.name], dtype) for value in forward.get_inputs()
            }
            output = forward.run([OUTPUT], feeds)[0]
            model = case.model(arrays, opset=opset, dtype=dtype, output=output.shape)
            try:
                proto = relevance_graph(model, case.explained, SPECS[rule])
            except UnsupportedOperatorError as error:
                if f"operator {case.operator} (node 'n'): lrp has no rule for" not in str(error):
                    raise
                return
            runtime = session(proto)
            break
        except (NoKernel, InvalidGraph):
            if dtype is np.float32:
                raise
    cotangent = rng.normal(size=output.shape).astype(dtype)
    names = [f"relevance_{name}" for name in case.explained]
    results = runtime.run(names, {**feeds, "cotangent_y": cotangent})
    for name, relevance in zip(case.explained, results, strict=True):
        assert relevance.shape == feeds[name].shape
        assert relevance.dtype == dtype
        assert np.isfinite(relevance).all()
    held = any(
        given is not None and given.role != "explained" and real(given.draw(rng))
        for given in case.inputs
    )
    weighted = held and case.operator in LAYERS and (len(case.inputs) < 3 or rule != "epsilon")
    if (not held or weighted) and case.operator not in NOT_CONSERVING:
        total = sum(np.sum(relevance, dtype=np.float64) for relevance in results)
        size = sum(np.abs(relevance).sum(dtype=np.float64) for relevance in results)
        np.testing.assert_allclose(total, np.sum(output * cotangent), atol=1e-4 * (size + 1))


def real(array: np.ndarray) -> bool:
    return array.dtype == np.float64


def test_every_operator_with_a_gradient_has_a_rule_or_is_refused() -> None:
    assert not RULES.keys() & REFUSED
    assert {*RULES, *REFUSED} == set(registry.registered())

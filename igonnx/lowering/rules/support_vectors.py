"""Support vector machines of ai.onnx.ml (Cortes and Vapnik 1995), as libsvm and scikit-learn train them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.graph.builder import GraphBuilder, dtype_of
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering
from igonnx.lowering.rules.classical import finish_scores, labels, rows

CLASSICAL = "ai.onnx.ml"
_SWEEPS = 12  # of the coupling of probabilities: three or four are enough for nearly all examples
_MOST_CLASSES = 12


@lowering("SVMRegressor", domain=CLASSICAL)
def svm_regressor(n: NodeView) -> Lowered:
    """SVMRegressor: the sum of coefficients times the kernel with each support vector, plus rho."""
    op, x = n.op, rows(n)
    if n.attribute("one_class", 0):
        raise n.unsupported(
            "a one-class machine, whose output is a sign and therefore piecewise constant"
        )
    supports = n.attribute("n_supports", 0)
    rho = float(n.attribute("rho")[0])
    if not supports:
        return [op.Add(_products(n, x, _floats(n, "coefficients").reshape(1, -1)), rho)]
    kernels = _kernel(n, x, _floats(n, "support_vectors").reshape(supports, -1))
    weights = _constant(op, _floats(n, "coefficients").reshape(-1, 1), x)
    return [op.Add(op.MatMul(kernels, weights), rho)]


@lowering("SVMClassifier", domain=CLASSICAL)
def svm_classifier(n: NodeView) -> Lowered:
    """SVMClassifier: a label and a score per class, per pair of classes, or probabilities (Platt 1999)."""
    label, scores = _classified(n, rows(n))
    return [label, n.op.cast(scores, ir.DataType.FLOAT)]


def _classified(n: NodeView, x: ir.Value) -> tuple[ir.Value | None, ir.Value]:
    op = n.op
    names = n.attribute("classlabels_ints") or n.attribute("classlabels_strings")
    classes, per_class = len(names), n.attribute("vectors_per_class") or []
    if not sum(per_class):
        raw = _products(n, x, _floats(n, "coefficients").reshape(classes, -1))
        raw = op.Add(raw, float(n.attribute("rho")[0]))
        label = op.ArgMax(raw, axis=1, keepdims=0)
        if classes == 2:
            raise n.unsupported("a linear machine of two classes")
        return labels(n, label), finish_scores(n, raw, classes)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    kernels = _kernel(n, x, _floats(n, "support_vectors").reshape(sum(per_class), -1))
    decisions = op.MatMul(kernels, _constant(op, _pair_weights(n, per_class, pairs), x))
    decisions = op.Add(decisions, _constant(op, _floats(n, "rho")[: len(pairs)], x))
    label = _votes(n, decisions, classes, pairs) if n.has_output(0) else None
    if n.attribute("prob_a"):
        scores = _probabilities(n, decisions, classes, pairs)
        if n.attribute("post_transform", "NONE") != "NONE":
            scores = finish_scores(n, scores, classes)
        return label, scores
    if classes == 2:
        mixed = n.attribute("post_transform", "NONE") == "NONE"
        return label, finish_scores(n, decisions, 1, second=True, mixed=mixed)
    return label, finish_scores(n, decisions, len(pairs))


def _floats(n: NodeView, name: str) -> NDArray[np.float64]:
    return np.array(n.attribute(name) or [], np.float64)


def _constant(op: GraphBuilder, array: NDArray[np.float64], like: ir.Value) -> ir.Value:
    return op.constant(array.astype(dtype_of(like).numpy()))


def _products(n: NodeView, x: ir.Value, vectors: NDArray[np.float64]) -> ir.Value:
    return cast("ir.Value", n.op.MatMul(x, _constant(n.op, vectors.T, x)))


def _kernel(n: NodeView, x: ir.Value, vectors: NDArray[np.float64]) -> ir.Value:
    """The kernel [N, V] of examples [N, C] with vectors [V, C]."""
    op, kind = n.op, n.attribute("kernel_type", "LINEAR")
    gamma, shift, degree = [*(n.attribute("kernel_params") or []), 0.0, 0.0, 0.0][:3]
    if kind == "RBF":
        difference = op.Sub(op.Unsqueeze(x, [1]), _constant(op, vectors, x))
        distance = op.ReduceSum(op.Mul(difference, difference), [2], keepdims=0)
        return cast("ir.Value", op.Exp(op.Mul(distance, -gamma)))
    dot = _products(n, x, vectors)
    if kind == "LINEAR":
        return dot
    inner = op.Add(op.Mul(dot, gamma), shift)
    if kind == "POLY":
        return cast("ir.Value", op.Pow(inner, op.scalar(degree, x)))
    if kind == "SIGMOID":
        return cast("ir.Value", op.Tanh(inner))
    raise n.unsupported(f"the kernel {kind!r}")


def _pair_weights(
    n: NodeView, per_class: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> NDArray[np.float64]:
    """[V, pairs]: what each support vector counts in the decision between each pair of classes.

    libsvm keeps classes - 1 rows of coefficients: a vector of class i counts by row j - 1 against a later class j, and
    by row j against an earlier one.
    """
    ends = np.cumsum([0, *per_class])
    coefficients = _floats(n, "coefficients").reshape(len(per_class) - 1, -1)
    weights = np.zeros((ends[-1], len(pairs)))
    for column, (i, j) in enumerate(pairs):
        ours, theirs = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
        weights[ours, column] = coefficients[j - 1, ours]
        weights[theirs, column] = coefficients[i, theirs]
    return weights


def _votes(
    n: NodeView, decisions: ir.Value, classes: int, pairs: Sequence[tuple[int, int]]
) -> ir.Value:
    """The class that wins most pairs, the first of several."""
    op = n.op
    won = op.Cast(op.Greater(decisions, 0.0), to=int(dtype_of(decisions)))
    first, second = np.zeros((len(pairs), classes)), np.zeros((len(pairs), classes))
    for row, (i, j) in enumerate(pairs):
        first[row, i] = second[row, j] = 1.0
    lost = op.Sub(op.scalar(1.0, decisions), won)
    votes = op.Add(
        op.MatMul(won, _constant(op, first, decisions)),
        op.MatMul(lost, _constant(op, second, decisions)),
    )
    return labels(n, op.ArgMax(votes, axis=1, keepdims=0))


def _probabilities(
    n: NodeView, decisions: ir.Value, classes: int, pairs: Sequence[tuple[int, int]]
) -> ir.Value:
    """Probabilities of the classes from those of the pairs (Wu, Lin and Weng, JMLR 5, 2004, algorithm 2).

    They solve p = argmin of p^T Q p; as in ONNX Runtime, sweeps over the classes end where an example is settled to
    0.005 / classes. Where `_SWEEPS` are not enough, the result is NaN rather than wrong.
    """
    if classes > _MOST_CLASSES:
        raise n.unsupported(f"probabilities of more than {_MOST_CLASSES} classes")
    op = n.op
    scale, offset = (
        _constant(op, _floats(n, name)[: len(pairs)], decisions) for name in ("prob_a", "prob_b")
    )
    wins = op.Sigmoid(op.Neg(op.Add(op.Mul(decisions, scale), offset)))
    wins = op.Clip(wins, op.scalar(1e-7, wins), op.scalar(1 - 1e-7, wins))
    q = _coupling(op, wins, classes, pairs)
    p = op.Mul(op.Slice(q[0], [0], [1], [1]), 0.0)
    p = op.Add(p, _constant(op, np.full((1, classes), 1 / classes), wins))
    settled: ir.Value | None = None
    for sweep in range(_SWEEPS + 1):
        product = _times(op, q, p)
        total = op.ReduceSum(op.Mul(p, product), [1], keepdims=1)
        error = op.reduce("ReduceMax", op.Abs(op.Sub(product, total)), [1])
        now = op.Less(error, 0.005 / classes)
        settled = now if settled is None else op.Or(settled, now)
        if sweep < _SWEEPS:
            p = op.Where(settled, p, _sweep(op, q, p, product, total))
    return cast("ir.Value", op.Where(settled, p, op.scalar(float("nan"), p)))


def _coupling(
    op: GraphBuilder, wins: ir.Value, classes: int, pairs: Sequence[tuple[int, int]]
) -> list[ir.Value]:
    """The rows [N, classes] of Q: on the diagonal the sum of r_ji^2 over all j, beside it -r_ij r_ji."""
    columns = {}
    for index, (i, j) in enumerate(pairs):
        columns[i, j] = op.Slice(wins, [index], [index + 1], [1])
        columns[j, i] = op.Sub(op.scalar(1.0, wins), columns[i, j])
    matrix = []
    for i in range(classes):
        row = [
            None if i == j else op.Neg(op.Mul(columns[i, j], columns[j, i])) for j in range(classes)
        ]
        squares = [op.Mul(columns[j, i], columns[j, i]) for j in range(classes) if j != i]
        row[i] = squares[0] if len(squares) == 1 else op.Sum(*squares)
        matrix.append(op.Concat(*row, axis=1))
    return matrix


def _times(op: GraphBuilder, matrix: Sequence[ir.Value], p: ir.Value) -> ir.Value:
    parts = [op.ReduceSum(op.Mul(row, p), [1], keepdims=1) for row in matrix]
    return cast("ir.Value", op.Concat(*parts, axis=1))


def _sweep(
    op: GraphBuilder, q: Sequence[ir.Value], p: ir.Value, product: ir.Value, total: ir.Value
) -> ir.Value:
    """One step along each class in turn, p, Q p and p^T Q p brought up to date after each."""
    for i, row in enumerate(q):
        diagonal = op.Slice(row, [i], [i + 1], [1])
        at = op.Slice(product, [i], [i + 1], [1])
        step = op.Div(op.Sub(total, at), diagonal)
        growth = op.Add(step, 1.0)
        gained = op.Mul(step, op.Add(op.Mul(step, diagonal), op.Mul(at, 2.0)))
        total = op.Div(op.Div(op.Add(total, gained), growth), growth)
        product = op.Div(op.Add(product, op.Mul(row, step)), growth)
        unit = np.zeros((1, len(q)))
        unit[0, i] = 1.0
        p = op.Div(op.Add(p, op.Mul(step, _constant(op, unit, p))), growth)
    return p

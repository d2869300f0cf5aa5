"""Operators of ai.onnx.ml in scikit-learn's pipelines: linear models, scalers, and what moves features about."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dtype_of, rank
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering

__all__ = ["finish_scores", "labels", "rows"]

CLASSICAL = "ai.onnx.ml"


def rows(n: NodeView, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """The features [N, C] as reals; one example alone may come as [C]."""
    op = n.op
    x = op.cast(n.x, _real(n.x, dtype))
    return cast("ir.Value", op.Unsqueeze(x, [0])) if rank(n.x) == 1 else x


def _real(x: ir.Value, default: ir.DataType) -> ir.DataType:
    dtype = dtype_of(x)
    return dtype if dtype.is_floating_point() else default


def _table(n: NodeView, name: str, like: ir.Value, *shape: int) -> ir.Value:
    """A float attribute as a constant of that shape."""
    array = np.array(n.attribute(name) or [], dtype_of(like).numpy()).reshape(shape)
    return n.op.constant(array)


@lowering("LinearRegressor", domain=CLASSICAL)
def linear_regressor(n: NodeView) -> Lowered:
    """LinearRegressor: X W^T + b, one row of W per target."""
    targets = n.attribute("targets", 1)
    return [finish_scores(n, _linear(n, targets), targets)]


@lowering("LinearClassifier", domain=CLASSICAL)
def linear_classifier(n: NodeView) -> Lowered:
    """LinearClassifier: the label of the highest score, and the scores; one score alone becomes two columns."""
    op = n.op
    names = n.attribute("classlabels_ints") or n.attribute("classlabels_strings") or []
    count = len(n.attribute("intercepts") or [])
    if not count:
        raise n.unsupported("a linear classifier without intercepts")
    raw = _linear(n, count)
    two = count == 1 and len(names) == 2
    scores = finish_scores(n, raw, count, second=two)
    label = None
    if n.has_output(0):
        if count > 1:
            best = op.ArgMax(raw, axis=1, keepdims=0)
        else:
            best = op.Cast(op.Squeeze(op.Greater(raw, 0.0), [1]), to=int(ir.DataType.INT64))
        label = labels(n, best)
    return [label, op.cast(scores, ir.DataType.FLOAT)]


def labels(n: NodeView, index: ir.Value) -> ir.Value:
    """The names of the classes with these indices."""
    op = n.op
    numbers, texts = n.attribute("classlabels_ints"), n.attribute("classlabels_strings")
    if len(texts or numbers or []) == 1:
        # One score and one name: onnxruntime answers 0 or 1.
        numbers, texts = [0, 1], ["0", "1"] if texts else None
    if texts:
        names = op.Constant(value_strings=texts)
        names.type = ir.TensorType(ir.DataType.STRING)
        return cast("ir.Value", op.Gather(names, index, axis=0))
    return cast("ir.Value", op.Gather(op.ints(numbers or [0, 1]), index, axis=0))


def _linear(n: NodeView, targets: int) -> ir.Value:
    x = rows(n)
    weights = _table(n, "coefficients", x, targets, -1)
    bias = n.attribute("intercepts")
    if not bias:
        return cast("ir.Value", n.op.Gemm(x, weights, transB=1))
    return cast("ir.Value", n.op.Gemm(x, weights, _table(n, "intercepts", x, targets), transB=1))


def finish_scores(
    n: NodeView, scores: ir.Value, count: int, *, second: bool = False, mixed: bool = False
) -> ir.Value:
    """`post_transform` of scores [N, count].

    `second`: of one score two are made, 1 - s and s; or -s and s where weights of both signs are `mixed`.
    """
    op, kind = n.op, n.attribute("post_transform", "NONE")
    if count == 1:
        if kind == "PROBIT":
            if second:
                raise n.unsupported("PROBIT of one score that becomes two")
            return _probit(op, scores)
        if not second:
            return scores
        if kind == "LOGISTIC":
            return cast(
                "ir.Value", op.Concat(op.Sigmoid(op.Neg(scores)), op.Sigmoid(scores), axis=1)
            )
        other = op.Neg(scores) if mixed else op.Sub(op.scalar(1.0, scores), scores)
        return cast("ir.Value", op.Concat(other, scores, axis=1))
    if kind == "LOGISTIC":
        return cast("ir.Value", op.Sigmoid(scores))
    if kind == "SOFTMAX":
        return cast("ir.Value", op.Softmax(scores, axis=1))
    if kind == "SOFTMAX_ZERO":
        return _softmax_zero(op, scores)
    if kind == "PROBIT":
        return _probit(op, scores)
    return scores


def _softmax_zero(op: GraphBuilder, scores: ir.Value) -> ir.Value:
    """Softmax of what is not zero; zeros stay."""
    largest = op.reduce("ReduceMax", scores, [1])
    zero = op.LessOrEqual(op.Abs(scores), 1e-7)
    powers = op.Exp(op.Sub(scores, largest))
    kept = op.Where(zero, op.scalar(0.0, scores), powers)
    numerator = op.Where(zero, op.Mul(scores, op.Exp(op.Neg(largest))), powers)
    return cast("ir.Value", op.Div(numerator, op.ReduceSum(kept, [1], keepdims=1)))


def _probit(op: GraphBuilder, p: ir.Value) -> ir.Value:
    """sqrt(2) times the inverse error function of 2 p - 1, by Winitzki's formula, as ONNX Runtime computes it."""
    x = op.Sub(op.Mul(p, 2.0), 1.0)
    log = op.Log(op.Mul(op.Sub(op.scalar(1.0, x), x), op.Add(x, 1.0)))
    a = op.Add(op.Mul(log, 0.5), 2 / (3.14159 * 0.147))
    root = op.Sqrt(op.Sub(op.Mul(a, a), op.Div(log, 0.147)))
    size = op.Sqrt(op.Sub(root, a))
    return cast("ir.Value", op.Mul(op.Where(op.Less(x, 0.0), op.Neg(size), size), math.sqrt(2)))


@lowering("Scaler", domain=CLASSICAL)
def scaler(n: NodeView) -> Lowered:
    """Scaler: (x - offset) scale, one of each per feature or one for all; the result is float32."""
    op = n.op
    x = op.cast(n.x, _real(n.x, ir.DataType.FLOAT))
    offset, scale = _table(n, "offset", x, -1), _table(n, "scale", x, -1)
    return [op.cast(op.Mul(op.Sub(x, offset), scale), ir.DataType.FLOAT)]


@lowering("Normalizer", domain=CLASSICAL)
def normalizer(n: NodeView) -> Lowered:
    """Normalizer: rows divided by their largest number, by the sum of sizes, or by the Euclidean length."""
    op, norm = n.op, n.attribute("norm", "MAX")
    x = op.cast(n.x, _real(n.x, ir.DataType.FLOAT))
    axis = rank(n.x) - 1
    if norm == "MAX":
        size = op.reduce("ReduceMax", x, [axis])
    elif norm == "L1":
        size = op.ReduceSum(op.Abs(x), [axis], keepdims=1)
    elif norm == "L2":
        squares = op.Mul(x, x)
        size = op.Sqrt(op.ReduceSum(squares, [axis], keepdims=1))
    else:
        raise n.unsupported(f"the norm {norm!r}")
    # A row of zeros stays, and has the slopes of the identity.
    safe = op.Where(op.Equal(size, op.scalar(0.0, x)), op.scalar(1.0, x), size)
    return [op.cast(op.Div(x, safe), ir.DataType.FLOAT)]


@lowering("Imputer", domain=CLASSICAL)
def imputer(n: NodeView) -> Lowered:
    """Imputer: a constant per feature in the place of one value (or NaN), the identity elsewhere."""
    op, x = n.op, n.x
    if dtype_of(x).is_floating_point():
        given = np.array(n.attribute("imputed_value_floats") or [], dtype_of(x).numpy())
        missing = n.attribute("replaced_value_float", 0.0)
    else:
        given = np.array(n.attribute("imputed_value_int64s") or [], dtype_of(x).numpy())
        missing = n.attribute("replaced_value_int64", 0)
    absent = op.IsNaN(x) if math.isnan(missing) else op.Equal(x, op.scalar(missing, x))
    return [op.Where(absent, op.constant(given), x)]


@lowering("FeatureVectorizer", domain=CLASSICAL)
def feature_vectorizer(n: NodeView) -> Lowered:
    """FeatureVectorizer: inputs [N, C], cut or padded with zeros to `inputdimensions`, side by side as float32."""
    op, parts = n.op, []
    for value, width in zip(n.node.inputs, n.attribute("inputdimensions") or [], strict=True):
        if value is None:
            continue
        part = op.Cast(value, to=int(ir.DataType.FLOAT))
        if rank(value) == 1:
            part = op.Unsqueeze(part, [1 if width == 1 else 0])
        if not (value.shape is not None and value.shape[-1] == width):
            part = op.Slice(op.Pad(part, [0, 0, 0, width]), [0], [width], [1])
        parts.append(part)
    return [parts[0] if len(parts) == 1 else op.Concat(*parts, axis=1)]


@lowering("ArrayFeatureExtractor", domain=CLASSICAL)
def array_feature_extractor(n: NodeView) -> Lowered:
    """ArrayFeatureExtractor: features by their numbers, along the last axis."""
    op = n.op
    index = op.Reshape(n.input(1), [-1])
    found = op.Gather(n.x, index, axis=-1)
    return [op.Unsqueeze(found, [0]) if rank(n.x) == 1 else found]

"""Gradients at special values: factors of zero, ties, equal elements, singular matrices, bases without a logarithm."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from rule_cases.check import session

import igonnx


def gradients(text, wrt, **feeds):
    """Gradients of the sum of output y of a model, given in the syntax of onnx.parser."""
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> ' + text)
    if "CumProd" in text:
        model.opset_import[0].version = 26
    output = session(model).run(["y"], feeds)[0]
    proto = igonnx.gradient(model, wrt=wrt)
    onnx.checker.check_model(proto, full_check=True)
    names = [f"grad_{name}" for name in wrt]
    return session(proto).run(names, {**feeds, "cotangent_y": np.ones_like(output)})


def f32(values):
    return np.array(values, np.float32)


def product_without(values):
    """For each element, the product of the others."""
    return [np.prod(np.delete(values, i)) for i in range(len(values))]


@pytest.mark.parametrize("row", [[2, 3, 4], [2, 0, 4], [0, 3, 0], [0, 0, 0], [-1, 0, -2]])
def test_factors_of_zero(row):
    x = f32(row)
    reduce = "g (float[N] x) => (float[M] y) { y = ReduceProd<keepdims=1>(x) }"
    np.testing.assert_array_equal(gradients(reduce, ["x"], x=x)[0], product_without(x))
    # Scattered onto one place that holds 5.
    scatter = (
        "g (float[1] data, float[N] x, int64[N] i) => (float[1] y)"
        ' { y = ScatterElements<axis=0, reduction="mul">(data, i, x) }'
    )
    places = np.zeros(3, np.int64)
    to_x, to_data = gradients(scatter, ["x", "data"], x=x, data=f32([5]), i=places)
    np.testing.assert_array_equal(to_x, 5 * f32(product_without(x)))
    np.testing.assert_array_equal(to_data, [np.prod(x)])


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize(
    "row", [[2, 3, 4, 5], [2, 0, 4, 5], [0, 3, 0, 2], [0, 0, 0, 0], [1, 2, 3, 0]]
)
def test_running_products_through_zeros(row, exclusive, reverse):
    text = (
        "g (float[N] x) => (float[N] y) <int64 axis = {0}>"
        f" {{ y = CumProd<exclusive={exclusive}, reverse={reverse}>(x, axis) }}"
    )
    x = f32(row)[::-1] if reverse else f32(row)
    ordered = x[::-1] if reverse else x
    expected = np.zeros(4)
    for j in range(4):
        for i in range(j + exclusive, 4):
            factors = ordered[: i + 1 - exclusive]
            expected[j] += np.prod(np.delete(factors, j))
    (given,) = gradients(text, ["x"], x=np.ascontiguousarray(x))
    np.testing.assert_allclose(given[::-1] if reverse else given, expected, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_scattered_values_that_tie_share_the_gradient(reduction):
    text = (
        "g (float[3] data, float[5] x, int64[5] i) => (float[3] y)"
        f' {{ y = ScatterElements<axis=0, reduction="{reduction}">(data, i, x) }}'
    )
    sign = 1 if reduction == "max" else -1
    data, x, i = sign * f32([2, 0, 1]), sign * f32([2, 2, 5, 5, 0]), np.array([0, -3, 1, 1, 2])
    to_data, to_x = gradients(text, ["data", "x"], data=data, x=x, i=i)
    np.testing.assert_allclose(to_data, [1 / 3, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(to_x, [1 / 3, 1 / 3, 0.5, 0.5, 0], rtol=1e-6)


def test_equal_elements_share_the_gradient_of_the_unique_one():
    text = "g (float[5] x) => (float[N] y) { u = Unique(x) y = Mul(u, u) }"
    (given,) = gradients(text, ["x"], x=f32([3, 1, 3, 2, 3]))
    np.testing.assert_allclose(given, [2, 2, 2, 4, 2], rtol=1e-6)


def test_determinant_of_singular_matrices():
    text = "g (float[N,3,3] x) => (float[N] y) { y = Det(x) }"
    x = f32([[[1, 2, 3], [2, 4, 6], [0, 1, 5]], np.zeros((3, 3)), np.eye(3)])
    x[1, 0, 0] = 2
    (given,) = gradients(text, ["x"], x=x)
    minors = np.zeros_like(x)
    for n, i, j in np.ndindex(x.shape):
        rest = np.delete(np.delete(x[n].astype(float), i, 0), j, 1)
        minors[n, i, j] = (-1) ** (i + j) * np.linalg.det(rest)
    np.testing.assert_allclose(given, minors, atol=1e-5)


def test_exponents_of_bases_that_are_not_positive():
    text = "g (float[5] x, float[5] p) => (float[5] y) { y = Pow(x, p) }"
    x, p = f32([-2, -2, 0, 0, 2]), f32([2, -1, 0, 2, 3])
    to_x, to_p = gradients(text, ["x", "p"], x=x, p=p)
    np.testing.assert_allclose(to_x, [-4, -0.25, 0, 0, 12], rtol=1e-6)
    np.testing.assert_allclose(to_p, [0, 0, 0, 0, 8 * np.log(2)], rtol=1e-6)


def test_exponent_of_another_type_gets_a_gradient_of_that_type():
    text = "g (float[2] x, double[2] p) => (float[2] y) { y = Pow(x, p) }"
    to_x, to_p = gradients(text, ["x", "p"], x=f32([2, 3]), p=np.array([2.0, 1.0]))
    assert (to_x.dtype, to_p.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(to_p, [4 * np.log(2), 3 * np.log(3)], rtol=1e-6)


def test_logarithm_of_nothing():
    text = "g (float[2,2] x) => (float[2] y) <int64[1] axes = {1}> { y = ReduceLogSumExp<keepdims=0>(x, axes) }"
    x = f32([[-np.inf, -np.inf], [0, -np.inf]])
    np.testing.assert_array_equal(gradients(text, ["x"], x=x)[0], [[0, 0], [1, 0]])


@pytest.mark.parametrize(
    "text",
    [
        "g (float16[2,3] x) => (float16[2,3] y) <int64 axis = {1}> { y = CumSum(x, axis) }",
        "g (float16[2,3] x) => (float16[2] y) <int64[1] axes = {1}> { y = ReduceProd<keepdims=0>(x, axes) }",
        "g (float16[2,3] x) => (float16[2,2] y, int64[2,2] i) <int64[1] k = {2}> { y, i = TopK(x, k) }",
        "g (float16[2,3] x) => (float16[2] y) { y = Einsum<equation=\"ij->i\">(x) }",
        "g (float16[2,3] x) => (float16[1,3] y) <int64[1,1] i = {1}> { y = GatherND(x, i) }",
        "g (float16[2,3] x) => (float16[2,2] y) <int64[2,2] i = {0, 1, 0, 0}> { y = GatherElements<axis=1>(x, i) }",
        "g (float16[2,3] x) => (float16[1,3] y) <int64[1] n = {2}> { c = Cast<to=9>(n) y = Compress<axis=0>(x, c) }",
        "g (float16[2,3] x) => (float16[2,3] y) { y = Pow(x, x) }",
        "g (float16[2,3] x) => (float16[2,2] y) <int64[1] a={0}, int64[1] b={3}, int64[1] d={1}, int64[1] s={2}>"
        " { y = Slice(x, a, b, d, s) }",
    ],
)  # fmt: skip
def test_half_precision(text):
    x = np.array([[0.5, 1, 2], [1.5, 3, 0.25]], np.float16)
    (half,) = gradients(text, ["x"], x=x)
    (single,) = gradients(text.replace("float16", "float"), ["x"], x=x.astype(np.float32))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, single, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("<int64[2] a={0,0}, int64[2] b={4,6}, int64[2] d={2,3}, int64[2] s={2,2}> { y = Slice(x, a, b, d, s) }",
         ["Pad", "Reshape", "Unsqueeze"]),
        ("<int64[1] a={-1}, int64[1] b={-99}, int64[1] d={3}, int64[1] s={-1}> { y = Slice(x, a, b, d, s) }",
         ["Slice"]),
        ('<int64[8] p={0,0,1,0,0,0,1,0}> { y = Pad<mode="reflect">(x, p) }',
         ["Pad", "Pad", "Slice", "Slice", "Slice", "Sum"]),
        ('<int64[8] p={0,0,0,0,0,0,0,2}> { y = Pad<mode="edge">(x, p) }',
         ["Pad", "ReduceSum", "Slice", "Slice", "Sum"]),
        ("<int64 k = {1}> { y = Trilu(x, k) }", ["Trilu"]),
        ('{ y = Einsum<equation="nchw->nhwc">(x) }', ["Transpose"]),
    ],
)  # fmt: skip
def test_common_cases_stay_small(text, operators):
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,3,4,6] x) => (float[N,a,b,c] y) '
        + text
    )
    proto = igonnx.gradient(model)
    added = [node.op_type for node in proto.graph.node][1:]
    assert sorted(name for name in added if name not in ("Constant", "Identity")) == operators


@pytest.mark.parametrize(("count", "length"), [(2, 6), (3, 4), (5, 6)])
def test_spectra_of_another_size_than_the_signal(count, length):
    """Half the length and one frequencies make a real signal; what runtimes do with others is anybody's guess."""
    spectrum = np.ones((1, count, 2), np.float32)
    text = (
        "g (float[1, N, 2] x, int64 length) => (float[1, L, 1] y)"
        " { y = DFT<inverse=1, onesided=1>(x, length) }"
    )
    (given,) = gradients(text, ["x"], x=spectrum, length=np.array(length))
    fits = count == length // 2 + 1
    assert np.isfinite(given).all() == fits
    known = f"g (float[1, {count}, 2] x) => (float[1, {length}, 1] y) <int64 n = {{{length}}}>" + (
        " { y = DFT<inverse=1, onesided=1>(x, n) }"
    )
    if fits:
        np.testing.assert_array_equal(gradients(known, ["x"], x=spectrum)[0], given)
    else:
        with pytest.raises(igonnx.UnsupportedOperatorError, match="frequencies to length"):
            gradients(known, ["x"], x=spectrum)

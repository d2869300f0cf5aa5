"""What layer-wise relevance propagation reads off the operators that make a tensor: its sign, and whether it gates."""

from __future__ import annotations

import numpy as np
import pytest

from igonnx.autodiff.propagation.lrp_signs import gate_strength, never_negative
from igonnx.model import Model

CONSTANTS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "six": np.float32(6),
    "below": np.float32(-1),
    "shape": np.int64([-1]),
}


def tensor(model, text):
    net = model(f"(float[N, 4] x) => (float[N, 4] y) {{ {text} y = Identity(v) }}", CONSTANTS)
    return Model.load(net).find_tensor("v")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("v = Relu(x)", True),
        ("a = Relu(x) b = Reshape(a, shape) v = Mul(b, six)", True),
        ("a = Relu(x) b = Sigmoid(x) c = Add(a, b) v = Concat <axis=0> (c, a)", True),
        ("v = Clip(x, zero, six)", True),
        ("v = Max(below, x, zero)", True),
        ("a = Relu(x) v = Transpose <perm=[1,0]> (a)", True),
        ("v = Clip(x, below, six)", False),
        ("v = Clip(x)", False),
        ("v = Max(below, x)", False),
        ("a = Relu(x) v = Add(a, below)", False),
        ("a = Relu(x) v = Sub(six, a)", False),
        ("a = Relu(x) v = Add(a, x)", False),
        ("v = Tanh(x)", False),
        ("v = Identity(x)", False),
    ],
)
def test_sign(text, wanted, model):
    assert never_negative(tensor(model, text)) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("v = Sigmoid(x)", 2),
        ("a = Sigmoid(x) v = Sub(one, a)", 2),
        ("a = HardSigmoid(x) b = Mul(a, six) v = Reshape(b, shape)", 2),
        ("a = Tanh(x) v = Add(one, a)", 2),
        ("a = Erf(x) v = Add(a, one)", 2),
        ("a = Softplus(x) v = Tanh(a)", 2),
        ("v = Reciprocal(x)", 2),
        ("v = Div(one, x)", 2),
        ("v = Pow(x, below)", 2),
        ("v = Clip(x, zero, six)", 1),
        ("a = Clip(x, zero, six) v = Div(a, six)", 1),
        ("v = Clip(x, below, six)", 0),
        ("v = Clip(x, zero)", 0),
        ("v = Tanh(x)", 0),
        ("v = Relu(x)", 0),
        ("v = Pow(x, six)", 0),
        ("v = Div(x, six)", 0),
        ("a = Sigmoid(x) v = Add(a, x)", 0),
        ("v = Identity(x)", 0),
    ],
)
def test_gates(text, wanted, model):
    assert gate_strength(tensor(model, text)) == wanted

"""Gaussian noise made of plain arithmetic: the same numbers in every run and runtime.

The operators of ONNX that draw at random go on from run to run of a session, and ONNX Runtime (1.31) has none of them
for opset 22 and up. So an element's place is enciphered twice into numbers that look random, which make a normal one
(Box and Muller, 1958, https://doi.org/10.1214/aoms/1177706645). The cipher adds keys and takes cubes modulo a prime, as
MiMC does (Albrecht et al., 2016, https://eprint.iacr.org/2016/492).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.graph.builder import GraphBuilder

__all__ = ["normal_noise"]

# Cubing permutes the residues, for 3 does not divide PRIME - 1; products of two are below 2^31, for runtimes that
# compute int64 in 32 bits.
PRIME = 46337
ROUNDS = 4


def normal_noise(op: GraphBuilder, shape: ir.Value, seed: Sequence[int]) -> ir.Value:
    """Standard normal numbers, float32, of a shape known at run time; they depend on `seed` and their places."""
    count = op.ReduceProd(shape, keepdims=0)
    places = op.Range(op.ints(0), count, op.ints(1))
    prime = op.ints(PRIME)
    low, high = op.Mod(places, prime), op.Mod(op.Div(places, prime), prime)
    keys = np.random.default_rng(list(seed)).integers(PRIME, size=(2, ROUNDS))
    first, second = (_uniform(op, low, high, row) for row in keys)
    radius = op.Sqrt(op.Mul(op.Log(first), -2.0))
    numbers = op.Mul(radius, op.Cos(op.Mul(second, 2 * math.pi)))
    return cast("ir.Value", op.Reshape(numbers, shape, allowzero=1))


def _uniform(
    op: GraphBuilder, low: ir.Value, high: ir.Value, keys: NDArray[np.integer]
) -> ir.Value:
    """The places high * PRIME + low, enciphered, as numbers between 0 and 1, neither included."""
    prime = op.ints(PRIME)
    state = low
    for key in keys:
        base = op.Mod(op.Add(op.Add(state, high), op.ints(int(key))), prime)
        state = op.Mod(op.Mul(op.Mod(op.Mul(base, base), prime), base), prime)
    state = op.Cast(state, to=int(ir.DataType.FLOAT))
    return cast("ir.Value", op.Mul(op.Add(state, 0.5), 1 / PRIME))

"""What is explained: forms of targets, and targets that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import igonnx
from igonnx.targets import resolve

SHAPES: dict[str, tuple[int, ...]] = {
    "regression": (2,), "one": (2, 1), "classes": (2, 5), "sequence": (2, 4, 3), "map": (2, 3, 4, 5),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_largest_element(name: str) -> None:
    output = np.random.default_rng(0).normal(size=SHAPES[name])
    cotangent, indices = resolve(None, output, np.dtype(np.float32))
    assert cotangent.dtype == np.float32
    assert cotangent.shape == output.shape
    np.testing.assert_allclose(
        (cotangent * output).reshape(2, -1).sum(axis=1),
        output.reshape(2, -1).max(axis=1),
        rtol=1e-6,
    )
    assert all(
        output[(i, *index)] == output[i].max()
        for i, index in enumerate(indices)
        if index is not None
    )
    assert all(isinstance(i, int) for index in indices for i in index or ())


def test_forms() -> None:
    output = np.zeros((2, 4, 3))
    wanted = [(1, 2), (3, 0)]
    for target in (wanted, np.array(wanted), np.array(wanted, np.uint8), [(1, -1), (-1, 0)]):
        cotangent, indices = resolve(target, output, np.dtype(np.float64))
        assert indices == wanted
        assert cotangent.sum() == 2
        assert cotangent[0, 1, 2] == cotangent[1, 3, 0] == 1
    assert resolve((1, 2), output, np.dtype(np.float32))[1] == [(1, 2), (1, 2)]
    assert resolve((), np.zeros(2), np.dtype(np.float32))[1] == [(), ()]


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float64, np.uint8])
def test_masks(dtype: type) -> None:
    mask = (np.random.default_rng(0).random((2, 3, 4, 5)) > 0.5).astype(dtype)
    cotangent, indices = resolve(mask, np.zeros((2, 3, 4, 5)), np.dtype(np.float32))
    np.testing.assert_array_equal(cotangent, mask)
    assert indices == [None, None]
    assert cotangent.flags.c_contiguous


def test_weights_of_a_regression() -> None:
    cotangent, indices = resolve(np.array([2, 3]), np.zeros(2), np.dtype(np.float32))
    assert cotangent.tolist() == [2, 3]
    assert indices == [None, None]


CLASSES = np.zeros((2, 5))
SEQUENCE = np.zeros((2, 4, 3))
OUTSIDE = "is outside the output of shape"
EXPECTED = "expected weights of the output's shape [2, 4, 3], or one integer class per example"
WRONG: dict[str, tuple[Any, Any, str]] = {
    "too large": (5, CLASSES, f"target 5 {OUTSIDE} [5] per example: expected 0 to 4"),
    "too small": (-6, CLASSES, f"target -6 {OUTSIDE} [5] per example: expected 0 to 4"),
    "in a tuple": (
        (1, 3),
        SEQUENCE,
        f"target (1, 3) {OUTSIDE} [4, 3] per example: expected 0 to 2",
    ),
    "in a list": ([0, 9], CLASSES, f"target 9 {OUTSIDE} [5] per example: expected 0 to 4"),
    "too few indices": (
        1,
        SEQUENCE,
        "target 1 does not fit an output of shape [4, 3] per example: expected a tuple of 2 indices",
    ),
    "too many indices": (
        (1, 2),
        CLASSES,
        "target (1, 2) does not fit an output of shape [5] per example: expected one index",
    ),
    "index of a number": (
        0,
        np.zeros(2),
        "target 0 does not fit an output of shape [] per example: expected None",
    ),
    "too many": ([0, 1, 2], CLASSES, "3 targets were given for 2 examples"),
    "too few": ([0], CLASSES, "1 targets were given for 2 examples"),
    "too many in an array": (np.array([0, 1, 2]), CLASSES, "3 targets were given for 2 examples"),
    "fraction": (1.5, CLASSES, "target 1.5 is not an index: expected integers"),
    "word": ("cat", CLASSES, "target 'cat' is not an index: expected integers"),
    "truth": (True, CLASSES, "target True is not an index: expected integers"),
    "nothing": ([None, 1], CLASSES, "target None is not an index: expected integers"),
    "nested list": (
        [[0, 1], [1, 1]],
        SEQUENCE,
        "target [0, 1] is not an index: expected integers",
    ),
    "floats": (
        np.array([0.0, 1.0]),
        SEQUENCE,
        f"target array has shape [2] and dtype float64; {EXPECTED}",
    ),
    "mask of another shape": (
        np.zeros((2, 3, 4), bool),
        SEQUENCE,
        f"target array has shape [2, 3, 4] and dtype bool; {EXPECTED}",
    ),
    "integer mask of another shape": (
        np.zeros((2, 3, 4), np.int64),
        SEQUENCE,
        f"target array has shape [2, 3, 4] and dtype int64; {EXPECTED}",
    ),
    "mask of words": (np.full((2, 5), "a"), CLASSES, "the target array is <U1; expected numbers"),
    "mask with nan": (
        np.full((2, 5), np.nan),
        CLASSES,
        "the target array holds values that are not finite",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_targets_that_do_not_fit(name: str) -> None:
    target, output, expected = WRONG[name]
    with pytest.raises(igonnx.InputError) as caught:
        resolve(target, output, np.dtype(np.float32))
    assert str(caught.value) == expected


def test_a_number_with_an_error_is_not_explained_by_chance() -> None:
    with pytest.raises(igonnx.InputError, match="outside the output"):
        resolve(np.array([0, 7]), CLASSES, np.dtype(np.float32))

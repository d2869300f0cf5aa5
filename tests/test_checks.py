"""Checks of arguments: what counts as a whole number or a number, and the one line that refuses anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from igonnx import InputError
from igonnx.checks import is_whole, require_number, require_whole

WHOLE = [0, -3, 1 << 70, np.int8(5), np.uint64(7)]
NOT_WHOLE = [True, np.bool_(True), 2.0, np.float32(2), "2", None, [2], np.array(2), np.array([2])]


@pytest.mark.parametrize("number", WHOLE)
def test_whole_numbers(number: Any) -> None:
    assert is_whole(number)
    require_whole("steps", number, -3)


@pytest.mark.parametrize("number", NOT_WHOLE)
def test_what_is_no_whole_number(number: Any) -> None:
    assert not is_whole(number)
    with pytest.raises(InputError) as caught:
        require_whole("steps", number, 1)
    assert str(caught.value) == f"steps is {number!r}; expected a whole number of at least 1"


def test_bounds_belong_to_the_range() -> None:
    require_whole("steps", 1, 1, 3)
    require_whole("steps", 3, 1, 3)
    for number in (0, 4):
        with pytest.raises(InputError) as caught:
            require_whole("steps", number, 1, 3)
        assert str(caught.value) == f"steps is {number}; expected a whole number from 1 to 3"


def test_none_passes_where_it_is_optional() -> None:
    require_whole("threads", None, 1, 8, optional=True)
    with pytest.raises(InputError) as caught:
        require_whole("threads", 9, 1, 8, optional=True)
    assert str(caught.value) == "threads is 9; expected a whole number from 1 to 8, or None"


@pytest.mark.parametrize("number", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_numbers_within_their_range(number: Any) -> None:
    require_number("fraction", number, 0, 1)
    require_number("fraction", number, 0)


@pytest.mark.parametrize("number", [-0.1, 1.5, np.nan, np.inf, True, "1", None, 1j, np.array([1])])
def test_what_is_no_such_number(number: Any) -> None:
    with pytest.raises(InputError) as caught:
        require_number("fraction", number, 0, 1)
    assert str(caught.value) == f"fraction is {number!r}; expected a number from 0 to 1"


def test_the_least_number_may_be_left_out() -> None:
    require_number("sigma", 1e-300, 0, above=True)
    for most, wanted in ((float("inf"), "above 0"), (5, "above 0 and at most 5")):
        with pytest.raises(InputError) as caught:
            require_number("sigma", 0.0, 0, most, above=True)
        assert str(caught.value) == f"sigma is 0.0; expected a number {wanted}"
    with pytest.raises(InputError) as caught:
        require_number("sigma", np.inf, 2)
    assert str(caught.value) == "sigma is inf; expected a number of at least 2"

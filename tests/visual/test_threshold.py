"""Thresholds by share, the linear transform, binarising."""

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import (
    binarise,
    keep_share,
    linear_transform,
    share_threshold,
    top_components,
)


class TestKeepShare:
    def test_keeps_the_fewest_that_reach_the_share(self):
        heat = np.array([[5.0, -3.0], [1.0, 1.0]])
        np.testing.assert_array_equal(keep_share(heat, 0.5), [[5, 0], [0, 0]])
        np.testing.assert_array_equal(keep_share(heat, 0.51), [[5, -3], [0, 0]])
        np.testing.assert_array_equal(keep_share(heat, 1.0), heat)

    def test_equal_pixels_stay_together(self):
        np.testing.assert_array_equal(keep_share(np.ones((2, 2)), 0.1), np.ones((2, 2)))

    def test_nothing_to_keep(self):
        assert not keep_share(np.zeros((2, 2)), 0.1).any()


SIGNED = np.array([[4.0, -3.0], [2.0, -1.0]])


class TestShareThreshold:
    @pytest.mark.parametrize(
        ("percentage", "expected"), [(0, 4), (40, 4), (41, 3), (70, 3), (90, 2), (91, 1), (100, 1)]
    )
    def test_values(self, percentage, expected):
        assert share_threshold(SIGNED, percentage) == expected
        assert share_threshold(-SIGNED, percentage) == expected

    def test_edge_cases(self):
        assert share_threshold(np.zeros((2, 2)), 50) == 0
        assert share_threshold(np.zeros((0, 2)), 50) == 0
        assert share_threshold(np.array([[-7.0]]), 50) == 7
        assert share_threshold(np.full((3, 3), -2.0), 50) == 2
        assert share_threshold(np.array([True, False]), 100) == 0

    @pytest.mark.parametrize("bad", [-1, 100.5, np.nan, None, "90"])
    def test_percentage_out_of_range(self, bad):
        with pytest.raises(InputError, match=r"percentage is .*, expected 0 to 100"):
            share_threshold(SIGNED, bad)


class TestLinearTransform:
    def test_ends_of_the_line(self):
        # 40 per cent are held by 4, 70 by 4 and 3, 90 by all but 1.
        stretched = linear_transform(SIGNED, 60, 10, 0.2)
        np.testing.assert_allclose(stretched, [[1, -0.6], [0.2, 0]])

    def test_weak_values_vanish_and_strong_ones_saturate(self):
        stretched = linear_transform(SIGNED, 30, 30, 0.5)
        np.testing.assert_array_equal(stretched, [[1, -1], [0, 0]])

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
    def test_dtypes(self, dtype):
        stretched = linear_transform(SIGNED.astype(dtype))
        assert stretched.dtype == np.float64
        np.testing.assert_array_equal(stretched, linear_transform(SIGNED))

    @pytest.mark.parametrize("lower_end", [0.0, 0.2])
    def test_edge_cases(self, lower_end):
        assert not linear_transform(np.zeros((3, 3)), lower_end=lower_end).any()
        assert not linear_transform(np.zeros((0, 3)), lower_end=lower_end).size
        np.testing.assert_array_equal(
            linear_transform(np.full((2, 3), -1e-20), lower_end=lower_end), np.full((2, 3), -1.0)
        )
        np.testing.assert_array_equal(linear_transform(np.array([[5]])), [[1]])

    def test_zero_stays_zero_whatever_the_lower_end(self):
        heat = np.array([3.0, 0.0, 1.0])
        assert linear_transform(heat, 99.9, 0, 0.9)[1] == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"clip_above_percentile": 101}, "clip_above_percentile is 101, expected 0 to 100"),
            ({"clip_below_percentile": -1}, "clip_below_percentile is -1, expected 0 to 100"),
            ({"clip_above_percentile": 50}, "clip_below_percentile is 70.0 and"),
            ({"lower_end": 1}, "lower_end is 1, expected"),
            ({"lower_end": None}, "lower_end is None, expected"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(InputError) as caught:
            linear_transform(SIGNED, **arguments)
        assert message in str(caught.value)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, bad):
        with pytest.raises(InputError, match="1 of 2 values of the heat map are NaN or infinite"):
            linear_transform(np.array([1.0, bad]))


class TestBinarise:
    def test_magnitude_above_the_threshold(self):
        mask = binarise(np.array([0.0, 0.001, 0.0011, -1.0]))
        np.testing.assert_array_equal(mask, [False, False, True, True])
        np.testing.assert_array_equal(binarise(np.array([True, False])), [True, False])

    def test_bad_threshold(self):
        for bad in (-1, None):
            with pytest.raises(InputError, match=f"threshold is {bad}, expected"):
                binarise(np.ones(3), bad)


def test_sums_of_huge_numbers_do_not_overflow():
    huge = SIGNED * (1e308 / np.abs(SIGNED).max())
    np.testing.assert_array_equal(keep_share(huge, 0.5) != 0, keep_share(SIGNED, 0.5) != 0)
    np.testing.assert_allclose(linear_transform(huge), linear_transform(SIGNED))
    assert top_components(np.ones(SIGNED.shape, bool), huge).all()


def test_what_keeps_a_share():
    with pytest.raises(InputError, match="1 of 2 values of the heat map are NaN or infinite"):
        keep_share(np.array([1.0, np.nan]), 0.5)
    with pytest.raises(InputError, match="share is '9', expected more than 0"):
        keep_share(SIGNED, "9")

"""From attributions with channels to heat maps: every edge case has a defined result."""

import numpy as np
import pytest

from igonnx.channels import channel_axis, reduce_channels
from igonnx.errors import InputError
from igonnx.visual import heat_map
from igonnx.visual.heatmap import contributions, normalise

SIGNS = ["all", "positive", "negative", "absolute"]


class TestChannels:
    @pytest.mark.parametrize(
        ("shape", "layout", "size", "expected"),
        [
            ((3, 20, 30), None, None, 0),
            ((20, 30, 3), None, None, 2),
            ((1, 8, 8), None, None, 0),
            ((8, 8, 1), None, None, 2),
            ((3, 3, 3), None, None, 0),
            ((3, 3, 3), "NHWC", None, 2),
            ((3, 5, 3), None, (5, 3), 0),
            ((3, 5, 3), None, (3, 5), 2),
            ((16, 64, 60), None, None, 0),
            ((64, 60, 16), None, None, 2),
            ((1280, 7, 7), None, None, 0),
            ((7, 7, 1280), None, None, 2),
        ],
    )
    def test_layout(self, shape, layout, size, expected):
        assert channel_axis(shape, layout, size) == expected

    def test_unknown_layout(self):
        with pytest.raises(InputError, match="layout is 'CHW'; expected 'NCHW' or 'NHWC'"):
            channel_axis((3, 4, 5), "CHW")

    def test_sum_keeps_completeness(self, values):
        heat = reduce_channels(values)
        assert heat.shape == (20, 30)
        assert heat.dtype == np.float64
        np.testing.assert_allclose(heat.sum(), values.sum())
        np.testing.assert_array_equal(heat, reduce_channels(np.moveaxis(values, 0, -1)))
        np.testing.assert_array_equal(heat, reduce_channels(values[None]))

    def test_absolute_does_not_cancel(self):
        pixel = np.array([1.0, -1.0, 0.0]).reshape(3, 1, 1)
        assert reduce_channels(pixel) == 0
        assert reduce_channels(pixel, absolute=True) == 2

    def test_smoothing_keeps_the_sum(self, values):
        np.testing.assert_allclose(contributions(values, smooth=2).sum(), values.sum())

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (np.zeros(5), "shape (5,), expected"),
            (np.zeros((0, 4)), "expected [H, W]"),
            (np.zeros((0, 3, 4, 4)), "expected [H, W]"),
            (np.zeros((2, 3, 4, 4)), "one of the 2"),
            (np.zeros((1, 1, 3, 4, 4)), "expected [H, W]"),
            (np.array([["a"]]), "expected numbers"),
        ],
    )
    def test_wrong_shapes(self, bad, message):
        with pytest.raises(InputError) as caught:
            heat_map(bad)
        assert message in str(caught.value)


class TestHeatMap:
    @pytest.mark.parametrize("sign", SIGNS)
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite_is_an_error(self, values, sign, bad):
        values[1, 2, 3] = bad
        with pytest.raises(InputError, match="1 of 1800 values of the attribution are NaN"):
            heat_map(values, sign=sign)
        with pytest.raises(InputError, match="NaN or infinite"):
            normalise(values[1])

    @pytest.mark.parametrize("sign", SIGNS)
    def test_all_zero_stays_zero(self, sign):
        heat = heat_map(np.zeros((3, 5, 6)), sign=sign, share=0.5, smooth=1)
        np.testing.assert_array_equal(heat, np.zeros((5, 6)))

    @pytest.mark.parametrize(("constant", "expected"), [(2.5, 1.0), (-1e-30, -1.0)])
    def test_constant(self, constant, expected):
        np.testing.assert_array_equal(
            heat_map(np.full((4, 5), constant)), np.full((4, 5), expected)
        )

    def test_one_pixel(self):
        np.testing.assert_array_equal(heat_map(np.array([[-3.0]])), [[-1.0]])

    def test_all_negative(self, values):
        negative = -np.abs(values)
        assert (heat_map(negative) <= 0).all()
        assert heat_map(negative).min() == -1
        assert not heat_map(negative, sign="positive").any()
        shown = heat_map(negative, sign="negative")
        assert (shown >= 0).all()
        assert shown.max() == 1

    def test_zero_is_the_centre(self):
        lopsided = np.zeros((10, 10))
        lopsided[0] = 100.0
        lopsided[1] = -1.0
        heat = heat_map(lopsided)
        assert not heat[2:].any()
        np.testing.assert_allclose(heat[1], -0.01)

    def test_sparse_map_is_scaled_by_its_maximum(self):
        sparse = np.zeros((100, 100))
        sparse[3, 4] = 7.0
        assert heat_map(sparse, outlier_percentile=5)[3, 4] == 1

    def test_outliers_saturate(self):
        steps = np.arange(1.0, 1001).reshape(20, 50)
        steps[0, 0] = 1e6
        heat = heat_map(steps, outlier_percentile=1)
        assert heat.max() == 1
        assert 0.009 <= (heat == 1).mean() <= 0.011

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"sign": "both"}, "sign is 'both'; expected one of 'all', 'positive'"),
            ({"share": 0}, "share is 0, expected"),
            ({"share": 1.5}, "share is 1.5, expected"),
            ({"share": None}, "share is None, expected"),
            ({"smooth": -1}, "smooth is -1, expected"),
            ({"smooth": np.inf}, "smooth is inf, expected"),
            ({"smooth": "4"}, "smooth is '4', expected"),
            ({"outlier_percentile": None}, "outlier_percentile is None, expected"),
            ({"outlier_percentile": 100}, "outlier_percentile is 100, expected"),
        ],
    )
    def test_bad_options(self, values, option, message):
        with pytest.raises(InputError) as caught:
            heat_map(values, **option)
        assert message in str(caught.value)

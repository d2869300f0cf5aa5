"""Heat maps, overlays and figures: every edge case has a defined result."""

import io
import subprocess
import sys

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import heat_map, plot, render
from igonnx.visual.colours import diverging
from igonnx.visual.heatmap import channel_axis, contributions, normalise, reduce_channels
from igonnx.visual.overlay import as_rgb, resize_heat
from igonnx.visual.threshold import keep_share

SIGNS = ["all", "positive", "negative", "absolute"]


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(3, 20, 30))


@pytest.fixture
def image():
    return np.random.default_rng(1).random((20, 30, 3))


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
        with pytest.raises(InputError, match="layout is 'CHW', expected 'NCHW' or 'NHWC'"):
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
            ({"sign": "both"}, "sign is 'both', expected one of 'all', 'positive'"),
            ({"share": 0}, "share is 0, expected"),
            ({"share": 1.5}, "share is 1.5, expected"),
            ({"smooth": -1}, "smooth is -1, expected"),
            ({"outlier_percentile": 100}, "outlier_percentile is 100, expected"),
        ],
    )
    def test_bad_options(self, values, option, message):
        with pytest.raises(InputError) as caught:
            heat_map(values, **option)
        assert message in str(caught.value)


class TestThreshold:
    def test_keeps_the_fewest_that_reach_the_share(self):
        heat = np.array([[5.0, -3.0], [1.0, 1.0]])
        np.testing.assert_array_equal(keep_share(heat, 0.5), [[5, 0], [0, 0]])
        np.testing.assert_array_equal(keep_share(heat, 0.51), [[5, -3], [0, 0]])
        np.testing.assert_array_equal(keep_share(heat, 1.0), heat)

    def test_equal_pixels_stay_together(self):
        np.testing.assert_array_equal(keep_share(np.ones((2, 2)), 0.1), np.ones((2, 2)))

    def test_nothing_to_keep(self):
        assert not keep_share(np.zeros((2, 2)), 0.1).any()


class TestOverlay:
    @pytest.mark.parametrize("sign", SIGNS)
    def test_shape_and_dtype(self, values, image, sign):
        shown = render(values, image, sign=sign)
        assert shown.shape == (20, 30, 3)
        assert shown.dtype == np.uint8
        assert np.ptp(shown.astype(int), axis=2).any()

    @pytest.mark.parametrize("sign", SIGNS)
    def test_no_contribution_leaves_no_colour(self, image, sign):
        shown = render(np.zeros((3, 20, 30)), image, sign=sign)
        assert not np.ptp(shown, axis=2).any()

    def test_signs_have_their_colours(self):
        signed = np.array([[1.0, -1.0]])
        left, right = render(signed, np.zeros((1, 2)), sign="all")[0].astype(int)
        assert left[0] > left[2]
        assert right[2] > right[0]

    def test_image_kinds_agree(self, values, image):
        as_bytes = np.rint(image * 255).astype(np.uint8)
        expected = render(values, as_bytes)
        for same in (as_bytes / 255, np.moveaxis(as_bytes, 2, 0), as_bytes[None]):
            np.testing.assert_array_equal(render(values, same), expected)
        grey = as_bytes[..., 0]
        np.testing.assert_array_equal(render(values, grey), render(values, grey[..., None]))

    def test_map_of_an_inner_layer_is_scaled(self, image):
        assert render(np.random.default_rng(2).normal(size=(40, 5, 7)), image).shape == (20, 30, 3)

    def test_scaling_invents_nothing(self):
        small = np.array([[0.0, 1.0], [-1.0, 0.0]])
        large = resize_heat(small, (9, 9))
        assert large.min() >= -1
        assert large.max() <= 1
        assert not resize_heat(np.zeros((2, 2)), (5, 6)).any()
        assert resize_heat(np.ones((50, 50)), (5, 6)).shape == (5, 6)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((4, 5, 2)), "the image has shape (4, 5, 2)"),
            (np.full((4, 5), 300.0), "values from 300 to 300, expected 0 to 1"),
            (np.full((4, 5), np.nan), "expected 0 to 1"),
            (np.zeros((4, 5), dtype=np.int64), "dtype int64, expected uint8"),
        ],
    )
    def test_wrong_images(self, image, message):
        with pytest.raises(InputError) as caught:
            as_rgb(image)
        assert message in str(caught.value)

    def test_opacity(self, values, image):
        with pytest.raises(InputError, match="opacity is 2"):
            render(values, image, opacity=2)

    def test_needs_no_matplotlib(self):
        code = (
            "import sys, numpy as np; from igonnx.visual import render; "
            "render(np.ones((3, 4, 5)), np.ones((4, 5))); "
            "sys.exit(any(name.startswith('matplotlib') for name in sys.modules))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestFigure:
    @pytest.mark.parametrize("shape", [(8, 8), (20, 200), (200, 20), (1, 1)])
    def test_saves_without_a_window(self, shape):
        random = np.random.default_rng(0)
        figure = plot(
            random.normal(size=(3, *shape)), random.random(shape), title="$5 \u00e9", subtitle="x"
        )
        file = io.BytesIO()
        figure.savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")
        texts = [text.get_text() for text in figure.texts]
        assert texts == ["$5 \u00e9", "x"]

    def test_colour_bar_is_in_units_of_the_attribution(self, values, image):
        figure = plot(values, image, outlier_percentile=0)
        labels = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
        largest = np.abs(values.sum(axis=0)).max()
        assert labels == [f"\u2212{largest:.2g}", "0", f"+{largest:.2g}"]

    def test_all_zero(self, image):
        plot(np.zeros((3, 20, 30)), image).savefig(io.BytesIO(), format="png")

    def test_nan_is_an_error(self, values, image):
        values[0, 0, 0] = np.nan
        with pytest.raises(InputError, match="NaN"):
            plot(values, image)

    def test_neutral_colour_is_in_the_middle(self):
        colours = diverging(np.linspace(-1, 1, 257))
        assert colours.shape == (257, 3)
        assert np.ptp(colours[128]) == 0
        assert colours[256, 0] > colours[256, 2]
        assert colours[0, 2] > colours[0, 0]

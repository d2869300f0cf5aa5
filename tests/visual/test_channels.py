"""Polarity and channels, and colours of choice."""

import numpy as np
import pytest

from igonnx.channels import channel_axis, fits
from igonnx.errors import InputError
from igonnx.visual import apply_polarity, colour_signs, reduce_channels, superimpose
from igonnx.visual.colours import as_colour

PIXEL = np.array([3.0, -4.0, 0.0]).reshape(3, 1, 1)


class TestReductions:
    @pytest.mark.parametrize(
        ("reduction", "signed", "absolute"),
        [("sum", -1, 7), ("mean", -1 / 3, 7 / 3), ("norm", 5, 5), ("strongest", -4, 4)],
    )
    def test_one_pixel(self, reduction, signed, absolute):
        for values in (PIXEL, np.moveaxis(PIXEL, 0, 2), PIXEL[None]):
            assert reduce_channels(values, reduction=reduction) == pytest.approx(signed)
            assert reduce_channels(values, reduction=reduction, absolute=True) == pytest.approx(
                absolute
            )

    @pytest.mark.parametrize("reduction", ["sum", "mean", "strongest"])
    def test_without_channels_nothing_is_reduced(self, reduction):
        heat = np.array([[1.0, -2.0]])
        np.testing.assert_array_equal(reduce_channels(heat, reduction=reduction), heat)
        np.testing.assert_array_equal(reduce_channels(heat, reduction="norm"), np.abs(heat))

    @pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float64])
    def test_dtypes(self, dtype):
        assert reduce_channels(np.ones((3, 2, 2), dtype=dtype)).tolist() == [[3.0] * 2] * 2

    def test_volumes(self):
        values = np.random.default_rng(0).normal(size=(2, 4, 5, 6))
        for given in (values, np.moveaxis(values, 0, 3), values[None]):
            np.testing.assert_allclose(reduce_channels(given, rank=3), values.sum(axis=0))
        np.testing.assert_array_equal(reduce_channels(values[0], rank=3), values[0])
        with pytest.raises(InputError, match=r"expected \[D, H, W\], \[C, D, H, W\] or"):
            reduce_channels(values[0, 0], rank=3)

    def test_unknown_reduction(self):
        with pytest.raises(InputError, match="reduction is 'max'; expected one of 'sum'"):
            reduce_channels(PIXEL, reduction="max")


class TestProportions:
    @pytest.mark.parametrize("size", [(224, 224), (20, 30), (37, 91), (1, 1), (299, 400)])
    @pytest.mark.parametrize("stride", [1, 2, 4, 8, 32])
    def test_an_inner_layer_fits(self, size, stride):
        assert fits(tuple(-(-side // stride) for side in size), size)
        assert fits(tuple(max(1, side // stride) for side in size), size)

    @pytest.mark.parametrize("shape", [(224, 200), (30, 20), (7, 14), (7, 7, 7)])
    def test_another_crop_does_not(self, shape):
        assert not fits(shape, (224, 224))

    def test_channels_of_a_volume(self):
        assert (channel_axis((16, 10, 10, 10)), channel_axis((10, 10, 10, 16))) == (0, 3)
        assert channel_axis((1, 8, 9, 10)) == 0
        assert channel_axis((8, 9, 10, 3)) == 3
        assert channel_axis((8, 9, 10, 8), size=(9, 10, 8)) == 0
        assert channel_axis((5, 5, 5, 5), "NHWC") == 3


class TestPolarity:
    def test_values(self):
        values = np.array([2.0, -3.0, 0.0])
        np.testing.assert_array_equal(apply_polarity(values, "positive"), [2, 0, 0])
        np.testing.assert_array_equal(apply_polarity(values, "negative"), [0, 3, 0])
        np.testing.assert_array_equal(apply_polarity(values, "absolute"), [2, 3, 0])
        for both in ("both", "all"):
            np.testing.assert_array_equal(apply_polarity(values, both), values)

    def test_smallest_integer_has_a_magnitude(self):
        assert apply_polarity(np.array([-128], dtype=np.int8), "negative") == 128

    def test_unknown_polarity(self):
        with pytest.raises(InputError, match="polarity is 'up'; expected one of 'positive', 'neg"):
            apply_polarity(PIXEL, "up")

    def test_not_finite(self):
        with pytest.raises(InputError, match="1 of 1 values of the attribution are NaN"):
            apply_polarity(np.array([np.nan]), "positive")


class TestColours:
    def test_signs_have_the_colours_of_choice(self):
        drawn = colour_signs(np.array([[1.0, -0.5, 0.0, 9.0]]), "#0a141e", (100, 0, 200))
        np.testing.assert_allclose(drawn[0], [[10, 20, 30], [50, 0, 100], [0, 0, 0], [10, 20, 30]])

    def test_superimpose(self):
        colours = np.array([[[0.0, 250.0, 10.0]]])
        image = np.array([[[10, 100, 20]]], dtype=np.uint8)
        np.testing.assert_allclose(superimpose(colours, image), [[[10, 255, 28]]])
        np.testing.assert_allclose(superimpose(colours, image, opacity=0), image)

    def test_superimpose_refuses_another_size(self):
        with pytest.raises(InputError, match=r"drawn in \(2, 3\) pixels, expected .* \(4, 3\)"):
            superimpose(np.zeros((2, 3, 3)), np.zeros((4, 3)))
        with pytest.raises(InputError, match=r"opacity is 1\.5"):
            superimpose(np.zeros((2, 3, 3)), np.zeros((2, 3)), opacity=1.5)

    @pytest.mark.parametrize("bad", ["red", "#12345", (1, 2), (0, 0, 256), ("a", "b", "c"), np.nan])
    def test_colours_that_are_none(self, bad):
        with pytest.raises(InputError, match="the colour is "):
            as_colour(bad)

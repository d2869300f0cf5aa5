"""Heat maps over images."""

import subprocess
import sys

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import render
from igonnx.visual.overlay import as_rgb, resize_heat

SIGNS = ["all", "positive", "negative", "absolute"]


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
        np.testing.assert_array_equal(render(values, as_bytes.astype(np.int64)), expected)
        half = render(values.astype(np.float16), as_bytes)
        assert np.abs(half.astype(int) - expected).max() <= 2
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
        assert resize_heat(np.ones((50, 60)), (5, 6)).shape == (5, 6)

    @pytest.mark.parametrize("channels_first", [True, False])
    def test_channels_of_an_inner_layer_are_found_by_proportion(self, image, channels_first):
        inner = np.random.default_rng(2).normal(size=(40, 5, 7))
        shown = render(inner if channels_first else np.moveaxis(inner, 0, 2), image)
        np.testing.assert_array_equal(shown, render(inner, image, layout="NCHW"))

    @pytest.mark.parametrize("shape", [(30, 20), (3, 20, 20), (224, 224), (20, 60)])
    def test_an_image_of_other_proportions_is_an_error(self, image, shape):
        with pytest.raises(InputError, match=r"and the image 20 x 30, expected the same prop"):
            render(np.ones(shape), image)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((4, 5, 2)), "the image has shape (4, 5, 2)"),
            (np.full((4, 5), 300.0), "values from 300 to 300, expected 0 to 1"),
            (np.full((4, 5), np.nan), "expected 0 to 1"),
            (np.full((4, 5), 256), "int64 values from 256 to 256, expected 0 to 255"),
            (np.full((4, 5), -1, dtype=np.int8), "int8 values from -1 to -1, expected 0 to 255"),
            (np.zeros((4, 5), dtype=np.complex64), "dtype complex64, expected integers"),
            (np.zeros((4, 5, 3, 1)), "shape (4, 5, 3, 1)"),
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

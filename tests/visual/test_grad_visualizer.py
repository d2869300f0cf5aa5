"""The class of the Keras example: what it takes, beyond what the example's takes, and what it refuses."""

import io

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import GradVisualizer


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(20, 30, 3))


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)


class TestProcessGrads:
    def test_layouts_and_dtypes_agree(self, values, image):
        draw = GradVisualizer().process_grads
        expected = draw(image, values)
        for same in (np.moveaxis(values, 2, 0), values[None], 1e-30 * values):
            np.testing.assert_allclose(draw(image, same), expected, atol=1e-9)
        for same in (image / 255, image.astype(np.float32), image.astype(np.int64), image[None]):
            np.testing.assert_allclose(draw(same, values), expected, atol=1e-4)
        half = draw(image, values.astype(np.float16))
        np.testing.assert_allclose(half, expected, atol=1)
        draw(image[..., 0], values[..., 0])
        draw(image[..., :1], values > 0)

    def test_layout_is_told_where_the_shape_does_not(self):
        square = np.random.default_rng(2).normal(size=(3, 3, 3))
        draw = GradVisualizer().process_grads
        first, last = (draw(np.zeros((3, 3)), square, layout=one) for one in ("NCHW", "NHWC"))
        assert (first != last).any()
        np.testing.assert_array_equal(
            draw(np.zeros((3, 3)), np.moveaxis(square, 0, 2), layout="NHWC"), first
        )

    def test_polarities_have_their_channels(self):
        signed = np.array([[[1.0], [-1.0], [0.0]]])
        image = np.zeros((1, 3))
        visualizer = GradVisualizer(positive_channel=[0, 0, 255], negative_channel="#ffff00")
        blue, yellow, none = [0, 0, 255], [255, 255, 0], [0, 0, 0]
        for polarity, expected in {
            "positive": [blue, none, none],
            "negative": [none, yellow, none],
            "both": [blue, yellow, none],
            "all": [blue, yellow, none],
            "absolute": [blue, blue, none],
        }.items():
            drawn = visualizer.process_grads(image, signed, polarity, overlay=False)
            np.testing.assert_array_equal(drawn[0], expected)
            over = visualizer.process_grads(image, signed, polarity)
            np.testing.assert_allclose(over[0], 0.8 * np.array(expected))

    @pytest.mark.parametrize("polarity", ["positive", "negative", "both", "absolute"])
    @pytest.mark.parametrize("outlines", [False, True])
    @pytest.mark.parametrize("cleanup", [False, True])
    @pytest.mark.parametrize(
        "nothing", [np.zeros((4, 5, 3)), np.zeros((1, 1)), np.zeros((4, 5), dtype=bool)]
    )
    def test_nothing_leaves_the_image(self, polarity, outlines, cleanup, nothing):
        image = np.full(nothing.shape[:2], 7, dtype=np.uint8)
        drawn = GradVisualizer().process_grads(
            image, nothing, polarity, morphological_cleanup=cleanup, outlines=outlines
        )
        assert (drawn == 7).all()

    @pytest.mark.parametrize("outlines", [False, True])
    def test_one_pixel(self, outlines):
        drawn = GradVisualizer().process_grads(
            np.zeros((1, 1)), np.array([[2.0]]), outlines=outlines, overlay=False
        )
        np.testing.assert_array_equal(drawn, [[[0, 255, 0]]])

    def test_smoothing_joins_grains(self):
        grains = np.zeros((20, 30))
        grains[4:16:2, 6:20:2] = 1.0
        image = np.zeros((20, 30))
        options = {"clip_below_percentile": 30, "outlines": True, "overlay": False}
        scattered = GradVisualizer().process_grads(image, grains, **options)
        joined = GradVisualizer().process_grads(image, grains, smooth=2, **options)
        assert joined[10, 12, 1] == 0  # within the line
        assert scattered[4, 6, 1] == 255
        assert joined[..., 1].any()
        with pytest.raises(InputError, match="smooth is -1"):
            GradVisualizer().process_grads(image, grains, smooth=-1)

    def test_regions_of_both_signs_are_outlined(self):
        signed = np.zeros((12, 12))
        signed[1:5, 1:5], signed[7:11, 7:11] = 1.0, -0.5
        drawn = GradVisualizer().process_grads(
            np.zeros((12, 12)), signed, "both", outlines=True, overlay=False
        )
        assert (drawn[..., 1] == 255).sum() == (drawn[..., 0] == 255).sum() == 12

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"attributions": np.ones((20, 31, 3))}, "20 x 31 pixels, expected those of the image"),
            ({"attributions": np.ones((2, 20, 30, 3))}, "pass one of the 2"),
            ({"attributions": np.ones(5)}, "the attribution has shape (5,), expected [H, W]"),
            ({"attributions": np.full((20, 30), np.inf)}, "are NaN or infinite"),
            ({"image": np.full((20, 30), 256.0)}, "from 256 to 256, expected 0 to 1 or 0 to 255"),
            ({"image": np.full((20, 30), np.nan)}, "expected 0 to 1"),
            ({"image": np.ones((20, 30, 4))}, "the image has shape (20, 30, 4)"),
            ({"polarity": "up"}, "polarity is 'up'; expected one of 'positive', 'negative'"),
            ({"clip_above_percentile": 101}, "clip_above_percentile is 101, expected 0 to 100"),
            ({"clip_below_percentile": -1}, "clip_below_percentile is -1, expected 0 to 100"),
            ({"clip_above_percentile": 5, "clip_below_percentile": 6}, "expected the first to be"),
            ({"outlines_component_percentage": 101}, "outlines_component_percentage is 101"),
            ({"morphological_cleanup": True, "structure": np.ones(3)}, "the footprint has shape"),
        ],
    )
    def test_bad_arguments(self, values, image, arguments, message):
        with pytest.raises(InputError) as caught:
            GradVisualizer().process_grads(**({"image": image, "attributions": values} | arguments))
        assert message in str(caught.value)

    def test_bad_colour(self):
        with pytest.raises(InputError, match="the colour is 'green'"):
            GradVisualizer("green")


class TestVisualize:
    def test_three_panels(self, values, image):
        figure = GradVisualizer().visualize(image, values, 2 * values, figsize=(6, 3))
        titles = [panel.get_title() for panel in figure.axes]
        assert titles == ["Input", "Normal gradients", "Integrated gradients"]
        shown = [panel.images[0].get_array() for panel in figure.axes]
        np.testing.assert_allclose(shown[0], image / 255)
        np.testing.assert_allclose(
            255 * np.asarray(shown[1]), GradVisualizer().process_grads(image, values), atol=1e-9
        )
        np.testing.assert_allclose(shown[1], shown[2])
        file = io.BytesIO()
        figure.savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")

"""The figure of input, overlay and contributions."""

import io

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import plot
from igonnx.visual.colours import diverging


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
        figure = plot(np.zeros((3, 20, 30)), image)
        signed, bar = figure.axes[2:]
        assert np.ptp(signed.images[0].get_array(), axis=(0, 1)).max() == 0
        assert [label.get_text() for label in bar.get_yticklabels()] == ["\u22121", "0", "+1"]
        figure.savefig(io.BytesIO(), format="png")

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

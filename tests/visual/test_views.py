"""Captum's views: their formulas, written down again here; edge cases; figures of several."""

import io

import numpy as np
import pytest
from page_text import assert_all_text_is_on_the_page

from igonnx.attribution import Attribution, Path
from igonnx.errors import InputError
from igonnx.visual import plot_views, view
from igonnx.visual.colouring import colouring
from igonnx.visual.views import share_scale, strengths

SIGNS = ["all", "positive", "negative", "absolute"]
KINDS = ["original_image", "heat_map", "blended_heat_map", "masked_image", "alpha_scaling"]
UNSIGNED = ["masked_image", "alpha_scaling"]


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(3, 20, 30)) ** 3


def normalised_as_captum(channels_last, sign, percentile):
    """Captum's normalisation: sum over channels, sign, threshold by cumulative sum from below."""
    summed = channels_last.sum(axis=2)
    kept = {
        "all": summed,
        "positive": np.where(summed > 0, summed, 0),
        "negative": np.where(summed < 0, summed, 0),
        "absolute": np.abs(summed),
    }[sign]
    ascending = sorted(np.abs(kept).ravel())
    total, below = sum(ascending), 0.0
    for threshold in ascending:
        below += threshold
        if below >= total * (100 - percentile) / 100:
            break
    scaled = kept / (-threshold if sign == "negative" else threshold)
    return np.minimum(np.maximum(scaled, -1), 1)


class TestNormalisation:
    @pytest.mark.parametrize("sign", SIGNS)
    @pytest.mark.parametrize("percentile", [0.5, 2, 10, 50, 99])
    def test_is_that_of_captum(self, values, sign, percentile):
        expected = normalised_as_captum(np.moveaxis(values, 0, 2), sign, percentile)
        found, _ = strengths(values, sign=sign, outlier_percentile=percentile)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)

    def test_what_lies_above_is_no_more_than_the_percentage(self, values):
        strength = np.abs(values.sum(axis=0))
        scale = share_scale(strength, 10)
        assert strength[strength > scale].sum() <= 0.1 * strength.sum()
        assert strength[strength >= scale].sum() > 0.1 * strength.sum()

    def test_differs_from_a_share_of_pixels(self):
        """One pixel holds nearly everything: 2 % of the pixels, but not 2 % of the total, lie beyond."""
        heat = np.full((10, 10), 1e-3)
        heat[0, 0] = 100.0
        assert share_scale(heat, 2) == 100.0

    def test_no_outliers_means_the_maximum(self):
        """Also where rounding makes the running sum fall short of the total."""
        for seed in range(50):
            heat = np.random.default_rng(seed).normal(size=(7, 9))
            assert share_scale(heat, 0) == np.abs(heat).max()

    @pytest.mark.parametrize("size", [1e-320, 1e-200, 1e200, 1e308])
    def test_any_magnitude(self, size):
        heat = size * np.array([[0.0, 0.25, -0.5, 1.0]])
        strength, scale = strengths(heat, sign="all", outlier_percentile=0)
        np.testing.assert_allclose(strength, [[0.0, 0.25, -0.5, 1.0]], atol=1e-3)
        assert scale == size

    @pytest.mark.parametrize("sign", SIGNS)
    @pytest.mark.parametrize(
        "heat", [np.zeros((4, 5)), np.array([[0.0]]), np.zeros((3, 4, 5), bool)]
    )
    def test_all_zero(self, heat, sign):
        strength, scale = strengths(heat, sign=sign)
        assert scale == 0
        assert not strength.any()

    @pytest.mark.parametrize(
        ("constant", "sign", "expected"),
        [(2.5, "all", 1), (-2.5, "all", -1), (-2.5, "negative", 1), (-2.5, "positive", 0)],
    )
    @pytest.mark.parametrize("shape", [(4, 5), (1, 1), (1, 4, 5), (4, 5, 1)])
    def test_constant_and_one_pixel(self, constant, sign, expected, shape):
        strength, _ = strengths(np.full(shape, constant), sign=sign)
        assert strength.ndim == 2
        assert (strength == expected).all()

    def test_layouts_and_batch_axis(self, values):
        first, _ = strengths(values)
        for other in (values[None], np.moveaxis(values, 0, 2), np.moveaxis(values, 0, 2)[None]):
            np.testing.assert_allclose(strengths(other)[0], first, rtol=1e-12)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
    def test_dtypes(self, dtype):
        heat = np.array([[0, 1], [-2, 4]], dtype)
        strength, scale = strengths(heat, sign="all", outlier_percentile=0)
        assert strength.tolist() == [[0, 0.25], [-0.5, 1]]
        assert scale == 4


class TestView:
    @pytest.mark.parametrize("sign", SIGNS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_shapes(self, values, image, kind, sign):
        if sign == "all" and kind in UNSIGNED:
            with pytest.raises(InputError, match="shows strengths without a sign"):
                view(values, image, kind=kind, sign=sign)
            return
        shown = view(values, image, kind=kind, sign=sign)
        assert shown.dtype == np.uint8
        assert shown.shape == (20, 30, 4 if kind == "alpha_scaling" else 3)

    def test_masked_image_is_the_image_times_the_strength(self, values, image):
        expected = image * normalised_as_captum(np.moveaxis(values, 0, 2), "positive", 2)[..., None]
        shown = view(values, image, kind="masked_image", sign="positive")
        np.testing.assert_allclose(shown / 255, expected, atol=0.5001 / 255)

    def test_alpha_scaling_keeps_the_image(self, values, image):
        shown = view(values, image, kind="alpha_scaling", sign="negative")
        strength = normalised_as_captum(np.moveaxis(values, 0, 2), "negative", 2)
        np.testing.assert_allclose(shown[..., :3] / 255, image, atol=0.5001 / 255)
        np.testing.assert_allclose(shown[..., 3] / 255, strength, atol=0.5001 / 255)

    def test_blended_is_between_grey_image_and_heat_map(self, values, image):
        grey = view(values, image, kind="blended_heat_map", opacity=0)
        heat = view(values, image, kind="blended_heat_map", opacity=1)
        half = view(values, image, kind="blended_heat_map", opacity=0.5)
        assert not np.ptp(grey, axis=2).any()
        np.testing.assert_array_equal(heat, view(values, kind="heat_map"))
        np.testing.assert_allclose(half, (grey.astype(float) + heat) / 2, atol=1.01)

    def test_original_image(self, values):
        grey = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
        shown = view(values, grey, kind="original_image")
        np.testing.assert_array_equal(shown, np.repeat(grey[..., None], 3, axis=2))

    def test_image_channels_first(self, values, image):
        a = view(values, image, kind="masked_image")
        b = view(values, np.moveaxis(image, 2, 0), kind="masked_image")
        np.testing.assert_array_equal(a, b)

    def test_map_of_an_inner_layer_is_scaled(self):
        inner = np.zeros((8, 5, 5))
        inner[:, 2, 2] = 1
        shown = view(inner, np.ones((40, 40, 3)), kind="masked_image")
        assert shown.shape == (40, 40, 3)
        assert shown[20, 20].min() > 200
        assert shown[0, 0].max() == 0

    def test_zero_is_neutral(self, image):
        shown = view(np.zeros((20, 30)), sign="all")
        assert (shown == shown[0, 0]).all()
        assert np.ptp(shown[0, 0].astype(int)) == 0
        assert not view(np.zeros((20, 30)), image, kind="masked_image").any()
        assert not view(np.zeros((20, 30)), image, kind="alpha_scaling")[..., 3].any()

    def test_smoothing_spreads(self):
        point = np.zeros((15, 15))
        point[7, 7] = 1
        sharp, soft = (strengths(point, smooth=smooth)[0] for smooth in (0, 2))
        assert np.count_nonzero(sharp) == 1
        assert np.count_nonzero(soft > 0.1) > 5

    def test_magnitudes_are_smoothed_not_cancelled(self):
        checks = np.indices((20, 20)).sum(axis=0) % 2 * 2.0 - 1
        strength, scale = strengths(checks, smooth=3, outlier_percentile=0)
        np.testing.assert_allclose(strength, 1)
        assert scale == pytest.approx(1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kind": "heatmap"}, "kind is 'heatmap'; expected one of 'original_image'"),
            ({"sign": "absolute_value"}, "sign is 'absolute_value'; expected one of 'all'"),
            ({"outlier_percentile": -1}, "outlier_percentile is -1, expected 0 to 100"),
            ({"outlier_percentile": 100}, "outlier_percentile is 100, expected 0 to 100"),
            ({"outlier_percentile": np.nan}, "outlier_percentile is nan"),
            ({"opacity": 1.5}, "opacity is 1.5, expected 0 to 1"),
            ({"smooth": -1}, "smooth is -1"),
            ({"layout": "HWC"}, "layout is 'HWC'"),
            ({"kind": "masked_image", "image": None}, "needs the image"),
            ({"values": np.zeros((30, 20))}, "attribution"),
            ({"values": np.zeros(5)}, "shape (5,)"),
            ({"values": np.zeros((2, 3, 20, 30))}, "one of the 2"),
            ({"values": np.full((20, 30), np.nan)}, "NaN or infinite"),
            ({"values": np.full((20, 30), -np.inf)}, "NaN or infinite"),
            ({"image": np.zeros((20, 30, 5))}, "the image has shape (20, 30, 5)"),
            ({"image": np.full((20, 30), 3.0)}, "expected 0 to 1"),
        ],
    )
    def test_bad_input(self, values, image, options, message):
        given = {"values": values, "image": image, "kind": "blended_heat_map"} | options
        with pytest.raises(InputError) as caught:
            view(given.pop("values"), given.pop("image"), **given)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


class TestColours:
    def test_own_signs_are_apart(self):
        warm, cool, zero = colouring(None, "all")(np.array([1.0, -1.0, 0.0]))
        assert warm[0] > warm[2]
        assert cool[2] > cool[0]
        assert np.ptp(zero) == 0

    def test_by_name(self):
        low, high = colouring("gray", "absolute")(np.array([0.0, 1.0]))
        np.testing.assert_array_equal([low, high], [[0, 0, 0], [1, 1, 1]])

    def test_signed_colours_have_zero_in_the_middle(self):
        found = colouring(["red", "white", "green"], "all")(np.array([-1.0, 0.0, 1.0]))
        np.testing.assert_allclose(found, [[1, 0, 0], [1, 1, 1], [0, 128 / 255, 0]], atol=0.01)

    def test_positions(self):
        """The colours of the Captum tutorial: black from a quarter of the strength on."""
        chosen = [(0, "#ffffff"), (0.25, "#000000"), (1, "#000000")]
        found = colouring(chosen, "positive")(np.array([0.0, 0.125, 0.3, 1.0]))
        np.testing.assert_allclose(found[:, 0], [1, 0.5, 0, 0], atol=0.01)

    def test_matplotlib_colour_map(self):
        from matplotlib import colormaps

        heat = np.linspace(0, 1, 7)
        np.testing.assert_array_equal(
            colouring(colormaps["magma"], "absolute")(heat), colouring("magma", "absolute")(heat)
        )

    @pytest.mark.parametrize(
        "chosen", ["infernal", ["white"], [], ["white", "no colour"], [(0.5, "red"), (1, "red")], 7]
    )
    def test_unknown(self, chosen):
        with pytest.raises(InputError, match="colours is") as caught:
            colouring(chosen, "all")
        assert ("'inferno'" in str(caught.value)) == (chosen == "infernal")


def drawn(figure):
    """The pixels of a figure: float [H, W, 3] in 0..255."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=figure.dpi)
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    pixels = np.frombuffer(buffer.getvalue(), dtype=np.uint8).reshape(height, width, 4)
    return pixels[..., :3].astype(float)


def middle_of(figure, axes, row, column, shape):
    """The pixel in the middle of a picture's pixel."""
    box = axes.get_position()
    pixels = drawn(figure)
    x = (box.x0 + box.width * (column + 0.5) / shape[1]) * pixels.shape[1]
    y = (1 - box.y1 + box.height * (row + 0.5) / shape[0]) * pixels.shape[0]
    return pixels[int(y), int(x)]


class TestFigure:
    def test_one_panel_for_each_view_with_bars(self, values, image):
        figure = plot_views(values, image)
        panels = [axes for axes in figure.axes if axes.get_xlabel()]
        assert [axes.get_xlabel() for axes in panels] == [
            "input",
            "heat map: for and against",
            "on the image: for and against",
        ]
        assert len(figure.axes) == 5
        assert len(plot_views(values, image, colour_bars=False).axes) == 3

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "alpha_scaling"])
    def test_pixels_are_those_of_the_view(self, kind):
        rng = np.random.default_rng(3)
        values, image = rng.normal(size=(4, 6)), rng.random((4, 6, 3))
        figure = plot_views(values, image, kinds=[kind, "heat_map"], signs="negative")
        expected = view(values, image, kind=kind, sign="negative")
        for row, column in [(0, 0), (3, 5), (1, 2)]:
            found = middle_of(figure, figure.axes[0], row, column, (4, 6))
            np.testing.assert_allclose(found, expected[row, column], atol=2)

    def test_transparent_pixels_are_white_on_the_page(self):
        figure = plot_views([[0.0, 1.0]], np.zeros((1, 2)), kinds="alpha_scaling", signs="absolute")
        np.testing.assert_allclose(middle_of(figure, figure.axes[0], 0, 0, (1, 2)), 255, atol=1)
        np.testing.assert_allclose(middle_of(figure, figure.axes[0], 0, 1, (1, 2)), 0, atol=1)

    @pytest.mark.parametrize(
        ("sign", "expected"),
        [
            ("all", ["\u22124", "0", "+4"]),
            ("positive", ["0", "+2"]),
            ("negative", ["0", "\u22124"]),
            ("absolute", ["0", "4"]),
        ],
    )
    def test_bars_are_in_units_of_the_attribution(self, sign, expected):
        figure = plot_views(
            np.array([[1.0, 2.0], [-4.0, 0.0]]),
            kinds=["heat_map"],
            signs=sign,
            outlier_percentile=0,
        )
        assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == expected

    def test_bar_has_the_colours_of_the_map(self, values):
        figure = plot_views(values, kinds="heat_map", signs="absolute", colours="viridis")
        gradient = figure.axes[1].images[0].get_array()
        expected = colouring("viridis", "absolute")(np.array([0.0, 1.0]))
        np.testing.assert_allclose(gradient[[0, -1], 0], expected)

    def test_colours_by_sign(self, values):
        figure = plot_views(
            values,
            kinds="heat_map",
            signs=["positive", "negative"],
            colours={"positive": "Greens"},
            colour_bars=False,
        )
        first, second = (axes.images[0].get_array() for axes in figure.axes)
        np.testing.assert_array_equal(first, view(values, sign="positive", colours="Greens"))
        np.testing.assert_array_equal(second, view(values, sign="negative"))

    def test_titles_are_plain_text(self, values, image):
        figure = plot_views(
            values, image, kinds=["original_image"], titles=["$5_"], title="$x^", subtitle="%$"
        )
        assert figure.axes[0].get_xlabel() == "$5_"
        assert [text.get_text() for text in figure.texts] == ["$x^", "%$"]
        drawn(figure)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (8, 8), (3, 300)])
    @pytest.mark.parametrize("count", [1, 5])
    def test_nothing_is_cut_off(self, shape, count):
        values = np.random.default_rng(2).normal(size=shape)
        figure = plot_views(
            1e-7 * values,
            np.zeros(shape),
            kinds=["blended_heat_map"] * count,
            columns=3,
            title="A rather long name of a class, with a comma, and another name",
            subtitle="and below it some numbers: " + "0.123   " * 8,
        )
        assert_all_text_is_on_the_page(figure)

    def test_figures_belong_to_no_window(self, values, image):
        from matplotlib import _pylab_helpers

        plot_views(values, image)
        assert not _pylab_helpers.Gcf.get_all_fig_managers()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kinds": []}, "kinds is empty"),
            ({"kinds": ["heat_map"], "signs": ["all", "all"]}, "signs has 2 entries, expected 1"),
            ({"kinds": ["heat_map"], "titles": ["a", "b"]}, "titles has 2 entries, expected 1"),
            ({"kinds": ["heat_map"], "titles": "a"}, "titles is 'a', expected one caption"),
            ({"kinds": None}, "kinds is None, expected a name or a list of names"),
            ({"signs": 3}, "signs is 3, expected a name or a list of names"),
            ({"titles": 3}, "titles is 3, expected one caption for each view"),
            ({"kinds": ["heat"]}, "kind is 'heat'; expected one of"),
            ({"signs": ["al", "all", "all"]}, "sign is 'al'; expected one of"),
            ({"columns": 0}, "columns is 0; expected a whole number of at least 1"),
            ({"colours": "nonsuch"}, "colours is 'nonsuch'"),
        ],
    )
    def test_bad_input(self, values, image, options, message):
        with pytest.raises(InputError) as caught:
            plot_views(values, image, **options)
        assert message in str(caught.value)


def test_attribution_draws_the_example_asked_for(image):
    values = np.random.default_rng(4).normal(size=(2, 3, 20, 30)).astype(np.float32)
    path = Path(*np.zeros((4, 1)))
    attribution = Attribution(
        values, np.zeros(2), np.ones(2), np.zeros(2), [(0,), (1,)], [path] * 2, np.ones(2, int)
    )
    figure = attribution.plot_views(image, index=1, kinds="heat_map", colour_bars=False)
    expected = view(values[1], image, kind="heat_map", sign="all")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), expected)
    with pytest.raises(InputError, match="index is 2; expected 0 to 1"):
        attribution.plot_views(image, index=2)
    for bad in ("1", 1.0):
        with pytest.raises(InputError, match=f"index is {bad!r}; expected 0 to 1"):
            attribution.plot_views(image, index=bad)

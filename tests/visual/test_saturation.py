"""The path in pictures: score and slope over alpha, baseline and image, and what lies between."""

import io
from dataclasses import replace

import numpy as np
import pytest
from page_text import assert_all_text_is_on_the_page

from igonnx.attribution import Attribution, Path
from igonnx.errors import InputError
from igonnx.quadrature import RULES, nodes_and_weights
from igonnx.visual import plot_baseline, plot_interpolations, plot_path, render
from igonnx.visual.baseline import interpolate
from igonnx.visual.saturation import running_integral


def saturating(rule="gauss_legendre", steps=12, ends=True):
    """The path of a score that saturates, sigmoid(20 alpha - 4), with points at both ends."""
    alpha, weight = nodes_and_weights(rule, steps)
    if ends:
        outside = np.setdiff1d([0.0, 1.0], alpha)
        alpha = np.concatenate([alpha, outside])
        weight = np.concatenate([weight, np.zeros(len(outside))])
    order = np.argsort(alpha)
    alpha, weight = alpha[order], weight[order]
    score = 1 / (1 + np.exp(4 - 20 * alpha))
    return Path(alpha, weight, score, 20 * score * (1 - score))


def curve(axes, label):
    """x and y of the line with this label."""
    line = next(line for line in axes.lines if line.get_label() == label)
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def texts_of(figure):
    return [text.get_text() for text in figure.texts]


class TestRunningIntegral:
    @pytest.mark.parametrize("steps", [1, 2, 7, 50])
    @pytest.mark.parametrize("rule", RULES)
    def test_each_point_lies_in_its_stretch(self, rule, steps):
        path = saturating(rule, steps)
        alpha, _ = running_integral(path)
        summed = path.alpha[path.weight != 0]
        assert len(alpha) == len(summed) + 1
        assert (alpha[:-1] <= summed + 1e-12).all()
        assert (summed <= alpha[1:] + 1e-12).all()
        np.testing.assert_allclose([alpha[0], alpha[-1]], [0, 1], atol=1e-12)

    def test_ends_at_the_change_in_score(self):
        path = saturating(steps=50)
        alpha, total = running_integral(path)
        assert total[0] == 0
        np.testing.assert_allclose(total[-1], path.score[-1] - path.score[0], atol=1e-12)
        between = 1 / (1 + np.exp(4 - 20 * alpha)) - path.score[0]
        np.testing.assert_allclose(total, between, atol=0.01)

    @pytest.mark.parametrize("weight", [[0.5, 0.4], [1.5, -0.5], [0.0, 0.0], [2.0, 1.0]])
    def test_weights_that_are_no_lengths(self, weight):
        path = Path(np.array([0.2, 0.8]), np.array(weight), np.ones(2), np.ones(2))
        assert running_integral(path) is None
        figure = plot_path(path, score=1.0, baseline_score=0.0)
        assert not figure.texts
        assert not figure.axes[1].patches


class TestPath:
    def test_curves_are_those_of_the_path(self):
        path = saturating()
        above, below = plot_path(path).axes
        np.testing.assert_array_equal(curve(above, "score"), [path.alpha, path.score])
        np.testing.assert_array_equal(curve(below, "slope"), [path.alpha, path.slope])
        marks, _ = curve(above, "12 gradients")
        np.testing.assert_array_equal(marks, path.alpha[1:-1])
        alpha, total = running_integral(path)
        running = curve(above, "baseline score + running integral")
        np.testing.assert_allclose(running, [alpha, path.score[0] + total])

    def test_shaded_is_what_was_summed(self):
        path = saturating()
        bars = plot_path(path).axes[1].patches[0].get_data()
        area = (np.diff(bars.edges) * bars.values).sum()
        np.testing.assert_allclose(area, (path.weight * path.slope).sum())

    def test_against_the_target_is_shaded_apart(self):
        path = saturating()
        falling = Path(path.alpha, path.weight, -path.score, path.slope * np.sign(path.alpha - 0.3))
        labels = [patch.get_label() for patch in plot_path(falling).axes[1].patches]
        assert labels == ["summed for the target", "against it"]

    def test_says_how_complete_it_is(self):
        path = Path(*np.array([[0, 0.5, 1], [0, 1, 0], [1, 2, 3], [2, 1.5, 2]], float))
        assert texts_of(plot_path(path)) == [
            "The integral is 1.5, the score changes by 2 (from 1 to 3): "
            "completeness gap \u22120.5, 25 % of it."
        ]

    def test_scores_at_the_ends_may_be_given(self):
        path = saturating(ends=False)
        assert not plot_path(path).texts
        note = texts_of(plot_path(path, score=0.9, baseline_score=0.1))[0]
        assert "the score changes by 0.8 (from 0.1 to 0.9)" in note

    def test_no_change_in_score(self):
        path = Path(*np.array([[0, 0.5, 1], [0, 1, 0], [3, 3, 3], [0, 0, 0]], float))
        note = texts_of(plot_path(path))[0]
        assert note.endswith("completeness gap +0.")

    def test_units_stand_at_the_axes(self):
        figure = plot_path(saturating(), score_label="logit of $x")
        above, below = figure.axes
        assert above.get_ylabel() == "logit of $x"
        assert below.get_ylabel() == "d logit of $x / dα"
        assert below.get_xlabel() == "α, from the baseline (0) to the input (1)"
        figure.savefig(io.BytesIO(), format="png")

    def test_texts_do_not_meet(self):
        figure = plot_path(saturating(steps=50), score_label="probability of Egyptian cat")
        assert_all_text_is_on_the_page(figure)
        for axes in figure.axes:
            text = axes.get_title(loc="left")
            caption = axes.findobj(
                lambda artist, text=text: getattr(artist, "get_text", str)() == text
            )[0]
            assert caption.get_window_extent().x1 < axes.get_legend().get_window_extent().x0
            label = axes.yaxis.label.get_window_extent()
            assert label.height < 1.1 * axes.get_window_extent().height

    def test_probability(self):
        path = saturating()
        at_points = plot_path(path, probability=path.score).axes
        assert [axes.get_ylabel() for axes in at_points] == ["score", "probability", "d score / dα"]
        np.testing.assert_array_equal(at_points[1].lines[0].get_ydata(), path.score)
        finer = np.stack([np.linspace(0, 1, 5), np.linspace(0.1, 0.9, 5)])
        line = plot_path(path, probability=finer).axes[1].lines[0]
        np.testing.assert_array_equal(line.get_xydata().T, finer)

    @pytest.mark.parametrize("count", [1, 2, 400])
    def test_any_number_of_points(self, count):
        figure = plot_path(saturating("middle", count), title="$t", subtitle="s" * 120)
        assert texts_of(figure)[:2] == ["$t", "s" * 120]
        assert_all_text_is_on_the_page(figure)

    def test_one_point_without_ends(self):
        """Such as saliency: one gradient at the input."""
        path = Path(*np.array([[1.0], [1.0], [5.0], [-2.0]]))
        figure = plot_path(path)
        assert figure.axes[0].get_legend() is not None
        assert_all_text_is_on_the_page(figure)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (np.zeros((4, 0)), "the path has no points"),
            ([[0.0], [1.0], [1.0, 2.0], [0.0]], "have [1, 2] entries"),
            ([[0.0], [1.0], [np.nan], [0.0]], "the path's score has values that are NaN"),
            ([[0.0], [1.0], [0.0], [np.inf]], "the path's slope has values that are NaN"),
            ([[1.0, 0.0], [0.5, 0.5], [1.0, 1.0], [1.0, 1.0]], "alphas are not in order"),
        ],
    )
    def test_bad_paths(self, fields, message):
        with pytest.raises(InputError) as caught:
            plot_path(Path(*map(np.array, fields)))
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("probability", "message"),
        [
            (np.zeros(3), "shape (3,), expected [14]"),
            (np.zeros((3, 14)), "shape (3, 14), expected [14]"),
            (np.full(14, 1.5), "outside 0 to 1"),
            (np.full(14, np.nan), "outside 0 to 1, or NaN"),
        ],
    )
    def test_bad_probability(self, probability, message):
        with pytest.raises(InputError) as caught:
            plot_path(saturating(), probability=probability)
        assert message in str(caught.value)


def pictures_of(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


class TestBaseline:
    def test_four_panels_and_a_bar(self, values, image):
        figure = plot_baseline(values, image, 0.25, title="t")
        assert [axes.get_xlabel() for axes in figure.axes] == [
            "baseline",
            "input, as the model sees it",
            "attribution mask",
            "overlay",
            "",
        ]
        start, shown, *_ = pictures_of(figure)
        assert (start == 0.25).all()
        np.testing.assert_array_equal(shown, image)

    def test_mask_and_blend_of_the_tutorial(self, values, image):
        """Sum of magnitudes over channels, in colours; the image over it with an opacity of 0.4."""
        figure = plot_baseline(
            values, image, smooth=0, outlier_percentile=0, colours="gray", image_opacity=0.4
        )
        _, _, mask, overlay, _ = pictures_of(figure)
        magnitude = np.abs(values).sum(axis=0)
        expected = np.repeat((magnitude / magnitude.max())[..., None], 3, axis=2)
        np.testing.assert_allclose(mask, expected, atol=1 / 255)
        np.testing.assert_allclose(overlay, 0.6 * mask + 0.4 * image)

    def test_overlay_is_that_of_render(self, values, image):
        overlay = pictures_of(plot_baseline(values, image, smooth=1.5))[3]
        expected = render(values, image, smooth=1.5)
        np.testing.assert_allclose(255 * overlay, expected, atol=0.51)

    @pytest.mark.parametrize("heat", [np.zeros((20, 30)), np.full((20, 30), -2.0)])
    def test_constant(self, heat, image):
        _, _, mask, _, bar = pictures_of(plot_baseline(heat, image))
        np.testing.assert_allclose(mask - bar[-1 if heat.any() else 0], 0, atol=1e-12)

    def test_one_pixel_and_one_channel(self):
        figure = plot_baseline(np.array([[[-3.0]]]), np.array([[0.5]]), np.array([[[0.2]]]))
        assert_all_text_is_on_the_page(figure)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"baseline": 2.0}, "baseline is 2.0, expected an image, or a shade from 0 to 1"),
            ({"baseline": np.nan}, "baseline is nan"),
            ({"baseline": None}, "baseline is None, expected an image, or a shade"),
            ({"baseline": np.zeros((20, 31, 3))}, "the baseline is of 20 x 31 pixels, expected 20"),
            ({"image_opacity": -0.1}, "image_opacity is -0.1, expected 0 to 1"),
            ({"outlier_percentile": 101}, "outlier_percentile is 101"),
            ({"values": np.zeros((30, 20))}, "attribution"),
            ({"values": np.full((20, 30), np.nan)}, "NaN"),
        ],
    )
    def test_bad_input(self, values, image, options, message):
        given = {"values": values, "image": image} | options
        with pytest.raises(InputError) as caught:
            plot_baseline(**given)
        assert message in str(caught.value)


class TestInterpolations:
    def test_points_of_the_straight_path(self, image):
        start = np.zeros((3, 20, 30))
        start[0] = 1.0
        found = interpolate(image, start, [0, 0.25, 1])
        assert found.shape == (3, 20, 30, 3)
        np.testing.assert_array_equal(found[0], np.moveaxis(start, 0, 2))
        np.testing.assert_allclose(found[1], 0.75 * found[0] + 0.25 * image)
        np.testing.assert_allclose(found[2], image)

    def test_strip(self, image):
        figure = plot_interpolations(image)
        captions = [axes.get_xlabel() for axes in figure.axes]
        assert captions == ["α = 0", "α = 0.2", "α = 0.4", "α = 0.6", "α = 0.8", "α = 1"]
        np.testing.assert_allclose(pictures_of(figure)[3], 0.6 * image)

    def test_scores(self, image):
        path = Path(np.array([0.2, 0.6]), np.ones(2) / 2, np.array([1.0, 3.0]), np.ones(2))
        figure = plot_interpolations(image, alphas=[0, 0.2, 0.3, 0.6], path=path)
        captions = [axes.get_xlabel() for axes in figure.axes]
        expected = ["", "score 1", "score ≈ 1.5", "score 3"]
        assert [caption.split("\n")[1] for caption in captions] == expected

    @pytest.mark.parametrize("count", [1, 2, 13])
    def test_all_text_is_on_the_page(self, image, count):
        path = saturating()
        figure = plot_interpolations(
            image[:, :4], alphas=np.linspace(0, 1, count), path=path, title="a title", columns=5
        )
        assert len(figure.axes) == count
        assert_all_text_is_on_the_page(figure)

    @pytest.mark.parametrize("alphas", [[], [1.5], [-0.1, 1], [np.nan], [[0.5]]])
    def test_bad_alphas(self, image, alphas):
        with pytest.raises(InputError, match="expected numbers from 0 to 1"):
            plot_interpolations(image, alphas=alphas)

    def test_bad_columns(self, image):
        with pytest.raises(InputError, match="columns is 0; expected a whole number of at least 1"):
            plot_interpolations(image, columns=0)


class TestAttribution:
    @pytest.fixture
    def attribution(self, values):
        values = np.stack([values, 2 * values]).astype(np.float32)
        paths = [saturating(ends=False), saturating("middle", 5)]
        scores = np.array([0.75, 0.5])
        return Attribution(
            values, np.zeros(2), scores, scores / 4, [(0,), (1,)], paths, np.ones(2, int)
        )

    def test_plot_path(self, attribution):
        figure = attribution.plot_path(1, title="x")
        np.testing.assert_array_equal(curve(figure.axes[0], "score")[0], attribution.path[1].alpha)
        assert "(from 0.125 to 0.5)" in texts_of(figure)[1]
        assert "(from 0.1875 to 0.9)" in texts_of(attribution.plot_path(score=0.9))[0]

    def test_plot_baseline(self, attribution, image):
        figure = attribution.plot_baseline(image, 1.0, index=-1, smooth=0)
        expected = pictures_of(plot_baseline(attribution.values[1], image, 1.0, smooth=0))
        np.testing.assert_array_equal(pictures_of(figure)[2], expected[2])

    def test_plot_interpolations(self, attribution, image):
        figure = attribution.plot_interpolations(image, alphas=[0.0, 1.0], index=1)
        assert figure.axes[1].get_xlabel() == f"α = 1\nscore {attribution.path[1].score[-1]:.3g}"

    @pytest.mark.parametrize(
        "method", ["blur_ig steps=5", "xrai variant=full of guided_ig rule=left steps=5"]
    )
    def test_scores_of_another_path_are_not_those_of_the_straight_one(
        self, attribution, image, method
    ):
        figure = replace(attribution, method=method).plot_interpolations(image, alphas=[0.0, 1.0])
        assert figure.axes[1].get_xlabel() == "α = 1"

    def test_no_such_example(self, attribution, image):
        with pytest.raises(InputError, match="index is 2; expected 0 to 1"):
            attribution.plot_path(2)
        with pytest.raises(InputError, match="index is -3; expected 0 to 1"):
            attribution.plot_interpolations(image, index=-3)

    def test_no_path(self, attribution, image):
        bare = Attribution(
            attribution.values,
            attribution.delta,
            attribution.scores,
            attribution.baseline_scores,
            attribution.target,
            [],
            attribution.steps_used,
            method="guided",
        )
        with pytest.raises(InputError, match="no path to draw: guided does not follow one"):
            bare.plot_path()
        assert len(bare.plot_interpolations(image).axes) == 6

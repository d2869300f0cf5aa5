"""Tables: ranking, bars and waterfalls, as figures and in plain text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from page_text import assert_all_text_is_on_the_page

from igonnx.errors import InputError
from igonnx.visual import features_text, plot_features, plot_waterfall, waterfall_text
from igonnx.visual.ranking import rank_features, waterfall_levels

VALUES = np.array([0.5, -2.0, 0.0, 1.0, 0.25])
NAMES = ["age", "income", "zip", "debt", "pets"]


class TestRanking:
    def test_the_rest_is_summed(self) -> None:
        ranking = rank_features(VALUES, NAMES, top=2)
        assert ranking.labels == ["income", "debt", "3 others"]
        assert ranking.contributions.tolist() == [-2.0, 1.0, 0.75]
        assert ranking.features == 2
        assert ranking.total == VALUES.sum()

    def test_one_feature_is_not_hidden(self) -> None:
        assert rank_features(VALUES, NAMES, top=4).labels == [
            "income",
            "debt",
            "age",
            "pets",
            "zip",
        ]

    def test_equal_ones_keep_their_order(self) -> None:
        assert rank_features(np.zeros(9), top=3).labels == [
            "feature 0", "feature 1", "feature 2", "6 others",
        ]  # fmt: skip

    def test_names_of_axes_and_values(self) -> None:
        assert rank_features(np.diag([3.0, 2.0]), top=1).labels == ["[0, 0]", "3 others"]
        assert rank_features([[1.0, 2.0]]).labels == ["feature 1", "feature 0"]
        assert rank_features([1, 2.0], ["a", "b"], [-3.14159, 2]).labels == ["b = 2", "a = −3.142"]
        assert rank_features(7.0, ["a\n"], ["x\x1b"]).labels == ["a↵ = x\\x1b"]

    def test_millions(self) -> None:
        values = np.zeros((3, 1000, 1000), np.float16)
        values[2, 999, 5] = 1
        assert rank_features(values, top=1).labels == ["[2, 999, 5]", "2999999 others"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"values": [np.inf, 1]}, "1 of 2 values of the attribution are NaN or infinite"),
            ({"values": []}, r"shape \[0\], expected one number or more"),
            ({"values": ["a"]}, "expected numbers"),
            ({"values": VALUES, "names": ["a"]}, "1 names were given for 5 features"),
            ({"values": VALUES, "names": "abcde"}, "1 names were given for 5 features"),
            ({"values": VALUES, "data": [1, 2]}, "2 values of features were given for 5 features"),
            ({"values": VALUES, "top": 0}, "top is 0; expected a whole number of at least 1"),
            ({"values": VALUES, "top": True}, "top is True"),
        ],
    )
    def test_bad_input(self, arguments: dict[str, Any], message: str) -> None:
        for draw in (plot_features, features_text):
            with pytest.raises(InputError, match=message):
                draw(**arguments)
        for waterfall in (plot_waterfall, waterfall_text):
            with pytest.raises(InputError, match=message):
                waterfall(**arguments, baseline_score=0, score=1)


class TestLevels:
    def test_from_baseline_to_score(self) -> None:
        ranking, levels = waterfall_levels(VALUES, 3, 2.75, None, None, 2)
        np.testing.assert_allclose(levels, [3, 1, 2, 2.75])
        assert len(ranking.labels) == 3

    def test_what_is_missing_is_said(self) -> None:
        ranking, levels = waterfall_levels(VALUES, 3, 2.5, None, None, 9)
        assert ranking.labels[-1] == "not accounted for"
        assert ranking.contributions[-1] == -0.25
        assert ranking.features == 5
        assert levels[-1] == 2.5
        ranking, levels = waterfall_levels(VALUES, 3, 2.751, None, None, 9)
        assert len(ranking.labels) == 5
        assert levels[-1] == 2.751

    @pytest.mark.parametrize("bad", [np.nan, None, "1", [1, 2]])
    def test_bad_scores(self, bad: Any) -> None:
        with pytest.raises(InputError, match=r"^score is .*, expected one finite number$"):
            plot_waterfall(VALUES, baseline_score=0, score=bad)
        with pytest.raises(InputError, match=r"^baseline_score is"):
            waterfall_text(VALUES, baseline_score=bad, score=0)


class TestText:
    def test_bars(self) -> None:
        assert features_text(VALUES, names=NAMES, top=2, width=42).splitlines() == [
            "income       −2  ████████████████│",
            "debt         +1                  │████████",
            "3 others  +0.75                  │██████",
        ]

    def test_waterfall(self) -> None:
        text = waterfall_text(VALUES, names=NAMES, top=2, baseline_score=3, score=2.75, width=39)
        assert text.splitlines() == [
            "baseline      3                      │",
            "income       −2  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒",
            "debt         +1  ██████████",
            "3 others  +0.75            ████████",
            "score      2.75                    │",
        ]

    @pytest.mark.parametrize("values", [np.zeros(30), -np.ones(3), [5.0], np.full(20, 1e-30)])
    def test_always_fits(self, values: Any) -> None:
        for text in (
            features_text(values, width=60),
            waterfall_text(values, baseline_score=1, score=1 + np.sum(values), width=60),
        ):
            assert max(map(len, text.splitlines())) <= 60

    def test_long_names_are_cut(self) -> None:
        assert features_text([1.0], names=["x" * 500], width=70).startswith("x" * 39 + "…  +1")


class TestFigures:
    def test_features(self) -> None:
        figure = plot_features(VALUES, names=NAMES, top=2, title="a $5 title", subtitle="of $10")
        (axes,) = figure.axes
        assert [text.get_text() for text in axes.get_yticklabels()] == [
            "income",
            "debt",
            "3 others",
        ]
        assert [bar.get_width() for bar in axes.patches] == [-2, 1, 0.75]
        warm, cool, rest = axes.patches[1], axes.patches[0], axes.patches[2]
        red, _, blue, _ = warm.get_facecolor()
        assert red > blue
        red, _, blue, _ = cool.get_facecolor()
        assert blue > red
        assert rest.get_facecolor() not in (warm.get_facecolor(), cool.get_facecolor())
        assert [text.get_text() for text in axes.texts] == ["−2", "+1", "+0.75"]
        figure.savefig(_nowhere())

    def test_waterfall(self) -> None:
        figure = plot_waterfall(VALUES, names=NAMES, top=2, baseline_score=3, score=2.75)
        (axes,) = figure.axes
        ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
        np.testing.assert_allclose(ends, [(3, 1), (1, 2), (2, 2.75)])
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == ["baseline", "income", "debt", "3 others", "score"]
        figure.savefig(_nowhere())

    @pytest.mark.parametrize("values", [np.zeros(30), -np.ones(3), [5.0], [1e-300, -1e300]])
    def test_edge_cases_are_drawn(self, values: Any) -> None:
        plot_features(values).savefig(_nowhere())
        plot_waterfall(values, baseline_score=1, score=1).savefig(_nowhere())

    def test_nothing_is_cut_off(self) -> None:
        figure = plot_waterfall(
            np.linspace(-1, 2, 12),
            names=[f"a rather long name of feature {i}" for i in range(12)],
            baseline_score=-3.14159,
            score=2.85841,
            title="A title that is so long that the page has to become wider for it",
        )
        assert_all_text_is_on_the_page(figure)


def _nowhere() -> Any:
    import io

    return io.BytesIO()

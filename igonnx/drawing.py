"""How an attribution is drawn: what `Attribution` has from `igonnx.visual`, which is imported only then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import is_whole
from igonnx.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from igonnx.attribution import Path

__all__ = ["Drawn"]

_ELSEWHERE = {"blur_ig", "guided_ig"}  # methods whose path is not the straight one


class Drawn:
    """Pictures, figures and texts of one example at a time: number `index` of N, of the explained tensor `name`.

    The name may be left out when one tensor is explained. `InputError` for an example or tensor that is not there, and
    as the function of `igonnx.visual` that draws.
    """

    if TYPE_CHECKING:  # what `Attribution` has
        method: str
        scores: NDArray[np.float64]
        baseline_scores: NDArray[np.float64]
        path: list[Path]

        def of(self, name: str | None = None) -> NDArray[Any]:
            """The values of one explained tensor, [N, ...]."""

    def render(
        self, image: Any, *, index: int = 0, name: str | None = None, **options: Any
    ) -> NDArray[np.uint8]:
        """The overlay of example `index` on `image`, uint8 [H, W, 3]; `options` as for `igonnx.visual.render`."""
        from igonnx.visual import render

        return render(self._example(name, index), np.asarray(image), **options)

    def outline(
        self, image: Any, *, index: int = 0, name: str | None = None, **options: Any
    ) -> NDArray[np.uint8]:
        """Lines around what example `index` singles out, uint8 [H, W, 3]; `options` as for `igonnx.visual.outline`."""
        from igonnx.visual import outline

        return outline(self._example(name, index), np.asarray(image), **options)

    def plot(
        self, image: Any, *, index: int = 0, name: str | None = None, **options: Any
    ) -> Figure:
        """A figure of example `index`: input, overlay, contributions; `options` as for `igonnx.visual.plot`."""
        from igonnx.visual import plot

        return plot(self._example(name, index), np.asarray(image), **options)

    def plot_views(
        self, image: Any = None, *, index: int = 0, name: str | None = None, **options: Any
    ) -> Figure:
        """Heat maps and masked images of example `index` side by side; `options` as for `igonnx.visual.plot_views`."""
        from igonnx.visual import plot_views

        return plot_views(self._example(name, index), image, **options)

    def plot_baseline(
        self,
        image: Any,
        baseline: Any = 0.0,
        *,
        index: int = 0,
        name: str | None = None,
        **options: Any,
    ) -> Figure:
        """Baseline, input, attribution mask and overlay of example `index`, in two rows.

        image and baseline as they are to be shown, not as the model takes them; `options` as for
        `igonnx.visual.plot_baseline`.
        """
        from igonnx.visual import plot_baseline

        return plot_baseline(self._example(name, index), image, baseline, **options)

    def plot_interpolations(
        self, image: Any, baseline: Any = 0.0, *, index: int = 0, **options: Any
    ) -> Figure:
        """The straight way from baseline to image, with the scores of example `index` where the method followed it.

        Not with those of methods that go another way (Guided IG, Blur IG) or none. image and baseline as they are to be
        shown; `options` as for `igonnx.visual.plot_interpolations`.
        """
        from igonnx.visual import plot_interpolations

        return plot_interpolations(
            image, baseline, path=self._path(index) if self._straight else None, **options
        )

    def plot_path(self, index: int = 0, **options: Any) -> Figure:
        """Score and slope over alpha for example `index`, and where the integrator looked.

        `options` as for `igonnx.visual.plot_path`. Raises `InputError` where the method follows no path.
        """
        from igonnx.visual import plot_path

        path = self._path(index)
        scores = {
            "score": float(self.scores[index]),
            "baseline_score": float(self.baseline_scores[index]),
        }
        return plot_path(path, **{**scores, **options})

    def plot_features(self, *, index: int = 0, name: str | None = None, **options: Any) -> Figure:
        """Bars of the strongest contributions to example `index`; `options` as for `igonnx.visual.plot_features`."""
        from igonnx.visual import plot_features

        return plot_features(self._example(name, index)[None], **options)

    def plot_waterfall(self, *, index: int = 0, name: str | None = None, **options: Any) -> Figure:
        """From the baseline's score to the score of example `index`, feature by feature.

        `options` as for `igonnx.visual.plot_waterfall`. Where several tensors are explained, what the others contribute
        is "not accounted for".
        """
        from igonnx.visual import plot_waterfall

        values = self._example(name, index)[None]
        scores = {"score": self.scores[index], "baseline_score": self.baseline_scores[index]}
        return plot_waterfall(values, **{**scores, **options})

    def plot_time_series(
        self, series: Any, *, index: int = 0, name: str | None = None, **options: Any
    ) -> Figure:
        """Example `index` of a series, coloured by contribution; `options` as for `igonnx.visual.plot_time_series`.

        series: what was explained, of the shape of one example.
        """
        from igonnx.visual import plot_time_series

        return plot_time_series(self._example(name, index), series, **options)

    def text_html(
        self, tokens: Sequence[str], *, index: int = 0, name: str | None = None, **options: Any
    ) -> str:
        """The tokens of example `index`, tinted by contribution; `options` as for `igonnx.visual.text_html`."""
        from igonnx.visual import text_html

        return text_html(tokens, self._example(name, index), **options)

    def text_terminal(
        self, tokens: Sequence[str], *, index: int = 0, name: str | None = None, **options: Any
    ) -> str:
        """The same for a terminal; `options` as for `igonnx.visual.text_terminal`."""
        from igonnx.visual import text_terminal

        return text_terminal(tokens, self._example(name, index), **options)

    @property
    def _straight(self) -> bool:
        """Whether there are paths, and they are the straight ones from baseline to input."""
        return bool(self.path) and not _ELSEWHERE & set(self.method.split())

    def _path(self, index: int) -> Path:
        if not self.path:
            raise InputError(f"there is no path to draw: {self.method} does not follow one")
        _require_index(index, len(self.path))
        return self.path[index]

    def _example(self, name: str | None, index: int) -> NDArray[Any]:
        values = self.of(name)
        _require_index(index, len(values))
        return np.asarray(values[index])


def _require_index(index: int, count: int) -> None:
    """Raise `InputError` unless `index` is that of one of `count` examples; negative ones count from the end."""
    if not is_whole(index) or not -count <= index < count:
        raise InputError(f"index is {index!r}; expected 0 to {count - 1}")

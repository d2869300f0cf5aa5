"""Several views of one attribution side by side, as a Matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from igonnx.channels import Layout
from igonnx.checks import require_whole
from igonnx.errors import InputError
from igonnx.visual.colouring import Colours, colouring
from igonnx.visual.heatmap import Sign
from igonnx.visual.overlay import as_rgb
from igonnx.visual.panels import PanelPage, bar_marks
from igonnx.visual.views import Kind, check_view, paint, strengths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_views"]

_HEAT_MAPS = ("heat_map", "blended_heat_map")
_SIGNS: dict[Sign, str] = {
    "all": "for and against",
    "positive": "for",
    "negative": "against",
    "absolute": "magnitude",
}
_KINDS: dict[Kind, str] = {
    "original_image": "input",
    "heat_map": "heat map",
    "blended_heat_map": "on the image",
    "masked_image": "image, masked",
    "alpha_scaling": "image, by opacity",
}


def plot_views(
    values: NDArray[Any],
    image: NDArray[Any] | None = None,
    *,
    kinds: Kind | Sequence[Kind] = ("original_image", "heat_map", "blended_heat_map"),
    signs: Sign | Sequence[Sign] = "all",
    titles: Sequence[str] | None = None,
    colour_bars: bool = True,
    colours: Colours | Mapping[Sign, Colours] | None = None,
    outlier_percentile: float = 2.0,
    opacity: float = 0.5,
    layout: Layout | None = None,
    smooth: float | None = 0.0,
    columns: int = 4,
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Draw several views of one attribution side by side, as a Matplotlib figure.

    kinds: the view of each panel, or one for all; signs likewise (that of an "original_image" does not matter).
    titles: a caption for each panel; None says what is shown. colour_bars: one beside every heat map, in the
    attribution's own units; its ends are what full strength stands for. colours: of all heat maps, or by sign
    ({"positive": "Greens"}). columns: panels in a row. title and subtitle stand above the panels. The other arguments
    are those of `igonnx.visual.view`. The figure belongs to no window: use its `savefig`.
    Raises `Error` when Matplotlib is missing, `InputError` as `view`, and where the numbers of kinds, signs and titles
    differ.
    """
    panels = _panels(kinds, signs, titles)
    require_whole("columns", columns, 1)
    for kind, sign, _ in panels:
        check_view(kind, sign, opacity, image)
    picture = None if image is None else as_rgb(image)
    scaled = {
        sign: strengths(
            values,
            size=None if picture is None else (picture.shape[0], picture.shape[1]),
            sign=sign,
            outlier_percentile=outlier_percentile,
            layout=layout,
            smooth=smooth,
        )
        for sign in {sign for _, sign, _ in panels}
    }
    barred = [colour_bars and kind in _HEAT_MAPS for kind, _, _ in panels]
    height, width = scaled[panels[0][1]][0].shape
    page = PanelPage(
        [caption for _, _, caption in panels],
        (height, width),
        columns=columns,
        bars=[any(barred[column::columns]) for column in range(columns)],
        title=title,
        subtitle=subtitle,
    )
    for index, (kind, sign, _) in enumerate(panels):
        strength, scale = scaled[sign]
        colour = colouring(_colours(colours, sign), sign)
        page.show(index, paint(kind, strength, picture, colour, opacity))
        if barred[index]:
            page.bar(index, colour, bar_marks(scale, sign))
    return page.figure


def _panels(
    kinds: Kind | Sequence[Kind], signs: Sign | Sequence[Sign], titles: Sequence[str] | None
) -> list[tuple[Kind, Sign, str]]:
    """Give kind, sign and caption of each panel."""
    named: list[tuple[str, object]] = [("kinds", kinds), ("signs", signs)]
    for what, names in named:
        if not isinstance(names, str | Sequence):
            raise InputError(f"{what} is {names!r}, expected a name or a list of names")
    if isinstance(kinds, str):
        count = 1 if isinstance(signs, str) else len(signs)
        kinds = [kinds] * count
    kinds = list(kinds)
    signs = [signs] * len(kinds) if isinstance(signs, str) else list(signs)
    if not kinds:
        raise InputError("kinds is empty, expected at least one view")
    if titles is not None and (isinstance(titles, str) or not isinstance(titles, Sequence)):
        raise InputError(f"titles is {titles!r}, expected one caption for each view")
    for what, given in (("signs", signs), ("titles", titles)):
        if given is not None and len(given) != len(kinds):
            raise InputError(f"{what} has {len(given)} entries, expected {len(kinds)} as kinds has")
    captions = titles or [_caption(kind, sign) for kind, sign in zip(kinds, signs, strict=True)]
    return list(zip(kinds, signs, captions, strict=True))


def _caption(kind: Kind, sign: Sign) -> str:
    """Say what a view shows; of an unknown one, what was given."""
    shown = _KINDS.get(kind, kind)
    return shown if kind == "original_image" else f"{shown}: {_SIGNS.get(sign, sign)}"


def _colours(colours: Colours | Mapping[Sign, Colours] | None, sign: Sign) -> Colours | None:
    return colours.get(sign) if isinstance(colours, Mapping) else colours

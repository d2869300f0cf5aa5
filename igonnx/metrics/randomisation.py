"""The sanity check: whether an explanation depends on what the model has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_choice, require_whole
from igonnx.engine.control import Cancel, call_control
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.inputs import Arrays, checked_inputs
from igonnx.methods.call import Array, Progress
from igonnx.metrics.asking import Method, asked_method
from igonnx.metrics.features import channels_of
from igonnx.metrics.similarity import cosine_similarity, rank_correlation, structural_similarity
from igonnx.metrics.subject import require_run
from igonnx.metrics.weights import Draw, Layer, randomised, weighted_layers
from igonnx.targets import Target, TargetIndex

__all__ = ["WeightRandomisation", "weight_randomisation"]

Order = Literal["cascading", "independent"]


@dataclass(frozen=True)
class WeightRandomisation:
    """What `weight_randomisation` found for N examples after each of L stages.

    layers: [L], the layer that each stage ends with ("cascading") or consists of ("independent").
    rank: float64 [N, L], Spearman's rank correlation of the magnitudes with those of the trained model.
    structure: float64 [N, L], SSIM of the magnitudes, summed over channels; NaN for what is no image.
    cosine: float64 [N, L], cosine similarity of the values. All are 1 for the same explanation; see
    `igonnx.metrics.similarity` for where they are NaN.
    target: per example the index that is explained, None for a mask.
    """

    layers: list[str]
    rank: Array
    structure: Array
    cosine: Array
    target: list[TargetIndex | None]

    @property
    def score(self) -> Array:
        """`rank` after the last stage, float64 [N]: the nearer to 0, the better.

        When cascading, nothing of what the model has learnt is left then.
        """
        return self.rank[:, -1]


def weight_randomisation(
    explainer: Explainer,
    inputs: Arrays,
    method: Method,
    *,
    target: Target = None,
    seed: int = 0,
    order: Order = "cascading",
    draw: Draw = "normal",
    layers: Sequence[str] | None = None,
    stages: int | None = None,
    channel_axis: int | None = None,
    progress: Progress = None,
    timeout: float | None = None,
    cancel: Cancel = None,
    **options: Any,
) -> WeightRandomisation:
    """Randomise weights from the top and explain again (Adebayo et al., 2018, arXiv:1810.03292).

    An explanation that stays like that of the trained model does not depend on what that has learnt. The model, and the
    file that it was read from, stay as they are: the weights are changed in copies, one after the other.

    Args:
        explainer: the model, its output and what is explained.
        inputs: as for its methods.
        method: the name of one of its methods; or a function that is called with (an explainer, inputs, target=, and
            the options), and returns what such methods do.
        target: as for the methods; default: what the trained model finds.
        seed: of the weights; the method is given it too, if it is known by name.
        order: "cascading": one layer after the other from the top, all those above stay random; "independent": each
            layer by itself.
        draw: where random weights are from: see `randomised`.
        layers: names of layers (see `weighted_layers`; patterns such as "block3*" too) that are randomised; None: all.
        stages: explain so many times at most: that many stages of about as many layers each ("cascading"), or so many
            layers from the top to the bottom ("independent"); None: after every layer.
        channel_axis: as for `insertion_deletion`; it is summed over for `structure`.
        progress: called with (explanations done, explanations in all); an exception in it stops.
        timeout: as for the methods, of all together.
        cancel: as for the methods.
        options: of the method: baseline, steps and so on.

    Raises `InputError` for settings that make no sense and models without weights, and as the method does:
    `EngineError` where random weights make a gradient that is not finite.

    """
    require_choice("order", order, Order)
    require_choice("draw", draw, Draw)
    require_whole("stages", stages, 1, optional=True)
    require_run(None, seed, progress, "weight randomisation")
    control = call_control(timeout, cancel)
    arrays = checked_inputs(explainer.model, inputs, explainer.wrt)
    plan = _plan(_chosen(explainer, layers), stages, cascading=order == "cascading")
    if not callable(method):
        options = {"seed": seed, **options}
    explain = asked_method(explainer, method, arrays, target, control, options, explainers=True)
    original, indices = explain(explainer, arrays)
    found = []
    for done, (_, weights) in enumerate(plan, start=1):
        if progress is not None:
            progress(done, len(plan) + 1)
        other = explainer.with_model(randomised(explainer.model, weights, seed=seed, draw=draw))
        values, _ = explain(other, arrays)
        found.append(_alike(original, values, channel_axis))
    if progress is not None:
        progress(len(plan) + 1, len(plan) + 1)
    rank, structure, cosine = np.stack(found, axis=-1)
    return WeightRandomisation([name for name, _ in plan], rank, structure, cosine, indices)


def _chosen(explainer: Explainer, patterns: Sequence[str] | None) -> list[Layer]:
    """The layers to randomise, from the top."""
    known = weighted_layers(explainer.model, explainer.output)[::-1]
    if not known:
        raise InputError(f"{explainer.model.name}: no layer has floating weights to randomise")
    if patterns is None:
        return known
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(layer.name, pattern) for layer in known):
            raise InputError(
                f"{explainer.model.name}: no layer is called {pattern!r}; the topmost is {known[0].name!r}, "
                "igonnx.metrics.weighted_layers lists all"
            )
    return [one for one in known if any(fnmatchcase(one.name, pattern) for pattern in wanted)]


def _plan(
    layers: Sequence[Layer], stages: int | None, *, cascading: bool
) -> list[tuple[str, list[str]]]:
    """What each stage is called and which weights are random in it."""
    count = min(stages or len(layers), len(layers))
    ends = np.unique(np.round(np.linspace(0, len(layers), count + 1)).astype(int))[1:]
    plan = []
    for end in ends:
        changed = layers[:end] if cascading else layers[end - 1 : end]
        plan.append((layers[end - 1].name, [name for layer in changed for name in layer.weights]))
    return plan


def _alike(
    a: dict[str, Array], b: dict[str, Array], channel_axis: int | None
) -> NDArray[np.float64]:
    """The three similarities [3, N] of two explanations, over all tensors; structure is the mean over images."""
    flat = [
        np.concatenate([one[name].reshape(len(one[name]), -1) for name in a], axis=1)
        for one in (a, b)
    ]
    maps = [
        structural_similarity(*(_map(one[name], channel_axis) for one in (a, b)))
        for name in a
        if a[name].ndim == 4
    ]
    structure = np.mean(maps, axis=0) if maps else np.full(len(flat[0]), np.nan)
    return np.stack([rank_correlation(*flat), structure, cosine_similarity(*flat)])


def _map(values: Array, channel_axis: int | None) -> Array:
    """Magnitudes of images [N, H, W], summed over channels."""
    return np.asarray(np.abs(values).sum(axis=channels_of(values.shape, channel_axis)))

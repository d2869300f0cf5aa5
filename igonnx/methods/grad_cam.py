"""Class activation maps by gradients: which places of a layer's feature maps the score comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.channels import channel_axis as likely_channels
from igonnx.channels import fits
from igonnx.checks import is_whole, require_choice
from igonnx.engine.plan import RowPlan
from igonnx.errors import InputError
from igonnx.feature_maps import channels_of_input, last_feature_map, map_channels
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options, run_rows
from igonnx.methods.inside import at_inputs, layers_of
from igonnx.row_layers import Inside
from igonnx.targets import Target

__all__ = ["grad_cam", "grad_cam_pp", "guided_grad_cam", "resized"]

Interpolation = Literal["bilinear", "nearest"]
# From activation and gradient, [R, C, places...] each, to the weight of each channel, [R, C, 1...].
_Weights: TypeAlias = Callable[[Array, Array], Array]


def grad_cam(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    interpolation: Interpolation = "bilinear",
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): a layer's feature maps, weighted by their mean gradients.

    The value at a place is the sum over channels c of w_c A_c, where A_c is the activation and w_c the mean over all
    places of the gradient of the score by A_c.

    Args:
        inputs, target: as for `integrated_gradients`.
        baseline: changes nothing in the values; `baseline_scores` and `delta` are counted from it.
        seed, options: as for `layer_activation`.
        layer: name of a tensor between `wrt` and the output, or a pattern that one name matches: feature maps
            [N, C, H, W] (any number of places' axes, or the channels behind them), or tokens [N, tokens, C], of which a
            class token in front is left out and the rest are a grid of the input's proportions. Default: the last
            tensor that has channels and places, before places are pooled; where attention follows, the tokens that
            come into the last one, normalised (see `igonnx.feature_maps.last_feature_map`).
        relu: keep what is positive only, as the paper has it; False: what speaks against the target is negative.
        upsample: bring the map to the size of the input; False: the layer's own places, [N, 1, h, w] of [N, C, h, w].
        interpolation: "bilinear" (linear along each axis, whatever their number) or "nearest".
        channel_axis: of the layer, with the batch axis counted; default: as the graph says, or else its sizes.

    `values` have one channel: [N, 1, H, W], or [N, H, W, 1] where that is the input's layout, or [N, H, W] where it has
    no channels. They are no shares of the score: `delta`, their sum minus the change in score, tells nothing. Raises as
    `layer_activation`, and `InputError` for a layer without places, and where the input has other axes.

    """
    maps = _Maps.find(explainer, layer, upsample, interpolation, channel_axis)
    return _explained(
        explainer, inputs, maps, _mean_gradient, "grad_cam", relu, target, baseline, seed, options
    )


def grad_cam_pp(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: str | None = None,
    relu: bool = True,
    upsample: bool = True,
    interpolation: Interpolation = "bilinear",
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """Grad-CAM++ (Chattopadhay et al., 2018, arXiv:1710.11063): each place's positive gradient counts by a share.

    The weight of a channel is the sum over places of s max(g, 0), with g the gradient there and s its share,
    g^2 / (2 g^2 + g^3 sum A) with the sum over all places of the activation A, or 0 where that is 0/0. As in the paper
    the score is the exponent of an exponential, whose common factor is left out: so the map is given up to a positive
    factor per example. It shows several objects of a class where Grad-CAM shows the most prominent one. The arguments,
    and what is raised, are those of `grad_cam`.
    """
    maps = _Maps.find(explainer, layer, upsample, interpolation, channel_axis)
    return _explained(
        explainer, inputs, maps, _shared, "grad_cam_pp", relu, target, baseline, seed, options
    )


def guided_grad_cam(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: str | None = None,
    interpolation: Interpolation = "bilinear",
    channel_axis: int | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """Guided Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): guided backpropagation times the map of Grad-CAM.

    The values have the shape of the input: fine as those of `guided_backprop`, which hardly depend on the target, but
    only where Grad-CAM sees it. The arguments are those of `grad_cam`, with its ReLU. Captum interpolates "nearest" by
    default. Raises as `grad_cam`; warns as `guided_backprop` where no ReLU lies on the way.
    """
    maps = _Maps.find(explainer, layer, True, interpolation, channel_axis)
    return explainer.explain_with(
        partial(_guided, maps=maps),
        inputs,
        method=f"guided_grad_cam layer={maps.layer} interpolation={interpolation}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation="guided_backprop",
        **options,
    )


def _explained(
    explainer: Explaining,
    inputs: Arrays,
    maps: _Maps,
    weights: _Weights,
    name: str,
    relu: bool,
    target: Target,
    baseline: Baselines,
    seed: int,
    options: Options,
) -> Attribution:
    size = f"interpolation={maps.interpolation}" if maps.upsample else "upsample=False"
    return explainer.explain_with(
        partial(_cam, maps=maps, weights=weights, relu=relu),
        inputs,
        method=f"{name} layer={maps.layer} relu={bool(relu)} {size}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


# -- cores -------------------------------------------------------------------------------------


def _cam(call: Call, *, maps: _Maps, weights: _Weights, relu: bool) -> MethodResult:
    image = maps.image(call)
    shape = call.requests.x[image].shape
    places = _weighted_maps(call, maps, weights, relu, shape)
    laid_out = maps.like_input if maps.upsample else maps.as_they_are
    return MethodResult(
        attribution={maps.layer: laid_out(places, image, shape)},
        steps_used=np.ones(len(call), dtype=np.int64),
    )


def _guided(call: Call, *, maps: _Maps) -> MethodResult:
    count = len(call)
    image = maps.image(call)
    places = _weighted_maps(call, maps, _mean_gradient, True, call.requests.x[image].shape)
    guided = run_rows(call, RowPlan(np.arange(count), np.ones(count), np.ones(count)))
    return MethodResult(
        attribution={
            name: signal * maps.like_input(places, name, signal.shape)
            for name, signal in guided.weighted_gradient.items()
        },
        steps_used=np.full(count, 2),
        scores=guided.score,
    )


def _weighted_maps(
    call: Call, maps: _Maps, weights: _Weights, relu: bool, input_shape: tuple[int, ...]
) -> Array:
    """The sum over channels of the weighted activations, [R, places...]."""
    found = at_inputs(call, Inside(values=(maps.layer,), gradients=(maps.layer,)))
    values, slopes = (
        maps.channels_first(found[f"{what}:{maps.layer}"], input_shape).astype(np.float64)
        for what in ("value", "gradient")
    )
    places = np.asarray((weights(values, slopes) * values).sum(axis=1))
    return np.maximum(places, 0) if relu else places


def _mean_gradient(values: Array, slopes: Array) -> Array:
    return np.asarray(slopes.mean(axis=tuple(range(2, values.ndim)), keepdims=True))


def _shared(values: Array, slopes: Array) -> Array:
    axes = tuple(range(2, values.ndim))
    squares = np.square(slopes)
    below = 2 * squares + squares * slopes * values.sum(axis=axes, keepdims=True)
    shares = np.divide(squares, below, out=np.zeros_like(squares), where=below != 0)
    return np.asarray((shares * np.maximum(slopes, 0)).sum(axis=axes, keepdims=True))


# -- where the places are ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Maps:
    """A layer with places, and how it is brought to the input."""

    layer: str
    channels: int | None  # the axis of the layer's channels; None: its shape tells
    input_channels: dict[str, int | None]  # likewise of what is explained
    upsample: bool
    interpolation: Interpolation

    @classmethod
    def find(
        cls,
        explainer: Explaining,
        layer: str | None,
        upsample: bool,
        interpolation: Interpolation,
        channel_axis: int | None,
    ) -> _Maps:
        require_choice("interpolation", interpolation, Interpolation)
        if layer is None:
            names = [tensor.name for tensor in explainer.tensors()]
            name = last_feature_map(explainer.model, names, explainer.output)
        else:
            (name,) = layers_of(explainer, layer, several=False)
        shape = next(tensor.shape for tensor in explainer.tensors() if tensor.name == name)
        if shape is not None and len(shape) < 3:
            raise InputError(
                f"layer {name!r} has {len(shape)} axes; expected feature maps [N, C, H, W] or tokens [N, tokens, C]"
            )
        if channel_axis is None:
            channels = map_channels(explainer.model).get(name)
        else:
            most = None if shape is None else len(shape) - 1
            if (
                not is_whole(channel_axis)
                or channel_axis < 1
                or channel_axis > (most or channel_axis)
            ):
                raise InputError(
                    f"channel_axis is {channel_axis!r}; expected an axis of layer {name!r} behind the first, from 1 to "
                    f"{most or 'its last'}"
                )
            channels = int(channel_axis)
        of_inputs = {one: channels_of_input(explainer.model, one) for one in explainer.wrt}
        return cls(name, channels, of_inputs, bool(upsample), interpolation)

    def image(self, call: Call) -> str:
        """The name of the explained tensor that the places are those of: the first with the most axes."""
        return max(call.requests.x, key=lambda name: call.requests.x[name].ndim)

    def channels_first(self, array: NDArray[Any], input_shape: tuple[int, ...]) -> NDArray[Any]:
        """The layer's values or gradients as [R, C, places...]."""
        if array.ndim < 3:
            raise InputError(
                f"layer {self.layer!r} has shape {list(array.shape)}; expected feature maps [N, C, H, W] or tokens "
                "[N, tokens, C]"
            )
        axis = self.channels
        if axis is None and array.ndim == 3:
            return self._grid(array, input_shape)
        if axis is None:
            axis = 1 + likely_channels(array.shape[1:], size=_places(input_shape, array.ndim - 2))
        return np.moveaxis(array, axis, 1)

    def _grid(self, array: NDArray[Any], input_shape: tuple[int, ...]) -> NDArray[Any]:
        """Tokens [R, T, C] as [R, C, H, W], without a class token, or as [R, C, T] where the input has such tokens."""
        tokens = array.shape[1]
        if len(input_shape) == 3 and tokens == input_shape[1]:
            return np.moveaxis(array, 2, 1)
        size = _places(input_shape, 2)
        for extra in (0, 1):
            grid = None if size is None else _grid_of(tokens - extra, size)
            if grid is not None:
                kept = array[:, extra:].reshape(len(array), *grid, array.shape[2])
                return np.moveaxis(kept, -1, 1)
        raise InputError(
            f"layer {self.layer!r} has {tokens} tokens: neither these nor these but one are a grid on an input of "
            f"shape {list(input_shape)}; name another layer"
        )

    def like_input(self, places: Array, name: str, shape: tuple[int, ...]) -> Array:
        """The map [R, places...] in the size and layout of the explained tensor `name` of this shape, one channel."""
        rank = places.ndim - 1
        if len(shape) - 1 == rank:  # no channels
            return resized(places, shape[1:], self.interpolation)
        if len(shape) - 2 != rank:
            raise InputError(
                f"layer {self.layer!r} has places along {rank} axes, {name!r} has shape {list(shape)}: they cannot be "
                "laid over each other; pass upsample=False or another layer"
            )
        axis = self._channels_of(name, shape)
        size = tuple(length for i, length in enumerate(shape) if i not in (0, axis))
        return np.expand_dims(resized(places, size, self.interpolation), axis)

    def as_they_are(self, places: Array, name: str, shape: tuple[int, ...]) -> Array:
        """The map [R, places...] in its own size, one channel where `name` has its own, or else in front."""
        rank = places.ndim - 1
        if len(shape) - 1 == rank:
            return places
        return np.expand_dims(
            places, self._channels_of(name, shape) if len(shape) - 2 == rank else 1
        )

    def _channels_of(self, name: str, shape: tuple[int, ...]) -> int:
        known = self.input_channels.get(name)
        return _likely_channels(shape) if known is None else known


def _places(shape: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """The sizes along the places' axes of an input of this shape, batch axis in front; None where they are unclear."""
    if len(shape) - 2 != rank:
        return None
    channels = _likely_channels(shape)
    return tuple(length for axis, length in enumerate(shape) if axis not in (0, channels))


def _likely_channels(shape: tuple[int, ...]) -> int:
    """The axis of the channels of an input that meets no convolution: embeddings [N, T, C], or by the sizes."""
    return 2 if len(shape) == 3 else 1 + likely_channels(shape[1:])


def _grid_of(tokens: int, size: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of so many tokens that cover an image of this size, if they can."""
    height, width = size
    rows = round(math.sqrt(tokens * height / width))
    if tokens < 4 or rows == 0 or tokens % rows:
        return None
    grid = rows, tokens // rows
    return grid if fits(grid, size) else None


def resized(maps: Array, size: tuple[int, ...], interpolation: str) -> Array:
    """Maps [R, places...] in another size, as torch.nn.functional.interpolate has it (align_corners=False).

    "bilinear": linear along each axis between the centres of places, constant beyond the outermost; "nearest": the
    place floor(i old / new).
    """
    for axis, length in enumerate(size, start=1):
        old = maps.shape[axis]
        if interpolation == "nearest":
            maps = maps.take(np.arange(length) * old // length, axis=axis)
            continue
        centre = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
        low = np.floor(centre).astype(np.int64)
        share = (centre - low).reshape(-1, *[1] * (maps.ndim - 1 - axis))
        above = maps.take(np.minimum(low + 1, old - 1), axis=axis)
        maps = maps.take(low, axis=axis) * (1 - share) + above * share
    return maps

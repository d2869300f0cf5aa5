"""`igonnx.augment`: one plain ONNX file that predicts and explains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import cast

import onnx
import onnx_ir as ir

from igonnx.augmentation.explanation import Plan, with_explanation
from igonnx.augmentation.heat import pictures_of
from igonnx.augmentation.settings import default_target, noise_of, points_of, require_finite
from igonnx.autodiff.selection import tensors_per_example, tensors_to_explain
from igonnx.batching import settle_batching
from igonnx.errors import InputError, ModelError
from igonnx.graph.builder import rank
from igonnx.model import Model, ModelSource
from igonnx.row_gradient import build_row_gradient
from igonnx.row_scores import Apply, normalised_apply

__all__ = ["METADATA", "augment"]

METADATA = "igonnx.augmented"
COMPILED = "igonnx.compiled"  # as igonnx.compilation writes it


def augment(
    model: ModelSource,
    *,
    steps: int = 50,
    rule: str = "gauss_legendre",
    baseline: float = 0.0,
    target: int | Sequence[int] | str = "argmax",
    apply: Apply = None,
    output: str | None = None,
    wrt: Sequence[str] | str | None = None,
    chunk: int = 10,
    method: str = "integrated_gradients",
    lazy: bool = False,
    optional_inputs: bool = True,
    heatmap: str | None = None,
    heatmap_threshold: float = 0.1,
    noise_samples: int = 10,
    noise_std: float | None = None,
    seed: int = 0,
    straight_through: bool = True,
) -> onnx.ModelProto:
    """Build one plain ONNX model that predicts and explains; it runs wherever the model ran, without igonnx.

    The model's own inputs and outputs stay as they are, in name, type, order and value. Inputs that may be left out
    are added behind them:

    `target` int64 [1] or [N]: which element of each example's output is explained, after `apply`, counted row by row
    without the batch axis; -1 is the largest one. Nothing is explained where there is no such element: the attribution
    is zero and `completeness_delta` is NaN.

    `baseline`, or `baseline_<tensor>` where several are explained: where the path starts. It has as many axes as the
    explained tensor and broadcasts to it; any other shape is refused by the runtime.

    `explain` bool [1], with `lazy`: whether to explain.

    Outputs added: `attribution_<tensor>`, float32 (float64 for such a model) of the tensor's shape;
    `completeness_delta` [N], the sum of an example's attributions minus the change of its score from the baseline to
    the input, which is zero where the steps were enough; with a heat map `heatmap_<tensor>` and `overlay_<tensor>`
    of every picture explained.

    Runtimes need the operators of ONNX that the model itself uses, their gradients', and Loop. To the last bit
    predictions are the same where inputs are explained; where a tensor inside the model is, the runtime may have to do
    without a fusion across it. OpenVINO (2026.4) reads such files too, with the
    defaults of optional inputs for good. Outputs that are maps become tensors, as for `igonnx.Explainer`.

    The path is walked by a Loop over chunks of its points, so that memory does not grow with `steps`; where one chunk
    is enough there is no Loop. Weights are stored once. External data stays in the model's files: save the result
    beside them. Points are run one at a time, for the whole batch, where the file fixes the batch size and shapes do
    not show that it may be another, and where the examples of a batch influence each other.

    Args:
        model: path, bytes or `onnx.ModelProto`.
        steps: number of steps of the rule.
        rule: "gauss_legendre", "trapezoid", "middle", "left" or "right".
        baseline: the number that fills the default baseline.
        target: the default target: "argmax", an int, or an index into the output without its batch axis.
        apply: None, "softmax", "log_softmax" or "sigmoid", applied to the output before the target is picked; a tuple
            with an axis as for `igonnx.Explainer`. The model's own outputs stay as they are.
        output: name of the explained output; default: the first floating one.
        wrt: names of inputs or of floating tensors inside the model, whose baseline then is in that tensor's space;
            default: every floating input, or for a model fed with integers its embedding.
        chunk: points of the path that are run at once, for all examples of the batch together.
        method: "integrated_gradients"; "saliency", the magnitude of the gradient; "input_x_gradient", the gradient
            times (input - baseline); "smoothgrad_ig", Integrated Gradients averaged over noisy copies of the input.
        lazy: explain only when `explain` is fed with true: else attributions have no examples ([0, ...]), and a
            prediction costs what it did.
        optional_inputs: whether the inputs added may be left out, for which they have initializers of the same name.
            ONNX Runtime for JavaScript (web and Node, as of 1.30) cannot feed such inputs: say False there, and feed
            all of them; `target` and `baseline` then have no default.
        heatmap: None; "sum" of the channels per pixel, in [-1, 1]; "absolute", the sum of magnitudes, in [0, 1];
            "overlay", that and its colours, uint8 [N, H, W, 4]: red, green, blue, opacity. Attributions of tensors
            inside a network are scaled up to the size of the image. See `igonnx.augmentation.heat`.
        heatmap_threshold: pixels weaker than this, from 0 to 1, are transparent in an overlay.
        noise_samples: copies per input, for "smoothgrad_ig".
        noise_std: standard deviation of their noise in the units of the explained tensor; None: 15 % of the range of
            each example's values.
        seed: of the noise, which is the same in every run. See `igonnx.augmentation.normal`.
        straight_through: as for `igonnx.Explainer`.

    Raises:
        ModelError: the model cannot be read, or no differentiable path leads to the output.
        UnsupportedOperatorError: the gradient must cross an operator without a rule.
        InputError: an unknown name or value, an augmented model, or a name that the model has already given away.

    """
    loaded, original = Model.load_beside_original(model)
    if METADATA in loaded.metadata:
        raise InputError(
            f"{loaded.name}: this model explains itself already (it was made by igonnx.augment): augment the original"
        )
    if COMPILED in loaded.metadata:
        raise InputError(
            f"{loaded.name}: this is the explanation graph of a model (by igonnx.compile): augment the model"
        )
    explained = loaded.find_output(output)
    tensors = tensors_to_explain(loaded, wrt, explained, straight_through=straight_through)
    if wrt is None:
        tensors = tensors_per_example(loaded, tensors)
    names = tuple(cast("str", value.name) for value in tensors)
    normalised_apply(apply, rank(explained))
    batching = settle_batching(loaded, cast("str", explained.name), names)
    require_finite("baseline", baseline)
    alone = batching.fixed_rows is not None or not batching.apart
    plan = Plan(
        output=cast("str", explained.name),
        wrt=names,
        apply=apply,
        batching=batching,
        points=points_of(method, steps, rule, chunk, alone=alone),
        noise=noise_of(method, noise_samples, noise_std, seed),
        baseline=float(baseline),
        target=default_target(target, explained, batching),
        lazy=bool(lazy),
        optional_inputs=bool(optional_inputs),
        pictures=pictures_of(loaded, tensors, heatmap, heatmap_threshold),
    )
    rows = build_row_gradient(
        batching.model,
        output=plan.output,
        wrt=names,
        apply=apply,
        batch_axis=batching.batch_axis,
        fixed_rows=batching.fixed_rows,
        straight_through=straight_through,
    )
    require_finite("baseline", baseline, rows.dtype)
    made = with_explanation(_host(loaded, original, [plan.output, *names]), plan, rows)
    description = {
        "version": version("igonnx"),
        "method": method,
        "steps": int(steps),
        "rule": rule,
        **plan.described(),
        "heatmap": heatmap,
        "straight_through": bool(straight_through),
    }
    made.metadata_props[METADATA] = json.dumps(description)
    try:
        return ir.to_proto(made)
    except ir.serde.SerdeError as error:
        raise ModelError(
            f"{loaded.name}: a tensor's data or an attribute is damaged: the model cannot be written down"
        ) from error


def _host(loaded: Model, original: ir.Model, needed: Sequence[str]) -> Model:
    """What the explanation is added to: the graph as the file has it, which then predicts to the last bit what it did.

    Where its opset had to be raised, or a tensor of `needed` lies in a function, it is the normalised graph.
    """
    host = loaded.with_graph(original)
    values = {value.name: value for value in original.graph.inputs}
    values |= {value.name: value for node in original.graph for value in node.outputs}
    if host.opset != loaded.opset or any(name not in values for name in needed):
        return loaded.with_graph(loaded.clone())
    for name in needed:
        value = values[name]
        known = loaded.find_tensor(name)
        if value.shape is None:
            value.shape = None if known.shape is None else known.shape.copy()
        value.type = value.type or known.type
    return host

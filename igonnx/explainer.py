"""`Explainer`: a model and what to explain of it; methods give attributions."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution, relative_distance
from igonnx.autodiff.propagation import GRADIENT, PropagationSpec
from igonnx.autodiff.selection import (
    inputs_to_change,
    tensors_per_example,
    tensors_to_explain,
)
from igonnx.baselines import Baselines
from igonnx.checks import require_whole
from igonnx.engine.control import Cancel, ControlledEngine, call_control
from igonnx.engine.precision import require_precision
from igonnx.engine.runtime import Providers
from igonnx.errors import InputError, ModelError
from igonnx.graph.builder import rank
from igonnx.inputs import Arrays, BatchedInputs, batched_inputs, checked_inputs
from igonnx.layers import InnerTensor, computed_tensors, layers_between
from igonnx.methods import (
    ablation,
    blur_ig,
    deep_lift,
    distributions,
    grad_cam,
    gradients,
    guided_ig,
    idgi,
    kernel_shap,
    layers,
    lime,
    lrp,
    neurons,
    occlusion,
    rise,
    shapley,
    straight_path,
    xrai,
)
from igonnx.methods.binding import as_method
from igonnx.methods.call import Call, Core, Progress, require_progress
from igonnx.methods.ensemble import run_ensemble
from igonnx.methods.exact_sum import made_exact
from igonnx.methods.noise import noise_of
from igonnx.model import Model, ModelSource
from igonnx.preparation import ENGINES, Gradients, Prepared, Settings, prepare
from igonnx.requests import Examples, attribution_of
from igonnx.row_scores import Apply, normalised_apply
from igonnx.targets import Target

__all__ = ["Explainer"]


class Explainer:
    """Explains one output of an ONNX model by some of its tensors.

    Args:
        model: path, bytes or `onnx.ModelProto`.
        output: name of the explained output; default: the first floating one.
        wrt: names of graph inputs or floating intermediate tensors to attribute to; default: every floating input, or
            for a model fed with integers its embedding.
        apply: None, "softmax", "log_softmax" or "sigmoid", applied to the output before the target is picked; softmax
            runs over axis 1 of outputs with four or more axes, else over the last; ("softmax", axis) says otherwise.
        providers: ONNX Runtime execution providers, as onnxruntime takes them; default: the CPU.
        engine: "native" (C++) or "reference" (NumPy around one session; slower, for checking).
        batch_size: rows (gradients) computed at once; default: tried out in the first long call, whose own rows are the
            measurement, and remembered in the user's cache (IGONNX_CACHE_DIR; "off": not). Results depend on it by
            rounding only; give a number where even that must not change from call to call.
        memory_limit: bytes that rows computed at once may take, estimated from the graph, where `batch_size` is not
            given (default: 128 MiB a batch, a quarter of the machine's memory in all; one row is run in any case),
            and as many again for the gradients that `tolerance` keeps (default: 512 MiB).
        threads: threads that one call keeps busy; default: one per physical core. On the CPU the native engine runs as
            many rows at the same time, or batches of `batch_size` rows; beyond eight, threads work within operators.
        straight_through: gradients go straight through the rounding of quantised operators, with slope one inside the
            range of the codes and zero outside, as through torch.fake_quantize; False: rounding has its own slope,
            zero, and nothing passes.
        precision: "bfloat16": matrix products (MatMul, Gemm) round their factors to bfloat16 and sum in float32, the
            rest stays as it is; for CPUs with AMX or AVX512_BF16, with the package igonnx[bfloat16]. Scores on the path
            are computed so too; `precision_error` tells what it costs. Default: the model's own precision.
        queue_limit: calls that are served at a time; when more threads call, the rest wait in line (or until their
            `timeout`). Those that are served take turns and share batches. None: no limit.

    Raises:
        ModelError: the model cannot be read. Where no differentiable path leads to the output, methods that need
            gradients raise it, naming the operator; those of forward passes only explain such models, too.
        InputError: an unknown name or value among the arguments.
        EngineError: what `precision` needs is not there.

    """

    def __init__(
        self,
        model: ModelSource,
        *,
        output: str | None = None,
        wrt: Sequence[str] | str | None = None,
        apply: Apply = None,
        providers: Providers = None,
        engine: str = "native",
        batch_size: int | None = None,
        memory_limit: int | None = None,
        threads: int | None = None,
        straight_through: bool = True,
        precision: str | None = None,
        queue_limit: int | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise InputError(f"engine is {engine!r}; expected {' or '.join(map(repr, ENGINES))}")
        for name, number, most in (
            ("batch_size", batch_size, 1 << 20),
            ("memory_limit", memory_limit, 1 << 50),
            ("threads", threads, 1024),
            ("queue_limit", queue_limit, 1 << 20),
        ):
            require_whole(name, number, 1, most, optional=True)
        require_precision(precision, engine, providers)
        self.model = Model.load(model)
        target = self.model.find_output(output)
        self._refusal: InputError | ModelError | None = (
            None  # of gradients; forward passes do without
        )
        try:
            tensors = tensors_to_explain(self.model, wrt, target, straight_through=straight_through)
        except (InputError, ModelError) as error:
            tensors = inputs_to_change(self.model, wrt, target)
            if not tensors:
                raise
            self._refusal = error
        if wrt is None:
            tensors = tensors_per_example(self.model, tensors)
        normalised_apply(apply, rank(target))
        self._settings = Settings(
            target.name or "",
            tuple(value.name or "" for value in tensors),
            apply,
            engine,
            providers,
            threads,
            straight_through,
            precision,
            batch_size,
            memory_limit,
            queue_limit,
        )
        self._batch_size = batch_size
        self._prepared: dict[BatchedInputs, Prepared] = {}
        self._siblings: dict[tuple[str, tuple[str, ...]], Explainer] = {}
        self._preparing = threading.Lock()

    def sibling(
        self, *, output: str | None = None, wrt: Sequence[str] | str | None = None
    ) -> Explainer:
        """An explainer of the same model and settings for another output or other tensors; made once.

        `output` may be any floating tensor inside the model with the examples along its first axis: a layer, whose
        neurons are then what is explained; `apply` is for the model's own output and left out. What is not given stays
        as it is. Raises as the constructor does.
        """
        names = (wrt,) if isinstance(wrt, str) else self.wrt if wrt is None else tuple(wrt)
        key = (output or self.output, names)
        if key == (self.output, self.wrt):
            return self
        with self._preparing:
            if key not in self._siblings:
                self._siblings[key] = self._made_sibling(*key)
            return self._siblings[key]

    def with_model(self, model: ModelSource) -> Explainer:
        """An explainer of the same settings for another model, whose tensors have the same names.

        Raises as the constructor does.
        """
        return self._made(Model.load(model), self.output, self.wrt, self.apply)

    def _made_sibling(self, output: str, wrt: tuple[str, ...]) -> Explainer:
        if output == self.output:
            return self._made(self.model, output, wrt, self.apply)
        return self._made(self.model.with_output(output), output, wrt, None)

    def _made(self, model: Model, output: str, wrt: tuple[str, ...], apply: Apply) -> Explainer:
        settings = self._settings
        return Explainer(
            model,
            output=output,
            wrt=wrt,
            apply=apply,
            providers=settings.providers,
            engine=settings.engine,
            batch_size=settings.batch_size,
            memory_limit=settings.memory_limit,
            threads=settings.threads,
            straight_through=settings.straight_through,
            precision=settings.precision,
            queue_limit=settings.queue_limit,
        )

    @property
    def output(self) -> str:
        """Name of the explained output."""
        return self._settings.output

    @property
    def wrt(self) -> tuple[str, ...]:
        """Names of the tensors that attributions are given for."""
        return self._settings.wrt

    @property
    def apply(self) -> Apply:
        """What is applied to the output before the target is picked, as given."""
        return self._settings.apply

    @property
    def memory_limit(self) -> int | None:
        """Bytes that rows computed at once may take, as given; None: not given."""
        return self._settings.memory_limit

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The model's outputs by name, for `inputs` (one array, or {name: array}) with the batch axis."""
        arrays = checked_inputs(self.model, inputs, self.wrt)
        prepared = self._prepare(arrays)
        results = prepared.forward.run(arrays, prepared.batched, {self.output: prepared.batch_axis})
        return {info.name: results[info.name] for info in self.model.outputs}

    def tensors(self, pattern: str = "*", *, anywhere: bool = False) -> list[InnerTensor]:
        """The floating tensors between `wrt` and the output, which can be layers, whose names match `pattern`.

        A pattern is of the kind that files are found by: `*` for any characters, `?` for one. With `anywhere` those
        that lead to no explained output, or do not depend on `wrt`, are there, too: `layer_activation` takes them.
        """
        known = computed_tensors(self.model) if anywhere else self._layers
        return [tensor for tensor in known if fnmatchcase(tensor.name, pattern)]

    @cached_property
    def _layers(self) -> list[InnerTensor]:
        return layers_between(self.model, self.wrt, self.output)

    # -- methods: each is a function of its family's module ------------------------------------

    integrated_gradients = as_method(straight_path.integrated_gradients)
    smoothgrad_ig = as_method(straight_path.smoothgrad_ig)
    saliency = as_method(gradients.saliency)
    input_x_gradient = as_method(gradients.input_x_gradient)
    guided_backprop = as_method(gradients.guided_backprop)
    deconvnet = as_method(gradients.deconvnet)
    expected_gradients = as_method(distributions.expected_gradients)
    gradient_shap = as_method(distributions.gradient_shap)
    deep_lift_shap = as_method(deep_lift.deep_lift_shap)
    deep_lift = as_method(deep_lift.deep_lift)
    lrp = as_method(lrp.lrp)
    guided_ig = as_method(guided_ig.guided_ig)
    blur_ig = as_method(blur_ig.blur_ig)
    idgi = as_method(idgi.idgi)
    xrai = as_method(xrai.xrai)
    shapley_value_sampling = as_method(shapley.shapley_value_sampling)
    kernel_shap = as_method(kernel_shap.kernel_shap)
    lime = as_method(lime.lime)
    rise = as_method(rise.rise)
    occlusion = as_method(occlusion.occlusion)
    feature_permutation = as_method(ablation.feature_permutation)
    feature_ablation = as_method(ablation.feature_ablation)
    layer_activation = as_method(layers.layer_activation)
    layer_gradient_x_activation = as_method(layers.layer_gradient_x_activation)
    layer_conductance = as_method(layers.layer_conductance)
    internal_influence = as_method(layers.internal_influence)
    grad_cam_pp = as_method(grad_cam.grad_cam_pp)
    guided_grad_cam = as_method(grad_cam.guided_grad_cam)
    grad_cam = as_method(grad_cam.grad_cam)
    neuron_gradient = as_method(neurons.neuron_gradient)
    neuron_integrated_gradients = as_method(neurons.neuron_integrated_gradients)
    neuron_conductance = as_method(neurons.neuron_conductance)
    neuron_gradient_shap = as_method(neurons.neuron_gradient_shap)
    neuron_deep_lift_shap = as_method(neurons.neuron_deep_lift_shap)
    neuron_guided_backprop = as_method(neurons.neuron_guided_backprop)
    neuron_deconvnet = as_method(neurons.neuron_deconvnet)

    def explain_with(
        self,
        core: Core,
        inputs: Arrays,
        *,
        method: str,
        target: Target = None,
        baseline: Baselines = None,
        seed: int = 0,
        propagation: str | PropagationSpec | None = GRADIENT,
        exact_sum: bool = False,
        noise: str | None = None,
        noise_samples: int = 10,
        noise_std: float | Mapping[str, float] | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        cancel: Cancel = None,
    ) -> Attribution:
        """Explain `inputs` by a method of your own: what every method above calls.

        `core` is given a `igonnx.methods.call.Call` of requests and returns a `MethodResult` of them; it must treat
        each request without regard to the others. `method` is its name and settings, for the record. `propagation` is
        one of `igonnx.autodiff.propagation`, which says what the engine computes in the place of gradients; None:
        forward passes are enough, and the model need not be differentiable. The other arguments are those of
        `integrated_gradients`. Raises as that does.
        """
        require_whole("seed", seed, 0)
        tunnel = noise_of(noise, noise_samples, noise_std, self.wrt)
        require_progress(progress)
        control = call_control(timeout, cancel)
        arrays = checked_inputs(self.model, inputs, self.wrt)
        prepared = self._prepare(arrays)
        rows = prepared.passes() if propagation is None else self._gradients(prepared, propagation)
        control.check(self.model.name, "before the first run")
        examples = Examples(self.model, prepared, rows, arrays, self.wrt, self._settings.apply)
        asked = examples.question(target, baseline, int(seed))
        requests = asked.requests
        call = Call(
            ControlledEngine(rows.engine, control),
            requests,
            batch_size=self._batch_size or rows.rows_at_once(requests),
            seed=int(seed),
            forward=partial(examples.scores, requests, control)
            if examples.can_be_fed or propagation is None
            else None,
            values=partial(examples.values, requests, control),
            masks=partial(prepared.masks, control) if self._settings.engine == "native" else None,
            inside=partial(examples.inside, requests, control),
            scores=asked.scores,
            known_baselines=partial(examples.baselines, requests.x, int(seed)),
            progress=progress,
        )
        result, scores, baseline_scores = run_ensemble(call, core, asked.baselines, tunnel)
        if exact_sum:
            result = made_exact(result, scores - baseline_scores)
            method += " exact_sum"
        if tunnel is not None:
            method += f" noise={tunnel.kind} noise_samples={tunnel.samples}"
        if self._settings.precision is not None:
            method += f" precision={self._settings.precision}"
        return attribution_of(result, scores, baseline_scores, asked.indices, method, rows.dtype)

    def precision_error(self, inputs: Arrays, **options: Any) -> NDArray[np.float64]:
        """What `precision` costs: how far the attributions are from those in the model's own precision.

        Both are computed, by `integrated_gradients(inputs, **options)`. Relative L2 distance per example, float64 [N]:
        zero without a `precision`, infinite where the exact attribution alone is zero.
        """
        rounded = self.integrated_gradients(inputs, **options)
        return relative_distance(
            rounded, self._in_own_precision.integrated_gradients(inputs, **options)
        )

    @cached_property
    def _in_own_precision(self) -> Explainer:
        """This explainer without its `precision`; its sessions are its own."""
        other = copy.copy(self)
        other._settings = dataclasses.replace(self._settings, precision=None)
        other._prepared, other._siblings, other._preparing = {}, {}, threading.Lock()
        return other

    def _gradients(self, prepared: Prepared, propagation: str | PropagationSpec) -> Gradients:
        """The engine for a propagation; raises what was found out about the model's gradients at first."""
        if self._refusal is not None:
            raise self._refusal
        with self._preparing:
            return prepared.gradients(propagation)

    def _prepare(self, arrays: Mapping[str, NDArray[Any]]) -> Prepared:
        """Sessions for inputs like these; made on the first call."""
        key = batched_inputs(self.model, arrays, self.wrt)
        with self._preparing:
            if key not in self._prepared:
                self._prepared[key] = prepare(self.model, self._settings, arrays, key)
        return self._prepared[key]

"""Metrics of Quantus (Hedström et al., 2023) on an ONNX model, without PyTorch or TensorFlow.

    import quantus
    from igonnx.quantus import evaluate

    scores = evaluate(quantus.FaithfulnessCorrelation(...), explainer, x, y, method="integrated_gradients")

Quantus takes models of PyTorch and TensorFlow only: `quantus.helpers.utils.get_wrapped_model` wraps what it is given,
and refuses all others. For the time of a call, `evaluate` puts a function in its place that knows an `Explainer` too.
Needs Quantus 0.6 (`pip install igonnx[quantus]`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.engine.forward import Forward
from igonnx.errors import Error, InputError
from igonnx.explainer import Explainer
from igonnx.graph.builder import GraphBuilder
from igonnx.metrics.asking import bound_method
from igonnx.metrics.weights import Layer, randomised, weighted_layers
from igonnx.model import Model
from igonnx.requests import applied
from igonnx.row_scores import normalised_apply
from igonnx.targets import Target

try:
    from quantus.helpers import utils
    from quantus.helpers.model.model_interface import ModelInterface
except ModuleNotFoundError as error:
    raise Error("igonnx.quantus needs Quantus: pip install igonnx[quantus]") from error

__all__ = ["OnnxModel", "evaluate", "explain"]

_REPLACING = threading.RLock()


class OnnxModel(ModelInterface):  # type: ignore[misc]  # Quantus is not there where types are checked
    """An `Explainer` as Quantus sees a model; to the functions that explain, the `Explainer` itself is the model.

    Predictions are what is explained: the explainer's output after its `apply`, [N, classes]; `softmax` is applied
    where that is nothing. The model has one input. Metrics hand over images with their channels first;
    `channel_first` says whether the model takes them so.
    """

    model: Explainer

    def __init__(
        self,
        model: Explainer,
        channel_first: bool | None = True,
        softmax: bool = False,
        model_predict_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if len(model.model.inputs) != 1:
            names = ", ".join(repr(info.name) for info in model.model.inputs)
            raise InputError(
                f"{model.model.name}: Quantus gives models one input; this one has {names}"
            )
        super().__init__(model, channel_first, softmax, model_predict_kwargs)
        self._layers = weighted_layers(model.model, model.output)

    def predict(self, x: Any, **_: Any) -> NDArray[Any]:
        """What is explained, for inputs [N, ...]: [N, classes]."""
        explainer = self.model
        output = explainer.predict(np.asarray(x))[explainer.output]
        chosen = "softmax" if explainer.apply is None and self.softmax else explainer.apply
        function = normalised_apply(chosen, output.ndim)
        return output if function is None else applied(output, *function)

    def shape_input(
        self,
        x: NDArray[Any],
        shape: tuple[int, ...],
        channel_first: bool | None = None,
        batched: bool = False,
    ) -> NDArray[Any]:
        """Inputs of `shape` as the model takes them, with the axis of examples and the channels where they belong."""
        array = np.asarray(x).reshape(shape if batched else (1, *shape))
        first = utils.infer_channel_first(array) if channel_first is None else channel_first
        turned = utils.make_channel_first if self.channel_first else utils.make_channel_last
        return np.asarray(turned(array, first) if array.ndim > 2 else array)

    def get_model(self) -> Explainer:
        """What functions that explain are given."""
        return self.model

    def get_softmax_arg_model(self) -> Explainer:
        """The same: `predict` applies the softmax."""
        return self.model

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The weights by name."""
        initializers = self.model.model.ir.graph.initializers
        found = {}
        for name in (name for layer in self._layers for name in layer.weights):
            tensor = initializers[name].const_value
            if tensor is not None:
                found[name] = tensor.numpy()
        return found

    def get_random_layer_generator(
        self, order: str = "top_down", seed: int = 42
    ) -> Iterator[tuple[str, Explainer]]:
        """Explainers of copies of the model in which one layer more has random weights, with that layer's name.

        `order`: "top_down" or "bottom_up", or "independent", one layer at a time.
        """
        layers: Sequence[Layer] = self._layers[::-1] if order == "top_down" else self._layers
        changed: list[str] = []
        for layer in layers:
            changed = [*([] if order == "independent" else changed), *layer.weights]
            model = randomised(self.model.model, changed, seed=seed)
            yield layer.name, self.model.with_model(model)

    @property
    def random_layer_generator_length(self) -> int:
        """How many layers have weights."""
        return len(self._layers)

    def add_mean_shift_to_first_layer(
        self, input_shift: float, shape: tuple[int, ...]
    ) -> Explainer:
        """An explainer of the model that does with x + shift what this one does with x; `shape` is not needed."""
        del shape
        model = self.model.model.with_graph(self.model.model.clone())
        given = model.input_values[0]
        readers = [(use.node, use.idx) for use in given.uses()]
        op = GraphBuilder(model.ir, scope="shifted")
        shifted = op.Sub(given, op.constant(np.asarray(input_shift, self._dtype)))
        for node, index in readers:
            node.replace_input_with(index, shifted)
        model.ir.graph.sort()
        return self.model.with_model(model)

    def get_hidden_representations(
        self,
        x: NDArray[Any],
        layer_names: Sequence[str] | None = None,
        layer_indices: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """The outputs of layers for inputs [N, ...], side by side: [N, elements].

        `layer_names` are names of layers (`igonnx.metrics.weighted_layers`) or of tensors inside the model;
        `layer_indices` count the layers, from the end where negative. All layers where neither is given.
        """
        outputs = _outputs_of(self.model.model, self._layers)
        chosen = [outputs.get(name, name) for name in layer_names or []]
        known = list(outputs.values())
        chosen += [known[index] for index in layer_indices or []]
        names = list(dict.fromkeys(chosen or known))
        forward = Forward(self.model.model, also=names, providers=self.model._settings.providers)
        name = self.model.model.inputs[0].name
        found = forward.run({name: np.asarray(x, dtype=self._dtype)}, [name], {})
        return np.concatenate([found[one].reshape(len(x), -1) for one in names], axis=1)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self.model.model.inputs[0].dtype)


def explain(
    model: Explainer,
    inputs: Any,
    targets: Any,
    *,
    method: str | Callable[..., Any] = "integrated_gradients",
    **options: Any,
) -> NDArray[Any]:
    """What Quantus calls to explain: the attributions [N, ...] of `inputs` [N, ...] for the classes `targets` [N].

    `method` is the name of a method of `Explainer`, or a function that is called with (explainer, inputs, target=, and
    the options).
    """
    options.pop("device", None)  # Quantus adds it where it was given one
    given = np.asarray(inputs)
    target: Target = [int(index) for index in np.asarray(targets).ravel()]
    if callable(method):
        found = method(model, given, target=target, **options)
    else:
        found = bound_method(model, method)(given, target=target, **options)
    values = getattr(found, "values", found)
    if isinstance(values, Mapping):
        raise InputError(
            f"{method} explains {list(values)}; Quantus compares one tensor with the input"
        )
    return np.asarray(values)


def evaluate(
    metric: Callable[..., Any],
    explainer: Explainer,
    x: Any,
    y: Any,
    *,
    method: str | Callable[..., Any] = "integrated_gradients",
    options: Mapping[str, Any] | None = None,
    attribution: Any = None,
    channel_first: bool = True,
    **arguments: Any,
) -> Any:
    """Call a metric of Quantus on an ONNX model, and return what it returns (mostly one score per example).

    Args:
        metric: an instance of a metric, such as `quantus.MaxSensitivity(...)`.
        explainer: the model, its output and what is explained: its one input.
        x: inputs [N, ...], as the model takes them.
        y: classes to explain, int [N].
        method: the name of a method of `Explainer`, or a function: see `explain`.
        options: of the method: baseline, steps and so on.
        attribution: of the inputs, where it is known already: an `Attribution` or an array; default: by `method`.
        channel_first: whether the images of the model have their channels in front.
        arguments: of the metric's call, such as `s_batch` (masks) or `softmax`.

    Threads that call this wait for each other. Raises `InputError` for models of several inputs; else what the metric
    and the method raise.

    """
    values = getattr(attribution, "values", attribution)
    with _known_to_quantus():
        return metric(
            model=explainer,
            x_batch=np.asarray(x),
            y_batch=np.asarray(y),
            a_batch=values,
            channel_first=channel_first,
            explain_func=explain,
            explain_func_kwargs={"method": method, **(options or {})},
            **arguments,
        )


@contextlib.contextmanager
def _known_to_quantus() -> Iterator[None]:
    """Let Quantus wrap an `Explainer` for a while, and what else it knows as before."""
    with _REPLACING:
        original = utils.get_wrapped_model

        def wrapped(
            model: Any,
            channel_first: bool,
            softmax: bool,
            device: str | None = None,
            model_predict_kwargs: dict[str, Any] | None = None,
        ) -> Any:
            if isinstance(model, Explainer):
                return OnnxModel(model, channel_first, softmax, model_predict_kwargs)
            return original(model, channel_first, softmax, device, model_predict_kwargs)

        utils.get_wrapped_model = wrapped
        try:
            yield
        finally:
            utils.get_wrapped_model = original


def _outputs_of(model: Model, layers: Sequence[Layer]) -> dict[str, str]:
    """The tensor that each layer ends with, by the layer's name."""
    ends = {}
    for layer in layers:
        for node in model.ir.graph:
            if any(value is not None and value.name in layer.weights for value in node.inputs):
                ends[layer.name] = str(node.outputs[0].name)
    return ends

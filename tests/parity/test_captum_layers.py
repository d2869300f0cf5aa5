"""Methods of layers and neurons against Captum's: perceptron, convolutional networks, ResNet-50, a BERT.

Captum's layers are modules, igonnx's are tensors: those that the modules give. Its conductance takes the differences
of a layer's values from node to node (`differences=True`); what igonnx computes by default is compared with the closed
form in tests/methods. It integrates from node to node of Gauss-Legendre, which are the same here and there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import igonnx

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
nn = torch.nn

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks:UserWarning"),
]

SMALL = 2e-5
LARGE = 1e-4  # of deep networks
KINKED = 1e-2  # where one unit on the other side of a kink tells; nearly always it is 1e-6
STEPS = 6


class Network(NamedTuple):
    """A model in PyTorch, two or three examples, its file, and layers: a module and the tensor that it gives."""

    model: Any
    x: Any
    path: Any
    layers: dict[str, Any]
    target: list[int]
    wrt: str | None = None
    feeds: Any = None  # what igonnx is fed with; None: x
    more: tuple[Any, ...] = ()  # what Captum's model takes beside x
    large: bool = True
    kinked: bool = False


def perceptron():
    return nn.Sequential(
        nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 12), nn.Softplus(), nn.Linear(12, 5)
    )


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 10, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(10 * 6 * 4, 5),
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory, subject) -> Callable[[str], Network]:
    """A function from a name to the network; those made before are kept."""
    made: dict[str, Network] = {}

    def make(name):
        if name not in made:
            torch.manual_seed(3)
            made[name] = LARGE_ONES[name](subject) if name in LARGE_ONES else small(name)
        return made[name]

    def small(name):
        model, x, layers = SMALL_ONES[name]
        model, path = model().eval(), tmp_path_factory.mktemp("layers") / f"{name}.onnx"
        x = torch.randn(*x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's
            torch.onnx.export(
                model, (x,), path, input_names=["x"], dynamo=False, dynamic_axes={"x": {0: "batch"}}
            )
        return Network(
            model,
            x,
            path,
            {tensor: model[i] for i, tensor in layers.items()},
            [1, 4, 0],
            large=False,
        )

    return make


SMALL_ONES = {
    "perceptron": (perceptron, (3, 9), {1: "*/1/Tanh*", 2: "*/2/Gemm*"}),
    "convolutions": (convolutions, (3, 3, 29, 21), {1: "*/1/Relu*", 3: "*/3/Conv*"}),
}


def resnet(subject):
    """Two modules of HuggingFace's ResNet-50, random weights."""
    one = subject("resnet50")
    path, wrt = one.export("script")
    encoder = one.model.model.resnet.encoder
    layers = {
        f"*/encoder/stages.{i}/layers.{j}/activation/Relu_output_0": encoder.stages[i].layers[j]
        for i, j in ((1, 1), (3, 2))
    }
    x = torch.from_numpy(np.ascontiguousarray(one.inputs["pixel_values"][..., :96, :96]))
    return Network(one.model, x, path, layers, [7, 900], wrt, kinked=True)


class FromWords(nn.Module):
    """A text model as a function of its word embeddings."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, words, mask, segments):
        return self.network(
            inputs_embeds=words, attention_mask=mask, token_type_ids=segments
        ).logits


def bert(subject):
    one = subject("bert")
    path, wrt = one.export("script")
    network, ids, mask, segments = (
        one.model.model,
        *(torch.from_numpy(array) for array in one.inputs.values()),
    )
    layers = {
        "*/encoder/layer.1/attention/output/LayerNorm/*": network.bert.encoder.layer[
            1
        ].attention.output,
        "*/encoder/layer.3/output/LayerNorm/*": network.bert.encoder.layer[3].output,
    }
    words = network.get_input_embeddings()(ids).detach()
    return Network(
        FromWords(network), words, path, layers, [0, 2], wrt, one.inputs, (mask, segments)
    )


LARGE_ONES = {"resnet50": resnet, "bert": bert}
EACH = pytest.mark.parametrize("name", [*SMALL_ONES, *LARGE_ONES])
PICTURES = pytest.mark.parametrize("name", ["convolutions", "resnet50"])


def explainer(network):
    return igonnx.Explainer(network.path, wrt=network.wrt)


def fed(network):
    return network.x.numpy() if network.feeds is None else network.feeds


def array(tensor):
    tensor = tensor[0] if isinstance(tensor, tuple) else tensor
    return tensor.detach().numpy()


def leaf(network):
    dtype = next(network.model.parameters()).dtype
    return network.x.detach().clone().to(dtype).requires_grad_()


def close(given, attribute, network, measured, what):
    """Compare with what Captum's `attribute()` gives.

    Behind ResNet-50's fifty ReLUs rounding decides now and then on which side of a kink a unit lies: there Captum in
    float64 is taken as exact, and what it is off by itself in float32 is measured beside it.
    """
    expected, bound = array(attribute()), LARGE if network.large else SMALL
    if network.kinked:
        single = expected
        network.model.double()
        expected = array(attribute())
        network.model.float()
        bound = max(KINKED, 2 * measured.relative_l2(single, expected, "Captum in float32"))
    assert measured.relative_l2(given, expected, what) <= bound


# -- layers ------------------------------------------------------------------------------------


@EACH
def test_activations_and_gradients(name, networks, measured):
    network = networks(name)
    e, x = explainer(network), fed(network)
    for tensor, module in network.layers.items():
        layer = network.model, module
        given = e.layer_activation(x, layer=tensor, target=network.target)

        def activation(layer=layer):
            explain = captum_attr.LayerActivation(*layer).attribute
            return explain(leaf(network), additional_forward_args=network.more)

        close(given.values, activation, network, measured, "activation")
        given = e.layer_gradient_x_activation(x, layer=tensor, target=network.target)

        def product(layer=layer):
            explain = captum_attr.LayerGradientXActivation(*layer).attribute
            return explain(
                leaf(network), target=network.target, additional_forward_args=network.more
            )

        close(given.values, product, network, measured, "gradient x activation")


@EACH
def test_along_the_path(name, networks, measured):
    network = networks(name)
    e, x = explainer(network), fed(network)
    start = 0.1 if network.feeds is None else 0.0
    theirs = {
        "target": network.target,
        "n_steps": STEPS,
        "additional_forward_args": network.more,
    }
    for tensor, module in network.layers.items():
        ours = {"layer": tensor, "target": network.target, "steps": STEPS, "baseline": start}
        given = e.layer_conductance(x, differences=True, **ours)
        conductance = captum_attr.LayerConductance(network.model, module).attribute
        close(
            given.values,
            lambda explain=conductance: explain(leaf(network), start, **theirs),
            network,
            measured,
            "conductance",
        )
        given = e.internal_influence(x, **ours)
        influence = captum_attr.InternalInfluence(network.model, module).attribute
        close(
            given.values,
            lambda explain=influence: explain(leaf(network), start, **theirs),
            network,
            measured,
            "influence",
        )


@PICTURES
@pytest.mark.parametrize("relu", [False, True])
def test_grad_cam(name, relu, networks, measured):
    network = networks(name)
    e, x = explainer(network), fed(network)
    for tensor, module in network.layers.items():
        ours = {"layer": tensor, "target": network.target, "relu": relu}

        def cam(module=module):
            explain = captum_attr.LayerGradCam(network.model, module).attribute
            return explain(leaf(network), target=network.target, relu_attributions=relu)

        given = e.grad_cam(x, upsample=False, **ours)
        close(given.values, cam, network, measured, "map")
        for mode in ("nearest", "bilinear"):
            given = e.grad_cam(x, interpolation=mode, **ours)

            def large(cam=cam, mode=mode):
                return captum_attr.LayerAttribution.interpolate(cam(), network.x.shape[2:], mode)

            close(given.values, large, network, measured, mode)


@PICTURES
def test_guided_grad_cam(name, networks, measured):
    network = networks(name)
    e, x = explainer(network), fed(network)
    for tensor, module in network.layers.items():
        for mode in ("nearest", "bilinear"):

            def guided(module=module, mode=mode):
                explain = captum_attr.GuidedGradCam(network.model, module).attribute
                return explain(leaf(network), target=network.target, interpolate_mode=mode)

            given = e.guided_grad_cam(x, layer=tensor, target=network.target, interpolation=mode)
            close(given.values, guided, network, measured, mode)


# -- neurons -----------------------------------------------------------------------------------


def live_neuron(network, values):
    """Of the layer's values [N, ...]: where the smallest over the examples is the largest, so that none is dead.

    Of a text: in the first token, which alone is read in the end.
    """
    smallest = values.min(axis=0)
    if network.feeds is not None:
        return 0, int(smallest[0].argmax())
    return tuple(int(i) for i in np.unravel_index(smallest.argmax(), smallest.shape))


NEURONS = {
    "neuron_gradient": (captum_attr.NeuronGradient, {}, {}),
    "neuron_integrated_gradients": (
        captum_attr.NeuronIntegratedGradients,
        {"steps": STEPS},
        {"n_steps": STEPS},
    ),
    "neuron_conductance": (
        captum_attr.NeuronConductance,
        {"steps": STEPS, "target": None},
        {"n_steps": STEPS, "method": "gausslegendre", "target": None},
    ),
}
GUIDED = {
    "neuron_guided_backprop": (captum_attr.NeuronGuidedBackprop, {}, {}),
    "neuron_deconvnet": (captum_attr.NeuronDeconvolution, {}, {}),
}


@EACH
def test_neurons(name, networks, measured):
    compare_neurons(networks(name), NEURONS, measured)


@PICTURES
def test_guided_neurons(name, networks, measured):
    compare_neurons(networks(name), GUIDED, measured)


def compare_neurons(network, methods, measured):
    e, x = explainer(network), fed(network)
    for tensor, module in network.layers.items():
        activation = e.layer_activation(x, layer=tensor, target=network.target)
        neuron = live_neuron(network, activation.values)
        for method, (kind, ours, theirs) in methods.items():
            ours, theirs = (
                {key: network.target if key == "target" else value for key, value in given.items()}
                for given in (ours, theirs)
            )
            given = getattr(e, method)(x, layer=tensor, neuron=neuron, **ours)

            def attribute(kind=kind, module=module, neuron=neuron, theirs=theirs):
                explain = kind(network.model, module).attribute
                return explain(
                    leaf(network), neuron, additional_forward_args=network.more, **theirs
                )

            close(given.values, attribute, network, measured, method)


@pytest.mark.parametrize("name", SMALL_ONES)
def test_gradient_shap_of_neurons(name, networks, measured, monkeypatch):
    """By the same draws, which are the same for every example here."""
    network = networks(name)
    samples, seed = 5, 7
    baselines = np.random.default_rng(2).normal(size=(4, *network.x.shape[1:])).astype(np.float32)
    rng = np.random.default_rng(seed)
    number, alpha = rng.integers(4, size=samples), rng.random(samples)
    copies = len(network.x)
    monkeypatch.setattr(np.random, "choice", lambda *_: np.tile(number, copies))
    monkeypatch.setattr(np.random, "uniform", lambda *_: np.tile(alpha, copies))
    e = explainer(network)
    for tensor, module in network.layers.items():
        neuron = live_neuron(network, e.layer_activation(fed(network), layer=tensor).values)
        explain = captum_attr.NeuronGradientShap(network.model, module).attribute
        given = e.neuron_gradient_shap(
            fed(network),
            layer=tensor,
            neuron=neuron,
            baseline=baselines,
            samples=samples,
            seed=seed,
        )
        close(
            given.values,
            lambda explain=explain, neuron=neuron: explain(
                network.x, neuron, torch.from_numpy(baselines), n_samples=samples, stdevs=0.0
            ),
            network,
            measured,
            tensor,
        )


# -- where Captum is not right -----------------------------------------------------------------


class Reused(nn.Module):
    """One ReLU that is called twice, as functional code and many published networks have it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x)))) * 2


def test_a_module_that_is_used_twice(tmp_path, measured):
    """Captum's hook sees one of the calls only (captum#578); every tensor of a graph has a name of its own."""
    torch.manual_seed(0)
    model, x = Reused().eval(), torch.randn(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's
        torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=False)
    weights = {name: array(value).astype(np.float64) for name, value in model.named_parameters()}
    first = np.maximum(x.numpy() @ weights["first.weight"].T + weights["first.bias"], 0)
    second = np.maximum(first @ weights["second.weight"].T + weights["second.bias"], 0)
    e = igonnx.Explainer(tmp_path / "m.onnx")
    names = [tensor.name for tensor in e.tensors() if tensor.operator == "Relu"]
    for name, truth in zip(names, (first, second), strict=True):
        given = e.layer_activation(x.numpy(), layer=name)
        assert measured.relative_l2(given.values, truth, name) <= SMALL
    theirs = array(captum_attr.LayerActivation(model, model.relu).attribute(x))
    assert theirs.shape == second.shape  # the first call is out of reach
    one = int(np.argmax(first.min(axis=0)))
    back = (second > 0) * 2.0
    slopes = back[:, [0]] * weights["second.weight"][0] * first
    given = e.layer_gradient_x_activation(x.numpy(), layer=names[0], target=0)
    assert np.allclose(given.values, slopes, atol=1e-6), one

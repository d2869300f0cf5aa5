"""Exports tiny random models from `transformers` with both PyTorch exporters, for the tests.

    pip install igonnx[parity]
    python -m igonnx.models.export_transformers tests/data

Per model and exporter: `<model>_script.onnx` (TorchScript, opset 17) and `<model>_dynamo.onnx`
(torch.export, its default opset), each with one `.npz` beside it that holds

- the inputs, under their names: two examples, of other sizes than the model was traced with
  wherever the sizes are symbolic;
- `logits`: PyTorch's output for them;
- `cotangent`: a random array of the output's shape;
- `wrt`: the name, in the ONNX file, of the tensor the gradient is taken of;
- `gradient`: PyTorch's gradient of sum(logits * cotangent) with respect to that tensor.

PyTorch computes both in float64; they are stored as float32. Everything is drawn from one seed.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import transformers as hf
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

SEED = 0
CLASSES = 10
VOCABULARY = 60
AXES = {
    "any size": {0: "batch", 2: "height", 3: "width"},
    "fixed size": {0: "batch"},
    "text": {0: "batch", 1: "sequence"},
}


class ImageModel(nn.Module):
    """Logits of an image model; both exporters want a forward of exact parameters."""

    inputs = ("pixel_values",)

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[batch, 3, height, width] to [batch, classes]."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class TextModel(nn.Module):
    """Logits of a text classifier fed with token ids."""

    inputs = ("input_ids", "attention_mask", "token_type_ids")

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three int64 arrays [batch, sequence] to [batch, classes]."""
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return logits


@dataclass(frozen=True)
class Recipe:
    """A model to export: which axes are symbolic, the shapes to trace and to test with."""

    build: Callable[[], nn.Module]
    axes: str
    traced: tuple[int, ...]
    tested: tuple[int, ...]


def resnet() -> nn.Module:
    """Bottleneck ResNet; both exporters fold its batch normalisations into the convolutions."""
    return hf.ResNetForImageClassification(
        hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 2, 1, 1], num_labels=CLASSES
        )
    )


def mobilenet_v2(tf_padding: bool) -> nn.Module:
    """Inverted residuals and ReLU6; TensorFlow's padding is computed from the traced image size."""
    return hf.MobileNetV2ForImageClassification(
        hf.MobileNetV2Config(
            depth_multiplier=0.1,
            depth_divisible_by=4,
            min_depth=4,
            expand_ratio=3,
            finegrained_output=False,
            tf_padding=tf_padding,
            image_size=32,
            num_labels=CLASSES,
        )
    )


def vit() -> nn.Module:
    """Vision transformer; the position embedding fixes the image's size."""
    return hf.ViTForImageClassification(
        hf.ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            num_labels=CLASSES,
        )
    )


def convnext() -> nn.Module:
    """Depthwise 7x7 convolutions, layer normalisation over channels, GELU."""
    return hf.ConvNextForImageClassification(
        hf.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1], num_labels=CLASSES)
    )


def bert() -> nn.Module:
    """Text classifier: embeddings, attention with a mask, tanh pooler."""
    return hf.BertForSequenceClassification(
        hf.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=40,
            num_labels=3,
        )
    )


RECIPES = {
    "resnet": Recipe(resnet, "any size", (2, 3, 64, 64), (2, 3, 37, 45)),
    "mobilenet_v2": Recipe(
        lambda: mobilenet_v2(tf_padding=True), "fixed size", (2, 3, 32, 32), (2, 3, 32, 32)
    ),
    "mobilenet_v2_any_size": Recipe(
        lambda: mobilenet_v2(tf_padding=False), "any size", (2, 3, 64, 64), (2, 3, 37, 45)
    ),
    "vit": Recipe(vit, "fixed size", (2, 3, 32, 32), (2, 3, 32, 32)),
    "convnext": Recipe(convnext, "any size", (2, 3, 64, 64), (2, 3, 37, 45)),
    "bert": Recipe(bert, "text", (2, 9), (2, 7)),
}


def randomise(model: nn.Module) -> None:
    """Replace initial values that would hide mistakes: identities, zeros, tiny spreads."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 2.0)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            # A convolution's inputs have passed a ReLU, which halves their power.
            gain = 2 if isinstance(module, nn.Conv2d) else 1
            nn.init.normal_(module.weight, std=(gain / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.3)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "position_embeddings")):
            nn.init.normal_(parameter)
        if name.endswith(("lambda", "layer_scale_parameter")):
            nn.init.uniform_(parameter, 0.5, 1.5)


def sample(recipe: Recipe, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return random inputs of the shape; a text's second example ends in padding."""
    if recipe.axes != "text":
        return (torch.randn(shape),)
    mask = torch.ones(shape, dtype=torch.long)
    mask[1, -2:] = 0
    segments = torch.zeros(shape, dtype=torch.long)
    segments[:, shape[1] // 2 :] = 1
    return torch.randint(1, VOCABULARY, shape), mask, segments


def reference(
    model: ImageModel | TextModel, inputs: tuple[Tensor, ...]
) -> dict[str, NDArray[np.generic]]:
    """Return logits, cotangent and gradient as PyTorch computes them in float64."""
    explained: list[Tensor] = []
    model = model.double()
    if isinstance(model, ImageModel):
        inputs = (inputs[0].double().requires_grad_(),)
        explained.append(inputs[0])
        logits = model(*inputs)
    else:
        words = model.model.get_input_embeddings()
        hook = words.register_forward_hook(lambda _module, _args, out: explained.append(out))
        logits = model(*inputs)
        hook.remove()
    cotangent = torch.randn(logits.shape)
    (gradient,) = torch.autograd.grad((logits * cotangent).sum(), explained)
    model.float()
    arrays = {"logits": logits.detach(), "cotangent": cotangent, "gradient": gradient}
    return {name: array.float().numpy() for name, array in arrays.items()}


def export(
    model: ImageModel | TextModel, recipe: Recipe, exporter: str, path: Path
) -> onnx.ModelProto:
    """Export with one of the two exporters; return the model, stripped of paths of this machine."""
    axes = AXES[recipe.axes]
    inputs = sample(recipe, recipe.traced)
    if exporter == "script":
        torch.onnx.export(
            model,
            inputs,
            path,
            input_names=list(model.inputs),
            output_names=["logits"],
            dynamic_axes={**dict.fromkeys(model.inputs, axes), "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    else:
        dimensions = {axis: torch.export.Dim(name) for axis, name in axes.items()}
        torch.onnx.export(
            model,
            inputs,
            path,
            input_names=list(model.inputs),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(model.inputs, dimensions),
            external_data=False,
            verbose=False,
            dynamo=True,
        )
    exported = onnx.load(path)
    # The dynamo exporter records stack traces, with the paths of files, on every node and value.
    for part in (*exported.graph.node, *exported.graph.value_info, exported.graph):
        part.ClearField("metadata_props")
    onnx.checker.check_model(exported, full_check=True)
    onnx.save(exported, path)
    return exported


def word_embeddings(exported: onnx.ModelProto, table: NDArray[np.float32]) -> str:
    """Return the name of the Gather output that looks the tokens up in the table."""
    tables = {
        tensor.name
        for tensor in exported.graph.initializer
        if np.array_equal(numpy_helper.to_array(tensor), table)
    }
    (name,) = (
        node.output[0]
        for node in exported.graph.node
        if node.op_type == "Gather" and node.input[0] in tables
    )
    return str(name)


def main() -> None:
    """Write every model of RECIPES and PyTorch's numbers into the folder on the command line."""
    parser = argparse.ArgumentParser(description="Export tiny random models for the tests.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    warnings.simplefilter("ignore")
    for name, recipe in RECIPES.items():
        torch.manual_seed(SEED)
        network = recipe.build()
        randomise(network)
        model = (TextModel if recipe.axes == "text" else ImageModel)(network).eval()
        inputs = sample(recipe, recipe.tested)
        arrays = reference(model, inputs)
        arrays |= {key: value.numpy() for key, value in zip(model.inputs, inputs, strict=True)}
        for exporter in ("script", "dynamo"):
            path = folder / f"{name}_{exporter}.onnx"
            exported = export(model, recipe, exporter, path)
            wrt = model.inputs[0]
            if isinstance(model, TextModel):
                table = network.get_input_embeddings().weight.detach().numpy()
                wrt = word_embeddings(exported, table)
            np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, wrt=wrt, **arrays)
            print(f"{path}: {path.stat().st_size:,} bytes, gradient of {wrt}")


if __name__ == "__main__":
    main()

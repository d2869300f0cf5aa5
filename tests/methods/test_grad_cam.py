"""Grad-CAM and its relatives by hand, in every layout, and which layer they choose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.methods.grad_cam import resized

Build = Callable[..., onnx.ModelProto]
Array = NDArray[Any]
METHODS = ("grad_cam", "grad_cam_pp", "guided_grad_cam")

NET = """(float[N, 3, H, W] x) => (float[N, 4] y) {
    c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, k, kb)
    a = Relu(c)
    p = GlobalAveragePool(a)
    f = Flatten(p)
    t = Tanh(f)
    y = MatMul(t, w)
}"""
BEHIND = """(float[N, H, W, 3] x) => (float[N, 4] y) {
    first = Transpose<perm = [0, 3, 1, 2]>(x)
    c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(first, k, kb)
    back = Transpose<perm = [0, 2, 3, 1]>(c)
    a = Relu(back)
    p = ReduceMean<axes = [1, 2], keepdims = 0>(a)
    t = Tanh(p)
    y = MatMul(t, w)
}"""


def weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {"k": (6, 3, 3, 3), "kb": (6,), "w": (6, 4)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def photos(count: int = 2) -> Array:
    return np.random.default_rng(1).normal(size=(count, 3, 8, 12)).astype(np.float32)


def array(values: Any) -> Array:
    assert isinstance(values, np.ndarray)
    return values


def close(found: Any, expected: Array, bound: float = 1e-5) -> None:
    assert array(found).shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * np.abs(expected).max())


def by_hand(explainer: igonnx.Explainer, x: Array, target: list[int]) -> tuple[Array, Array]:
    """Activations of a, [N, 6, 4, 6], and the gradients by them: all places of a channel have the same."""
    a = array(explainer.layer_activation(x, layer="a").values).astype(np.float64)
    w = weights()["w"].astype(np.float64)
    means = a.mean(axis=(2, 3))
    slopes = w.T[target] * (1 - np.tanh(means) ** 2) / 24
    return a, np.broadcast_to(slopes[:, :, None, None], a.shape)


# -- by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [None, "a"])
@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam(model: Build, layer: Any, relu: bool) -> None:
    explainer, x, target = igonnx.Explainer(model(NET, weights())), photos(), [1, 3]
    a, g = by_hand(explainer, x, target)
    expected = (g.mean(axis=(2, 3), keepdims=True) * a).sum(axis=1)
    if relu:
        expected = np.maximum(expected, 0)
    small = explainer.grad_cam(x, target=target, layer=layer, relu=relu, upsample=False)
    close(small.values, expected[:, None])
    assert small.method == f"grad_cam layer=a relu={relu} upsample=False"
    large = explainer.grad_cam(x, target=target, layer=layer, relu=relu)
    close(large.values, resized(expected, (8, 12), "bilinear")[:, None])
    near = explainer.grad_cam(x, target=target, layer=layer, relu=relu, interpolation="nearest")
    close(near.values, expected.repeat(2, axis=1).repeat(2, axis=2)[:, None])
    assert small.scores.tolist() == large.scores.tolist()


def test_grad_cam_pp(model: Build) -> None:
    explainer, x, target = igonnx.Explainer(model(NET, weights())), photos(), [1, 3]
    a, g = by_hand(explainer, x, target)
    below = 2 * g**2 + g**3 * a.sum(axis=(2, 3), keepdims=True)
    share = np.where(below != 0, g**2 / np.where(below != 0, below, 1), 0)
    channel = (share * np.maximum(g, 0)).sum(axis=(2, 3), keepdims=True)
    expected = np.maximum((channel * a).sum(axis=1), 0)
    found = explainer.grad_cam_pp(x, target=target, upsample=False)
    close(found.values, expected[:, None], 1e-4)
    assert found.method == "grad_cam_pp layer=a relu=True upsample=False"


def test_guided_grad_cam(model: Build) -> None:
    explainer, x = igonnx.Explainer(model(NET, weights())), photos()
    guided = array(explainer.guided_backprop(x, target=2).values)
    for interpolation in ("bilinear", "nearest"):
        cam = array(explainer.grad_cam(x, target=2, interpolation=interpolation).values)
        found = explainer.guided_grad_cam(x, target=2, interpolation=interpolation)
        close(found.values, guided * cam)
        assert array(found.values).shape == x.shape


def test_nothing_negative_of_a_dead_layer(model: Build) -> None:
    """A layer of zeros: zeros, no 0/0."""
    dead = weights() | {"kb": np.full(6, -100, np.float32)}
    explainer = igonnx.Explainer(model(NET, dead))
    for method in METHODS:
        found = getattr(explainer, method)(photos())
        assert not array(found.values).any()


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (3, 4), (1, 9)])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_resizing(size: tuple[int, int], mode: str) -> None:
    """Place by place, as torch.nn.functional.interpolate defines it."""
    maps = np.random.default_rng(0).normal(size=(2, 4, 6))
    found = resized(maps, size, mode)
    assert found.shape == (2, *size)

    def at(i: int, old: int, new: int) -> list[tuple[int, float]]:
        if mode == "nearest":
            return [(i * old // new, 1.0)]
        where = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        low = int(where)
        return [(low, 1 - (where - low)), (min(low + 1, old - 1), where - low)]

    for i in range(size[0]):
        for j in range(size[1]):
            expected = sum(
                maps[:, r, c] * u * v for r, u in at(i, 4, size[0]) for c, v in at(j, 6, size[1])
            )
            np.testing.assert_allclose(found[:, i, j], expected, atol=1e-12)


# -- layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_channels_behind(model: Build, method: str) -> None:
    """The same network as Keras would export it."""
    front = igonnx.Explainer(model(NET, weights()))
    behind = igonnx.Explainer(model(BEHIND, weights()))
    x = photos()
    expected = array(getattr(front, method)(x, target=1).values)
    moved = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    found = getattr(behind, method)(moved, target=1)
    close(found.values, np.moveaxis(expected, 1, -1))
    assert "layer=a " in found.method
    if method != "guided_grad_cam":
        small = getattr(behind, method)(moved, target=1, upsample=False)
        assert array(small.values).shape == (2, 4, 6, 1)
    for layer in ("c", "back"):
        one = getattr(behind, method)(moved, target=1, layer=layer)
        assert array(one.values).shape == found.values.shape


def test_a_wrong_channel_axis_is_no_surprise(model: Build) -> None:
    explainer, x = igonnx.Explainer(model(NET, weights())), photos()
    right = explainer.grad_cam(x, layer="a", channel_axis=1, upsample=False)
    assert array(right.values).shape == (2, 1, 4, 6)
    other = explainer.grad_cam(x, layer="a", channel_axis=3, upsample=False)
    assert array(other.values).shape == (2, 1, 6, 4)
    for axis in (0, 4, -1, "1", 1.0):
        with pytest.raises(igonnx.InputError, match="channel_axis is"):
            explainer.grad_cam(x, layer="a", channel_axis=axis)  # type: ignore[arg-type]


@pytest.mark.parametrize("spatial", [1, 3])
def test_series_and_volumes(model: Build, spatial: int) -> None:
    axes = ", ".join(f"D{i}" for i in range(spatial))
    rng = np.random.default_rng(0)
    graph = model(
        f"""(float[N, 2, {axes}] x) => (float[N, 3] y) {{
            c = Conv<strides = {[2] * spatial}>(x, k)
            a = Relu(c)
            p = GlobalMaxPool(a)
            f = Flatten(p)
            y = MatMul(f, w)
        }}""",
        {
            "k": rng.normal(size=(5, 2, *[2] * spatial)).astype(np.float32),
            "w": rng.normal(size=(5, 3)).astype(np.float32),
        },
    )
    explainer, x = igonnx.Explainer(graph), rng.normal(size=(2, 2, *[6] * spatial)).astype("f")
    for method in METHODS:
        shape = array(getattr(explainer, method)(x, target=0).values).shape
        assert shape == (2, 2 if method == "guided_grad_cam" else 1, *[6] * spatial)


# -- which layer -------------------------------------------------------------------------------

CHOSEN = {
    "resnet": "*stages.3/layers.0/activation/Relu_output_0",
    "mobilenet_v2_any_size": "*conv_1x1/activation/Clip_output_0",
    "convnext": "*stages.3/layers.0/Add_output_0",
    "vit": "*layers.1/layernorm_before/LayerNormalization_output_0",
}


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("exporter", ["script", "dynamo"])
def test_networks_of_transformers(data: Path, name: str, exporter: str) -> None:
    explainer = igonnx.Explainer(data / f"{name}_{exporter}.onnx")
    (info,) = explainer.model.inputs
    side = info.shape[2] if isinstance(info.shape[2], int) else 64
    x = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    found = explainer.grad_cam(x, target=1, relu=False)
    assert array(found.values).shape == (1, 1, side, side)
    assert array(found.values).any()
    layer = found.method.split("layer=")[1].split()[0]
    if exporter == "script":
        assert [tensor.name for tensor in explainer.tensors(CHOSEN[name])] == [layer]
    shape = next(tensor.shape for tensor in explainer.tensors() if tensor.name == layer)
    assert shape is not None
    assert len(shape) == (3 if name == "vit" else 4)
    small = array(explainer.grad_cam(x, target=1, relu=False, upsample=False).values)
    assert small.shape == (1, 1, small.shape[2], small.shape[2])
    assert small.shape[2] < side


def test_behind_groups_that_are_normalised(model: Build) -> None:
    """As exporters write a normalisation of groups: the groups themselves are no feature map."""
    rng = np.random.default_rng(0)
    graph = model(
        """(float[N, 3, 8, 12] x) => (float[N, 5] y) {
            c = Conv<strides = [2, 2]>(x, k)
            groups = Reshape(c, grouped)
            normal = InstanceNormalization(groups, one, none)
            size = Shape(c)
            back = Reshape(normal, size)
            n = Mul(back, scale)
            a = Relu(n)
            p = GlobalAveragePool(a)
            f = Flatten(p)
            y = MatMul(f, w)
        }""",
        {
            "k": rng.normal(size=(6, 3, 2, 2)).astype(np.float32),
            "grouped": np.array([0, 2, -1]),
            "one": np.ones(2, np.float32),
            "none": np.zeros(2, np.float32),
            "scale": rng.normal(size=(6, 1, 1)).astype(np.float32),
            "w": rng.normal(size=(6, 5)).astype(np.float32),
        },
    )
    found = igonnx.Explainer(graph).grad_cam(photos(), target=1, upsample=False)
    assert "layer=a " in found.method
    assert array(found.values).shape == (2, 1, 4, 6)


TOKENS = """(float[N, 3, 8, 12] x) => (float[N, 2] y) {
    patches = Conv<strides = [2, 2]>(x, k)
    flat = Reshape(patches, sizes)
    grid = Transpose<perm = [0, 2, 1]>(flat)
    z = Shape(x)
    rows = Gather<axis = 0>(z, zero)
    some = Concat<axis = 0>(rows, tail)
    class = Expand(cls, some)
    all = Concat<axis = 1>(class, grid)
    n = LayerNormalization(all, scale, shift)
    dots = MatMul(n, wq)
    key = Transpose<perm = [0, 2, 1]>(n)
    pairs = MatMul(dots, key)
    a = Softmax<axis = -1>(pairs)
    m = MatMul(a, n)
    first = Gather<axis = 1>(m, first_token)
    y = MatMul(first, head)
}"""


def tokens() -> dict[str, Array]:
    rng = np.random.default_rng(2)
    return {
        "k": rng.normal(size=(5, 3, 2, 2)).astype(np.float32),
        "sizes": np.array([0, 5, -1]),
        "zero": np.array([0]),
        "tail": np.array([1, 5]),
        "cls": rng.normal(size=(1, 1, 5)).astype(np.float32),
        "scale": np.ones(5, np.float32),
        "shift": np.zeros(5, np.float32),
        "wq": rng.normal(size=(5, 5)).astype(np.float32),
        "first_token": np.array(0),
        "head": rng.normal(size=(5, 2)).astype(np.float32),
    }


def test_tokens_with_a_class_token(model: Build) -> None:
    """Behind a class token the patches go row by row, on an image that is no square."""
    explainer, x = igonnx.Explainer(model(TOKENS, tokens())), photos()
    n = array(explainer.layer_activation(x, layer="n").values)
    slopes = array(explainer.layer_gradient_x_activation(x, layer="n", target=1).values) / n
    assert n.shape == (2, 25, 5)
    values = (slopes[:, 1:].mean(axis=1, keepdims=True) * n[:, 1:]).sum(axis=2)
    found = explainer.grad_cam(x, target=1, relu=False, upsample=False)
    assert "layer=n " in found.method
    close(found.values, values.reshape(2, 1, 4, 6), 1e-4)
    large = explainer.grad_cam(x, target=1, relu=False)
    close(large.values, resized(values.reshape(2, 4, 6).astype(float), (8, 12), "bilinear")[:, None], 1e-4)  # fmt: skip


def test_texts(data: Path) -> None:
    """The tokens of a text are its places, those of the embedding."""
    explainer = igonnx.Explainer(data / "bert_script.onnx")
    feeds = {info.name: np.ones((2, 9), np.int64) for info in explainer.model.inputs}
    found = explainer.grad_cam(feeds, target=1, relu=False)
    assert array(found.values).shape == (2, 9, 1)
    assert array(explainer.grad_cam(feeds, target=1, upsample=False).values).shape == (2, 9, 1)


# -- what cannot be drawn, and drawing ---------------------------------------------------------


def test_what_has_no_places(model: Build) -> None:
    explainer, x = igonnx.Explainer(model(NET, weights())), photos()
    for method in METHODS:
        with pytest.raises(igonnx.InputError, match="layer 'f' has 2 axes; expected feature maps"):
            getattr(explainer, method)(x, layer="f")
        with pytest.raises(igonnx.InputError, match="interpolation is 'cubic'"):
            getattr(explainer, method)(x, interpolation="cubic")
        with pytest.raises(igonnx.InputError, match="no floating tensor"):
            getattr(explainer, method)(x, layer="nowhere")
    rng = np.random.default_rng(0)
    perceptron = model(
        "(float[N, 6] x) => (float[N, 3] y) { h = MatMul(x, w) \n y = Tanh(h) }",
        {"w": rng.normal(size=(6, 3)).astype(np.float32)},
    )
    with pytest.raises(igonnx.InputError, match="no feature map was found"):
        igonnx.Explainer(perceptron).grad_cam(np.ones((1, 6), np.float32))


def test_an_output_with_places(model: Build) -> None:
    """Of a segmentation the last feature map is the result itself: the layer has to be named."""
    graph = model(
        "(float[N, 3, H, W] x) => (float[N, 2, H, W] y) {\n"
        "a = Conv<pads = [1, 1, 1, 1]>(x, k) \n b = Relu(a) \n y = Conv(b, w) }",
        {
            "k": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32),
            "w": np.random.default_rng(1).normal(size=(2, 4, 1, 1)).astype(np.float32),
        },
    )
    explainer, x = igonnx.Explainer(graph), photos()
    with pytest.raises(igonnx.InputError, match="output 'y' has places of its own"):
        explainer.grad_cam(x)
    target = np.zeros((2, 2, 8, 12), np.float32)
    target[:, 1, 2:5, 3:7] = 1
    assert array(explainer.grad_cam(x, target=target, layer="b").values).shape == (2, 1, 8, 12)


@pytest.mark.parametrize("text", [NET, BEHIND])
def test_maps_are_drawn(model: Build, text: str) -> None:
    explainer, x = igonnx.Explainer(model(text, weights())), photos()
    if text is BEHIND:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    for options in ({}, {"upsample": False}):
        found = explainer.grad_cam(x, relu=False, **options)
        drawn = found.render(image, index=1)
        assert drawn.shape == image.shape
        assert drawn.dtype == np.uint8
    assert "grad_cam" in str(found)


# -- batches and noise -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_batches_and_seeds(model: Build, method: str) -> None:
    x, graph = photos(5), model(NET, weights())
    first, *others = [
        getattr(igonnx.Explainer(graph, batch_size=size), method)(x, target=1)
        for size in (1, 3, 50)
    ]
    for other in others:
        close(other.values, array(first.values), 2e-6)
    explainer = igonnx.Explainer(graph)
    alone = getattr(explainer, method)(x[2:3], target=1)
    close(alone.values, array(first.values)[2:3], 2e-6)
    noisy = [
        array(getattr(explainer, method)(x, target=1, noise="smoothgrad", seed=seed).values)
        for seed in (1, 1, 2)
    ]
    close(noisy[0], noisy[1], 0)
    assert np.abs(noisy[0] - noisy[2]).max() > 1e-6

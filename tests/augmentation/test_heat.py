"""Heat maps drawn inside the graph are those of `igonnx.visual`."""

from __future__ import annotations

import numpy as np
import pytest
from augmented_runs import Build, checked, random, run

import igonnx
from igonnx.augmentation.heat import OPACITY
from igonnx.models import digits
from igonnx.visual import heat_map
from igonnx.visual.colours import GLOW, ramp
from igonnx.visual.overlay import resize_heat

SIGNS = {"sum": "all", "absolute": "absolute", "overlay": "absolute"}


@pytest.mark.parametrize("kind", SIGNS)
def test_of_an_input(kind: str) -> None:
    images = digits.test_set()[0][:7]
    found = run(checked(igonnx.augment(digits.load(), steps=12, heatmap=kind)), {"image": images})
    values = igonnx.Explainer(digits.load()).integrated_gradients(images, steps=12).values
    expected = np.stack([heat_map(one, sign=SIGNS[kind]) for one in values])
    assert found["heatmap_image"].dtype == np.float32
    np.testing.assert_allclose(found["heatmap_image"], expected, atol=1e-5)
    assert ("overlay_image" in found) == (kind == "overlay")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
@pytest.mark.parametrize("sizes", ["static", "symbolic"])
@pytest.mark.parametrize("side", [(5, 9), (37, 41)])
def test_layouts(model: Build, layout: str, sizes: str, side: tuple[int, int]) -> None:
    shape = {"NCHW": (3, *side), "NHWC": (*side, 3), "NHW": side}[layout]
    axes = [str(n) if sizes == "static" or n == 3 else "HW"[side.index(n)] for n in shape]
    declared = f"float[N, {', '.join(axes)}]"
    graph = model(f"({declared} x) => ({declared} y) {{ s = Sin(x) \n y = Mul(s, x) }}")
    augmented = checked(igonnx.augment(graph, steps=4, heatmap="sum", method="saliency"))
    x = random(2, *shape)
    x[1] = 0
    found = run(augmented, {"x": x})
    expected = [
        heat_map(one, layout=None if layout == "NHW" else layout, size=side)
        for one in found["attribution_x"]
    ]
    np.testing.assert_allclose(found["heatmap_x"], np.stack(expected), atol=1e-5)


def test_of_a_tensor_inside() -> None:
    images = digits.test_set()[0][:7]
    (inner,) = (n.output[0] for n in digits.load().graph.node if n.op_type == "MaxPool")
    augmented = checked(igonnx.augment(digits.load(), wrt=inner, steps=12, heatmap="overlay"))
    found = run(augmented, {"image": images})
    values = igonnx.Explainer(digits.load(), wrt=inner).integrated_gradients(images, steps=12)
    small = [heat_map(one, sign="absolute", layout="NCHW") for one in values.of(inner)]
    expected = np.stack([resize_heat(one, (8, 8)) for one in small])
    np.testing.assert_allclose(found[f"heatmap_{inner}"], expected, atol=1e-5)
    assert found[f"overlay_{inner}"].shape == (7, 8, 8, 4)


def test_colours() -> None:
    images = digits.test_set()[0][:7]
    model = igonnx.augment(digits.load(), steps=12, heatmap="overlay", heatmap_threshold=0.3)
    found = run(model, {"image": images})
    heat, overlay = found["heatmap_image"], found["overlay_image"]
    assert overlay.dtype == np.uint8
    assert np.abs(overlay[..., :3] - 255 * ramp(heat.astype(np.float64), GLOW)).max() <= 2.5
    strong, weak = heat > 0.31, heat < 0.29
    assert strong.any()
    assert weak.any()
    assert not overlay[weak][:, 3].any()
    assert np.abs(overlay[strong][:, 3] - 255 * OPACITY * heat[strong]).max() <= 1


def test_nothing_to_draw_gives_an_empty_map(model: Build) -> None:
    graph = model("(float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Mul(x, x) }")
    found = run(igonnx.augment(graph, heatmap="overlay"), {"x": np.zeros((2, 3, 4, 4), np.float32)})
    assert not found["heatmap_x"].any()
    assert not found["overlay_x"][..., 3].any()


def test_what_is_not_a_number_is_transparent_and_stops_no_prediction(model: Build) -> None:
    graph = model("(float[N, 3, 6, 6] x) => (float[N, 3, 6, 6] y) { y = Tanh(x) }")
    augmented = checked(igonnx.augment(graph, steps=4, heatmap="overlay", target=(0, 1, 1)))
    x = random(2, 3, 6, 6)
    whole = run(augmented, {"x": x})
    x[0, 0, 1, 1] = np.nan
    found = run(augmented, {"x": x})
    assert np.isnan(found["heatmap_x"][0, 1, 1])
    assert found["overlay_x"][0, 1, 1, 3] == 0
    np.testing.assert_array_equal(found["overlay_x"][1], whole["overlay_x"][1])
    np.testing.assert_array_equal(found["y"], run(graph, {"x": x})["y"])


def test_one_pixel_alone_is_drawn_in_full(model: Build) -> None:
    graph = model("(float[N, 3, 20, 20] x) => (float[N, 3, 20, 20] y) { y = Mul(x, x) }")
    x = np.zeros((1, 3, 20, 20), np.float32)
    x[0, :, 4, 7] = 1
    found = run(igonnx.augment(graph, heatmap="absolute", target=(0, 4, 7)), {"x": x})
    expected = np.zeros((1, 20, 20), np.float32)
    expected[0, 4, 7] = 1
    np.testing.assert_array_equal(found["heatmap_x"], expected)


def test_what_is_no_picture(mlp: object) -> None:
    with pytest.raises(igonnx.InputError, match=r"^heatmap='sum' is for pictures.*'x' has 2 axes$"):
        igonnx.augment(mlp, heatmap="sum")

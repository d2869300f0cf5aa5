"""Whole networks as onnxruntime's tools quantise them: they are explained as they are deployed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from quantiser import DATA, STATIC, inputs_of, quantised, recorded

import igonnx

# How well gradients of the quantised and the original network agree: rounding moves kinks, and these nets are small.
AGREEMENT = {
    **{("resnet_script", how): 0.85 for how in STATIC},
    ("resnet_script", "dynamic"): 0.9,
    ("vit_script", "QDQ"): 0.99,
    ("vit_script", "QOperator per channel"): 0.98,
    ("vit_script", "dynamic"): 0.99,
    ("vit_script", "4 bits"): 0.95,
    ("bert_script", "dynamic"): 0.99,
    ("bert_script", "4 bits"): 0.95,
}


def gradient_of(run: Any, model: Any, network: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and gradient of the first example."""
    arrays = recorded(network)
    feeds = {name: array[:1] for name, array in inputs_of(network).items()}
    feeds["cotangent_logits"] = arrays["cotangent"][:1]
    proto = igonnx.gradient(model)
    results = dict(
        zip([value.name for value in proto.graph.output], run(proto, feeds), strict=True)
    )
    name = next(name for name in results if name.startswith("grad_"))
    return results["logits"], results[name]


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("network", "how"), AGREEMENT)
def test_quantised_network(network: str, how: str, run: Any, tmp_path: Path) -> None:
    model = quantised(network, how, tmp_path)
    inputs = inputs_of(network)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (deployed,) = session.run(None, inputs)
    with warnings.catch_warnings():
        # One scale for all examples of a batch: then they influence each other, and that is said.
        if how == "dynamic":
            warnings.filterwarnings("ignore", message=".*examples of a batch influence each other")
        explainer = igonnx.Explainer(model)
        predicted = explainer.predict(inputs)["logits"]
        attribution = explainer.integrated_gradients(inputs, target=1, steps=8)
    if how == "4 bits":  # constant folding moves the last bit of floats
        np.testing.assert_allclose(predicted, deployed, rtol=0, atol=1e-5)
    else:
        np.testing.assert_array_equal(predicted, deployed)
    assert np.isfinite(attribution.values).all()
    _, gradient = gradient_of(run, model, network)
    _, original = gradient_of(run, DATA / f"{network}.onnx", network)
    assert cosine(gradient, original) > AGREEMENT[network, how]


def test_dynamic_quantisation_is_explained_one_by_one(tmp_path: Path) -> None:
    model = quantised("vit_script", "dynamic", tmp_path)
    inputs = inputs_of("vit_script")
    explainer = igonnx.Explainer(model)
    with pytest.warns(UserWarning, match="examples of a batch influence each other"):
        together = explainer.integrated_gradients(inputs, target=1, steps=4)
    for i in range(2):
        alone = {name: array[i : i + 1] for name, array in inputs.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            single = explainer.integrated_gradients(alone, target=1, steps=4)
        np.testing.assert_array_equal(together.values[i], single.values[0])


def test_gradient_is_exact_for_frozen_rounding(run: Any, tmp_path: Path) -> None:
    """With what rounding adds held fixed, the quantised network is a float one, whose gradient must be the same."""
    model = quantised("resnet_script", "QDQ", tmp_path)
    logits, gradient = gradient_of(run, model, "resnet_script")
    frozen_logits, frozen = gradient_of(run, _frozen(model, run), "resnet_script")
    np.testing.assert_allclose(frozen_logits, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(frozen, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())


def test_both_formats_have_the_same_gradient(run: Any, tmp_path: Path) -> None:
    gradients = [
        gradient_of(run, quantised("resnet_script", how, tmp_path), "resnet_script")[1]
        for how in ("QDQ", "QOperator")
    ]
    assert cosine(*gradients) > 0.999


def _frozen(model: onnx.ModelProto, run: Any) -> onnx.ModelProto:
    """Each pair Q, DQ of activations as Clip(x, low, high) + r, with r such that the value is what it was."""
    stored = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    back = {node.input[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [name for node in pairs for name in (node.input[0], back[node.output[0]].output[0])]
    known = {value.name for value in [*model.graph.input, *model.graph.output]}
    extra = [name for name in dict.fromkeys(names) if name not in known]
    shown.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in extra)
    feeds = {name: array[:1] for name, array in inputs_of("resnet_script").items()}
    outputs = [value.name for value in shown.graph.output]
    values = {**feeds, **dict(zip(outputs, run(shown, feeds), strict=True))}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    codes = {node.output[0]: node for node in pairs}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in codes:
            continue
        if node.op_type != "QuantizeLinear":
            result.graph.node.append(node)
            continue
        x, after = node.input[0], back[node.output[0]].output[0]
        scale, zero = stored[node.input[1]], stored[node.input[2]]
        info = np.iinfo(zero.dtype)
        low, high = ((end - int(zero)) * scale for end in (info.min - 0.5, info.max + 0.5))
        added = {
            f"{x}_low": np.float32(low),
            f"{x}_high": np.float32(high),
            f"{x}_rest": values[after] - np.clip(values[x], low, high).astype(np.float32),
        }
        result.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in added.items()
        )
        result.graph.node.extend(
            [
                helper.make_node("Clip", [x, f"{x}_low", f"{x}_high"], [f"{x}_clipped"]),
                helper.make_node("Add", [f"{x}_clipped", f"{x}_rest"], [after]),
            ]
        )
    return result

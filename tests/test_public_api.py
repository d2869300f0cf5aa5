"""The public names and signatures that others rely on; and life without ONNX Runtime."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import igonnx
from igonnx.attribution import Path as AttributionPath
from igonnx.models import digits


def test_names() -> None:
    assert igonnx.__all__ == [
        "Attribution",
        "CancelToken",
        "CancelledError",
        "DeadlineError",
        "EngineError",
        "Error",
        "Explainer",
        "InputError",
        "ModelError",
        "ToleranceWarning",
        "UnsupportedOperatorError",
        "__version__",
        "augment",
        "compile",
        "gradient",
    ]
    assert set(igonnx.__all__) <= set(dir(igonnx))
    for name in igonnx.__all__:
        assert getattr(igonnx, name) is not None
    namespace: dict[str, Any] = {}
    exec("from igonnx import *", namespace)
    assert set(igonnx.__all__) <= set(namespace)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match=r"^module 'igonnx' has no attribute 'explain'$"):
        igonnx.explain  # noqa: B018


def test_every_public_thing_says_what_it_is() -> None:
    for name in igonnx.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(igonnx, name)), name
    for owner in (igonnx.Explainer, igonnx.Attribution):
        for name, member in inspect.getmembers(owner, callable):
            if not name.startswith("_"):
                assert inspect.getdoc(member), name


def _parameters(function: Any) -> str:
    """Names, kinds and defaults, without types."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            igonnx.Explainer,
            "(model, *, output=None, wrt=None, apply=None, providers=None, engine='native', "
            "batch_size=None, memory_limit=None, threads=None, straight_through=True, precision=None, "
            "queue_limit=None)",
        ),
        (igonnx.Explainer.predict, "(self, inputs)"),
        (
            igonnx.Explainer.integrated_gradients,
            "(self, inputs, *, target=None, baseline=None, seed=0, steps=50, rule='gauss_legendre', tolerance=None, "
            "max_steps=1000, memory_limit=None, exact_sum=False, propagation='gradient', noise=None, "
            "noise_samples=10, noise_std=None, progress=None, timeout=None, cancel=None)",
        ),
        (
            igonnx.Explainer.gradient_shap,
            "(self, inputs, *, target=None, baseline=None, seed=0, samples=50, noise_std=0.0, progress=None, "
            "timeout=None, cancel=None)",
        ),
        (igonnx.gradient, "(model, *, wrt=None, output=None, straight_through=True)"),
        (igonnx.Attribution.save, "(self, path)"),
        (igonnx.Attribution.render, "(self, image, *, index=0, name=None, **options)"),
        (igonnx.Attribution.plot, "(self, image, *, index=0, name=None, **options)"),
        (igonnx.Attribution.of, "(self, name=None)"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_signatures(function: Any, expected: str) -> None:
    assert _parameters(function) == expected


METHODS = (
    "saliency", "input_x_gradient", "integrated_gradients", "smoothgrad_ig", "expected_gradients", "gradient_shap",
    "guided_backprop", "deconvnet", "guided_ig", "blur_ig", "idgi", "xrai", "deep_lift", "deep_lift_shap", "lrp",
    "layer_activation", "layer_gradient_x_activation", "layer_conductance", "internal_influence", "grad_cam",
    "grad_cam_pp", "guided_grad_cam", "neuron_conductance", "occlusion", "feature_ablation", "feature_permutation",
    "shapley_value_sampling", "lime", "kernel_shap", "rise",
)  # fmt: skip
# Of the model that ends at the layer: the neuron is what is explained, in the place of a target.
NEURON_METHODS = (
    "neuron_gradient", "neuron_integrated_gradients", "neuron_gradient_shap", "neuron_deep_lift_shap",
    "neuron_guided_backprop", "neuron_deconvnet",
)  # fmt: skip


def test_methods() -> None:
    there = {
        name
        for name, member in vars(igonnx.Explainer).items()
        if callable(member) and member.__module__.startswith("igonnx.methods.")
    }
    assert there == {*METHODS, *NEURON_METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_the_common_arguments(name: str) -> None:
    _, inputs, *rest = inspect.signature(getattr(igonnx.Explainer, name)).parameters.values()
    assert (inputs.name, inputs.kind) == ("inputs", inputs.POSITIONAL_OR_KEYWORD)
    common = {"target": None, "baseline": None, "seed": 0}
    assert {p.name: p.default for p in rest[:3]} == common
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in rest)


@pytest.mark.parametrize("name", NEURON_METHODS)
def test_every_neuron_method_takes_a_layer_and_a_neuron(name: str) -> None:
    _, inputs, *rest = inspect.signature(getattr(igonnx.Explainer, name)).parameters.values()
    assert (inputs.name, inputs.kind) == ("inputs", inputs.POSITIONAL_OR_KEYWORD)
    empty = inspect.Parameter.empty
    common = {"layer": empty, "neuron": empty, "baseline": None, "seed": 0}
    assert {p.name: p.default for p in rest[:4]} == common
    assert all(p.kind is p.KEYWORD_ONLY for p in rest)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("occlusion", ("window", "strides")),
        ("feature_ablation", ("feature_mask",)),
        ("feature_permutation", ("feature_mask",)),
        ("shapley_value_sampling", ("feature_mask", "samples")),
        ("kernel_shap", ("feature_mask", "samples")),
        ("lime", ("feature_mask", "samples")),
        ("layer_activation", ("layer",)),
        ("layer_gradient_x_activation", ("layer",)),
        ("layer_conductance", ("layer", "steps")),
        ("internal_influence", ("layer", "steps")),
        ("neuron_conductance", ("layer", "neuron", "steps")),
        ("grad_cam", ("layer", "upsample")),
        ("grad_cam_pp", ("layer", "upsample")),
        ("guided_grad_cam", ("layer",)),
        ("deep_lift", ("rule",)),
        ("lrp", ("rule",)),
    ],
)
def test_arguments_of_a_methods_own(name: str, arguments: tuple[str, ...]) -> None:
    taken = inspect.signature(getattr(igonnx.Explainer, name)).parameters
    assert all(taken[argument].kind is inspect.Parameter.KEYWORD_ONLY for argument in arguments)
    if "upsample" in arguments:
        assert taken["upsample"].default is True


def test_fields() -> None:
    assert [field.name for field in dataclasses.fields(igonnx.Attribution)] == [
        "values", "delta", "scores", "baseline_scores", "target", "path", "steps_used", "error_estimate", "method",
        "correction", "r_squared",
    ]  # fmt: skip
    assert [field.name for field in dataclasses.fields(AttributionPath)] == [
        "alpha",
        "weight",
        "score",
        "slope",
    ]


def test_errors_are_of_one_family() -> None:
    for error in (
        igonnx.ModelError,
        igonnx.InputError,
        igonnx.EngineError,
        igonnx.UnsupportedOperatorError,
    ):
        assert issubclass(error, igonnx.Error)
    assert issubclass(igonnx.UnsupportedOperatorError, igonnx.ModelError)
    assert issubclass(igonnx.InputError, ValueError)
    assert issubclass(igonnx.EngineError, RuntimeError)
    assert issubclass(igonnx.ToleranceWarning, UserWarning)


# -- without ONNX Runtime --------------------------------------------------------------------

NO_RUNTIME = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "onnxruntime" else found(name, package)
"""


def _without_runtime(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", NO_RUNTIME + code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    path.write_bytes(digits.load().SerializeToString())
    return path


def test_import_says_in_one_line_what_to_install() -> None:
    result = _without_runtime("import igonnx")
    assert result.returncode == 0
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "no ONNX Runtime is installed: pip install 'igonnx[cpu]' or 'igonnx[gpu]'" in line


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_running_says_it_too(digits_file: Path, engine: str) -> None:
    code = f"""
import igonnx, numpy as np
explainer = igonnx.Explainer({str(digits_file)!r}, engine={engine!r})
for method in (explainer.predict, explainer.integrated_gradients):
    try:
        method(np.zeros((1, 1, 8, 8), np.float32))
    except igonnx.EngineError as error:
        print(error)
"""
    result = _without_runtime(code, "-Wignore")
    assert (
        result.stdout.splitlines()
        == ["no ONNX Runtime is installed: pip install 'igonnx[cpu]' or 'igonnx[gpu]'"] * 2
    )
    assert result.stderr == ""


def test_gradient_needs_no_runtime(digits_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "gradient.onnx"
    code = f"import igonnx, onnx; onnx.save(igonnx.gradient({str(digits_file)!r}), {str(target)!r})"
    result = _without_runtime(code, "-Wignore")
    assert result.returncode == 0, result.stderr
    import onnx

    onnx.checker.check_model(str(target), full_check=True)
    names = [value.name for value in onnx.load(target).graph.output]
    assert names == ["logits", "grad_image"]

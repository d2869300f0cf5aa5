"""`igonnx inspect --tensors`: the names that layers go by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import igonnx
from igonnx.cli import _run
from igonnx.models import digits

Build = Callable[..., onnx.ModelProto]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "120")
    onnx.save(digits.load(), tmp_path / "digits.onnx")
    return str(tmp_path / "digits.onnx")


def test_a_table(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["inspect", path, "--tensors", "*"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "12 tensors between 'image' and output 'logits'"
    rows = [line.split() for line in printed[4:] if line.strip()]
    assert rows[0] == ["image", "input", "float32", "[batch,", "1,", "8,", "8]"]
    assert rows[1][:3] == ["/0/Conv_output_0", "Conv", "float32"]
    assert len(rows) == 12


def test_patterns_and_other_ends(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrt = "/3/MaxPool_output_0"
    assert _run(["inspect", path, "--tensors", "*Relu*", "--wrt", wrt, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == ["/6/Relu_output_0", "/8/Relu_output_0"]
    assert found[0] == {
        "name": "/6/Relu_output_0",
        "operator": "Relu",
        "dtype": "float32",
        "shape": ["batch", 32, 4, 4],
    }
    explainer = igonnx.Explainer(path, wrt=wrt)
    assert [tensor.name for tensor in explainer.tensors("*Relu*")] == [one["name"] for one in found]


def test_nothing_matches(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "no floating tensor between 'image' and output 'logits' matches 'conv5'"
    with pytest.raises(igonnx.InputError, match=expected):
        _run(["inspect", path, "--tensors", "conv5"])
    assert capsys.readouterr().out == ""


def test_a_model_without_a_gradient(
    model: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its layers can be listed all the same: their activations need none."""
    text = "(float[N, 3] x) => (float[N, 3] y) { h = Sin(x) \n i = Cast<to = 7>(h) \n y = Cast<to = 1>(i) }"
    onnx.save(model(text), tmp_path / "rounded.onnx")
    assert _run(["inspect", str(tmp_path / "rounded.onnx"), "--tensors", "*", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["x", "h", "y"]

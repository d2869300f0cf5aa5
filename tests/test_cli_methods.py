"""`igonnx explain` with every method, view and kind of baseline; in this process, where nothing else is needed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import igonnx
from igonnx.cli import main
from igonnx.cli.choices import Method, SignName, View
from igonnx.cli.methods import (
    ADDING_UP,
    FORWARD_ONLY,
    OF_LAYERS,
    chosen_options,
    function_name,
    settings_taken,
)
from igonnx.errors import InputError
from igonnx.models import digits

QUICK = {
    "smoothgrad-ig": ["--steps", "5", "--noise-samples", "2"],
    "guided-ig": ["--steps", "20"],
    "blur-ig": ["--steps", "10"],
    "expected-gradients": ["--samples", "8"],
    "gradient-shap": ["--samples", "8", "--noise-std", "0.1"],
    "xrai": ["--steps", "5"],
    "occlusion": ["--window", "1,3,3", "--strides", "1,2,2"],
    "feature-ablation": ["--feature-mask", "quarters.npy"],
    "feature-permutation": ["--feature-mask", "quarters.npy"],
    "shapley-value-sampling": ["--samples", "4", "--feature-mask", "quarters.npy"],
    "kernel-shap": ["--samples", "40", "--segments", "9"],
    "lime": ["--samples", "40", "--segments", "9", "--set", "surrogate=lasso"],
    "rise": ["--set", "masks=40", "--set", "grid=4"],
    "lrp": ["--rule", "epsilon_plus", "--set", "bias=False"],
    "deep-lift": ["--rule", "reveal_cancel"],
    "deep-lift-shap": ["--baseline", "0", "--baseline", "1", "--samples", "1"],
    "grad-cam": ["--layer", "/6/*"],
    "guided-grad-cam": ["--layer", "/6/*"],
    "layer-activation": ["--layer", "/8/*"],
    "layer-gradient-x-activation": ["--layer", "/8/*"],
    "layer-conductance": ["--layer", "/8/*", "--steps", "3"],
    "internal-influence": ["--layer", "/8/*", "--steps", "3"],
    "neuron-gradient": ["--layer", "/5/*", "--neuron", "3,1,2"],
    "neuron-integrated-gradients": ["--layer", "/5/*", "--neuron", "3,1,2", "--steps", "3"],
    "neuron-conductance": ["--layer", "/8/*", "--neuron", "3,1,0", "--steps", "3"],
    "neuron-gradient-shap": ["--layer", "/5/*", "--neuron", "3,1,2", "--samples", "4"],
    "neuron-deep-lift-shap": ["--layer", "/5/*", "--neuron", "3,1,2"],
    "neuron-guided-backprop": ["--layer", "/5/*", "--neuron", "3,1,2"],
    "neuron-deconvnet": ["--layer", "/5/*", "--neuron", "3,1,2"],
}
LAYER = (48, 2, 2)  # of /8/Relu_output_0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(digits.load(), tmp_path / "digits.onnx")
    images, _ = digits.test_set()
    np.save(tmp_path / "digits.npy", images[:2])
    Image.fromarray(np.rint(images[0, 0] * 255).astype(np.uint8)).save(tmp_path / "digit.png")
    rows, columns = np.indices((8, 8)) // 4
    np.save(tmp_path / "quarters.npy", 2 * rows + columns)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `igonnx explain digits.onnx ...`."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.argv", ["igonnx", "explain", "digits.onnx", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def values(path: Path) -> np.ndarray:
    with np.load(path) as saved:
        return saved["values"]


@pytest.mark.parametrize("method", Method)
def test_every_method(
    method: Method,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = QUICK.get(method.value, [])
    code = explain(
        monkeypatch, "digits.npy", "--method", method.value, *options, "--save", "out.npz"
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    with np.load(folder / "out.npz") as saved:
        of_layer = function_name(method) in OF_LAYERS
        assert saved["values"].shape == (2, *(LAYER if of_layer else (1, 8, 8)))
        assert np.abs(saved["values"]).max() > 0
        assert str(saved["method"]).split()[0] == function_name(method)
    rows = [line for line in out.splitlines() if line.lstrip().startswith("digits-")]
    rows = [row for row in rows if ":" not in row]  # the heading of a list of a layer's strongest
    assert len(rows) == 2
    adds_up = function_name(method) in ADDING_UP
    assert all(
        ("%)" in row) == adds_up for row in rows
    )  # the completeness error, where there is one


@pytest.mark.parametrize(
    "method", ["occlusion", "grad-cam", "guided-grad-cam", "rise", "lrp", "layer-conductance"]
)
def test_pictures(method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ["digit.png", "--method", method, *QUICK.get(method, []), "-o", "out.png"]
    assert explain(monkeypatch, *drawn) == 0
    with Image.open(folder / "out.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 300
    # The photo is grey: colours are those of the attribution, some strong and some weak.
    coloured = np.ptp(pixels, axis=2)
    assert (coloured > 100).mean() > 0.005
    assert (coloured < 20).mean() > 0.3


def test_pictures_of_rise_leave_out_what_all_places_share(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for settings in ([], ["--set", "centred=True"]):
        drawn = ["--method", "rise", *QUICK["rise"], *settings, "--apply", "softmax"]
        view = ["--view", "heat-map", "--sign", "positive", "-o", "out.png"]
        assert explain(monkeypatch, "digit.png", *drawn, *view, "--save", "out.npz") == 0
        found.append(values(folder / "out.npz"))
        with Image.open(folder / "out.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10
    assert found[0].min() > 0 > found[1].min()


def test_families_are_of_methods_that_exist() -> None:
    assert {function_name(method) for method in Method} >= FORWARD_ONLY | OF_LAYERS | ADDING_UP
    for name in OF_LAYERS:
        assert "layer" in settings_taken(name)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("lime", r"r squared, what the linear model accounts for: (0\.\d\d), (0\.\d\d)\n"),
        ("kernel-shap", r"standard error of the values: \d+\.\d+ %, \d+\.\d+ %\n"),
        ("shapley-value-sampling", r"standard error of the values: \d+\.\d+ %, \d+\.\d+ %\n"),
    ],
)
def test_how_well_it_did(
    method: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(monkeypatch, "digits.npy", "--method", method, *QUICK[method]) == 0
    assert re.search(line, capsys.readouterr().out)


def test_which_layer_grad_cam_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(monkeypatch, "digit.png", "--method", "grad-cam", "--save", "one.npz") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "the layer is '/8/Relu_output_0'; --layer names another" in said
    named = ["--layer", "/8/Relu_output_0", "--save", "two.npz"]
    assert explain(monkeypatch, "digit.png", "--method", "grad-cam", *named) == 0
    assert "the layer is" not in capsys.readouterr().err
    np.testing.assert_array_equal(values(folder / "one.npz"), values(folder / "two.npz"))


@pytest.mark.usefixtures("folder")
def test_neuron_conductance_is_of_a_class(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--method", "neuron-conductance", *QUICK["neuron-conductance"], "--target", "4"]
    assert explain(monkeypatch, "digit.png", *asked) == 0
    header, _, row = [line for line in capsys.readouterr().out.splitlines() if line.strip()][:3]
    assert header.split()[1] == "class"
    assert row.split()[1] == "4"


@pytest.mark.parametrize("view", View)
def test_every_view(view: View, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert explain(monkeypatch, "digit.png", "-o", "out.png", "--view", view.value) == 0
    with Image.open(folder / "out.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 10


@pytest.mark.parametrize("sign", SignName)
def test_every_sign(sign: SignName, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ["digit.png", "-o", "out.png", "--view", "heat-map", "--sign", sign.value]
    assert explain(monkeypatch, *drawn) == 0
    assert (folder / "out.png").exists()


def test_several_baselines_are_averaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for given in (["black"], ["white"], ["black", "white"]):
        options = [part for one in given for part in ("--baseline", one)]
        assert explain(monkeypatch, "digit.png", *options, "--save", "out.npz") == 0
        found.append(values(folder / "out.npz"))
    np.testing.assert_allclose(found[2], (found[0] + found[1]) / 2, rtol=1e-4, atol=1e-6)


def test_seeds_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for seed in ("0", "0", "1"):
        noisy = ["--method", "saliency", "--noise", "smoothgrad", "--noise-samples", "3"]
        assert explain(monkeypatch, "digits.npy", *noisy, "--seed", seed, "--save", "o.npz") == 0
        found.append(values(folder / "o.npz"))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--method", "saliency", "--steps", "3"],
            "--steps is not for --method saliency, which takes --noise, --noise-samples, --noise-std",
        ),
        (["--method", "rise", "--samples", "4"], "--noise-std, --set masks=, --set grid=,"),
        (["--method", "layer-activation"], "--method layer-activation needs --layer"),
        (["--method", "neuron-gradient", "--layer", "/8/*"], "neuron-gradient needs --neuron"),
        (
            ["--method", "neuron-gradient", "--layer", "/8/*", "--neuron", "3"],
            "neuron (3,) is outside layer '/8/Relu_output_0', whose shape is [48, 2, 2] per example",
        ),
        (
            ["--method", "neuron-gradient", *QUICK["neuron-gradient"], "--target", "3"],
            "--target is not for --method neuron-gradient: --neuron says what it explains",
        ),
        (
            ["--method", "layer-activation", "--layer", "relu"],
            "layer 'relu' is no floating tensor of the model; did you mean",
        ),
        (["--method", "grad-cam", "--layer", "/9/*"], "has 2 axes; expected feature maps"),
        (["--method", "grad-cam", "--layer", "*"], "layer '*' matches 12 tensors"),
        (
            ["--method", "occlusion", "--window", "3,3"],
            "window of 'image' is (3, 3); expected a whole number of at least 1 for each axis",
        ),
        (
            ["--method", "occlusion", "--window", "1,3,3", "--strides", "1,4,3"],
            "strides of 'image' is 4 along axis 1, where the window is 3",
        ),
        (
            ["--method", "feature-ablation", "--feature-mask", "digits.npy"],
            "feature_mask of 'image' has dtype float32; expected integers",
        ),
        (
            ["--method", "lime", "--segments", "4", "--feature-mask", "quarters.npy"],
            "feature_mask and segments are both given",
        ),
        (["--method", "feature-permutation"], "feature_permutation was given one example"),
        (
            ["--method", "lrp", "--rule", "gama"],
            "rule is 'gama'; expected one of 'epsilon', 'gamma'",
        ),
        (["--method", "lrp", "--rule", "epsilon_gamma_box"], "the box rule needs the range"),
        (["--method", "deep-lift", "--rule", "simpson"], "rule is 'simpson'; expected"),
        (
            ["--method", "lime", "--set", "surogate=lasso"],
            "--set surogate is not for --method lime; its settings: feature_mask, segments, samples, surrogate,",
        ),
        (["--method", "xrai", "--samples", "4"], "--samples is not for --method xrai"),
        (["--method", "gradient-shap", "--noise", "vargrad"], "--noise is not for --method"),
        (["--rule", "simpson"], "--rule is 'simpson', expected one of gauss_legendre, trapezoid"),
        (["--set", "steps"], "--set is 'steps', expected NAME=VALUE"),
        (
            ["--set", "width=3"],
            "--set width is not for --method integrated-gradients; its settings:",
        ),
        (["--set", "steps=3", "--steps", "4"], "steps was given twice: as --steps and by --set"),
        (["--neuron", "a,b"], "--neuron is 'a,b', expected whole numbers with commas between them"),
        (["--window", "3,1.5"], "--window is '3,1.5', expected whole numbers"),
        (["--feature-mask", "no.npy"], "array file 'no.npy' does not exist"),
        (["--baseline", "grey"], "baseline 'grey' of 'image' is no number, none of black, white"),
        (["--baseline", ""], "--baseline is '', expected a number"),
        (["--baseline", "image="], "--baseline is 'image=', expected a number"),
        (["--noise-samples", "2"], "--noise-samples changes nothing without --noise"),
        (["--method", "xrai", "--noise-std", "1"], "--noise-std changes nothing without --noise"),
        (["--max-steps", "20"], "--max-steps changes nothing without --tolerance"),
        (["--tolerance", "0.1", "--steps", "9"], "--steps changes nothing with --tolerance"),
        (["--noise", "grey"], "invalid value for '--noise': 'grey' is not one of 'smoothgrad'"),
        (
            ["--view", "masked-image", "--sign", "all", "-o", "p.png"],
            "--sign is 'all', but --view masked-image shows strengths without a sign",
        ),
        (["--view", "path", "--sign", "all", "-o", "p.png"], "--sign is not for --view path"),
        (["--view", "path", "--method", "saliency", "-o", "p.png"], "there is no path to draw"),
    ],
)
def test_what_does_not_fit(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.rglob("*"))
    assert explain(monkeypatch, "digit.png", *arguments) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert message in err
    assert sorted(folder.rglob("*")) == before


def test_methods_are_those_of_the_explainer() -> None:
    for method in Method:
        assert callable(getattr(igonnx.Explainer, function_name(method)))


def test_options_that_were_not_given_are_left_out() -> None:
    assert chosen_options("integrated_gradients", {"steps": 3, "rule": None}) == {"steps": 3}
    with pytest.raises(
        InputError, match=r"^--samples is not for --method idgi, which takes --steps, --set rule="
    ):
        chosen_options("idgi", {"samples": 3, "steps": None})

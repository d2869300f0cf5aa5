"""`igonnx explain` with every method, view and kind of baseline; in this process, where nothing else is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import igonnx
from igonnx.cli import main
from igonnx.cli.choices import Method, SignName, View
from igonnx.cli.methods import ADDING_UP, chosen_options, function_name
from igonnx.errors import InputError
from igonnx.models import digits

QUICK = {
    "smoothgrad-ig": ["--steps", "5", "--noise-samples", "2"],
    "guided-ig": ["--steps", "20"],
    "blur-ig": ["--steps", "10"],
    "expected-gradients": ["--samples", "8"],
    "gradient-shap": ["--samples", "8", "--noise-std", "0.1"],
    "xrai": ["--steps", "5"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(digits.load(), tmp_path / "digits.onnx")
    images, _ = digits.test_set()
    np.save(tmp_path / "digits.npy", images[:2])
    Image.fromarray(np.rint(images[0, 0] * 255).astype(np.uint8)).save(tmp_path / "digit.png")
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
        assert saved["values"].shape == (2, 1, 8, 8)
        assert np.abs(saved["values"]).max() > 0
        assert str(saved["method"]).split()[0] == function_name(method)
    rows = [line for line in out.splitlines() if line.lstrip().startswith("digits")]
    assert len(rows) == 2
    adds_up = function_name(method) in ADDING_UP
    assert all(
        ("%)" in row) == adds_up for row in rows
    )  # the completeness error, where there is one


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
        InputError, match=r"^--samples is not for --method idgi, which takes --steps$"
    ):
        chosen_options("idgi", {"samples": 3, "steps": None})

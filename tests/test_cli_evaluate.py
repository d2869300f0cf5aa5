"""`igonnx evaluate`: the table, the files it writes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from skimage.io import imread

import igonnx
from igonnx.cli import main
from igonnx.cli.choices import Measure
from igonnx.cli.measures import MEASURES
from igonnx.metrics import infidelity, insertion_deletion, max_sensitivity
from igonnx.models import digits

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the digits model, three digits and a table."""
    onnx.save(digits.load(), tmp_path / "digits.onnx")
    np.save(tmp_path / "three.npy", digits.test_set()[0][:3])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `igonnx evaluate ...` in `folder`, in this process; gives exit code, standard output and standard error."""
    assert Path.cwd() == folder

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["igonnx", "evaluate", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        return (int(done.value.code or 0), *capsys.readouterr())

    return run


def test_every_measure_is_known() -> None:
    assert set(MEASURES) == set(Measure)
    headings = [column.heading for columns, _ in MEASURES.values() for column in columns]
    assert len(set(headings)) == len(headings)


def test_a_table_of_methods_by_measures(command: Command, folder: Path) -> None:
    code, out, err = command(
        "digits.onnx", "three.npy", "--methods", "ig,saliency", "--samples", "4", "--set", "steps=4"
    )
    assert code == 0, err
    header, _, ig, saliency = [line for line in out.splitlines() if line.strip()][:4]
    for heading in ("completeness error ↓", "insertion ↑", "deletion ↓", "infidelity ↓"):
        assert heading in header
    assert ig.split()[0] == "ig"
    assert saliency.split()[:2] == ["saliency", "-"]  # it does not promise to add up
    assert "means over 3 inputs" in out
    assert list(folder.glob("*.png")) == []


def test_numbers_are_those_of_the_functions(command: Command, folder: Path) -> None:
    code, out, err = command(
        *(
            "digits.onnx",
            "three.npy",
            "--methods",
            "saliency,ig",
            "--target",
            "3",
            "--samples",
            "6",
        ),
        *("--measures", "insertion-deletion,infidelity,max-sensitivity", "--baseline", "0.5"),
        *("--seed", "2", "--patch", "2", "--set", "steps=3", "--json", "scores.json"),
    )
    assert code == 0, err
    assert "wrote scores.json" in out
    written = json.loads((folder / "scores.json").read_text())
    assert written["model"] == "digits.onnx"
    assert written["inputs"] == ["three-0", "three-1", "three-2"]
    assert written["targets"] == [[3], [3], [3]]
    explainer, x = igonnx.Explainer(folder / "digits.onnx"), np.load(folder / "three.npy")
    ig = explainer.integrated_gradients(x, target=3, baseline=0.5, steps=3, seed=2)
    curves = insertion_deletion(explainer, x, ig, baseline=0.5, patch=2, seed=2)
    expected = {
        "insertion": curves.insertion_area,
        "deletion": curves.deletion_area,
        "infidelity": infidelity(
            explainer, x, ig, baseline=0.5, samples=6, normalise=True, seed=2
        ).score,
        "max-sensitivity": max_sensitivity(
            explainer, x, "integrated_gradients", target=3, baseline=0.5, steps=3, seed=2
        ).score,
    }
    assert list(written["measures"]) == list(expected)
    for heading, values in expected.items():
        found = written["measures"][heading]
        assert found["better"] == ("higher" if heading == "insertion" else "lower")
        np.testing.assert_allclose(found["scores"]["ig"], values, rtol=1e-3, atol=1e-6)
        assert set(found["scores"]) == {"saliency", "ig"}


def test_a_picture_is_drawn(command: Command, folder: Path) -> None:
    code, out, err = command(
        *("digits.onnx", "three.npy", "--measures", "completeness,insertion-deletion"),
        *("-o", "scores.png"),
    )
    assert code == 0, err
    assert "wrote scores.png" in out
    picture = imread(folder / "scores.png")
    assert picture.shape[0] > 200
    assert picture.shape[1] > 600
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50


def test_the_sanity_check_on_request(command: Command) -> None:
    code, out, err = command("digits.onnx", "three.npy", "--measures", "weight-randomisation")
    assert code == 0, err
    assert "rank corr. at random weights ↓" in out


def test_what_cannot_be_measured_is_said_and_left_out(
    command: Command, model: Callable[..., onnx.ModelProto], folder: Path
) -> None:
    onnx.save(
        model(
            "(float[N, 4] x) => (float[N, 2] y) { y = MatMul(x, w) }",
            {"w": np.eye(4, 2, dtype=np.float32)},
        ),
        folder / "plain.onnx",
    )
    np.save(folder / "table.npy", np.ones((2, 4), np.float32))
    code, out, err = command(
        "plain.onnx", "table.npy", "--methods", "ig,blur-ig", "--measures", "completeness"
    )
    assert code == 0
    assert "warning: blur-ig: " in err
    row = next(line for line in out.splitlines() if line.strip().startswith("blur-ig"))
    assert row.split() == ["blur-ig", "-"]
    code, out, err = command("plain.onnx", "table.npy", "--methods", "blur-ig")
    assert code == 2
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "ig,nothing"], "--methods names 'nothing', expected some of integrated-gra"),
        (["--methods", ","], "--methods is ',', expected names with commas between them"),
        (["--methods", "ig,ig"], "--methods names 'ig' twice"),
        (
            ["--measures", "trust"],
            "--measures names 'trust', expected some of completeness, insert",
        ),
        (["--set", "nothing=1"], "--set nothing is for none of the methods ig, saliency"),
        (["--set", "seed=1"], "--set seed is for none of the methods ig, saliency"),
        (["--baseline", "0", "--baseline", "1"], "--baseline was given several times"),
        (["-o", "scores.txt"], "cannot write pictures as '.txt' (-o 'scores.txt'), expected .png"),
        (["--json", "scores.txt"], "cannot write 'scores.txt': expected a name that ends in .json"),
        (["--target", "10"], "target 10 is outside the output"),
        (["--target", "1", "--target", "2"], "2 targets for 3 examples"),
        (["--methods", "ig", "--set", "steps=0"], "steps is 0"),
    ],
)
def test_refusals_are_one_line(
    command: Command, folder: Path, arguments: list[str], message: str
) -> None:
    code, out, err = command("digits.onnx", "three.npy", *arguments)
    assert code == 2
    assert out == ""
    assert message in err.splitlines()[-1]
    assert sorted(path.name for path in folder.iterdir()) == ["digits.onnx", "three.npy"]

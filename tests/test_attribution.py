"""What comes back: saving, names, pictures."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest

import igonnx
from igonnx.attribution import Attribution, Path
from igonnx.models import digits


@pytest.fixture(scope="module")
def found() -> Attribution:
    images = digits.test_set()[0][:2]
    return igonnx.Explainer(digits.load()).integrated_gradients(images, steps=8)


def _made(**changes: Any) -> Attribution:
    path = Path(*np.random.default_rng(0).normal(size=(4, 3)))
    fields: dict[str, Any] = {
        "values": np.ones((2, 3), np.float32),
        "delta": np.array([0.5, 0.0]),
        "scores": np.array([2.0, 1.0]),
        "baseline_scores": np.array([1.0, 1.0]),
        "target": [(1,), (2,)],
        "path": [path, path],
        "steps_used": np.array([3, 3]),
    }
    return Attribution(**(fields | changes))


def test_save_round_trip(found: Attribution, tmp_path: FilePath) -> None:
    path = tmp_path / "out.npz"
    found.save(path)
    with np.load(path, allow_pickle=False) as saved:
        assert sorted(saved) == [
            "baseline_scores", "delta", "method", "path_0", "path_1", "scores", "steps_used", "target", "values",
        ]  # fmt: skip
        for name in ("values", "delta", "scores", "baseline_scores", "steps_used"):
            np.testing.assert_array_equal(saved[name], getattr(found, name))
            assert saved[name].dtype == getattr(found, name).dtype
        assert str(saved["method"]) == found.method
        assert [tuple(index) for index in saved["target"]] == found.target
        for i, points in enumerate(found.path):
            np.testing.assert_array_equal(
                saved[f"path_{i}"], [points.alpha, points.weight, points.score, points.slope]
            )


def test_save_dictionaries_masks_and_estimates(tmp_path: FilePath) -> None:
    values = {"a": np.ones((2, 3)), "/deep/name:0": np.zeros((2, 1), np.float16)}
    _made(values=values, target=[None, None], error_estimate=np.array([0.1, 0.2])).save(
        str(tmp_path / "a.npz")
    )
    with np.load(tmp_path / "a.npz") as saved:
        assert "target" not in saved
        assert saved["error_estimate"].tolist() == [0.1, 0.2]
        for name, array in values.items():
            np.testing.assert_array_equal(saved[f"values:{name}"], array)
    _made(target=[(), ()]).save(tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as saved:
        assert saved["target"].shape == (2, 0)


def test_save_replaces_and_leaves_nothing_beside_it(found: Attribution, tmp_path: FilePath) -> None:
    path = tmp_path / "out.npz"
    path.write_text("old")
    found.save(path)
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path) as saved:
        assert "values" in saved
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")]
)
def test_a_failure_leaves_the_old_file(
    found: Attribution, tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise error

    path = tmp_path / "out.npz"
    path.write_text("old")
    monkeypatch.setattr(np, "savez_compressed", fail)
    expected = igonnx.InputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        found.save(path)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_paths(found: Attribution, tmp_path: FilePath) -> None:
    missing = tmp_path / "none" / "out.npz"
    with pytest.raises(igonnx.InputError) as caught:
        found.save(missing)
    assert str(caught.value) == f"{missing}: cannot be written: No such file or directory"
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(igonnx.InputError) as caught:
        found.save(folder)
    assert str(caught.value) == f"{folder}: cannot be written: Is a directory"
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(igonnx.InputError, match="cannot be written: Not a directory"):
        found.save(file / "out.npz")
    assert sorted(tmp_path.iterdir()) == [file, folder]
    assert not list(folder.iterdir())


def test_of() -> None:
    single = _made()
    assert single.of() is single.values
    values = {"a": np.ones((2, 3)), "b": np.zeros((2, 1))}
    several = _made(values=values)
    assert several.of("b") is values["b"]
    for name in (None, "c"):
        with pytest.raises(igonnx.InputError) as caught:
            several.of(name)
        assert str(caught.value) == f"name is {name!r}; expected one of 'a', 'b'"


def test_relative_delta() -> None:
    assert _made().relative_delta.tolist() == [0.5, 0]
    # the second example's score does not change: a ten-thousandth of its contributions is the measure
    made = _made(delta=np.array([-0.5, 1e-9]))
    total = np.abs(made.of()[1]).sum(dtype=np.float64)
    np.testing.assert_allclose(made.relative_delta, [0.5, 1e-9 / (1e-4 * total)])


def test_pictures(found: Attribution) -> None:
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot

    images = digits.test_set()[0]
    picture = found.render(images[1, 0], index=1)
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    figure = found.plot(images[1, 0], index=1)
    assert figure.axes
    pyplot.close("all")
    several = _made(values={"image": found.of(), "other": np.zeros((2, 1))})
    np.testing.assert_array_equal(several.render(images[1, 0], index=1, name="image"), picture)
    with pytest.raises(igonnx.InputError, match="name is None; expected one of 'image', 'other'"):
        several.render(images[0, 0])

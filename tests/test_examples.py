"""Every example runs, draws its pictures, and the outlines in them are where the object is."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import skimage.io
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parent.parent / "examples"

# Per script: a number of steps that is fast, and its pictures with their width and height.
SQUARE, PATH, CURVE, FIGURE, FOUR = (672, 672), (1578, 411), (1290, 882), (1619, 660), (2313, 660)
SCRIPTS: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {
    "keras_grad_visualizer": (
        8,
        {"attributions": (1500, 550), "grad_visualizer_outlines": (1500, 550), "outline": SQUARE},
    ),
    "tensorflow_integrated_gradients": (
        16,
        {
            "photos": (1029, 618),
            "one_pixel": CURVE,
            "coffee_path": PATH,
            "coffee_saturation": CURVE,
            "coffee_mask": (1133, 1146),
            "rocket_path": PATH,
            "rocket_saturation": CURVE,
            "rocket_mask": (1133, 1146),
        },
    ),
    "geeksforgeeks_variants": (
        4,
        {"another_photo_as_baseline": FIGURE, "variants": (1515, 1146), "outline": SQUARE},
    ),
    "captum_tutorial": (
        3,
        {
            "integrated_gradients": FOUR,
            "noise_tunnel": FOUR,
            "gradientshap": FOUR,
            "grad_cam": (2209, 660),
            "occlusion": (2209, 660),
            "all_methods": (2001, 3411),
        },
    ),
    "towards_data_science_axioms": (
        24,
        {
            "path": PATH,
            "mask": (1237, 660),
            "baselines": (2001, 618),
            "regions": SQUARE,
            "outline": SQUARE,
        },
    ),
    "beyond_images": (20, {"table": (972, 486), "series": (1290, 390)}),
}

# Rows and columns of the object in the 672 by 672 pixels of the crop, read off the photos.
OBJECTS = {
    "keras_grad_visualizer": ("chelsea", slice(90, 650), slice(120, 650)),  # eyes, nose and muzzle
    "geeksforgeeks_variants": ("coffee", slice(25, 555), slice(120, 545)),  # cup and spoon
    "towards_data_science_axioms": ("rocket", slice(195, 672), slice(245, 460)),  # rocket and pad
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs an example the first time it is asked for; gives the folder of its pictures."""
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            module(name).main(["--steps", str(SCRIPTS[name][0]), "-o", str(folder)])
            folders[name] = folder
        return folders[name]

    return folder_of


def module(name: str) -> ModuleType:
    """An example, imported as if it stood in the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module(name)


def test_every_script_is_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        *SCRIPTS,
        "photos",
        "quantus_metrics",
        "ray_serve",
        "readme_pictures",
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_pictures(name: str, run: Callable[[str], Path]) -> None:
    folder, expected = run(name), SCRIPTS[name][1]
    assert {path.stem for path in folder.glob("*.png")} == set(expected)
    for stem, size in expected.items():
        picture = skimage.io.imread(folder / f"{stem}.png")
        height, width = picture.shape[:2]
        assert (width, height) == pytest.approx(size, rel=0.1), stem
        assert is_drawn(picture[..., :3]), stem


def is_drawn(picture: NDArray[np.uint8]) -> bool:
    """Whether no quarter of a picture is of one colour, and it has more of them than a blank page with text."""
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = [
        picture[top : top + rows, left : left + columns]
        for top in (0, rows)
        for left in (0, columns)
    ]
    colours = len(np.unique(picture.reshape(-1, 3), axis=0))
    return colours > 100 and all(quarter.std() > 2 for quarter in quarters)


def test_blank_pages_are_not_drawn() -> None:
    assert not is_drawn(np.full((100, 100, 3), 255, np.uint8))
    half = np.full((100, 100, 3), 255, np.uint8)
    half[:50] = np.random.default_rng(0).integers(0, 255, (50, 100, 3))
    assert not is_drawn(half)


@pytest.mark.parametrize("name", OBJECTS)
def test_outlines_are_on_the_object(name: str, run: Callable[[str], Path]) -> None:
    photo, rows, columns = OBJECTS[name]
    inside = outlined(skimage.io.imread(run(name) / "outline.png"), photo)
    in_box = np.zeros_like(inside)
    in_box[rows, columns] = True
    assert 0.01 < inside.mean() < 0.5
    assert (inside & in_box).sum() > 0.75 * inside.sum()
    # More densely than by chance, too: the box of the cat's face is large.
    assert inside[in_box].mean() > 2 * inside[~in_box].mean()


def outlined(picture: NDArray[np.uint8], photo: str) -> NDArray[np.bool_]:
    """Where a picture is as bright as its photo; outside the outlines it is half as bright, the lines are yellow."""
    large = module("photos").load(photo).large * 255
    difference = np.abs(picture - large).max(axis=2)
    return np.asarray((difference < 2) & (large.max(axis=2) > 8))


def test_text_is_coloured(run: Callable[[str], Path]) -> None:
    page = (run("beyond_images") / "text.html").read_text(encoding="utf-8")
    for word, colour in (("wonderful", "226,92,36"), ("not", "56,132,220")):
        (span,) = [part for part in page.split("<span") if part.endswith(f">{word}</span> ")]
        assert colour in span


def test_axioms_hold(capsys: pytest.CaptureFixture[str]) -> None:
    example = module("towards_data_science_axioms")
    photo = module("photos").load("rocket")
    example.check_sensitivity(photo, 4)
    example.check_invariance(photo, 4)
    sensitivity, invariance = capsys.readouterr().out.splitlines()
    assert sensitivity.endswith("all else gets 0.0000")
    assert float(invariance.split()[-4]) < 0.02


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        module(name).main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--steps" in text
    assert "FOLDER" in text
    assert module(name).__doc__.splitlines()[0] in text


def test_pictures_of_the_readme() -> None:
    shown = {path.stem: path for path in (EXAMPLES.parent / "docs" / "examples").glob("*.png")}
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert set(shown) == {example for example, _ in module("readme_pictures").PICTURES}
    for example, path in shown.items():
        assert f"(docs/examples/{path.name})" in readme
        assert f"`{example}.py`" in readme
        assert path.stat().st_size < 150_000
        assert is_drawn(skimage.io.imread(path)[..., :3])


def test_as_a_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "beyond_images.py", "--steps", "5", "-o", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "series.png",
        "table.png",
        "text.html",
    ]

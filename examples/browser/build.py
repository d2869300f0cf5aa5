"""Build the page: models that explain themselves, samples, and the runtime from npm, into one folder of static files.

    python examples/browser/build.py                  # into examples/browser/dist
    python -m http.server --directory examples/browser/dist 8000

Needs igonnx[demo], and npm for ONNX Runtime Web. The page then needs a browser alone: any host of static files will do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import igonnx
from igonnx.images import PRESETS, Preprocessing
from igonnx.models import digits, efficientnet_lite0, imagenet
from igonnx.visual import colours

HERE = Path(__file__).resolve().parent
STEPS = 100
# Points of the path at once: memory in a browser tab is dear, and more at once is no faster there.
CHUNK = 2
PHOTOS = ("chelsea", "coffee", "rocket", "astronaut")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
SHADES = {"A black image": 0.0, "A grey image": 0.5, "A white image": 1.0}


def explaining(model: onnx.ModelProto, baseline: float, steps: int) -> onnx.ModelProto:
    """Add its explanation to a classifier, with inputs `target`, `baseline` and `explain` that have to be fed.

    ONNX Runtime's JavaScript packages do not know inputs that may be left out: those could never be set.
    """
    return igonnx.augment(
        model,
        steps=steps,
        baseline=baseline,
        apply="softmax",
        chunk=CHUNK,
        lazy=True,
        optional_inputs=False,
    )


def photos(folder: Path, steps: int) -> dict[str, Any]:
    """Write EfficientNet-Lite0 and four photos; returns what the page has to know of them."""
    import skimage.data

    preset = PRESETS[efficientnet_lite0.PREPROCESSING.preset]
    side = efficientnet_lite0.PREPROCESSING.size
    preprocessing = Preprocessing((side, side), mean=preset.mean, std=preset.std)
    about = _write(
        folder,
        "photos",
        efficientnet_lite0.build(),
        preprocessing,
        steps,
        {name: getattr(skimage.data, name)() for name in PHOTOS},
    )
    return about | {
        "title": "Photos",
        "description": "EfficientNet-Lite0, trained on the 1000 classes of ImageNet.",
        "classes": imagenet.class_names(),
    }


def handwriting(folder: Path, steps: int) -> dict[str, Any]:
    """Write the digits model and a few digits; returns what the page has to know of them."""
    images, labels = digits.test_set()
    first = {int(label): int(place) for place, label in reversed(list(enumerate(labels)))}
    samples = {
        f"digit {label}": np.rint(images[first[label], 0] * 255).astype(np.uint8)
        for label in sorted(first)
    }
    about = _write(
        folder, "digits", digits.load(), Preprocessing((8, 8), channels=1), steps, samples
    )
    return about | {
        "title": "Digits",
        "description": "A small network for handwritten digits of 8 x 8 pixels, light on dark.",
        "classes": [str(digit) for digit in range(10)],
    }


MODELS = {"photos": photos, "digits": handwriting}


def _write(
    folder: Path,
    name: str,
    model: onnx.ModelProto,
    preprocessing: Preprocessing,
    steps: int,
    samples: dict[str, NDArray[np.uint8]],
) -> dict[str, Any]:
    from skimage.io import imsave

    baselines = {
        shade: preprocessing.constant(value)[0, :, 0, 0].tolist() for shade, value in SHADES.items()
    }
    onnx.save(
        explaining(model, baselines["A black image"][0], steps), folder / "models" / f"{name}.onnx"
    )
    for sample, pixels in samples.items():
        imsave(folder / "samples" / _file(sample), pixels, check_contrast=False)
    return {
        "id": name,
        "file": f"{name}.onnx",
        "input": model.graph.input[0].name,
        "output": model.graph.output[0].name,
        "shape": [1, preprocessing.channels, *preprocessing.size],
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "steps": steps,
        "baselines": [{"name": shade, "values": values} for shade, values in baselines.items()],
        "samples": [{"name": sample, "file": _file(sample)} for sample in samples],
    }


def _file(sample: str) -> str:
    return f"{sample.replace(' ', '_')}.png"


def runtime() -> Path:
    """Install ONNX Runtime Web as package-lock.json has it; returns the folder of its files."""
    package = HERE / "node_modules" / "onnxruntime-web"
    wanted = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))
    wanted = wanted["packages"]["node_modules/onnxruntime-web"]["version"]
    described = package / "package.json"
    if (
        not described.is_file()
        or json.loads(described.read_text(encoding="utf-8"))["version"] != wanted
    ):
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is not installed: ONNX Runtime Web comes from there")
        subprocess.run([npm, "ci"], cwd=HERE, check=True)
    return package / "dist"


def build(folder: Path, models: Sequence[str] = tuple(MODELS), steps: int = STEPS) -> None:
    """Build the page in `folder`; files of the same names there are replaced."""
    files = runtime()
    shutil.copytree(HERE / "page", folder, dirs_exist_ok=True)
    for part in ("models", "samples", "runtime"):
        (folder / part).mkdir(exist_ok=True)
    for name in RUNTIME:
        shutil.copy2(files / name, folder / "runtime" / name)
    about = {
        "models": [MODELS[name](folder, steps) for name in models],
        "colours": {"glow": colours.GLOW, "for": colours.FOR, "against": colours.AGAINST},
    }
    (folder / "models" / "models.json").write_text(json.dumps(about), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the page as a folder of static files.")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "dist", metavar="FOLDER")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=STEPS, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        build(options.output, options.models, options.steps)
    except (igonnx.Error, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

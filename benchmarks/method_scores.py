"""Which method puts the pixels into the best order: insertion minus deletion on photos, beside random orders.

    python -m benchmarks.method_scores --output benchmarks/results/method_scores.json --publish

EfficientNet-Lite0; explained is the probability of the class that the model finds. The score is
`igonnx.metrics.insertion_deletion`, with a blurred photo as baseline, normalised so that 0 is that and 1 the photo
itself (photos compare, and curves may pass 1 where the model likes a part better than the whole); pixels are changed in
patches of 8 by 8, and one by one. A random order scores 0 on average; how far a single one is from 0 is measured, by
single pixels and by the regions that XRAI works with. With `--publish` the tables go to docs/methods.md; `--render
JSON` measures nothing and shows, or publishes, old results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import igonnx
from igonnx.images import PRESETS, Preprocessing, read_image
from igonnx.metrics import insertion_deletion

__all__ = ["PHOTOS", "main", "photo", "replaced", "tables"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"
BEGIN = "<!-- written by benchmarks.method_scores: begin -->"
END = "<!-- written by benchmarks.method_scores: end -->"

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut", "camera", "motorcycle", "hopper")
PATCHES = (8, 1)
RANDOM = ("random pixels", "random regions")

Images: TypeAlias = NDArray[np.float32]
Explanation: TypeAlias = Callable[[igonnx.Explainer, Images, Preprocessing], igonnx.Attribution]


def photo(name: str) -> NDArray[np.float32]:
    """A photo that ships with scikit-image or matplotlib, RGB float32 [H, W, 3] in [0, 1]."""
    import matplotlib
    import skimage.data

    if name == "hopper":
        return read_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    pixels = (
        skimage.data.stereo_motorcycle()[0]
        if name == "motorcycle"
        else getattr(skimage.data, name)()
    )
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.asarray(pixels / np.float32(255), dtype=np.float32)


def _ends(preprocessing: Preprocessing) -> list[Any]:
    return [preprocessing.constant(0.0), preprocessing.constant(1.0)]


def _magnitude(attribution: igonnx.Attribution) -> igonnx.Attribution:
    """The same without signs: what the backward passes with other rules than the gradient's are read by."""
    return replace(attribution, values=np.abs(attribution.of()))


METHODS: dict[str, Explanation] = {
    "saliency": lambda e, x, p: e.saliency(x),
    "saliency, SmoothGrad of 50": lambda e, x, p: e.saliency(
        x, noise="smoothgrad", noise_samples=50
    ),
    "guided_backprop, magnitudes": lambda e, x, p: _magnitude(e.guided_backprop(x)),
    "input_x_gradient, blurred": lambda e, x, p: e.input_x_gradient(x, baseline="blurred"),
    "integrated_gradients, black": lambda e, x, p: e.integrated_gradients(
        x, baseline=p.constant(0.0)
    ),
    "integrated_gradients, black + white": lambda e, x, p: e.integrated_gradients(
        x, baseline=_ends(p)
    ),
    "integrated_gradients, blurred": lambda e, x, p: e.integrated_gradients(x, baseline="blurred"),
    "smoothgrad_ig, blurred": lambda e, x, p: e.smoothgrad_ig(x, baseline="blurred"),
    "guided_ig, black": lambda e, x, p: e.guided_ig(x, baseline=p.constant(0.0)),
    "guided_ig, blurred": lambda e, x, p: e.guided_ig(x, baseline="blurred"),
    "blur_ig": lambda e, x, p: e.blur_ig(x),
    "idgi, blurred": lambda e, x, p: e.idgi(x, baseline="blurred"),
    "gradient_shap, black + white": lambda e, x, p: e.gradient_shap(x, baseline=_ends(p)),
    "expected_gradients, these photos": lambda e, x, p: e.expected_gradients(x, baseline=x),
    "xrai, black + white": lambda e, x, p: e.xrai(x, baseline=_ends(p)),
    "xrai, blurred": lambda e, x, p: e.xrai(x, baseline="blurred"),
}


def measure(
    photos: Sequence[str], methods: Sequence[str], steps: int, seeds: int, threads: int | None
) -> dict[str, Any]:
    """Scores and areas by patch, method and photo; scores of random orders by patch, kind, seed and photo."""
    from igonnx.models import efficientnet_lite0, imagenet

    made = efficientnet_lite0.PREPROCESSING
    preset = PRESETS[made.preset]
    preprocessing = Preprocessing((made.size, made.size), mean=preset.mean, std=preset.std)
    x = np.concatenate([preprocessing.apply(photo(name)) for name in photos])
    explainer = igonnx.Explainer(efficientnet_lite0.build(), apply="softmax", threads=threads)
    found = [int(index) for index in explainer.predict(x)[explainer.output].argmax(axis=1)]
    names = imagenet.class_names()

    def scored(values: Any) -> dict[str, dict[str, list[float]]]:
        areas = {}
        for patch in PATCHES:
            curves = insertion_deletion(
                explainer, x, values, target=found, steps=steps, patch=patch, normalise=True
            )
            areas[str(patch)] = {
                "score": curves.score.tolist(),
                "insertion": curves.insertion_area.tolist(),
                "deletion": curves.deletion_area.tolist(),
            }
        return areas

    results: dict[str, Any] = {
        "photos": list(photos),
        "classes": [names[index] for index in found],
        "steps": steps,
        "methods": {},
    }
    for name in methods:
        print(name, file=sys.stderr)
        attribution = METHODS[name](explainer, x, preprocessing)
        gradients = int(attribution.steps_used[0])
        results["methods"][name] = {"gradients": gradients, **scored(attribution)}
    results["random"] = {
        kind: [scored(values) for values in _random(kind, x, seeds)] for kind in RANDOM
    }
    return results


def _random(kind: str, x: Images, seeds: int) -> list[NDArray[np.float64]]:
    """Random attributions [N, H, W]: of every pixel by itself, or of every region of the photo."""
    from igonnx.methods.xrai import regions

    shape = (len(x), *x.shape[2:])
    if kind == "random pixels":
        return [np.random.default_rng(seed).random(shape) for seed in range(seeds)]
    found = [regions(np.ones(shape[1:]), image) for image in x]
    drawn = []
    for seed in range(seeds):
        rng, values = np.random.default_rng(seed), np.zeros(shape)
        for one, parts in zip(values, found, strict=True):
            for part in parts:
                one[part.mask] = rng.random()
        drawn.append(values)
    return drawn


# -- what is told ------------------------------------------------------------------------------


def tables(results: Mapping[str, Any]) -> str:
    """The results in Markdown: medians per method, random orders, and the score of every photo."""
    photos, methods, random = results["photos"], results["methods"], results["random"]
    listed = ", ".join(
        f"{photo} ({name})" for photo, name in zip(photos, results["classes"], strict=True)
    )
    large, small = map(str, PATCHES)
    ordered = sorted(methods.items(), key=lambda item: -statistics.median(item[1][large]["score"]))
    lines = [
        f"Photos, and the class explained: {listed}. Medians over the photos; curves of {results['steps']} steps.",
        "",
        f"| method, baseline | gradients | score, patches of {large} | insertion | deletion | score, single pixels |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in ordered:
        numbers = [entry[large][area] for area in ("score", "insertion", "deletion")]
        cells = [f"{statistics.median(one):.2f}" for one in (*numbers, entry[small]["score"])]
        lines.append(f"| {name} | {entry['gradients']} | {' | '.join(cells)} |")
    for kind, runs in random.items():
        spread = [
            _spread([statistics.median(run[p]["score"]) for run in runs]) for p in (large, small)
        ]
        lines.append(f"| {kind}, {len(runs)} draws | 0 | {spread[0]} | | | {spread[1]} |")
    lines += [
        "",
        f"Every photo's score, patches of {large}:",
        "",
        "| method, baseline | " + " | ".join(photos) + " |",
        "|---" * (len(photos) + 1) + "|",
    ]
    for name, entry in ordered:
        cells = [f"{score:.2f}" for score in entry[large]["score"]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for kind, runs in random.items():
        scores = zip(*(run[large]["score"] for run in runs), strict=True)
        lines.append(f"| {kind} | {' | '.join(_spread(one) for one in scores)} |")
    return "\n".join(lines)


def _spread(numbers: Sequence[float]) -> str:
    return f"{min(numbers):.2f} to {max(numbers):.2f}"


def replaced(page: str, section: str, first: str = BEGIN, last: str = END) -> str:
    """`page` with `section` between the marks `first` and `last`."""
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the page lacks the lines {first} and {last}")
    return f"{before}{first}\n\n{section}\n\n{last}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.method_scores",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", nargs="+", choices=PHOTOS, default=PHOTOS)
    parser.add_argument(
        "--methods", nargs="+", metavar="WORD", help="only those whose name has a WORD"
    )
    parser.add_argument("--steps", type=int, default=20, help="points of the curves")
    parser.add_argument("--seeds", type=int, default=5, help="random attributions of each kind")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, metavar="JSON", help="write all numbers there")
    parser.add_argument(
        "--publish", action="store_true", help="write the tables to docs/methods.md"
    )
    parser.add_argument(
        "--render", type=Path, metavar="JSON", help="measure nothing; show old results"
    )
    given = parser.parse_args(arguments)
    if given.render is not None:
        results = json.loads(given.render.read_text())
    else:
        chosen = [n for n in METHODS if not given.methods or any(w in n for w in given.methods)]
        results = measure(given.photos, chosen, given.steps, given.seeds, given.threads)
    if given.output is not None:
        given.output.write_text(json.dumps(results, indent=1) + "\n")
    section = tables(results)
    print(section)
    if given.publish:
        PAGE.write_text(replaced(PAGE.read_text(), section))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Do explanations depend on what the model has learnt: weights randomised from the top, and what becomes of the maps.

    python -m benchmarks.sanity_check --output benchmarks/results/sanity_check.json --publish

EfficientNet-Lite0, trained on ImageNet; explained is the logit of the class that the trained model finds. The measure
is `igonnx.metrics.weight_randomisation` (Adebayo et al., 2018): one layer after the other from the top gets random
weights of the same mean and spread, all those above stay random, and the maps are compared with those of the trained
model by rank correlation of magnitudes, SSIM of magnitudes summed over channels, and cosine similarity. The edges of
the photo are there as what cannot depend on weights. With `--publish` the figure and the table go to docs; `--render
JSON` measures nothing and shows, or publishes, old results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import igonnx
from benchmarks.method_scores import PHOTOS, photo, replaced
from igonnx.images import PRESETS, Preprocessing
from igonnx.metrics import weight_randomisation, weighted_layers

__all__ = ["main", "table"]

ROOT = Path(__file__).resolve().parents[1]
PAGE, FIGURE = ROOT / "docs" / "metrics.md", ROOT / "docs" / "sanity_check.png"
BEGIN = "<!-- written by benchmarks.sanity_check: begin -->"
END = "<!-- written by benchmarks.sanity_check: end -->"

KINDS = {
    "rank": "rank correlation of magnitudes",
    "structure": "SSIM of magnitudes",
    "cosine": "cosine similarity",
}

Explanation: TypeAlias = Callable[..., Any]


def _edges(_: igonnx.Explainer, inputs: Mapping[str, NDArray[Any]], **__: Any) -> Any:
    """Where the photo itself changes: no weight has a part in it."""
    (x,) = inputs.values()
    return np.hypot(np.gradient(x, axis=2), np.gradient(x, axis=3))


METHODS: dict[str, tuple[str | Explanation, dict[str, Any]]] = {
    "integrated_gradients": ("integrated_gradients", {"steps": 20}),
    "saliency": ("saliency", {"absolute": False}),
    "guided_backprop": ("guided_backprop", {}),
    "deconvnet": ("deconvnet", {}),
    "edges of the photo": (_edges, {}),
}


def measure(
    photos: Sequence[str], methods: Sequence[str], stages: int, seed: int, threads: int | None
) -> dict[str, Any]:
    """Similarities by method and kind, [photos][stages], and the layers that each stage ends with."""
    from igonnx.models import efficientnet_lite0, imagenet

    made = efficientnet_lite0.PREPROCESSING
    preset = PRESETS[made.preset]
    preprocessing = Preprocessing((made.size, made.size), mean=preset.mean, std=preset.std)
    x = np.concatenate([preprocessing.apply(photo(name)) for name in photos])
    explainer = igonnx.Explainer(efficientnet_lite0.build(), threads=threads)
    found = [int(index) for index in explainer.predict(x)[explainer.output].argmax(axis=1)]
    names = imagenet.class_names()
    results: dict[str, Any] = {
        "photos": list(photos),
        "classes": [names[index] for index in found],
        "seed": seed,
        "of_layers": len(weighted_layers(explainer.model)),
        "methods": {},
    }
    black = preprocessing.constant(0.0)
    for name in methods:
        method, options = METHODS[name]
        if name == "integrated_gradients":
            options = {**options, "baseline": black}
        print(name, file=sys.stderr)
        curves = weight_randomisation(
            explainer, x, method, target=found, seed=seed, stages=stages, **options
        )
        results["layers"] = curves.layers
        results["methods"][name] = {kind: getattr(curves, kind).tolist() for kind in KINDS}
    return results


# -- what is told ------------------------------------------------------------------------------


def table(results: Mapping[str, Any]) -> str:
    """The means over the photos in Markdown: after the topmost stage, half of the stages, and all of them."""
    layers, methods = results["layers"], results["methods"]
    listed = ", ".join(
        f"{name} ({found})"
        for name, found in zip(results["photos"], results["classes"], strict=True)
    )
    at = [0, len(layers) // 2 - 1, len(layers) - 1]
    counts = _counts(results)
    lines = [
        f"Means over the photos {listed}. Of {results['of_layers']} layers with weights, as many are random as the "
        "heading says.",
        "",
        "| method | "
        + " | ".join(f"{word}: {counts[i]}" for word in ("rank", "SSIM", "cosine") for i in at)
        + " |",
        "|---" * (1 + len(KINDS) * len(at)) + "|",
    ]
    for name, found in methods.items():
        cells = [f"{np.mean(found[kind], axis=0)[i]:.2f}" for kind in KINDS for i in at]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _counts(results: Mapping[str, Any]) -> list[int]:
    """Layers that are random after each stage."""
    stages = len(results["layers"])
    return [int(n) for n in np.round(np.linspace(0, results["of_layers"], stages + 1))[1:]]


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the figure: a panel per kind of similarity; a line per method, the mean, and thin ones for the photos."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # Colours that stay apart for the colour-blind (Okabe and Ito, 2008).
    colours = ["#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#999999"]
    figure, axes = plt.subplots(1, len(KINDS), figsize=(12, 4.2), sharex=True, layout="constrained")
    counts = [0, *_counts(results)]
    for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for colour, (name, found) in zip(colours, results["methods"].items(), strict=False):
            values = np.array(found[kind])
            values = np.concatenate([np.ones((len(values), 1)), values], axis=1)
            axis.plot(counts, values.T, color=colour, linewidth=0.6, alpha=0.45)
            style = "--" if name.startswith("edges") else "-"
            mean = values.mean(axis=0)
            axis.plot(counts, mean, style, color=colour, linewidth=2.2, label=name)
        axis.set_title(title, fontsize=11)
        axis.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(f"layers with random weights, from the top, of {results['of_layers']}")
    axes[0].set_ylabel("similarity to the trained model's map")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sanity_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", nargs="+", choices=PHOTOS, default=PHOTOS[:4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--stages", type=int, default=16, help="points of the curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, metavar="JSON", help="write all numbers there")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the curves")
    parser.add_argument("--publish", action="store_true", help="write figure and table to docs")
    parser.add_argument(
        "--render", type=Path, metavar="JSON", help="measure nothing; show old results"
    )
    given = parser.parse_args(arguments)
    if given.render is not None:
        results = json.loads(given.render.read_text())
    else:
        results = measure(given.photos, given.methods, given.stages, given.seed, given.threads)
    if given.output is not None:
        given.output.write_text(json.dumps(results, indent=1) + "\n")
    section = table(results)
    print(section)
    if given.figure is not None:
        draw(results, given.figure)
    if given.publish:
        draw(results, FIGURE)
        PAGE.write_text(replaced(PAGE.read_text(), section, BEGIN, END))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How many gradients a small error takes, by the way the path is sampled: four photos, probability and logit.

    python -m benchmarks.convergence --figure docs/convergence.png --output benchmarks/results/convergence.json

EfficientNet-Lite0, black baseline, the class that the model finds. The truth is the middle rule with 4,096 steps; with
`--cache FOLDER` it is computed once. Compared are the uniform trapezoid rule, Gauss-Legendre, non-uniform interpolation
(NUIG: Bhat and Raychowdhury, 2023, arXiv:2302.11107) and `tolerance=`. Evaluations are all gradients that igonnx runs,
those at the ends of the path included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import igonnx
from igonnx.images import PRESETS, Preprocessing

__all__ = ["Point", "main", "saved_share"]

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut")
TARGETS = {"probability": "softmax", "logit": None}
REFERENCE_STEPS = 4096
STEPS = (32, 64, 128)
TOLERANCES = (0.04, 0.02, 0.01)
TRAPEZOID, GAUSS, NUIG, OURS = "trapezoid", "Gauss-Legendre", "NUIG", "tolerance="
SEGMENTS = 8  # of NUIG's first, coarse look at the path


@dataclass(frozen=True)
class Point:
    """One run: what it spent and how far off it was; `estimate` is what the run itself said of `error`."""

    photo: str
    target: str
    method: str
    setting: float
    evaluations: int
    error: float
    completeness: float
    estimate: float | None = None


@dataclass(frozen=True)
class Case:
    """One photo and one kind of target."""

    photo: str
    target: str
    explainer: igonnx.Explainer
    x: NDArray[np.float32]
    baseline: NDArray[np.float32]
    index: tuple[int, ...]
    truth: NDArray[np.float64]

    def explain(self, **options: Any) -> igonnx.Attribution:
        """Integrated Gradients of this case."""
        return self.explainer.integrated_gradients(
            self.x, target=self.index, **{"baseline": self.baseline, **options}
        )

    def point(
        self, method: str, setting: float, evaluations: int, values: NDArray[Any], delta: float, change: float,
        estimate: float | None = None,
    ) -> Point:  # fmt: skip
        """What a run gave, beside the truth."""
        error = float(np.linalg.norm(values - self.truth) / np.linalg.norm(self.truth))
        return Point(
            self.photo,
            self.target,
            method,
            setting,
            evaluations,
            error,
            abs(delta / change),
            estimate,
        )


def cases(threads: int | None, cache: Path | None) -> Iterator[Case]:
    """The eight cases, each with its truth."""
    import skimage.data

    from igonnx.models import efficientnet_lite0

    made = efficientnet_lite0.PREPROCESSING
    preset = PRESETS[made.preset]
    preprocessing = Preprocessing((made.size, made.size), mean=preset.mean, std=preset.std)
    model = efficientnet_lite0.build()
    for target, apply in TARGETS.items():
        explainer = igonnx.Explainer(model, apply=apply, threads=threads)
        for photo in PHOTOS:
            pixels = getattr(skimage.data, photo)() / np.float32(255)
            x = preprocessing.apply(np.asarray(pixels, dtype=np.float32))
            baseline = np.broadcast_to(preprocessing.constant(0.0), x.shape).astype(np.float32)
            index = (int(explainer.predict(x)[explainer.output].argmax()),)
            case = Case(photo, target, explainer, x, baseline, index, np.zeros(x.shape))
            yield Case(**{**vars(case), "truth": _truth(case, cache)})


def _truth(case: Case, cache: Path | None) -> NDArray[np.float64]:
    path = None if cache is None else cache / f"{case.photo}_{case.target}.npy"
    if path is not None and path.exists():
        return np.asarray(np.load(path), dtype=np.float64)
    values = case.explain(rule="middle", steps=REFERENCE_STEPS).of().astype(np.float64)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    return values


def points(case: Case, steps: Sequence[int], tolerances: Sequence[float]) -> Iterator[Point]:
    """Every method at every setting."""
    for count in steps:
        for method, rule, ends in ((TRAPEZOID, "trapezoid", 1), (GAUSS, "gauss_legendre", 2)):
            found = case.explain(rule=rule, steps=count)
            change = float((found.scores - found.baseline_scores)[0])
            yield case.point(method, count, count + ends, found.of(), float(found.delta[0]), change)
        yield _nuig(case, count)
    for tolerance in tolerances:
        found = case.explain(tolerance=tolerance, max_steps=2000)
        assert found.error_estimate is not None  # noqa: S101  (for the type checker)
        change = float((found.scores - found.baseline_scores)[0])
        yield case.point(
            OURS,
            tolerance,
            int(found.steps_used[0]),
            found.of(),
            float(found.delta[0]),
            change,
            float(found.error_estimate[0]),
        )


def _nuig(case: Case, steps: int) -> Point:
    """Non-uniform interpolation: forward passes at the ends of equal segments, then steps by the change in score.

    Each segment gets steps in proportion to the root of its change in score, one at least, and the trapezoid rule.
    The forward passes of the first look are not counted.
    """
    alpha = np.linspace(0, 1, SEGMENTS + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    ends = case.baseline + alpha * (case.x - case.baseline)
    scores = case.explainer.predict(ends)[case.explainer.output].astype(np.float64)
    if TARGETS[case.target] == "softmax":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    share = np.sqrt(np.abs(np.diff(scores[:, case.index[0]])))
    counts = 1 + np.floor((steps - SEGMENTS) * share / share.sum()).astype(int)
    counts[np.argmax(share)] += steps - counts.sum()
    values, delta, change = np.zeros(case.x.shape), 0.0, 0.0
    for (start, end), count in zip(itertools.pairwise(ends), counts, strict=True):
        found = case.explainer.integrated_gradients(
            end[None], baseline=start[None], target=case.index, rule="trapezoid", steps=int(count)
        )
        values += found.of()
        delta += float(found.delta[0])
        change += float((found.scores - found.baseline_scores)[0])
    return case.point(NUIG, steps, steps + 1, values, delta, change)


def saved_share(measured: Sequence[Point]) -> dict[tuple[str, str, float], float]:
    """Per run with a tolerance: its evaluations as a share of what Gauss-Legendre needs for the same true error.

    Gauss-Legendre's error is taken as a power of its evaluations, fitted per case over all its runs: single runs
    scatter around it.
    """
    shares = {}
    for run in (point for point in measured if point.method == OURS):
        curve = [
            point
            for point in measured
            if (point.photo, point.target, point.method) == (run.photo, run.target, GAUSS)
        ]
        slope, offset = np.polyfit(
            np.log([point.error for point in curve]),
            np.log([point.evaluations for point in curve]),
            1,
        )
        needed = np.exp(offset + slope * np.log(run.error))
        shares[run.photo, run.target, run.setting] = float(run.evaluations / needed)
    return shares


def table(measured: Sequence[Point], tolerance: float) -> str:
    """The runs with one tolerance, in Markdown."""
    shares = saved_share(measured)
    lines = [
        "| photo | target | gradients | true error | its estimate | completeness | of Gauss-Legendre's |",
        "|---|---|---|---|---|---|---|",
    ]
    chosen = [point for point in measured if point.method == OURS and point.setting == tolerance]
    for point in chosen:
        share = shares[point.photo, point.target, tolerance]
        lines.append(
            f"| {point.photo} | {point.target} | {point.evaluations} | {point.error:.2%} | {point.estimate:.2%} | "
            f"{point.completeness:.2%} | {share:.2f} |"
        )
    at_one = np.median([shares[point.photo, point.target, tolerance] for point in chosen])
    lines.append(
        f"\nMedian share: {at_one:.2f}; over all tolerances {np.median(list(shares.values())):.2f}."
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the points and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="where to draw the curves (PNG, SVG or PDF)")
    parser.add_argument("--output", type=Path, help="where to write all points, as JSON")
    parser.add_argument("--cache", type=Path, help="folder that keeps the truths")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help=f"at least {SEGMENTS}")
    parser.add_argument("--tolerances", type=float, nargs="+", default=TOLERANCES)
    options = parser.parse_args()
    warnings.simplefilter("error", igonnx.ToleranceWarning)
    measured: list[Point] = []
    for case in cases(options.threads, options.cache):
        measured += points(case, options.steps, options.tolerances)
        print(f"{case.photo}, {case.target}: done", flush=True)
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps([asdict(point) for point in measured], indent=1))
    print(table(measured, 0.02 if 0.02 in options.tolerances else options.tolerances[0]))
    if options.figure is not None:
        from benchmarks.convergence_figure import draw

        draw(measured, options.figure)


if __name__ == "__main__":
    main()

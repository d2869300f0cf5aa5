"""Metrics of Quantus on an ONNX model: which explanations of handwritten digits hold, by four measures of others.

    pip install quantus
    python examples/quantus_metrics.py

Quantus (Hedström et al., 2023, arXiv:2202.06861) needs neither PyTorch nor TensorFlow here: igonnx answers for the
model, its explanations, and copies of it with random weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import igonnx
from igonnx.models import digits

METHODS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"baseline": 0.0},
    "saliency": {},
    "guided_backprop": {},
}


def metrics() -> dict[str, Callable[[], Any]]:
    """Metrics of four of the six groups that Quantus has, and which direction is better."""
    import quantus

    quiet = {"disable_warnings": True, "display_progressbar": False}
    return {
        "faithfulness correlation (higher)": lambda: quantus.FaithfulnessCorrelation(
            nr_runs=50, subset_size=16, return_aggregate=False, **quiet
        ),
        "max-sensitivity (lower)": lambda: quantus.MaxSensitivity(
            nr_samples=10, lower_bound=0.05, **quiet
        ),
        "sparseness (higher)": lambda: quantus.Sparseness(**quiet),
        "random weights (lower)": lambda: quantus.MPRT(
            return_average_correlation=True, seed=0, **quiet
        ),
    }


def scores(count: int) -> dict[str, dict[str, float]]:
    """The mean score of every metric and method over the first `count` digits of the test set."""
    from igonnx.quantus import evaluate

    explainer = igonnx.Explainer(digits.load())
    x = digits.test_set()[0][:count]
    y = explainer.predict(x)[explainer.output].argmax(axis=1)
    found: dict[str, dict[str, float]] = {}
    for name, metric in metrics().items():
        np.random.seed(0)  # noqa: NPY002 - Quantus draws from the global generator
        found[name] = {
            method: float(
                np.nanmean(evaluate(metric(), explainer, x, y, method=method, options=options))
            )
            for method, options in METHODS.items()
        }
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=16, help="digits to explain (default: 16)")
    given = parser.parse_args(arguments)
    try:
        found = scores(given.count)
    except igonnx.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    width = max(map(len, found))
    print(" " * width, *(f"{method:>20}" for method in METHODS))
    for name, row in found.items():
        print(f"{name:<{width}}", *(f"{row[method]:>20.3f}" for method in METHODS))
    return 0


if __name__ == "__main__":
    sys.exit(main())

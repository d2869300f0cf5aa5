"""The measures that `igonnx evaluate` knows: what each costs, which direction is better, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.cli.choices import Measure
from igonnx.cli.methods import ADDING_UP

if TYPE_CHECKING:
    from igonnx import Attribution, Explainer
    from igonnx.methods.call import Progress

__all__ = ["MEASURES", "Asked", "Column", "measured"]


@dataclass(frozen=True)
class Asked:
    """What a measure is asked of: a method's attribution of some inputs, and how it came about."""

    explainer: Explainer
    arrays: Mapping[str, NDArray[Any]]
    method: str  # of Explainer
    options: Mapping[str, Any]  # of the method, its baseline among them
    attribution: Attribution
    baseline: Any  # what measures put in the place of the input
    target: Any
    seed: int
    patch: int
    samples: int | None
    progress: Progress = field(default=None, compare=False)

    @property
    def common(self) -> dict[str, Any]:
        """What measures of an attribution are called with."""
        return {
            "target": self.target,
            "baseline": self.baseline,
            "seed": self.seed,
            "progress": self.progress,
        }

    @property
    def drawn(self) -> dict[str, Any]:
        """How often they draw, where that was said."""
        return {} if self.samples is None else {"samples": self.samples}


@dataclass(frozen=True)
class Column:
    """One number per method and example: its heading, and whether more of it is better."""

    heading: str
    higher_is_better: bool


# Each gives an array [N] per column, or None where it does not apply.
Measuring: TypeAlias = "Callable[[Asked], list[NDArray[np.float64] | None]]"
MEASURES: dict[Measure, tuple[list[Column], Measuring]] = {}


def _measure(name: Measure, *columns: Column) -> Callable[[Measuring], Measuring]:
    def register(function: Measuring) -> Measuring:
        MEASURES[name] = (list(columns), function)
        return function

    return register


def measured(name: Measure, asked: Asked) -> list[NDArray[np.float64] | None]:
    """The columns of a measure, in the order of its headings."""
    return MEASURES[name][1](asked)


@_measure(Measure.completeness, Column("completeness error", False))
def _completeness(asked: Asked) -> list[NDArray[np.float64] | None]:
    from igonnx.metrics import completeness

    adds_up = asked.method in ADDING_UP and "noise" not in asked.options
    return [completeness(asked.attribution) if adds_up else None]


@_measure(Measure.insertion_deletion, Column("insertion", True), Column("deletion", False))
def _insertion_deletion(asked: Asked) -> list[NDArray[np.float64] | None]:
    from igonnx.metrics import insertion_deletion

    found = insertion_deletion(
        asked.explainer, asked.arrays, asked.attribution, patch=asked.patch, **asked.common
    )
    return [found.insertion_area, found.deletion_area]


@_measure(Measure.sensitivity_n, Column("sensitivity-n", True))
def _sensitivity_n(asked: Asked) -> list[NDArray[np.float64] | None]:
    from igonnx.metrics import sensitivity_n

    found = sensitivity_n(
        asked.explainer,
        asked.arrays,
        asked.attribution,
        patch=asked.patch,
        **asked.drawn,
        **asked.common,
    )
    return [found.score]


@_measure(Measure.faithfulness_correlation, Column("faithfulness corr.", True))
def _faithfulness_correlation(asked: Asked) -> list[NDArray[np.float64] | None]:
    from igonnx.metrics import faithfulness_correlation

    found = faithfulness_correlation(
        asked.explainer,
        asked.arrays,
        asked.attribution,
        patch=asked.patch,
        **asked.drawn,
        **asked.common,
    )
    return [found.score]


@_measure(Measure.infidelity, Column("infidelity", False))
def _infidelity(asked: Asked) -> list[NDArray[np.float64] | None]:
    from igonnx.metrics import infidelity

    # Slopes and contributions compare only when their scale does not count.
    found = infidelity(
        asked.explainer,
        asked.arrays,
        asked.attribution,
        normalise=True,
        **asked.drawn,
        **asked.common,
    )
    return [found.score]


@_measure(Measure.max_sensitivity, Column("max-sensitivity", False))
def _max_sensitivity(asked: Asked) -> list[NDArray[np.float64] | None]:
    from igonnx.metrics import max_sensitivity

    found = max_sensitivity(
        asked.explainer,
        asked.arrays,
        asked.method,
        target=asked.target,
        seed=asked.seed,
        progress=asked.progress,
        **asked.options,
    )
    return [found.score]


@_measure(Measure.weight_randomisation, Column("rank corr. at random weights", False))
def _weight_randomisation(asked: Asked) -> list[NDArray[np.float64] | None]:
    from igonnx.metrics import weight_randomisation

    found = weight_randomisation(
        asked.explainer,
        asked.arrays,
        asked.method,
        target=asked.target,
        seed=asked.seed,
        stages=1,
        progress=asked.progress,
        **asked.options,
    )
    return [found.score]

"""LIME: a linear model of which features matter, fitted to the scores of masked inputs around the one explained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.checks import require_choice, require_number, require_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options
from igonnx.methods.coalitions import Keep, described, ends, listed, scattered, teams, worth
from igonnx.methods.features import FeatureMask, features_of
from igonnx.methods.superpixels import chosen_features
from igonnx.targets import Target

__all__ = ["Distance", "drawn_masks", "lime"]

Distance = Literal["cosine", "euclidean"]
ALPHA = {"ridge": 1.0, "lasso": 0.01}
MOST_FEATURES = 10_000


def lime(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    feature_mask: FeatureMask = None,
    segments: int | None = None,
    samples: int = 1000,
    surrogate: Any = "ridge",
    alpha: float | None = None,
    distance: Distance = "cosine",
    kernel_width: float | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """LIME (Ribeiro, Singh and Guestrin, 2016, arXiv:1602.04938): the weights of a linear model around the input.

    Features are masked at random, each in half of the samples; a linear model of which were kept is fitted to the
    scores by scikit-learn, the samples weighted by exp(-d^2 / (2 kernel_width^2)), d the distance of what is kept from
    all. Its coefficients are the values: how much the score changes by keeping a feature. They do not add up to
    anything in particular; `r_squared` tells how much of the scores the model accounts for.

    Args:
        inputs, target, baseline: as for `shapley_value_sampling`.
        seed: of the samples; they are the same for every example with as many features.
        feature_mask, segments: what is a feature, as for `shapley_value_sampling`.
        samples: masked inputs, each a forward pass; the first is the input itself.
        surrogate: "ridge", least squares with a penalty on the squares of the coefficients, as the authors' library
            fits it: values grow with the score, whatever its unit; "lasso", with a penalty on their sizes that sets
            small ones to zero, as Captum fits it, for scores in the order of 1; or a linear regressor of scikit-learn's
            kind, of which a copy is fitted.
        alpha: the penalty's factor, as scikit-learn's `Ridge` and `Lasso` take it; default: 1 for ridge, 0.01 for
            lasso, as in those libraries. With 0 for ridge it is plain least squares.
        distance: "cosine", one less the cosine of the angle between the masks, 1 - sqrt(kept / F); or "euclidean",
            sqrt(masked).
        kernel_width: default, as in the authors' library: 0.25 for cosine, 0.75 sqrt(F) for euclidean.
        options: noise, noise_samples, noise_std, progress (in forward passes), timeout, cancel, as for
            `integrated_gradients`.

    A feature that is the same in input and baseline is left out, and has the value 0. `steps_used` counts forward
    passes.

    Raises `InputError` where scikit-learn is missing, and for more than 10000 features; else as `integrated_gradients`,
    but for what concerns gradients: there are none.

    """
    require_whole("samples", samples, 2)
    require_choice("distance", distance, Distance)
    if kernel_width is not None:
        require_number("kernel_width", kernel_width, 0, above=True)
    made = _surrogate(surrogate, alpha)
    in_one_line = " ".join(repr(made).split())
    kernel = _Kernel(distance, None if kernel_width is None else float(kernel_width))
    mask = chosen_features(explainer.wrt, inputs, feature_mask, segments)
    return explainer.explain_with(
        partial(_lime, feature_mask=mask, samples=int(samples), made=made, kernel=kernel),
        inputs,
        method=f"lime samples={samples} surrogate={in_one_line} {kernel.described}"
        + described(feature_mask, segments),
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def _surrogate(given: Any, alpha: float | None) -> Any:
    """A regressor of scikit-learn, not fitted. Raises `InputError` for one that is none, and where it is missing."""
    try:
        from sklearn import linear_model
        from sklearn.base import ClassifierMixin
        from sklearn.utils.validation import has_fit_parameter
    except ImportError as error:
        raise InputError(
            "lime needs scikit-learn: pip install igonnx[lime] (kernel_shap does without)"
        ) from error
    if isinstance(given, str) and given in ALPHA:
        factor = ALPHA[given] if alpha is None else alpha
        require_number("alpha", factor, 0, above=given == "lasso")
        kind = linear_model.Ridge if given == "ridge" else linear_model.Lasso
        return kind(alpha=float(factor))
    known = not isinstance(given, type | ClassifierMixin) and hasattr(given, "get_params")
    if not known or not hasattr(given, "fit") or not has_fit_parameter(given, "sample_weight"):
        raise InputError(
            f"surrogate is {given!r}; expected 'ridge', 'lasso' or a regressor of scikit-learn that takes "
            "sample_weight"
        )
    if alpha is not None:
        raise InputError("alpha is that of the surrogate, which was given ready made")
    return given


@dataclass(frozen=True)
class _Kernel:
    """How much a sample counts, by how much of the input it keeps."""

    distance: str
    width: float | None

    @property
    def described(self) -> str:
        """Its settings, for the record."""
        usual = "0.25" if self.distance == "cosine" else "0.75sqrt(F)"
        return (
            f"distance={self.distance} kernel_width={usual if self.width is None else self.width}"
        )

    def __call__(self, keep: Keep) -> Array:
        """The weight of each sample, [samples]."""
        count = keep.shape[1]
        kept = keep.sum(axis=1)
        if self.distance == "cosine":
            width = 0.25 if self.width is None else self.width
            away = 1 - np.sqrt(kept / count)
        else:
            width = 0.75 * np.sqrt(count) if self.width is None else self.width
            away = np.sqrt(count - kept)
        return np.asarray(np.exp(-np.square(away / width) / 2))


def _lime(
    call: Call, *, feature_mask: FeatureMask, samples: int, made: Any, kernel: _Kernel
) -> MethodResult:
    features = features_of(call, feature_mask)
    if features.count > MOST_FEATURES:
        raise InputError(
            f"lime of {features.count} features; expected at most {MOST_FEATURES}: "
            "group them by feature_mask or segments"
        )
    groups = teams(call, features)
    rows = sum(len(team.requests) * samples for team in groups if team.count)
    tick = call.ticking(rows + 2 * len(call))
    both = ends(call, features, tick)
    steps = np.full(len(call), 2)
    r_squared = np.ones(len(call))  # where nothing can be masked, the score is what it is
    values = []
    for team in groups:
        if not team.count:
            continue
        keep = drawn_masks(team.count, samples, call.seed)
        scores = worth(call, features, team, samples, listed(keep), tick)
        found, r_squared[team.requests] = _fitted(made, keep, scores, kernel(keep))
        steps[team.requests] += samples
        values.append((team, found))
    by_feature = scattered(call, features, values)
    return MethodResult(
        attribution=features.spread(call, by_feature),
        steps_used=steps,
        scores=both.kept,
        baseline_scores=both.masked,
        total=by_feature.sum(axis=1),
        r_squared=r_squared,
    )


def drawn_masks(count: int, samples: int, seed: int) -> Keep:
    """Which of `count` features each sample keeps, [samples, count]."""
    keep = np.random.default_rng(seed).random((samples, count)) < 0.5
    keep[0] = True
    return np.asarray(keep)


def _fitted(made: Any, keep: Keep, scores: Array, weight: Array) -> tuple[Array, NDArray[Any]]:
    """Coefficients [P, G] of a model for each request's scores [S, G], and the weighted R squared [G] of each."""
    from sklearn.base import clone

    kept = keep.astype(np.float64)
    coefficients, found = [], []
    for column in scores.T:
        model = clone(made)
        model.fit(kept, column, sample_weight=weight)
        of_model = np.asarray(getattr(model, "coef_", None), dtype=np.float64)
        if of_model.shape != (keep.shape[1],):
            raise InputError(
                f"surrogate {made!r} has no coefficient for each of {keep.shape[1]} features: expected a linear model"
            )
        coefficients.append(of_model)
        found.append(model.score(kept, column, sample_weight=weight))
    return np.stack(coefficients, axis=1), np.asarray(found)

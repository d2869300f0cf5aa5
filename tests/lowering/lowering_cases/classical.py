"""Operators of scikit-learn's pipelines."""

from __future__ import annotations

import numpy as np

from lowering_cases.case import CLASSICAL, Case, constant, fed, real

SETTINGS = {"domain": CLASSICAL, "opsets": (17,)}
RNG = np.random.default_rng(3)


def _floats(*shape):
    return [float(np.float32(x)) for x in RNG.normal(size=shape).reshape(-1)]


def _linear():
    x = real(4, 3)
    for targets in (1, 2):
        given = {"coefficients": _floats(targets, 3), "targets": targets}
        yield Case("LinearRegressor", f"{targets}", [x], given, **SETTINGS)
        given = {**given, "intercepts": _floats(targets)}
        yield Case("LinearRegressor", f"{targets} shifted", [x], given, **SETTINGS)
    for kind in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"):
        for classes, names in [(3, [4, 5, 6]), (2, [0, 1]), (1, [0, 1])]:
            if kind == "PROBIT":
                continue
            given = {
                "coefficients": _floats(classes, 3),
                "intercepts": _floats(classes),
                "classlabels_ints": names,
                "post_transform": kind,
            }
            yield Case("LinearClassifier", f"{kind} {classes}", [x], given, (True, True),
                       {0: np.int64, 1: np.float32}, explained_output=1, **SETTINGS)  # fmt: skip
    given = {"coefficients": [0.05] * 6, "intercepts": [0.25, 0.3], "classlabels_ints": [0, 1]}
    yield Case("LinearClassifier", "PROBIT", [x], {**given, "post_transform": "PROBIT"}, (True, True),
               {0: np.int64, 1: np.float32}, explained_output=1, **SETTINGS)  # fmt: skip
    given = {
        "coefficients": _floats(2, 3),
        "intercepts": _floats(2),
        "classlabels_strings": ["a", "b"],
    }
    yield Case("LinearClassifier", "strings", [x], given, (True, True),
               {0: object, 1: np.float32}, explained_output=1, **SETTINGS)  # fmt: skip
    whole = fed(RNG.integers(-3, 3, (4, 3)), np.int64)
    given = {"coefficients": _floats(2, 3), "intercepts": _floats(2), "classlabels_ints": [1, 2]}
    yield Case("LinearClassifier", "integers", [whole], given, (True, True),
               {0: np.int64, 1: np.float32}, **SETTINGS)  # fmt: skip


def _features():
    x = real(4, 3)
    narrow = {"types": {0: np.float32}, **SETTINGS}
    yield Case("Scaler", "each", [x], {"offset": _floats(3), "scale": _floats(3)}, **narrow)
    yield Case("Scaler", "all", [x], {"offset": [0.5], "scale": [2.0]}, **narrow)
    whole = fed(RNG.integers(-3, 3, (4, 3)), np.int64)
    yield Case("Scaler", "integers", [whole], {"offset": _floats(3), "scale": _floats(3)},
               types={0: np.float32}, **SETTINGS)  # fmt: skip
    for norm in ("MAX", "L1", "L2"):
        yield Case(
            "Normalizer",
            norm,
            [real(4, 3, centre=2.0) if norm == "MAX" else real(4, 3, away=0.0)],
            {"norm": norm},
            types={0: np.float32},
            seed=6 if norm == "MAX" else None,  # two elements near the maximum make a kink
            **SETTINGS,
        )
        zeros = fed(np.eye(3) * [[2.0], [0.0], [-1.0]], np.float32)
        yield Case("Normalizer", f"{norm} zeros", [zeros], {"norm": norm}, **SETTINGS)
    gaps = np.array([[1, np.nan, 2], [np.nan, 3, 1]], np.float32)
    means = {"imputed_value_floats": [0.5, 1.5, 2.5], "replaced_value_float": float("nan")}
    yield Case("Imputer", "nan", [fed(gaps, np.float32)], means, **SETTINGS)
    yield Case("Imputer", "kept", [x], means, **SETTINGS)
    one = {"imputed_value_floats": [9.0], "replaced_value_float": 1.0}
    yield Case("Imputer", "number", [fed([[1, 2], [3, 1]], np.float32)], one, **SETTINGS)
    yield Case("FeatureVectorizer", "same", [x, real(4, 2)], {"inputdimensions": [3, 2]},
               types={0: np.float32}, **SETTINGS)  # fmt: skip
    yield Case("ArrayFeatureExtractor", "columns", [x, constant([2, 0, 2])], **SETTINGS)
    yield Case("ArrayFeatureExtractor", "row", [real(5), constant([[1, 4]])], **SETTINGS)


def _machines():
    x = real(5, 3)
    params = {
        "LINEAR": [0.0, 0.0, 0.0],
        "POLY": [0.5, 0.3, 3.0],
        "RBF": [0.7, 0.0, 0.0],
        "SIGMOID": [0.4, 0.2, 0.0],
    }
    for kind, numbers in params.items():
        kernel = {"kernel_type": kind, "kernel_params": numbers}
        given = {
            "support_vectors": _floats(4, 3),
            "coefficients": _floats(4),
            "n_supports": 4,
            "rho": [0.3],
        }
        yield Case("SVMRegressor", kind, [x], {**kernel, **given}, tolerance=1e-4, **SETTINGS)
        for classes, each in [(2, [2, 3]), (3, [2, 1, 2]), (4, [1, 2, 2, 1])]:
            pairs = classes * (classes - 1) // 2
            given = {
                "classlabels_ints": list(range(classes)),
                "vectors_per_class": each,
                "support_vectors": _floats(sum(each), 3),
                "coefficients": _floats(classes - 1, sum(each)),
                "rho": _floats(pairs),
                **kernel,
            }
            both = {
                "outputs": (True, True),
                "types": {0: np.int64, 1: np.float32},
                "explained_output": 1,
            }
            yield Case(
                "SVMClassifier", f"{kind} {classes}", [x], given, tolerance=1e-4, **both, **SETTINGS
            )
            probable = {"prob_a": [-abs(a) for a in _floats(pairs)], "prob_b": _floats(pairs)}
            yield Case("SVMClassifier", f"{kind} {classes} probable", [x], {**given, **probable},
                       seed=5, differentiable=classes < 4, tolerance=1e-4, **both, **SETTINGS)  # fmt: skip
    given = {"coefficients": _floats(3), "n_supports": 0, "rho": [0.3], "kernel_params": [0.0] * 3}
    yield Case("SVMRegressor", "one vector", [x], given, **SETTINGS)
    given = {"coefficients": _floats(9), "rho": [0.3], "classlabels_ints": [0, 1, 2],
             "kernel_params": [0.0] * 3}  # fmt: skip
    yield Case(
        "SVMClassifier", "linear", [x], {**given, "post_transform": "SOFTMAX"}, **both, **SETTINGS
    )
    yield Case("SVMClassifier", "softmax", [real(2, 2)], {
        "classlabels_ints": [0, 1, 2], "vectors_per_class": [1, 1, 1], "support_vectors": _floats(3, 2),
        "coefficients": _floats(2, 3), "rho": _floats(3), "kernel_type": "LINEAR",
        "kernel_params": [0.0, 0.0, 0.0], "post_transform": "SOFTMAX"}, **both, **SETTINGS)  # fmt: skip


CASES = [*_linear(), *_features(), *_machines()]

"""The values that options of the command line choose from."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "Apply",
    "AugmentMethod",
    "EngineName",
    "HeatMap",
    "Method",
    "Noise",
    "Rule",
    "SignName",
    "View",
]


class Rule(StrEnum):
    """Quadrature rules."""

    gauss_legendre = "gauss_legendre"
    trapezoid = "trapezoid"
    middle = "middle"
    left = "left"
    right = "right"


class Apply(StrEnum):
    """Functions applied to the output."""

    softmax = "softmax"
    log_softmax = "log_softmax"
    sigmoid = "sigmoid"


class Noise(StrEnum):
    """What the noise tunnel makes of noisy copies."""

    smoothgrad = "smoothgrad"
    smoothgrad_sq = "smoothgrad_sq"
    vargrad = "vargrad"


class SignName(StrEnum):
    """Which contributions a picture shows."""

    all = "all"
    positive = "positive"
    negative = "negative"
    absolute = "absolute"


class View(StrEnum):
    """What a picture shows beside the input."""

    overview = "overview"
    outline = "outline"
    heat_map = "heat-map"
    blended_heat_map = "blended-heat-map"
    masked_image = "masked-image"
    alpha_scaling = "alpha-scaling"
    path = "path"


class EngineName(StrEnum):
    """Engines."""

    native = "native"
    reference = "reference"


class Method(StrEnum):
    """Attribution methods: those of `Explainer`, with hyphens."""

    integrated_gradients = "integrated-gradients"
    ig = "ig"
    smoothgrad_ig = "smoothgrad-ig"
    guided_ig = "guided-ig"
    blur_ig = "blur-ig"
    idgi = "idgi"
    expected_gradients = "expected-gradients"
    gradient_shap = "gradient-shap"
    xrai = "xrai"
    saliency = "saliency"
    input_x_gradient = "input-x-gradient"
    guided_backprop = "guided-backprop"
    deconvnet = "deconvnet"


class AugmentMethod(StrEnum):
    """Attribution methods of models that explain themselves."""

    integrated_gradients = "integrated-gradients"
    ig = "ig"
    smoothgrad_ig = "smoothgrad-ig"
    saliency = "saliency"
    input_x_gradient = "input-x-gradient"


class HeatMap(StrEnum):
    """Heat maps drawn inside a model."""

    sum = "sum"
    absolute = "absolute"
    overlay = "overlay"

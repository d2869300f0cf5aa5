"""The values that options of the command line choose from."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "Apply",
    "AugmentMethod",
    "EngineName",
    "HeatMap",
    "Measure",
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
    deep_lift = "deep-lift"
    deep_lift_shap = "deep-lift-shap"
    lrp = "lrp"
    occlusion = "occlusion"
    feature_ablation = "feature-ablation"
    feature_permutation = "feature-permutation"
    shapley_value_sampling = "shapley-value-sampling"
    kernel_shap = "kernel-shap"
    lime = "lime"
    rise = "rise"
    grad_cam = "grad-cam"
    grad_cam_pp = "grad-cam-pp"
    guided_grad_cam = "guided-grad-cam"
    layer_activation = "layer-activation"
    layer_gradient_x_activation = "layer-gradient-x-activation"
    layer_conductance = "layer-conductance"
    internal_influence = "internal-influence"
    neuron_gradient = "neuron-gradient"
    neuron_integrated_gradients = "neuron-integrated-gradients"
    neuron_conductance = "neuron-conductance"
    neuron_gradient_shap = "neuron-gradient-shap"
    neuron_deep_lift_shap = "neuron-deep-lift-shap"
    neuron_guided_backprop = "neuron-guided-backprop"
    neuron_deconvnet = "neuron-deconvnet"


class Measure(StrEnum):
    """Measures of attributions: functions of `igonnx.metrics`, with hyphens."""

    completeness = "completeness"
    insertion_deletion = "insertion-deletion"
    sensitivity_n = "sensitivity-n"
    faithfulness_correlation = "faithfulness-correlation"
    infidelity = "infidelity"
    max_sensitivity = "max-sensitivity"
    weight_randomisation = "weight-randomisation"


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

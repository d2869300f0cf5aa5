"""Fused convolutions, matrix products, activations and normalisations."""

from __future__ import annotations

import numpy as np
from scipy import special

from lowering_cases.case import Case, constant, fed, held, real


def _convolutions():
    x, w, b = real(2, 3, 7, 6, scale=2), held(4, 3, 3, 2), held(4)
    for label, attributes in {
        "none": {},
        "relu": {"activation": "Relu"},
        "leaky": {"activation": "LeakyRelu", "activation_params": [0.2]},
        "clip": {"activation": "Clip", "activation_params": [-0.5, 1.5]},
        "sigmoid": {"activation": "Sigmoid"},
        "tanh": {"activation": "Tanh"},
        "hard sigmoid": {"activation": "HardSigmoid", "activation_params": [0.2, 0.4]},
    }.items():
        given = {"pads": [1, 0, 1, 1], "strides": [2, 1], **attributes}
        # Differences of float32 kernels reach across kinks.
        smooth = label in ("none", "sigmoid", "tanh")
        yield Case("FusedConv", label, [x, w, b], given, differentiable=smooth, tolerance=5e-5)
    smooth = {"activation": "Sigmoid"}
    yield Case("FusedConv", "sum", [x, w, b, real(2, 4, 5, 5)], smooth)
    yield Case("FusedConv", "sum without bias", [x, w, None, real(2, 4, 5, 5)], smooth)
    yield Case("FusedConv", "group", [x, real(3, 1, 2, 2)], {"group": 3, "auto_pad": "SAME_UPPER"})
    yield Case(
        "FusedConv", "one axis", [real(1, 2, 9), held(3, 2, 3)], {"dilations": [2], **smooth}
    )

    images, filters = real(2, 6, 5, 3), real(4, 3, 2, 3)

    def expected(x, w, b, z=0):
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), axis=(1, 2))
        return np.einsum("nhwcij,mijc->nhwm", windows, w) + b + z

    yield Case("NhwcConv", "plain", [images, filters, held(4)], kernel=False, expected=expected)
    yield Case(
        "NhwcFusedConv", "sum and activation",
        [images, real(4, 3, 3, 2), held(4), real(2, 4, 4, 4)], smooth, kernel=False,
        expected=lambda x, w, b, z: special.expit(expected(x, w.transpose(0, 2, 3, 1), b, z)),
    )  # fmt: skip
    pool = {"kernel_shape": [2, 2], "strides": [2, 1]}
    codes = fed(np.random.default_rng(4).integers(-99, 99, (2, 6, 5, 3)), np.int8)
    yield Case("NhwcMaxPool", "codes", [codes], pool, types={0: np.int8})


def _products():
    for label, a, b, attributes in [
        ("plain", (3, 4), (4, 5), {}),
        ("alpha", (2, 3, 4), (4, 5), {"alpha": 0.5}),
        ("transA", (2, 4, 3), (2, 4, 5), {"transA": 1}),
        ("transB", (1, 2, 3, 4), (2, 1, 5, 4), {"transB": 1, "alpha": 2.0}),
        ("both", (4, 3), (5, 4), {"transA": 1, "transB": 1}),
        ("vector", (4,), (2, 5, 4), {"transA": 1, "transB": 1}),
    ]:
        yield Case("FusedMatMul", label, [real(*a), real(*b)], attributes)
        yield Case("TransposeMatMul", label, [real(*a), real(*b)], attributes)
    for label, a, b, attributes in [
        ("batch A", (3, 2, 4), (2, 4, 5), {"transBatchA": 1}),
        ("batch A and A", (4, 2, 3), (2, 4, 5), {"transBatchA": 1, "transA": 1}),
        ("batch B", (2, 3, 4), (4, 2, 5), {"transBatchB": 1}),
        ("batch all", (4, 2, 6, 3), (5, 2, 6, 4),
         {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1}),
    ]:  # fmt: skip
        yield Case("FusedMatMul", label, [real(*a), real(*b)], attributes)
    a, b = real(3, 4), real(4, 5)
    for label, attributes in {
        "leaky": {"activation": "LeakyRelu", "activation_alpha": 0.3},
        "elu": {"activation": "Elu", "activation_alpha": 0.7},
        "hard": {"activation": "HardSigmoid", "activation_alpha": 0.3, "activation_beta": 0.4},
        "selu": {"activation": "Selu", "activation_alpha": 1.5, "activation_gamma": 1.1},
        "softplus": {"activation": "Softplus"},
        "tanh": {"activation": "Tanh"},
    }.items():
        given = {"alpha": 0.5, "beta": 2.0, **attributes}
        smooth = label in ("softplus", "tanh")
        yield Case("FusedGemm", label, [a, b, real(5)], given, differentiable=smooth)
    yield Case("FusedGemm", "transposed", [real(4, 3), real(5, 4)],
               {"activation": "Sigmoid", "transA": 1, "transB": 1})  # fmt: skip


def _activations():
    for shape in [(2, 3, 4), (1, 5), (4,)]:
        label, x, b = str(shape), real(*shape, scale=3), real(shape[-1])
        yield Case("Gelu", label, [x])
        yield Case("FastGelu", label, [x], tolerance=1e-4)
        yield Case("FastGelu", f"{label} bias", [x, b], tolerance=1e-4)
        yield Case("QuickGelu", label, [x])
        yield Case("ScaledSiLU", label, [x], {"alpha": 0.7})
        yield Case("ScaledSiLU", f"{label} input", [x, real()])
        yield Case("QuickGelu", f"{label} alpha", [x], {"alpha": 0.8})
        yield Case("BiasGelu", label, [x, b])
    no_kernel = {"kernel": False}
    yield Case(
        "BiasSplitGelu", "halves", [real(2, 3, 8), real(8)],
        expected=lambda x, b: (x + b)[..., :4] * _gelu((x + b)[..., 4:]), **no_kernel,
    )  # fmt: skip
    yield Case("BiasAdd", "sum", [real(2, 3, 4), real(4), real(2, 3, 4)],
               expected=lambda x, b, s: x + b + s, **no_kernel)  # fmt: skip
    yield Case("BiasDropout", "inference", [real(2, 4), real(4), real(2, 4)],
               expected=lambda x, b, r: x + b + r, **no_kernel)  # fmt: skip
    yield Case(
        "BiasDropout", "not training", [real(2, 4), real(4), None, constant(0.5, np.float32),
        constant(False, bool)], expected=lambda x, b, *_: x + b, **no_kernel,
    )  # fmt: skip
    yield Case(
        "BiasSoftmax", "last", [real(2, 3, 4), real(2, 1, 4)],
        {"axis": 2, "is_inner_broadcast": 1},
        expected=lambda x, b: special.softmax(x + b, axis=-1), **no_kernel,
    )  # fmt: skip
    yield Case(
        "BiasSoftmax", "outer", [real(2, 3, 4), real(3, 4)],
        {"axis": 1, "is_inner_broadcast": 0},
        expected=lambda x, b: special.softmax(x + b, axis=(1, 2)), **no_kernel,
    )  # fmt: skip
    yield Case(
        "FusedMatMulActivation", "relu", [real(2, 3), real(4, 3)],
        {"activation": "Tanh", "transB": 1, "alpha": 0.5},
        expected=lambda a, b: np.tanh(a @ b.T * 0.5), **no_kernel,
    )  # fmt: skip
    yield Case(
        "GemmFastGelu", "bias", [real(2, 3), real(3, 4), real(4)],
        expected=lambda a, w, b: _gelu(a @ w + b), tolerance=2e-3, **no_kernel,
    )  # fmt: skip


def _gelu(x):
    return x * special.ndtr(x)


def _normalisations():
    for shape in [(2, 3, 5), (1, 4, 8)]:
        width, label = shape[-1], str(shape)
        x, skip, g, b, bias = real(*shape), real(*shape), real(width), real(width), real(width)
        e = {"epsilon": 0.01}
        yield Case("SkipLayerNormalization", label, [x, skip, g, b], e)
        yield Case("SkipLayerNormalization", f"{label} bias", [x, skip, g, b, bias], e)
        yield Case("SkipLayerNormalization", f"{label} no beta", [x, skip, g, None, bias], e)
        yield Case("SkipLayerNormalization", f"{label} sum", [x, skip, g, b, bias], e,
                   outputs=(True, False, False, True))  # fmt: skip
        yield Case("SkipLayerNormalization", f"{label} of sum", [x, skip, held(width), None, bias], e,
                   outputs=(True, False, False, True), explained_output=3)  # fmt: skip
        yield Case("SkipLayerNormalization", f"{label} one skip", [x, real(*shape[1:]), g, b], e)
        yield Case("SkipLayerNormalization", f"{label} skip 1", [x, real(1, *shape[1:]), g, b], e)
        yield Case("SkipSimplifiedLayerNormalization", label, [x, skip, g], e)
        yield Case("SkipSimplifiedLayerNormalization", f"{label} sum", [x, skip, g, bias], e,
                   outputs=(True, False, False, True))  # fmt: skip
        yield Case("SimplifiedLayerNormalization", label, [x, g], {**e, "stash_type": 1}, domain="")
        yield Case("SimplifiedLayerNormalization", f"{label} axis", [x, real(*shape[1:])],
                   {**e, "axis": 1}, domain="")  # fmt: skip
    gated = [real(2, 3, 8), real(4), real(2, 3, 8)]
    for kind in ("silu", "swish", "sigmoid"):
        yield Case("GatedRMSNorm", kind, gated, {"activation": kind, "epsilon": 0.01})
    ids, segments = fed([[1, 4, 0], [2, 2, 5]]), fed([[0, 1, 1], [0, 0, 1]])
    mask, positions = fed([[1, 1, 0], [1, 1, 1]]), fed([[2, 0, 1], [0, 1, 3]])
    w, p, s, g, b = real(6, 4), real(5, 4), real(2, 4), real(4), real(4)
    e = {"epsilon": 0.01}
    yield Case(
        "EmbedLayerNormalization",
        "all",
        [ids, segments, w, p, s, g, b, mask],
        e,
        (True, True),
        {1: np.int32},
    )
    yield Case(
        "EmbedLayerNormalization",
        "no mask",
        [ids, segments, w, p, s, g, b],
        e,
        (True, True),
        {1: np.int32},
    )
    yield Case(
        "EmbedLayerNormalization",
        "no segments",
        [ids, None, w, p, None, g, b],
        e,
        (True, True),
        {1: np.int32},
    )
    yield Case("EmbedLayerNormalization", "positions", [ids, segments, w, p, s, g, b, mask, positions], e,
               (True, True, True), {1: np.int32})  # fmt: skip
    yield Case("EmbedLayerNormalization", "sum", [ids, segments, w, p, s, held(4), held(4)],
               {**e, "mask_index_type": 0}, (True, False, True), explained_output=2)  # fmt: skip


def _group_norm(x, gamma, beta, groups, epsilon, activation=0, last=True):
    x = x if last else np.moveaxis(x, 1, -1)
    n, h, w, c = x.shape
    rows = x.reshape(n, h * w, groups, c // groups)
    mean, variance = rows.mean((1, 3), keepdims=True), rows.var((1, 3), keepdims=True)
    y = ((rows - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta
    y = y * special.expit(y) if activation else y
    return y if last else np.moveaxis(y, -1, 1)


def _groups():
    x, g, b = real(2, 3, 4, 6), real(6), real(6)
    for label, last, activation in [("plain", 1, 0), ("silu", 1, 1), ("first", 0, 1)]:
        images = x if last else real(2, 6, 3, 4)
        given = {"groups": 3, "epsilon": 0.01, "activation": activation, "channels_last": last}
        yield Case(
            "GroupNorm", label, [images, g, b], given, kernel=False,
            expected=lambda x, g, b, a=activation, f=last: _group_norm(x, g, b, 3, 0.01, a, f),
        )  # fmt: skip
    given = {"groups": 2, "epsilon": 0.01, "activation": 0}
    for label, skip in [("full", (2, 3, 4, 6)), ("thin", (2, 1, 1, 6)), ("flat", (2, 6))]:
        yield Case(
            "SkipGroupNorm", label, [x, g, b, real(*skip), real(6)], given, (True, True), kernel=False,
            expected=lambda x, g, b, s, t: _group_norm(
                x + (s[:, None, None] if s.ndim == 2 else s) + t, g, b, 2, 0.01
            ),
        )  # fmt: skip


CASES = [*_convolutions(), *_products(), *_activations(), *_normalisations(), *_groups()]

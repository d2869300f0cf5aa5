"""Operators that carry no gradient: their outputs are integers, booleans or shapes, or piecewise constant."""

from __future__ import annotations

from igonnx.autodiff.registry import nondifferentiable

# Facts about a tensor, not functions of its values.
nondifferentiable("Shape", "Size", "ConstantOfShape", "Constant", "EyeLike")
# Integer or boolean results.
nondifferentiable(
    "ArgMax", "ArgMin", "NonZero", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "Not", "And", "Or", "Xor", "IsNaN", "IsInf", "NonMaxSuppression", "Hardmax",
)  # fmt: skip
# Tables of numbers that follow from sizes and settings.
nondifferentiable("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix")
# Text and files.
nondifferentiable(
    "ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
)  # fmt: skip
# Piecewise constant: the derivative is zero wherever it exists, as in PyTorch.
nondifferentiable("Floor", "Ceil", "Round", "Sign")
# Noise that does not depend on its input's values.
nondifferentiable(
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)

"""Operators outside the standard that no gradient crosses: those that carry none, and those refused with a reason."""

from __future__ import annotations

from igonnx.autodiff.registry import nondifferentiable, refuse

CLASSICAL, MICROSOFT, BLOCKED = "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"
PREVIEW, TRAINING = "ai.onnx.preview", "ai.onnx.preview.training"

# Categories, thresholds and dictionaries: nothing real goes in, or a step comes out.
nondifferentiable(
    "Binarizer", "CastMap", "CategoryMapper", "DictVectorizer", "LabelEncoder", "OneHotEncoder",
    domain=CLASSICAL,
)  # fmt: skip
# Whole generations of text, and what serves them.
nondifferentiable(
    "BeamSearch", "BifurcationDetector", "GreedySearch", "MurmurHash3", "NGramRepeatBlock", "Sampling", "Tokenizer",
    "WhisperBeamSearch",
    domain=MICROSOFT,
)  # fmt: skip

refuse(
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    domain=CLASSICAL,
    because="trees are piecewise constant, their derivative is zero wherever it exists and would explain nothing; "
    "use a perturbation method instead: feature ablation or Shapley value sampling",
)
refuse(
    *("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
    *("ReorderInput", "ReorderOutput", "Upsample"),
    domain=BLOCKED,
    because="the model was optimised for one processor's layout of channels in blocks; save it with "
    "graph_optimization_level ORT_ENABLE_EXTENDED or lower, or explain the model before optimisation",
)
refuse(
    *("Adagrad", "Adam", "Gradient", "Momentum"),
    domain=TRAINING,
    because="it is a step in the training of a network; export the trained network instead",
)
refuse(
    "FlexAttention",
    domain=PREVIEW,
    because="a preview whose definition may still change; export the model with Attention (opset 23 or later)",
)
refuse(
    "MoE",
    "QMoE",
    domain=MICROSOFT,
    because="a mixture of experts in one operator has no gradient here; export the experts as operators of their own",
)
refuse(
    *("DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "PagedAttention"),
    *("PackedAttention", "PackedMultiHeadAttention", "SparseAttention", "LongformerAttention"),
    domain=MICROSOFT,
    because="this form of attention serves the generation of tokens one by one, or packs examples together; "
    "explain the model before it was optimised for that",
)

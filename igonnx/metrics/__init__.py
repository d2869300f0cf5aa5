"""How good an attribution is, measured on the model itself.

Each measure is a function of an `Explainer`, its inputs, and an attribution or the method that gives one; what it
returns has a `score` per example, float64 [N]. `completeness` and `pointing_game` need no model.
"""

from igonnx.metrics.adding_up import completeness
from igonnx.metrics.correlations import (
    FaithfulnessCorrelation,
    SensitivityN,
    faithfulness_correlation,
    sensitivity_n,
)
from igonnx.metrics.insertion import InsertionDeletion, insertion_deletion
from igonnx.metrics.localisation import PointingGame, pointing_game
from igonnx.metrics.perturbations import GaussianNoise, Perturbation, SquareRemoval
from igonnx.metrics.randomisation import WeightRandomisation, weight_randomisation
from igonnx.metrics.similarity import cosine_similarity, rank_correlation, structural_similarity
from igonnx.metrics.stability import MaxSensitivity, max_sensitivity
from igonnx.metrics.subject import PROBABILITY
from igonnx.metrics.unfaithfulness import Infidelity, infidelity
from igonnx.metrics.weights import Layer, randomised, weighted_layers

__all__ = [
    "PROBABILITY",
    "FaithfulnessCorrelation",
    "GaussianNoise",
    "Infidelity",
    "InsertionDeletion",
    "Layer",
    "MaxSensitivity",
    "Perturbation",
    "PointingGame",
    "SensitivityN",
    "SquareRemoval",
    "WeightRandomisation",
    "completeness",
    "cosine_similarity",
    "faithfulness_correlation",
    "infidelity",
    "insertion_deletion",
    "max_sensitivity",
    "pointing_game",
    "randomised",
    "rank_correlation",
    "sensitivity_n",
    "structural_similarity",
    "weight_randomisation",
    "weighted_layers",
]

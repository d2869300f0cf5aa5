"""Layer-wise relevance propagation through quantised networks: in codes or between them, it sees the same layers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from quantiser import DATA, inputs_of, quantised

import igonnx

# How well relevance of the quantised and the original network agree; by the epsilon rule, denominators near zero move.
AGREEMENT = {
    ("resnet_script", "QDQ", "z_plus"): 0.99,
    ("resnet_script", "QOperator", "z_plus"): 0.99,
    ("resnet_script", "dynamic", "z_plus"): 0.99,
    ("vit_script", "QOperator per channel", "epsilon"): 0.7,
    ("vit_script", "dynamic", "epsilon"): 0.9,
    ("vit_script", "4 bits", "epsilon"): 0.95,
    ("vit_script", "4 bits", "z_plus"): 0.85,
}


@pytest.mark.parametrize(("network", "how", "rule"), AGREEMENT)
def test_quantised_network(network: str, how: str, rule: str, tmp_path: Path) -> None:
    inputs = inputs_of(network)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*examples of a batch influence each other")
        explainer = igonnx.Explainer(quantised(network, how, tmp_path))
        found = explainer.lrp(inputs, target=1, rule=rule).values
    original = igonnx.Explainer(DATA / f"{network}.onnx").lrp(inputs, target=1, rule=rule).values
    cosine = np.sum(found * original) / np.linalg.norm(found) / np.linalg.norm(original)
    assert cosine > AGREEMENT[network, how, rule]

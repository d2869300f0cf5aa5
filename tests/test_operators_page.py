"""docs/operators.md says what the registries say; `make docs` writes it anew."""

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from igonnx.autodiff.operator_table import operator_page, operator_table
from igonnx.autodiff.refused_forms import refused_forms
from igonnx.autodiff.registry import registered
from igonnx.autodiff.rules.pooling import average_pool

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"


def test_the_page_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    made_with = re.search(r"from onnx (\S+) ", page)[1]
    if made_with != onnx.__version__:
        pytest.skip(f"the page was made with onnx {made_with}, this is onnx {onnx.__version__}")
    assert operator_page() == page, "run `make docs`"


def test_every_operator_is_listed_once():
    table = {(entry.domain, entry.name): entry for entry in operator_table()}
    assert len(table) == len(operator_table())
    assert table["", "Relu"].how == "rule"
    assert table["", "LSTM"].how == "lowering"
    assert table["", "MeanVarianceNormalization"].how == "function body"
    assert table["", "QLinearConv"].how == "straight-through"
    assert table["", "Shape"].how == "no derivative"
    assert table["ai.onnx.ml", "TreeEnsembleRegressor"].how == "refused"
    assert table["", "Upsample"].how == "upgraded"
    assert table["com.microsoft", "FusedConv"].version == 0


def test_nothing_of_the_standard_is_missing_by_oversight():
    missing = {(e.domain, e.name) for e in operator_table() if e.how == "missing"}
    assert not {name for domain, name in missing if domain == ""}


def test_refused_forms_are_found_in_what_a_rule_calls():
    forms = refused_forms(average_pool)
    assert any(form.startswith("*auto_pad* with strides") for form in forms)
    assert refused_forms(registered()["", "Relu"]) == []


def test_the_page_is_not_written_into_an_option(tmp_path):
    command = [sys.executable, "-m", "igonnx.autodiff.operator_table", "--help"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "usage" in said
    assert not list(tmp_path.iterdir())

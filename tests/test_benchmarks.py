"""The benchmarks' own machinery, on a model of one layer: no times are judged here."""

from __future__ import annotations

import importlib
import json
import operator
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # behind site-packages: the installed igonnx is the one to test

from benchmarks.comparison import Setup, compare  # noqa: E402
from benchmarks.entries import CAPTUM, FORWARD, IGONNX, Entry  # noqa: E402
from benchmarks.materials import FORMAT, Material, nodes_and_weights  # noqa: E402
from benchmarks.probe import PARTS  # noqa: E402
from benchmarks.process import WorkerProcess  # noqa: E402
from benchmarks.report import BEGIN, END, markdown, replaced  # noqa: E402
from benchmarks.summary import in_forwards, median_ratio, median_seconds  # noqa: E402
from benchmarks.tables import failures, not_run, tables  # noqa: E402

STEPS = 6
TARGET = 1


@pytest.fixture
def material(tmp_path):
    """logits = tanh(x) W, and its Integrated Gradients from zero by Gauss-Legendre."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4)).astype(np.float32)
    w = rng.standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Tanh", ["x"], ["t"]),
            helper.make_node("MatMul", ["t", "w"], ["logits"]),
        ],
        "tanh_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    alpha, weights = nodes_and_weights(STEPS)
    points = alpha[:, None] * x.astype(np.float64)
    gradients = (1 - np.tanh(points) ** 2) * w[:, TARGET]
    made = Material(tmp_path, "vit-s16", 224, STEPS)
    onnx.save(model, made.onnx_path)
    made.weights_path.write_bytes(b"")
    made.about_path.write_text(json.dumps({"format": FORMAT, "input": "x", "output": "logits"}))
    np.savez(
        made.answer_path,
        x=x,
        target=TARGET,
        classes=3,
        alpha=alpha,
        weights=weights,
        scores=(np.tanh(points) @ w)[:, TARGET],
        attribution=weights @ gradients[None] * x,
    )
    return made


@pytest.fixture
def setup(tmp_path):
    return Setup(
        pythons={"main": sys.executable, "training": str(tmp_path / "missing")},
        threads=1,
        rounds=2,
        trials=1,
        log=tmp_path / "workers.log",
        root=ROOT,
        say=lambda text: None,
    )


def test_entries_are_checked_and_timed_and_a_failing_one_stops_no_other(setup, material):
    assert material.is_ready
    entries = [
        Entry(FORWARD, "onnxruntime_files:ForwardPasses"),
        Entry("broken", "onnxruntime_files:Missing"),
        Entry("elsewhere", "training_gradients:TrainingGradients", environment="training"),
        Entry("igonnx.gradient in onnxruntime", "onnxruntime_files:PortableGradients"),
        Entry(IGONNX, "igonnx_calls:IntegratedGradients"),
    ]
    found = compare(setup, material, entries)["entries"]
    assert "Missing" in found["broken"]["failure"]
    assert "make bench" in found["elsewhere"]["failure"]
    for name in (FORWARD, "igonnx.gradient in onnxruntime", IGONNX):
        assert len(found[name]["seconds"]) == setup.rounds
        assert 0 <= found[name]["error"] < 1e-5


def test_a_wrong_result_is_not_timed(setup, material):
    answer = dict(np.load(material.answer_path))
    answer["attribution"] = answer["attribution"] * 1.1
    np.savez(material.answer_path, **answer)
    entry = Entry(IGONNX, "igonnx_calls:IntegratedGradients")
    found = compare(setup, material, [entry])["entries"][IGONNX]
    assert found["failure"].startswith("wrong result: off by 0.091")
    assert "seconds" not in found


ENTRIES = {
    FORWARD: {"setting": 4, "error": 1e-6, "seconds": [1.0, 2.0, 1.0]},
    IGONNX: {"setting": 0, "error": 1e-4, "seconds": [3.0, 4.0, 2.0]},
    CAPTUM: {"setting": 10, "error": 1e-4, "seconds": [9.0, 8.0, 9.0]},
    "onnx-ad: gradients": {"failure": "KeyError: 'Clip'"},
}
RESULTS = {
    "settings": {"threads": 2, "rounds": 3, "steps": 50},
    "machine": {
        "processor": "Abacus",
        "cores": 2,
        "instruction_sets": ["AVX2"],
        "memory_gib": 8,
        "system": "Linux x86_64",
        "python": "3.11",
    },
    "versions": {"onnxruntime": "1.31.1"},
    "comparison": {
        "resnet-50": {"entries": ENTRIES, "idle_share": 0.001, "foreign_share": 0.02},
        "bert-base": {"failure": "cannot be built: no PyTorch"},
    },
    "memory": {
        "resnet-50": {"igonnx": {"50": 2 * 10**8, "1000": 3 * 10**8}, "captum": {"50": "out"}}
    },
    "first": {"resnet-50": {"igonnx": {"import": 0.25, "run": 0.5}, "captum": {"failure": "out"}}},
    "sizes": {"112": {"entries": ENTRIES}},
    "steps": {"seconds": {"50": [0.5, 0.7, 0.6]}},
    "callers": {"seconds": {"1": [4.0], "8": [2.0]}},
}


def test_ratios_are_formed_within_rounds():
    assert median_seconds(ENTRIES, IGONNX) == 3
    assert in_forwards(ENTRIES, IGONNX) == 2  # of 3, 2 and 2; the medians' ratio would be 3
    assert median_ratio(ENTRIES, CAPTUM, IGONNX) == 3
    assert median_ratio(ENTRIES, CAPTUM, "onnx-ad: gradients") is None


def test_every_part_has_its_table_and_every_failure_its_line():
    by_heading = {table.heading: table for table in tables(RESULTS)}
    assert by_heading["In units of 50 forward passes"].rows[1] == [IGONNX, "2 (2 to 3)", "-"]
    assert by_heading["Times as long as igonnx"].rows == [[CAPTUM, "3", "-"]]
    assert by_heading["Memory"].rows == [["resnet-50", "200", "300", "1.5", "failed"]]
    assert by_heading["Concurrent callers"].rows == [["1", "2"], ["8", "4"]]
    assert by_heading["Number of steps"].rows == [["50", "0.6", "12"]]
    assert by_heading["Time to the first explanation"].rows[0][-2:] == ["0.75", "failed"]
    assert failures(RESULTS)[:2] == [
        "resnet-50, onnx-ad: gradients: KeyError: 'Clip'",
        "bert-base: cannot be built: no PyTorch",
    ]


@pytest.mark.parametrize("place", [place for places in PARTS.values() for place in places])
def test_what_a_first_call_is_split_into_exists(place):
    module, path = place
    assert callable(operator.attrgetter(path)(importlib.import_module(module)))


def test_the_marked_section_alone_is_replaced():
    page = "# Title\n\nFirst.\n\n## More\n\nText.\n"
    once = replaced(page, "old")
    assert once == f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nFirst.\n\n## More\n\nText.\n"
    assert replaced(once, "new") == once.replace("old", "new")


def test_the_section_describes_the_machine_and_what_failed():
    section = markdown(RESULTS)
    assert "Abacus, 2 cores (AVX2), 8 GiB of memory, Linux x86_64; onnxruntime 1.31.1" in section
    assert "- bert-base: cannot be built: no PyTorch" in section
    assert "at most 2.0% of the processors" in section


def test_workers_neither_use_nor_leave_what_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("IGONNX_CACHE_DIR", str(tmp_path))
    code = "import json, os; input(); print(json.dumps(os.environ['IGONNX_CACHE_DIR']))"
    worker = WorkerProcess([sys.executable, "-uc", code], log=tmp_path / "log", folder=tmp_path)
    assert worker.ask({}, timeout=60) == "off"
    worker.stop()


def test_what_was_not_run_is_said():
    """Entries that ran on some models are named with the others; parts are named once."""
    some = {**RESULTS["comparison"]["resnet-50"]["entries"], "onnx-ad: gradients": {}}
    few = {name: some[name] for name in (FORWARD, IGONNX)}
    partial = {"comparison": {"resnet-50": {"entries": some}, "bert-base": {"entries": few}}}
    parts, nowhere, on_bert = not_run({**partial, "steps": {}, "memory": {}, "first": {}})
    assert parts == "Not run: masked inputs, image sizes, concurrent callers."
    assert nowhere.startswith("Not run on any model: igonnx: gradients, native engine; ")
    assert on_bert == f"Not run on bert-base: {CAPTUM}; onnx-ad: gradients."
    assert nowhere in markdown(RESULTS | partial)

"""The application on Ray Serve, asked over HTTP; and the example that shows it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from igonnx import Explainer
from igonnx.errors import InputError, ModelError

ray = pytest.importorskip("ray", reason="igonnx[ray] is not installed")
serve = pytest.importorskip("ray.serve", reason="igonnx[ray] is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve.py"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def address(digit_model):
    from igonnx.serving.ray_app import application

    port = free_port()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(application(digit_model, min_replicas=1, max_replicas=2))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def ask(url, body=None):
    """Status and answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_answers_are_those_of_the_explainer(address, digit_model, digit_images):
    expected = Explainer(digit_model).integrated_gradients(digit_images[:12], steps=16)
    parameters = {"steps": 16}

    def explain(image):
        body = {"instances": [image.tolist()], "parameters": parameters}
        return ask(f"{address}/v1/models/digits:explain", body)

    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(explain, digit_images[:12]))
    for index, (status, answer) in enumerate(answers):
        assert status == 200, answer
        [one] = answer["explanations"]
        np.testing.assert_allclose(one["attribution"], expected.values[index], rtol=1e-3, atol=1e-4)
        assert one["target"] == expected.target[index][0]
        assert one["score"] == pytest.approx(expected.scores[index], rel=1e-4)
    status, answer = ask(
        f"{address}/v1/models/digits:predict", {"instances": digit_images[:2].tolist()}
    )
    assert status == 200
    predicted = Explainer(digit_model).predict(digit_images[:2])["logits"]
    np.testing.assert_allclose(answer["predictions"], predicted, rtol=1e-4, atol=1e-4)


def test_what_is_refused(address, digit_images):
    explain = f"{address}/v1/models/digits:explain"
    good = {"instances": digit_images[:1].tolist()}
    assert ask(f"{address}/v1/models") == (200, {"models": ["digits"]})
    assert ask(f"{address}/v1/models/digits") == (200, {"name": "digits", "ready": True})
    for url, body, status in (
        (f"{address}/v1/models/cats:explain", good, 404),
        (explain, None, 405),
        (explain, b"{", 400),
        (explain, [1], 400),
        (explain, {**good, "parameters": {"steps": 10**9}}, None),
        (explain, {"instances": [[1.0]]}, 400),
        (explain, b"[" * (17 << 20), 413),
    ):
        found, answer = ask(url, body)
        assert found == status or (status is None and 400 <= found < 500), answer
        assert set(answer) == {"error"}
    assert ask(explain, good)[0] == 200


def test_wrong_settings_are_told_before_anything_is_served(digit_model, tmp_path):
    from igonnx.serving.ray_app import application, build

    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        application(tmp_path / "broken.onnx")
    with pytest.raises(InputError, match="max_replicas is 1"):
        application(digit_model, min_replicas=2, max_replicas=1)
    with pytest.raises(InputError, match="'model' is missing"):
        build({})
    with pytest.raises(InputError, match="'colour' is unknown"):
        build({"model": str(digit_model), "colour": "red"})
    with pytest.raises(InputError, match="cpus is 'many'"):
        build({"model": str(digit_model), "cpus": "many"})
    assert build({"model": str(digit_model), "max_replicas": "3", "cpus": "0.5"}) is not None


def test_the_example_runs():
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--port", str(free_port()), "--clients", "4"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d+) of 16 digits are read right", done.stdout)
    assert found
    assert int(found[1]) >= 14
    assert "largest completeness error" in done.stdout

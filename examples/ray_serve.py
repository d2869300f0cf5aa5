"""Serve explanations with Ray Serve, and ask for one.

    pip install igonnx[cpu,ray]
    python examples/ray_serve.py

A small network that reads handwritten digits is served on this machine, by one replica or, while many ask, by two. The
same application runs on a cluster: `serve run igonnx.serving.ray_app:build model=model.onnx` where Ray is running.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import ray
from ray import serve

from igonnx.models import digits
from igonnx.serving.ray_app import application

SHADES = " .:-=+*#%@"


def ask(address: str, image: np.ndarray) -> dict:
    """The explanation of one digit [1, 8, 8]."""
    body = {"instances": [image.tolist()], "parameters": {"steps": 32}}
    request = urllib.request.Request(
        f"{address}/v1/models/digits:explain",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["explanations"][0]


def drawn(values: np.ndarray) -> list[str]:
    """Rows of characters, the darker the more a pixel speaks for the digit."""
    strength = np.clip(values / max(np.abs(values).max(), 1e-9), 0, 1)
    return ["".join(SHADES[round(9 * float(one))] * 2 for one in row) for row in strength]


def main() -> None:
    """Serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    images, labels = digits.test_set()
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "digits.onnx"
        onnx.save(digits.load(), model)
        serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
        serve.run(application(model, max_replicas=2))
        address = f"http://127.0.0.1:{arguments.port}"
        with ThreadPoolExecutor(arguments.clients) as clients:
            answers = list(clients.map(lambda image: ask(address, image), images[:16]))
        serve.shutdown()
    ray.shutdown()
    right = sum(one["target"] == label for one, label in zip(answers, labels, strict=False))
    print(f"{right} of {len(answers)} digits are read right; what speaks for the first:")
    for left, row in zip(
        drawn(images[0, 0]), drawn(np.array(answers[0]["attribution"])[0]), strict=True
    ):
        print(f"{left}    {row}")
    error = max(one["completeness_error"] for one in answers)
    print(f"largest completeness error {error:.2%}")


if __name__ == "__main__":
    main()

"""The files under deploy/ fit the command that they run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def options() -> set[str]:
    """All options of `igonnx serve`."""
    import typer

    from igonnx.cli.app import app

    commands: Any = typer.main.get_command(app)
    return {flag for parameter in commands.commands["serve"].params for flag in parameter.opts}


@pytest.fixture
def service() -> Any:
    import yaml

    return yaml.safe_load((DEPLOY / "inference_service.yaml").read_text())


def test_the_manifest_starts_the_server_with_options_that_it_has(
    service: Any, options: set[str]
) -> None:
    (container,) = service["spec"]["predictor"]["containers"]
    model, *flags = container["args"]
    assert model == "/mnt/models"
    assert {flag.partition("=")[0] for flag in flags} <= options
    given = dict(flag[2:].split("=") for flag in flags)
    assert given["host"] == "0.0.0.0"
    assert [port["containerPort"] for port in container["ports"]] == [int(given["port"])]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == int(given["port"])
    predictor = service["spec"]["predictor"]
    # What was accepted may be finished: by the server first, then the pod, and nobody gives up before.
    assert float(given["grace"]) < predictor["terminationGracePeriodSeconds"]
    assert float(given["max-seconds"]) < predictor["timeout"]


def test_the_manifest_is_an_inference_service(service: Any) -> None:
    # In a process of its own: KServe's messages and tritonclient's have the same names.
    code = (
        "import json; from kserve import V1beta1InferenceServiceSpec as S, V1beta1PredictorSpec as P\n"
        "print(json.dumps([list(one.attribute_map.values()) for one in (S, P)]))"
    )
    known = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    of_service, of_predictor = json.loads(known.stdout)
    assert (service["apiVersion"], service["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )
    assert set(service["spec"]) <= set(of_service)
    assert set(service["spec"]["predictor"]) <= set(of_predictor)


def test_the_image_starts_the_server(options: set[str]) -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert re.findall(r'"([^"]+)"', entry) == ["igonnx", "serve"]
    command = next(line for line in lines if line.startswith("CMD"))
    flags = [word for word in re.findall(r'"([^"]+)"', command) if word.startswith("--")]
    assert set(flags) <= options
    install = next(line for line in lines if "pip install" in line)
    assert ".[cpu,serve]" in shlex.split(install.partition("&&")[2])
    assert any(line.startswith("USER ") and line != "USER root" for line in lines)

"""Servers for the tests, and the one reason why they are skipped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from igonnx.models import digits

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from serving_process import ServingProcess  # noqa: E402

MISSING = [name for name in ("kserve", "tritonclient", "prometheus_client") if not find_spec(name)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MISSING:
        reason = f"{', '.join(MISSING)} not installed: `make serving` runs these in an environment of their own"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def digits_file() -> Path:
    return Path(str(resources.files("igonnx.models"))) / "digits.onnx"


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    return digits.test_set()[0]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, digits_file: Path) -> Iterator[ServingProcess]:
    """A server of two models, one of them with labels; shared by tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "models" / "second").mkdir(parents=True)
    (folder / "models" / "digits.onnx").write_bytes(digits_file.read_bytes())
    (folder / "models" / "second" / "model.onnx").write_bytes(digits_file.read_bytes())
    labels = folder / "labels.txt"
    labels.write_text(
        "\n".join(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    )
    options = (
        "--labels",
        str(labels),
        "--max-body",
        "2000000",
        "--max-pixels",
        "1000000",
        "--grey",
    )
    process = ServingProcess(folder / "models", folder / "log.jsonl", options)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def explained(images: NDArray[np.float32]) -> Any:
    """What the library itself says of the first digits."""
    import igonnx

    return igonnx.Explainer(digits.load()).integrated_gradients(images[:4])

"""Inputs of all kinds for a small model, and jobs that explain them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from igonnx.images import Preprocessing
from igonnx.model import Model
from igonnx.models import digits
from igonnx.scale.job import Job, hash_of_model


@pytest.fixture(scope="session")
def digit_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    onnx.save(digits.load(), path)
    return path


@pytest.fixture(scope="session")
def digit_images() -> np.ndarray:
    """[200, 1, 8, 8] in [0, 1], in steps of a 255th: as the pixels of a file are."""
    images, _ = digits.test_set()
    return (np.rint(images * 255) / 255).astype(np.float32)


@pytest.fixture(scope="session")
def write_images(digit_images) -> Callable[[Path, int], None]:
    """Writes the first digits into a folder, as PNG files 000.png, 001.png..."""

    def write(folder: Path, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(digit_images[:count]):
            pixels = np.rint(image[0] * 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03}.png")

    return write


@pytest.fixture
def job(digit_model, tmp_path) -> Job:
    """Explains digits in `tmp_path` by 8 steps of Integrated Gradients."""
    return Job(
        model=digit_model,
        model_sha256=hash_of_model(digit_model, Model.load(digit_model)),
        method="integrated_gradients",
        root=tmp_path,
        options={"steps": 8},
        running={"threads": 1, "batch_size": 8},
        preprocessing=Preprocessing((8, 8), channels=1),
        drawn=("image", "NCHW"),
    )

"""An attribution and the image it explains; what these tests share is importable (importlib mode adds no folder)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def values() -> NDArray[Any]:
    return np.random.default_rng(0).normal(size=(3, 20, 30))


@pytest.fixture
def image() -> NDArray[Any]:
    return np.random.default_rng(1).random((20, 30, 3))

"""Makes the case tables and harnesses beside this file importable (importlib mode adds no folder to the path)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The tests run side by side; threads of NumPy's matrix products would only stand in each other's way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

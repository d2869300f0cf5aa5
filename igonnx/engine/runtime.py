"""The ONNX Runtime of this process: finding it, opening sessions in it, and saying in one line what it refuses."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import EngineError

__all__ = ["MISSING", "Providers", "RuntimeSession", "installed", "onnxruntime_module"]

Providers: TypeAlias = "Sequence[str | tuple[str, Mapping[str, Any]]] | None"

MISSING = "no onnxruntime is installed: pip install 'igonnx[cpu]' or 'igonnx[gpu]'"


def installed() -> bool:
    """Whether some wheel of ONNX Runtime can be imported; does not import it."""
    return importlib.util.find_spec("onnxruntime") is not None


def onnxruntime_module() -> ModuleType:
    """The onnxruntime module, or `EngineError` with the way to install one."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(MISSING) from error
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be imported: {' '.join(str(error).split())}") from error
    return onnxruntime


class RuntimeSession:
    """One model in onnxruntime's own Python session, with errors in one line that name the model."""

    def __init__(
        self,
        model: bytes,
        *,
        name: str,
        folder: Path | None = None,
        providers: Providers = None,
        threads: int | None = None,
        plugin: str | None = None,
    ) -> None:
        """Open `model`; `folder` is where its external data lies, `plugin` a library of custom operators."""
        runtime = onnxruntime_module()
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, not also printed
        options.intra_op_num_threads = threads or 0
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder)
            )
        if plugin is not None:
            options.register_custom_ops_library(plugin)
        self._name = name
        try:
            self._session = runtime.InferenceSession(
                model, options, providers=list(providers or ["CPUExecutionProvider"])
            )
        except Exception as error:  # the runtime's errors have no common base class
            raise EngineError(f"{name}: the runtime cannot load it: {one_line(error)}") from error
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; outputs by name."""
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:
            shapes = ", ".join(f"{key} {list(np.shape(value))}" for key, value in feeds.items())
            raise EngineError(f"{self._name}: the runtime failed on {shapes}: {one_line(error)}") from error
        return dict(zip(self.output_names, results, strict=True))


def one_line(error: BaseException) -> str:
    """The message of `error` without line breaks."""
    return " ".join(str(error).split())

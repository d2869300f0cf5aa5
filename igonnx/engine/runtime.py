"""The ONNX Runtime of this process: finding it, opening sessions in it, and saying in one line what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.errors import NO_RUNTIME, EngineError, InputError, ModelError

__all__ = [
    "CPU",
    "Declared",
    "Providers",
    "RuntimeSession",
    "on_cpu",
    "one_line",
    "onnxruntime_module",
    "requested_providers",
    "serialized",
]

CPU = "CPUExecutionProvider"

Providers: TypeAlias = "str | Sequence[str | tuple[str, Mapping[str, Any]]] | None"


def onnxruntime_module() -> ModuleType:
    """The onnxruntime module, or `EngineError` with the way to install one."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(NO_RUNTIME) from error
    except ImportError as error:
        raise EngineError(
            f"onnxruntime cannot be imported: {' '.join(str(error).split())}"
        ) from error
    return cast("ModuleType", onnxruntime)


def requested_providers(providers: Providers) -> list[tuple[str, dict[str, str]]]:
    """Names and options of `providers` (None: the CPU alone); an `EngineError` for one this runtime lacks."""
    runtime = onnxruntime_module()
    available = runtime.get_available_providers()
    result = []
    for provider in [providers] if isinstance(providers, str) else providers or [CPU]:
        pair = (provider, {}) if isinstance(provider, str) else provider
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Mapping):
            raise InputError(
                f"provider is {provider!r}; expected a name such as {CPU!r}, or (name, {{option: value}})"
            )
        name, options = pair
        if name not in available:
            # Left to itself, the runtime would warn and fall back to the CPU.
            raise EngineError(
                f"onnxruntime {runtime.__version__} has no {name!r}; this build has {', '.join(available)}"
            )
        result.append((name, {key: str(value) for key, value in options.items()}))
    return result


def on_cpu(providers: Providers) -> bool:
    """Whether nothing but the CPU runs the model: the plugin's operators would drag data there from any device."""
    return all(name == CPU for name, _ in requested_providers(providers))


def serialized(model: ir.Model, name: str) -> bytes:
    """The graph as bytes; a `ModelError` where it passes protobuf's limit of 2 GB."""
    try:
        return ir.to_proto(model).SerializeToString()
    except ValueError as error:
        raise ModelError(
            f"{name}: its graph is over 2 GB with the weights inside: save the model with external data first"
        ) from error


class Declared(NamedTuple):
    """An input or output as the runtime has it, which infers more of shapes than the file may say."""

    name: str
    type: str  # such as "tensor(float)"
    shape: tuple[int | str | None, ...]  # an axis is an integer, a symbol's name, or None


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
    ) -> None:
        """Open `model`; `folder` is where its external data lies."""
        runtime = onnxruntime_module()
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, not also printed
        options.intra_op_num_threads = threads or 0
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder)
            )
        self.name = name
        chosen = requested_providers(providers)
        try:
            self._session = runtime.InferenceSession(model, options, providers=chosen)
        except Exception as error:  # the runtime's errors have no common base class
            raise EngineError(f"{name}: the runtime cannot load it: {one_line(error)}") from error
        refused = {provider for provider, _ in chosen} - set(self._session.get_providers())
        if refused:  # it has said so on its own terms, and gone on with the CPU
            raise EngineError(
                f"{name}: onnxruntime could not start {', '.join(sorted(refused))}: check its options and libraries"
            )
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]

    def declared(
        self, which: Literal["inputs", "overridable_initializers", "outputs"]
    ) -> list[Declared]:
        """Inputs that must be fed, inputs that have a default, or outputs."""
        values = getattr(self._session, f"get_{which}")()
        return [Declared(value.name, value.type, tuple(value.shape)) for value in values]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; outputs by name."""
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:
            shapes = ", ".join(f"{key} {list(np.shape(value))}" for key, value in feeds.items())
            raise EngineError(
                f"{self.name}: the runtime failed on {shapes}: {one_line(error)}"
            ) from error
        return dict(zip(self.output_names, results, strict=True))


def one_line(error: BaseException) -> str:
    """The message of `error` without line breaks."""
    return " ".join(str(error).split())

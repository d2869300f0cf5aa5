# Generated from the compiled module: `python tests/test_stub.py` writes it anew.
"""
The native engine, on the ONNX Runtime that this process uses already.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
__all__: list[str] = ['Session', 'is_attached', 'runtime_version']
class Session:
    """
    An explanation graph, loaded. Safe to share by threads.
    """
    def __init__(self, model: bytes, external_data_folder: str | None, threads: typing.SupportsInt | typing.SupportsIndex, providers: collections.abc.Sequence[tuple[str, collections.abc.Mapping[str, str]]], log_name: str) -> None:
        """
        Load a serialised graph; `threads` 0 leaves their number to the runtime.
        """
    def run_plan(self, explained: collections.abc.Sequence[str], x: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], baseline: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], fixed_names: collections.abc.Sequence[str], fixed: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], batched: collections.abc.Sequence[bool], cotangent: numpy.typing.NDArray[typing.Any], row: numpy.typing.NDArray[typing.Any], alpha: numpy.typing.NDArray[typing.Any], weight: numpy.typing.NDArray[typing.Any], batch_size: typing.SupportsInt | typing.SupportsIndex, pad: bool, progress: collections.abc.Callable[[int, int], None] | None) -> tuple[list[numpy.typing.NDArray[numpy.float64]], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
        """
        Return the weighted gradient per explained tensor [R, ...], the scores [B] and the slopes [B].
        """
    @property
    def input_names(self) -> list[str]:
        ...
    @property
    def output_names(self) -> list[str]:
        ...
def is_attached() -> bool:
    """
    Whether an ONNX Runtime has registered this library.
    """
def runtime_version() -> str:
    """
    The version of the attached ONNX Runtime; EngineError if there is none.
    """

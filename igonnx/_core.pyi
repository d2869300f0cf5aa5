# Generated from the compiled module: `python tests/test_stub.py` writes it anew.
"""
The native engine, on the ONNX Runtime that this process uses already.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
__all__: list[str] = ['CancelToken', 'Session', 'is_attached', 'load_onednn', 'runtime_version']
class CancelToken:
    """
    Stops the calls that it was handed to, from any thread. Once cancelled it stays so.
    """
    def __init__(self) -> None:
        ...
    def cancel(self) -> None:
        """
        Stop every call that has this token, now and later; returns at once.
        """
    @property
    def cancelled(self) -> bool:
        """
        Whether cancel() was called.
        """
class Session:
    """
    An explanation graph, loaded. Safe to share by threads.
    """
    def __init__(self, model: bytes, external_data_folder: str | None, threads: typing.SupportsInt | typing.SupportsIndex, providers: collections.abc.Sequence[tuple[str, collections.abc.Mapping[str, str]]], log_name: str, queue_limit: typing.SupportsInt | typing.SupportsIndex = 0, runs_at_once: typing.SupportsInt | typing.SupportsIndex = 1, lanes: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
        """
        Load a serialised graph; `threads` 0 leaves their number to the runtime. At most `queue_limit` calls are served at a time (0: any number), by `runs_at_once` runs, of which `lanes` for one call.
        """
    def run_plan(self, explained: collections.abc.Sequence[str], x: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], baseline: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], fixed_names: collections.abc.Sequence[str], fixed: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], batched: collections.abc.Sequence[bool], cotangent: numpy.typing.NDArray[typing.Any], row: numpy.typing.NDArray[typing.Any], alpha: numpy.typing.NDArray[typing.Any], weight: numpy.typing.NDArray[typing.Any], batch_size: typing.SupportsInt | typing.SupportsIndex, pad: bool, progress: collections.abc.Callable[[int, int], None] | None, timeout: typing.SupportsFloat | typing.SupportsIndex | None = None, cancel: CancelToken | None = None, lanes: typing.SupportsInt | typing.SupportsIndex = 1024) -> tuple[list[numpy.typing.NDArray[numpy.float64]], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
        """
        Return the weighted gradient per explained tensor [R, ...], the scores [B] and the slopes [B].
        """
    def run_scores(self, explained: collections.abc.Sequence[str], x: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], baseline: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], fixed_names: collections.abc.Sequence[str], fixed: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], batched: collections.abc.Sequence[bool], cotangent: numpy.typing.NDArray[typing.Any], row: numpy.typing.NDArray[typing.Any], by_row_names: collections.abc.Sequence[str], by_row: collections.abc.Sequence[numpy.typing.NDArray[typing.Any]], batch_size: typing.SupportsInt | typing.SupportsIndex, pad: bool, progress: collections.abc.Callable[[int, int], None] | None, timeout: typing.SupportsFloat | typing.SupportsIndex | None = None, cancel: CancelToken | None = None, lanes: typing.SupportsInt | typing.SupportsIndex = 1024) -> numpy.typing.NDArray[numpy.float64]:
        """
        Return the scores [B] of a graph without gradients; `by_row` are inputs [B, ...].
        """
    @property
    def calls(self) -> int:
        """
        Calls that have begun and not ended.
        """
    @property
    def input_names(self) -> list[str]:
        ...
    @property
    def output_names(self) -> list[str]:
        ...
    @property
    def row_limit(self) -> int:
        """
        Rows that a run may have since memory ran out with twice as many; 0: any number.
        """
    @property
    def runs(self) -> int:
        """
        Runs of the runtime that have ended.
        """
    @property
    def shared_runs(self) -> int:
        """
        Those of them that had rows of several calls.
        """
def is_attached() -> bool:
    """
    Whether an ONNX Runtime has registered this library.
    """
def load_onednn(path: str) -> str:
    """
    Load oneDNN, for products in bfloat16, and return its version; EngineError if it or the processor does not do.
    """
def runtime_version() -> str:
    """
    The version of the attached ONNX Runtime; EngineError if there is none.
    """

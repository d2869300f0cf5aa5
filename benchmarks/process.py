"""The other end of a worker: a process that answers requests, can be slow, and can die."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["NOTHING_REMEMBERED", "WorkerError", "WorkerProcess"]

# So that no run depends on what an earlier one left in the user's cache.
NOTHING_REMEMBERED = {"IGONNX_CACHE_DIR": "off"}


class WorkerError(Exception):
    """A worker failed, died or did not answer in time; one line."""


class WorkerProcess:
    """A process that reads requests and writes answers, a line of JSON each."""

    def __init__(self, command: Sequence[str], *, log: Path, folder: Path) -> None:
        """Start `command` in `folder`; its standard error is added to the file `log`."""
        self._log = log
        self._unread = b""
        with log.open("ab") as errors:
            self._log_start = errors.tell()
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=folder,
                    env=os.environ | NOTHING_REMEMBERED,
                    start_new_session=True,  # so that stop() ends the compilers it may have started too
                )
            except OSError as error:
                raise WorkerError(f"cannot start {command[0]}: {error.strerror}") from error

    def ask(self, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """The answer to `request`; raises `WorkerError` if it is an error or there is none in `timeout` seconds."""
        stdin = self._process.stdin
        if stdin is None or self._process.poll() is not None:
            raise WorkerError(self._cause_of_death())
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(self._cause_of_death()) from error
        answer: dict[str, Any] = json.loads(self._read_line(timeout))
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _read_line(self, timeout: float) -> bytes:
        output = self._process.stdout
        if output is None:
            raise WorkerError("the worker has no output")
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(timeout):
                    self.stop()
                    raise WorkerError(f"no answer in {timeout:g} s")
                part = os.read(output.fileno(), 1 << 16)
                if not part:
                    raise WorkerError(self._cause_of_death())
                self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1].strip()}" if lines else ""
        return f"the process ended with code {code}{said}"

    def processor_seconds(self) -> float:
        """Processor time that the process has used so far, of all its threads; 0 where /proc does not tell."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return 0.0
        # Fields 14 and 15, user and system time; the name in field 2 may hold blanks.
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the process and what it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that was never read
                    pipe.close()

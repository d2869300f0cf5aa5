"""What one call may ask of an engine besides its result: to end by a deadline or when told to, to take few lanes."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, runtime_checkable

from igonnx._core import CancelToken
from igonnx.checks import is_real
from igonnx.engine.plan import PlanEngine, PlanT_contra, Requests, RowResult
from igonnx.errors import CancelledError, DeadlineError, InputError

__all__ = ["CallControl", "Cancel", "CancelToken", "ControlledEngine", "EventLike", "call_control"]

_LOOK = 0.02  # seconds between two looks at an event


@runtime_checkable
class EventLike(Protocol):
    """What igonnx uses of a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the event has happened."""
        ...  # pragma: no cover

    def wait(self, timeout: float | None = None) -> object:
        """Wait for it, at most `timeout` seconds."""
        ...  # pragma: no cover


Cancel: TypeAlias = "CancelToken | EventLike | None"


@dataclass(frozen=True)
class CallControl:
    """Deadline (of `time.monotonic`) and switch of one call, and the most lanes that it may take; None: no such."""

    deadline: float | None = None
    token: CancelToken | None = None
    lanes: int | None = None

    def remaining(self) -> float | None:
        """Seconds to the deadline, at least 0."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def check(self, name: str, came: str) -> None:
        """Raise CancelledError or DeadlineError if it is time to stop; `name` stands for the model in the message."""
        if self.token is not None and self.token.cancelled:
            raise CancelledError(f"{name}: cancelled {came}")
        if self.remaining() == 0:
            raise DeadlineError(f"{name}: the deadline passed {came}")


@dataclass(frozen=True)
class ControlledEngine(Generic[PlanT_contra]):
    """`engine`, every run of it under `control`."""

    engine: PlanEngine[PlanT_contra]
    control: CallControl

    @property
    def lanes(self) -> int:
        """Those of the engine."""
        return self.engine.lanes

    def run(
        self,
        requests: Requests,
        plan: PlanT_contra,
        *,
        batch_size: int,
        progress: Callable[[int, int], None] | None = None,
        control: CallControl | None = None,
    ) -> RowResult:
        """Run a plan as `igonnx.engine.plan.Engine` says."""
        return self.engine.run(
            requests,
            plan,
            batch_size=batch_size,
            progress=progress,
            control=control or self.control,
        )


def call_control(timeout: float | None, cancel: Cancel) -> CallControl:
    """The control of a call that begins now, may take `timeout` seconds, and stops when `cancel` says so.

    An event has no way to tell anybody: a thread looks at it while the control exists. Raises InputError for a timeout
    that is no positive number, or a `cancel` that is neither a CancelToken nor like a `threading.Event`.
    """
    if timeout is not None and (not is_real(timeout) or math.isnan(timeout) or timeout <= 0):
        raise InputError(f"timeout is {timeout!r}; expected seconds above 0, or None")
    deadline = None if timeout is None else time.monotonic() + float(timeout)
    if cancel is None or isinstance(cancel, CancelToken):
        return CallControl(deadline, cancel)
    if not isinstance(cancel, EventLike):
        raise InputError(
            f"cancel is {cancel!r}; expected an igonnx.CancelToken or a threading.Event"
        )
    token = CancelToken()
    if cancel.is_set():
        token.cancel()
    else:
        arguments = (cancel, weakref.ref(token))
        threading.Thread(target=_pass_on, args=arguments, daemon=True).start()
    return CallControl(deadline, token)


def _pass_on(event: EventLike, token: weakref.ref[CancelToken]) -> None:
    """Cancel `token` when `event` is set, unless the call is over before and the token gone."""
    while (alive := token()) is not None:
        if event.is_set():
            alive.cancel()
            return
        del alive
        event.wait(_LOOK)

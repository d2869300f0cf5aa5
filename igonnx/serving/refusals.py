"""How a request ends that gets no explanation: an HTTP status, a gRPC status, and one line that says why."""

from __future__ import annotations

from igonnx.errors import CancelledError, DeadlineError, EngineError, Error, InputError, ModelError

__all__ = ["GRPC_NAMES", "RequestError", "as_request_error"]

# gRPC's name for each HTTP status that a request may end with.
GRPC_NAMES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RequestError(Exception):
    """A request that is refused or failed.

    status: of HTTP, a key of `GRPC_NAMES`. message: one line. retry_after: seconds after which another try makes sense
    (429 and 503), else None.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def as_request_error(error: BaseException) -> RequestError:
    """What a client is told of `error`; nothing of the server's inside where it is not the client's doing."""
    if isinstance(error, RequestError):
        return error
    line = " ".join(str(error).split())
    if isinstance(error, InputError):
        return RequestError(400, line)
    if isinstance(error, ModelError):  # a method that this model has no gradients for
        return RequestError(400, line)
    if isinstance(error, DeadlineError):
        return RequestError(504, line)
    if isinstance(error, CancelledError):
        return RequestError(499, line)
    if isinstance(error, EngineError):  # most often a gradient that is not finite
        return RequestError(422, line)
    if isinstance(error, Error):
        return RequestError(500, line)
    if isinstance(error, MemoryError):
        return RequestError(503, "not enough memory for this request now", retry_after=5)
    return RequestError(500, "internal error; the server's log has it")

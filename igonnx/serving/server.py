"""The model server: KServe's, bounded against hostile clients, and ended so that nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Sequence
from typing import Any

import kserve.model_server
import uvloop
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc import StatusCode, aio
from kserve import ModelServer
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as services
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.rest.server import RESTServer

from igonnx.serving.address import Address
from igonnx.serving.connections import BoundedProtocol
from igonnx.serving.gate import Gate, refuse
from igonnx.serving.handler import Handler
from igonnx.serving.kserve_app import models_of
from igonnx.serving.limits import Limits
from igonnx.serving.plane import FixedRepository, StrictPlane
from igonnx.serving.refusals import GRPC_NAMES, RequestError

__all__ = ["Server"]

_LOG = logging.getLogger("igonnx.serving")
_CONNECTIONS = 1024


class Server(ModelServer):
    """Serves handlers until SIGTERM or SIGINT; then it takes no more, finishes what it took, and returns."""

    def __init__(self, handlers: Sequence[Handler], address: Address, limits: Limits) -> None:
        super().__init__(
            http_port=address.port,
            grpc_port=address.grpc_port or 0,
            enable_grpc=address.grpc_port is not None,
            enable_latency_logging=False,
            grace_period=int(max(1, address.grace)),
        )
        self._handlers = handlers
        self._address = address
        self._limits = limits
        self._stopping: asyncio.Task[None] | None = None
        self.dataplane = StrictPlane(model_registry=self.registered_models)
        self.model_repository_extension = FixedRepository(model_registry=self.registered_models)

    def run(self) -> None:
        """Serve; returns after a graceful shutdown."""
        models = [model for handler in self._handlers for model in models_of(handler)]
        self._register_and_check_atleast_one_model_is_ready(models)
        self._rest_server = _Rest(self, self._address, self._limits)
        self.servers.append(self._rest_server.start())
        if self.enable_grpc:
            self._grpc_server = _Grpc(self, self._address, self._limits)
            self.servers.append(self._grpc_server.start(self.max_threads))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.setup_event_loop()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number)
        await asyncio.gather(*self.servers)
        if self._stopping is not None:
            await self._stopping

    def stop(self, sig: int) -> None:
        """Begin to shut down; a second time does nothing."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._shut_down(sig))

    async def _shut_down(self, sig: int) -> None:
        name = signal.Signals(sig).name
        _LOG.info("shutting down", extra={"fields": {"signal": name, "grace": self._address.grace}})
        start = time.monotonic()
        self.dataplane.ready_to_serve = False
        # uvicorn closes the listening socket and idle connections; requests on others are still answered.
        self._rest_server._server.should_exit = True
        if self._grpc_server is not None:
            await self._grpc_server.stop()
        _LOG.info(
            "gRPC has ended", extra={"fields": {"seconds": round(time.monotonic() - start, 3)}}
        )


class _Rest(RESTServer):
    """KServe's REST server, behind a `Gate`, on the address asked for, with errors that tell nothing of the inside."""

    def __init__(self, server: Server, address: Address, limits: Limits) -> None:
        application = kserve.model_server.app
        super().__init__(
            Gate(_Answering(application), limits),
            server.dataplane,
            server.model_repository_extension,
            address.port,
            grace_period=server.grace_period,
        )
        self._application = application
        self.config.host = address.host
        self.config.http = BoundedProtocol
        self.config.ws = "none"
        self.config.access_log = False
        self.config.server_header = False
        self.config.limit_concurrency = _CONNECTIONS
        self.config.backlog = _CONNECTIONS
        self.config.timeout_keep_alive = 65
        self._server.capture_signals = contextlib.nullcontext  # the server's own handlers do

    def _add_middlewares(self, app: Any) -> None:
        """None: KServe's times every request for a log that is not kept."""

    def _add_exception_handlers(self, app: Any) -> None:
        super()._add_exception_handlers(app)

        async def refused(_request: Any, error: Any) -> JSONResponse:
            error = _as_refusal(error)
            headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
            return JSONResponse({"error": error.message}, error.status, headers)

        for kind in (RequestError, InvalidInput, ModelNotFound, ModelNotReady):
            app.add_exception_handler(kind, refused)
        for kind in (RequestValidationError, NotImplementedError):
            app.add_exception_handler(kind, refused)


class _Answering:
    """The application; what it raises becomes an answer that tells nothing of the server's inside."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def noted(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._application(scope, receive, noted)
        except Exception as error:
            _LOG.error("a request failed", exc_info=error)
            if not begun:
                await refuse(send, _as_refusal(error))


class _Grpc(GRPCServer):
    """KServe's gRPC server, with bounds and with our errors."""

    def __init__(self, server: Server, address: Address, limits: Limits) -> None:
        super().__init__(
            address.grpc_port,
            server.dataplane,
            server.model_repository_extension,
            kwargs={},
            grace_period=address.grace,
        )
        self._address = address
        self._limits = limits

    async def start(self, max_workers: int) -> None:
        """Serve until told to stop."""
        del max_workers  # of handlers that are no coroutines
        most = self._limits.held // self._limits.body + self._limits.waiting
        self._server = aio.server(
            options=[
                ("grpc.max_receive_message_length", self._limits.body),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", 256),
                ("grpc.max_connection_idle_ms", 300_000),
            ],
            maximum_concurrent_rpcs=most,
        )
        servicer = _Servicer(self._data_plane, self._model_repository_extension)
        servicer.most = self._limits.held
        services.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(f"{self._address.host}:{self._address.grpc_port}")
        await self._server.start()
        await self._server.wait_for_termination()


class _Servicer(InferenceServicer):
    """KServe's servicer; every error ends with the status that belongs to it, and Retry-After where there is one."""

    most: int  # bytes of requests at a time
    _held = 0

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Predict or explain."""
        size = request.ByteSize()
        self._held += size
        try:
            return await _answered(self._infer(request, context), context)
        finally:
            self._held -= size

    async def _infer(self, request: Any, context: Any) -> Any:
        if self._held > self.most:
            raise RequestError(429, "the server holds too many requests", retry_after=1)
        return await super().ModelInfer(request, context)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether a model takes requests."""
        return await _answered(super().ModelReady(request, context), context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What a model takes and gives."""
        return await _answered(super().ModelMetadata(request, context), context)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refused."""
        return await _answered(super().RepositoryModelLoad(request, context), context)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refused."""
        return await _answered(super().RepositoryModelUnload(request, context), context)


async def _answered(answer: Any, context: Any) -> Any:
    try:
        return await answer
    except Exception as error:
        refusal = _as_refusal(error)
        if refusal.status == 500:
            _LOG.error("a request failed", exc_info=error)
        if refusal.retry_after is not None:
            context.set_trailing_metadata((("retry-after", str(refusal.retry_after)),))
        await context.abort(StatusCode[GRPC_NAMES[refusal.status]], refusal.message)


def _as_refusal(error: Any) -> RequestError:
    """What KServe and FastAPI raise, as ours."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ModelNotFound):
        return RequestError(404, str(error))
    if isinstance(error, ModelNotReady):
        return RequestError(503, str(error), retry_after=1)
    if isinstance(error, InvalidInput):
        return RequestError(400, " ".join(str(error).split())[:500])
    if isinstance(error, RequestValidationError):
        return RequestError(400, "the request does not follow the protocol")
    if isinstance(error, NotImplementedError):
        return RequestError(501, "this is not offered here")
    return RequestError(500, "internal error; the server's log has it")

"""What stands before the application: bodies are bounded in size and time, clients that leave are noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from igonnx.serving.limits import Limits
from igonnx.serving.refusals import RequestError

__all__ = ["Gate"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

BODY_SECONDS = 20.0  # that a body may take to arrive


class Gate:
    """An ASGI application around another one.

    A body is read whole, at most `limits.body` bytes of it within `BODY_SECONDS`, before the inner application hears of
    the request; when the client disconnects, the inner application's task is cancelled. Refusals are JSON objects
    {"error": text}.
    """

    def __init__(
        self, inner: Application, limits: Limits, *, body_seconds: float = BODY_SECONDS
    ) -> None:
        self._inner = inner
        self._limits = limits
        self._body_seconds = body_seconds
        self._held = 0  # bytes of all bodies

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's request, as ASGI has it."""
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close"})
        if scope["type"] == "http" and scope["path"].startswith("/v2/"):
            # FastAPI would parse and check JSON before KServe does: the body is handed on as it is.
            kept = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
            scope = {**scope, "headers": [*kept, (b"content-type", b"application/octet-stream")]}
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return await self._inner(scope, receive, send)
        body, taken = bytearray(), _Taken(self)
        try:
            try:
                async with asyncio.timeout(self._body_seconds):
                    complete = await self._read(scope, receive, body, taken)
            except TimeoutError:
                raise RequestError(
                    408, f"the body did not arrive within {self._body_seconds:g} s"
                ) from None
            if complete:
                await self._serve(scope, receive, send, bytes(body))
        except RequestError as error:
            await refuse(send, error, close=True)
        finally:
            self._held -= taken.count
        return None

    async def _read(
        self, scope: MutableMapping[str, Any], receive: Receive, body: bytearray, taken: _Taken
    ) -> bool:
        """Read the body; False where the client leaves before its end."""
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.body:
            raise self._too_large()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > self._limits.body:
                raise self._too_large()
            taken.add(len(chunk), self._limits.held)
            body += chunk
            if not message.get("more_body", False):
                return True

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is larger than {self._limits.body} bytes")

    async def _serve(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, body: bytes
    ) -> None:
        """Hand the request on; ends with the client, if that goes first."""
        given = False

        async def hand_on() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        inner = asyncio.ensure_future(self._inner(scope, hand_on, _whole(send)))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((inner, gone), return_when=asyncio.FIRST_COMPLETED)
            if not inner.done():
                inner.cancel()
            await asyncio.wait((inner,))
            if not inner.cancelled() and (error := inner.exception()) is not None:
                raise error
        finally:
            inner.cancel()
            gone.cancel()


class _Taken:
    """Bytes that one request holds of all that may be held."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.count = 0

    def add(self, count: int, most: int) -> None:
        self.count += count
        self._gate._held += count
        if self._gate._held > most:
            raise RequestError(429, "the server holds too many bodies at the moment", retry_after=1)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _whole(send: Send) -> Send:
    """A `send` that adds length and type where an answer comes in one piece without them."""
    start: Message | None = None

    async def sent(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        if start is not None:
            names = {name.lower() for name, _ in start["headers"]}
            headers = list(start["headers"])
            if b"content-length" not in names and not message.get("more_body", False):
                headers.append((b"content-length", str(len(message.get("body", b""))).encode()))
            if b"content-type" not in names:
                binary = b"inference-header-content-length" in names
                headers.append(
                    (
                        b"content-type",
                        b"application/octet-stream" if binary else b"application/json",
                    )
                )
            await send({**start, "headers": headers})
            start = None
        await send(message)

    return sent


async def refuse(send: Send, error: RequestError, *, close: bool = False) -> None:
    """Answer with an error."""
    body = json.dumps({"error": error.message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if close:  # the rest of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

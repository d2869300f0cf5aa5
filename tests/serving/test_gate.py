"""What stands before the application, without a network; and heads of requests that do not come to an end, with one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from igonnx.serving.gate import Gate
from igonnx.serving.limits import Limits

Message = dict[str, Any]


class Client:
    """Sends messages one by one and keeps what it is sent; then it stays silent, or leaves when told to."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self.leave = asyncio.Event()
        self.got: list[Message] = []

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.got[0]["headers"])


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def scope(
    path: str = "/v1/models/m:explain", headers: Sequence[tuple[bytes, bytes]] = (), **more: Any
) -> Message:
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers), **more}


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body that it is handed."""
    message = await receive()
    assert not message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def passed(
    *messages: Message, inner: Callable[..., Awaitable[None]] = echo, limits: Limits | None = None
) -> Client:
    """What a client gets that sends these messages."""

    async def run() -> Client:
        client = Client(*messages)
        gate = Gate(inner, limits or Limits(), body_seconds=0.2)
        await asyncio.wait_for(gate(scope(), client.receive, client.send), 30)
        assert gate._held == 0
        return client

    return asyncio.run(run())


def test_a_body_is_handed_on_whole() -> None:
    client = passed(part(b"one ", more=True), part(b"two", more=True), part(b""))
    assert client.status == 200
    assert client.headers == {b"content-length": b"7", b"content-type": b"application/json"}
    assert client.got[1]["body"] == b"one two"


def test_large_bodies_are_refused_in_parts_too() -> None:
    limits = Limits(body=10)
    assert passed(part(b"x" * 10), limits=limits).status == 200
    client = passed(part(b"x" * 6, more=True), part(b"x" * 5, more=True), limits=limits)
    assert client.status == 413
    assert client.headers[b"connection"] == b"close"
    assert "10 bytes" in json.loads(client.got[1]["body"])["error"]


def test_all_bodies_together_are_bounded() -> None:
    client = passed(part(b"x" * 60), limits=Limits(body=100, held=50))
    assert client.status == 429
    assert client.headers[b"retry-after"] == b"1"


def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    assert passed(part(b"{", more=True)).status == 408


def test_a_client_that_leaves_within_its_body_is_forgotten() -> None:
    assert passed(part(b"{", more=True), {"type": "http.disconnect"}).got == []


def test_the_application_ends_with_its_client() -> None:
    async def run() -> None:
        ended = asyncio.Event()

        async def endless(*_given: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        client = Client(part(b""))
        task = asyncio.create_task(Gate(endless, Limits())(scope(), client.receive, client.send))
        await asyncio.sleep(0.05)
        client.leave.set()
        await asyncio.wait_for(task, 30)
        assert ended.is_set()
        assert client.got == []

    asyncio.run(run())


def test_v2_bodies_reach_the_application_unparsed() -> None:
    seen = []

    async def noting(given: Any, receive: Any, send: Any) -> None:
        seen.append(dict(given["headers"])[b"content-type"])
        await echo(given, receive, send)

    async def run() -> None:
        for path in ("/v2/models/m/infer", "/v1/models/m:explain"):
            client = Client(part(b"{}"))
            given = scope(path, [(b"content-type", b"application/json")])
            await Gate(noting, Limits())(given, client.receive, client.send)

    asyncio.run(run())
    assert seen == [b"application/octet-stream", b"application/json"]


def test_heads_are_bounded_in_time_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    from igonnx.serving import connections

    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def run() -> None:
        config = uvicorn.Config(
            answer,
            port=0,
            http=connections.BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        for start in (b"", b"GET / HT", whole + b"GET / HTTP/1.1\r\nHost: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            got = await asyncio.wait_for(reader.read(), 30)
            assert got.startswith(b"HTTP/1.1 204") == start.startswith(whole)
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):  # a connection that is used lives on
            writer.write(whole)
            assert b" 204 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            await asyncio.sleep(0.2)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(whole[:-2] + b"X: " + b"x" * connections.HEAD_BYTES)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        server.should_exit = True
        await asyncio.wait_for(serving, 30)

    asyncio.run(run())

"""HTTP connections whose heads are bounded in time and size: half a request does not keep its connection for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES", "HEAD_SECONDS", "BoundedProtocol"]

HEAD_SECONDS = 15.0  # from the connection, or a request's first byte, to the end of its head
HEAD_BYTES = 64 << 10


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools; it closes connections whose request line and headers do not come to an end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._due: asyncio.TimerHandle | None = None
        self._head: int | None = 0  # bytes of the head so far; None: it is complete

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._expect_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        # A body that came with the end of its head counts for nothing: the head is complete then.
        if self._head is not None and self._head > HEAD_BYTES:
            self._close()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        """The head's end."""
        self._expect_no_more()
        super().on_headers_complete()

    def _expect(self) -> None:
        self._expect_no_more()
        self._head = 0
        self._due = self.loop.call_later(HEAD_SECONDS, self._close)

    def _expect_no_more(self) -> None:
        self._head = None
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _close(self) -> None:
        self._expect_no_more()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

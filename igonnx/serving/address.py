"""Where a server listens."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from igonnx.errors import InputError

__all__ = ["Address"]


@dataclass(frozen=True)
class Address:
    """Host and ports; `grpc_port` None: no gRPC. grace: seconds that accepted requests have at the end."""

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = 8081
    grace: float = 30.0

    def require_free(self) -> None:
        """Raise `InputError` where somebody listens there already, or nobody can."""
        for port in (self.port, self.grpc_port):
            if port is None:
                continue
            try:
                socket.create_server((self.host, port)).close()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise InputError(f"cannot listen on {self.host}:{port}: {reason}") from error

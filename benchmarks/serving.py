"""What sharing rows is worth to a server under load: `python -m benchmarks.serving`.

Two servers of one model take turns, `igonnx serve` as it is and one that explains a request at a time (`--max-batch 1
--workers 1`), under 1, 8 and 64 clients on loopback, each of which asks again when it is answered. The
clients run in this process and share the machine's processors with the servers. Before it is timed, a server's answer
is compared with the library's. `--soak` sends 10,000 requests and tells how the server's memory went.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLIENTS = (1, 8, 64)
ALONE = ("--max-batch", "1", "--workers", "1")


@dataclass(frozen=True)
class Load:
    """What clients saw: answers per second, and the time to an answer in milliseconds."""

    rate: float
    median: float
    p99: float
    failed: int


class Server:
    """One `igonnx serve` on a free port."""

    def __init__(self, model: Path, options: tuple[str, ...]) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])
        command = [sys.executable, "-m", "igonnx", "serve", str(model), "--name", "model"]
        command += [
            "--port",
            str(self.port),
            "--grpc-port",
            "0",
            "--log-level",
            "warning",
            *options,
        ]
        self.process = subprocess.Popen(command)
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server did not start")

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Stop it in good order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def request_of(body: bytes) -> bytes:
    """The bytes of one request on a connection that stays open."""
    head = f"POST /v1/models/model:explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer_to(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    """Send a request and read its answer: status and body."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    return int(head[9:12]), await reader.readexactly(int(length[15:]))


async def load(port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Put a server under load, and note what is answered in so many seconds, after a fifth of them to get going."""
    times: list[float] = []
    failed = 0
    begin = time.monotonic() + 0.2 * seconds

    async def client(index: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        try:
            while True:
                start = time.monotonic()
                status, _ = await answer_to(reader, writer, requests[index % len(requests)])
                if time.monotonic() >= begin:
                    times.append(time.monotonic() - start)
                    failed += status != 200
        finally:
            writer.close()

    running = [asyncio.create_task(client(index)) for index in range(clients)]
    await asyncio.sleep(1.2 * seconds)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    median, p99 = (1e3 * float(np.percentile(times or [np.nan], part)) for part in (50, 99))
    return Load(len(times) / seconds, median, p99, failed)


def digits_requests(folder: Path) -> tuple[Path, list[bytes], Any]:
    """Model, requests of one digit each, and the attribution of the first."""
    import igonnx
    from igonnx.models import digits

    path = folder / "digits.onnx"
    path.write_bytes(digits.load().SerializeToString())
    images = digits.test_set()[0][:64]
    requests = [
        request_of(json.dumps({"instances": [image.tolist()]}).encode()) for image in images
    ]
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images[:1]).of("image")
    return path, requests, expected[0]


def efficientnet_requests(folder: Path) -> tuple[Path, list[bytes], Any]:
    """EfficientNet-Lite0 and photos as JPEG files in base64, explained with 20 steps."""
    import base64
    import io

    import onnx
    import PIL.Image
    import skimage.data

    from igonnx.models import efficientnet_lite0

    path = folder / "efficientnet_lite0.onnx"
    onnx.save(efficientnet_lite0.build(), path)
    requests = []
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        file = io.BytesIO()
        photo = PIL.Image.fromarray(getattr(skimage.data, name)()).resize((224, 224))
        photo.save(file, "JPEG", quality=95)
        instance = {"b64": base64.b64encode(file.getvalue()).decode()}
        body = {"instances": [instance], "parameters": {"steps": 20, "format": "png"}}
        requests.append(request_of(json.dumps(body).encode()))
    return path, requests, None


MODELS = {"digits": digits_requests, "efficientnet": efficientnet_requests}


def compare(name: str, seconds: float, rounds: int) -> None:
    """Print the table of one model."""
    with tempfile.TemporaryDirectory() as folder:
        path, requests, expected = MODELS[name](Path(folder))
        servers = {"shared": Server(path, ()), "one at a time": Server(path, ALONE)}
        try:
            for server in servers.values():
                asyncio.run(check(server.port, requests[0], expected))
            print(
                f"\n{name}\n\n| clients | server | answers/s | p50 ms | p99 ms |\n|---|---|---|---|---|"
            )
            for clients in CLIENTS:
                found: dict[str, list[Load]] = {how: [] for how in servers}
                for _ in range(rounds):
                    for how, server in servers.items():
                        found[how].append(
                            asyncio.run(load(server.port, requests, clients, seconds))
                        )
                for how, loads in found.items():
                    best = sorted(loads, key=lambda one: one.rate)[len(loads) // 2]
                    failed = sum(one.failed for one in loads)
                    note = f" ({failed} failed)" if failed else ""
                    print(
                        f"| {clients} | {how}{note} | {best.rate:.4g} | {best.median:.3g} | {best.p99:.3g} |"
                    )
                ratio = [np.median([one.rate for one in loads]) for loads in found.values()]
                print(f"| {clients} | ratio | {ratio[0] / ratio[1]:.2f} | | |", flush=True)
        finally:
            for server in servers.values():
                server.end()


async def check(port: int, request: bytes, expected: Any) -> None:
    """The server must give what the library gives."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    status, body = await answer_to(reader, writer, request)
    if status != 200:
        raise SystemExit(f"the server answers {status}: {body[:300]!r}")
    if expected is not None:
        found = json.loads(body)["explanations"][0]["attribution"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    writer.close()


def soak(count: int) -> None:
    """Send so many requests, every tenth of them wrong, and tell of the server's memory on the way."""
    with tempfile.TemporaryDirectory() as folder:
        path, requests, _ = digits_requests(Path(folder))
        wrong = request_of(b'{"instances": [[[[1.0]]]]}')
        server = Server(path, ())

        async def send(number: int) -> None:
            left = number

            async def client(index: int) -> None:
                nonlocal left
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port, limit=1 << 26
                )
                while left > 0:
                    left -= 1
                    await answer_to(
                        reader, writer, wrong if left % 10 == 0 else requests[index % len(requests)]
                    )
                writer.close()

            await asyncio.gather(*[client(index) for index in range(16)])

        try:
            for done in range(0, count, count // 10):
                asyncio.run(send(count // 10))
                print(
                    f"{done + count // 10} requests: {server.memory() / 2**20:.1f} MiB", flush=True
                )
        finally:
            server.end()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument(
        "--rounds", type=int, default=3, help="measurements of each, of which the median is told"
    )
    parser.add_argument("--model", choices=[*MODELS], action="append")
    parser.add_argument(
        "--soak", type=int, nargs="?", const=10_000, help="requests to send instead"
    )
    given = parser.parse_args()
    if given.soak:
        soak(given.soak)
        return
    for name in given.model or MODELS:
        compare(name, given.seconds, given.rounds)


if __name__ == "__main__":
    main()

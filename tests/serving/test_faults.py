"""Full queues, deadlines, clients that leave, signals, files that change: nothing is lost, nothing stays behind."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from serving_process import Answer, ServingProcess, free_port

from igonnx.models import digits

Images = NDArray[np.float32]

# What takes longer than any test may: with a timeout it keeps a worker busy for that long, on any machine.
ENDLESS = {"steps": 1000, "noise": "smoothgrad", "noise_samples": 100_000}
GENEROUS = ("--max-samples", "100000", "--max-gradients", str(10**9))


@pytest.fixture
def start(tmp_path: Path, digits_file: Path) -> Iterator[Callable[..., ServingProcess]]:
    """Starts servers of a copy of the digits model, and ends them."""
    model = tmp_path / "digits.onnx"
    model.write_bytes(digits_file.read_bytes())
    started = []

    def make(*options: str, **ports: int) -> ServingProcess:
        log = tmp_path / f"log-{len(started)}.jsonl"
        started.append(ServingProcess(model, log, options, **ports))
        return started[-1].start()

    yield make
    for process in started:
        process.kill()


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def counted(server: ServingProcess, status: int) -> float:
    return server.metric(
        f'igonnx_requests_total{{model="digits",status="{status}",verb="explain"}}'
    )


def test_a_full_queue_refuses_and_says_when_to_come_back(start: Any, images: Images) -> None:
    server = start("--workers", "1", "--max-batch", "1", "--max-queue", "2", *GENEROUS)
    busy = [
        in_thread(lambda: server.explain(images[:1].tolist(), **ENDLESS, timeout=8))
        for _ in range(3)
    ]
    wait_for(lambda: server.metric("igonnx_queue_length") == 2, "two requests did not come to wait")
    refused = server.explain(images[:1].tolist())
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "wait" in refused.json["error"]

    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        given = triton.InferInput("image", [1, 1, 8, 8], "FP32")
        given.set_data_from_numpy(images[:1])
        with pytest.raises(InferenceServerException) as caught:
            client.infer("digits-explain", [given])
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    for thread, answers in busy:
        thread.join()
        assert answers[0].status == 504
    assert server.explain(images[:1].tolist()).status == 200


def test_a_deadline_ends_the_work(start: Any, images: Images) -> None:
    server = start("--workers", "1", *GENEROUS)
    late = server.explain(images[:1].tolist(), **ENDLESS, timeout=0.3)
    assert late.status == 504
    # There is one worker: were it still busy, this would wait for minutes.
    assert server.explain(images[:1].tolist(), timeout=30).status == 200
    assert server.explain(images[:1].tolist(), timeout=1e-6).status == 504


def test_the_server_sets_a_deadline_of_its_own(start: Any, images: Images) -> None:
    server = start("--workers", "1", "--max-seconds", "0.5", *GENEROUS)
    assert server.explain(images[:1].tolist(), **ENDLESS, timeout=1000).status == 504


def test_a_client_that_leaves_stops_its_work(start: Any, images: Images) -> None:
    server = start("--workers", "1", *GENEROUS)
    body = json.dumps({"instances": images[:1].tolist(), "parameters": ENDLESS}).encode()
    head = (
        f"POST /v1/models/digits:explain HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    waiting = [server.connection() for _ in range(3)]
    for client in waiting:
        client.sendall(head.encode() + body)
    time.sleep(0.3)
    for client in waiting:
        client.close()
    wait_for(lambda: counted(server, 499) == 3, "the server did not notice")
    assert server.explain(images[:1].tolist(), timeout=30).status == 200


def test_a_grpc_client_that_leaves_stops_its_work(start: Any, images: Images) -> None:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    server = start("--workers", "1", *GENEROUS)
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        given = triton.InferInput("image", [1, 1, 8, 8], "FP32")
        given.set_data_from_numpy(images[:1])
        with pytest.raises(InferenceServerException) as caught:
            client.infer("digits-explain", [given], parameters=ENDLESS, client_timeout=0.5)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert client.infer("digits-explain", [given], client_timeout=30).as_numpy(
            "steps"
        ).tolist() == [50]
    wait_for(lambda: counted(server, 499) + counted(server, 504) == 1, "the server did not notice")


def test_those_who_share_a_batch_do_not_share_its_end(start: Any, images: Images) -> None:
    """One of several in a batch leaves, another is wrong, a third is too late: the rest get theirs."""
    server = start("--workers", "1", *GENEROUS)
    blocking = in_thread(lambda: server.explain(images[:1].tolist(), **ENDLESS, timeout=5))
    time.sleep(0.5)
    leaving = server.connection()
    body = json.dumps({"instances": images[:1].tolist(), "parameters": {"target": 1}}).encode()
    head = (
        f"POST /v1/models/digits:explain HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    leaving.sendall(head.encode() + body)
    asked = [{"target": 1}, {"target": 77}, {"target": 2}, {"target": 1, "timeout": 0.01}]
    others = [
        in_thread(lambda one=one, i=i: server.explain(images[i : i + 1].tolist(), **one))
        for i, one in enumerate(asked)
    ]
    time.sleep(0.3)
    leaving.close()
    for thread, _ in [blocking, *others]:
        thread.join()
    assert [answers[0].status for _, answers in others] == [200, 400, 200, 504]
    alone = server.explain(images[2:3].tolist(), target=2).json["explanations"][0]
    together = others[2][1][0].json["explanations"][0]
    np.testing.assert_allclose(together["attribution"], alone["attribution"], rtol=1e-4, atol=1e-5)


def test_sigterm_finishes_what_was_accepted(start: Any, images: Images) -> None:
    import tritonclient.grpc as triton

    server = start("--workers", "1", "--max-batch", "1", "--grace", "55", *GENEROUS)
    blocking = in_thread(lambda: server.explain(images[:1].tolist(), **ENDLESS, timeout=8))
    time.sleep(0.5)
    accepted = [in_thread(lambda: server.explain(images[:1].tolist())) for _ in range(3)]

    def by_grpc() -> Any:
        with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
            given = triton.InferInput("image", [1, 1, 8, 8], "FP32")
            given.set_data_from_numpy(images[:1])
            return client.infer("digits-explain", [given])

    over_grpc = in_thread(by_grpc)
    wait_for(lambda: server.metric("igonnx_queue_length") == 4, "the requests did not arrive")
    assert server.end() == 0
    for thread, _ in (blocking, over_grpc, *accepted):
        thread.join()
    assert blocking[1][0].status == 504  # by its own deadline
    assert [answers[0].status for _, answers in accepted] == [200] * 3
    assert not isinstance(over_grpc[1][0], Exception), (over_grpc[1][0], server.lines())
    assert over_grpc[1][0].as_numpy("steps").tolist() == [50]
    with pytest.raises(OSError, match="refused"):
        server.connection()
    assert server.lines()[-1]["message"] == "ended"


def test_no_request_is_lost_or_answered_twice_through_a_restart(start: Any, images: Images) -> None:
    first = start()
    ports = {"port": first.port, "grpc_port": first.grpc_port}
    done: list[float] = []

    def ask(index: int) -> tuple[int, Answer]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                answer = first.explain(
                    images[index % 100 : index % 100 + 1].tolist(), target=index % 10
                )
            except OSError:  # refused, or closed before it was read: nobody has answered
                time.sleep(0.05)
                continue
            if answer.status != 503:
                done.append(time.monotonic())
                return index, answer
            time.sleep(0.05)
        raise AssertionError("no server answered")

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, index) for index in range(160)]
        wait_for(lambda: len(done) > 30, "nothing was answered")
        assert first.end() == 0
        second = start(**ports)
        answers = [one.result() for one in asked]
    assert [answer.status for _, answer in answers] == [200] * 160
    assert [answer.json["explanations"][0]["target"] for _, answer in answers] == [
        index % 10 for index in range(160)
    ]
    computed = [
        line for one in (first, second) for line in one.lines() if line.get("status") == 200
    ]
    assert len(computed) == 160


def test_kill_and_restart(start: Any, images: Images) -> None:
    first = start(*GENEROUS)
    expected = first.explain(images[:1].tolist()).json
    thread, answers = in_thread(lambda: first.explain(images[:1].tolist(), **ENDLESS, timeout=50))
    time.sleep(0.5)
    first.signal(signal.SIGKILL)
    thread.join()
    assert isinstance(answers[0], OSError | http.client.HTTPException)
    first.kill()
    second = start(port=first.port, grpc_port=first.grpc_port)
    again = second.explain(images[:1].tolist()).json
    np.testing.assert_allclose(
        again["explanations"][0]["attribution"],
        expected["explanations"][0]["attribution"],
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("new", [b"", b"no model at all", b"changed"])
def test_a_model_file_replaced_while_it_is_served(start: Any, images: Images, new: bytes) -> None:
    server = start()
    before = server.post("/v1/models/digits:predict", {"instances": images[:2].tolist()}).json
    if new == b"changed":
        other = digits.load()
        for tensor in other.graph.initializer:
            tensor.raw_data = bytes(len(tensor.raw_data))
        new = other.SerializeToString()
    server.model.write_bytes(new)
    after = server.post("/v1/models/digits:predict", {"instances": images[:2].tolist()}).json
    np.testing.assert_allclose(after["predictions"], before["predictions"], rtol=1e-6)
    assert server.explain(images[:3].tolist(), steps=17).status == 200


def test_memory_does_not_grow(start: Any, images: Images) -> None:
    server = start()

    def ask(index: int) -> int:
        wrong = {"target": 99} if index % 5 == 0 else {}
        return server.explain(
            images[index % 50 : index % 50 + 1 + index % 3].tolist(), steps=8, **wrong
        ).status

    with ThreadPoolExecutor(4) as clients:
        assert set(clients.map(ask, range(300))) == {200, 400}
        before = server.memory()
        assert set(clients.map(ask, range(600))) == {200, 400}
    assert server.memory() - before < 24 << 20


def test_ports_that_are_taken_are_one_line(start: Any) -> None:
    first = start()
    for ports in ((first.port, 0), (free_port(), first.grpc_port)):
        command = [sys.executable, "-m", "igonnx", "serve", str(first.model)]
        command += ["--port", str(ports[0]), "--grpc-port", str(ports[1])]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert "cannot listen on 127.0.0.1" in second.stderr

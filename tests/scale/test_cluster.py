"""`igonnx batch` on a cluster of two nodes, whose workers and driver are killed; and on this machine alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from igonnx.errors import EngineError, InputError
from igonnx.scale.run import Outcome
from igonnx.scale.summary import Summary

pytest.importorskip("ray", reason="igonnx[ray] is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="igonnx[ray] is not installed")

COMMAND = [sys.executable, "-m", "igonnx", "batch"]
PATIENCE = 240  # seconds
MEMORY = 80 << 20  # of each node's object store; Ray wants no less than 75 MB


@pytest.fixture(scope="module")
def address():
    """A Ray cluster of two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


def start(folder, *arguments):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "COLUMNS"},
    )


def igonnx(*arguments):
    """The command in this process, for what it refuses before it begins."""
    from igonnx.cli.app import app

    app(["batch", *map(str, arguments)], standalone_mode=False)


def finish(process):
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def until(condition, process):
    """Wait until it holds; `process` must be at work."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def rows_of(folder, what="parts"):
    return parquet.read_table(folder / "out" / what).to_pylist()


def working(folder):
    """The process of a worker that is explaining a part."""
    for one in (folder / "out" / "state").glob("attempts-*-explain"):
        try:
            found = re.match(r"begun \S+ (\d+)\n", one.read_text())
        except FileNotFoundError:
            continue
        if found:
            return int(found[1])
    return None


def assert_complete(folder, images, errors):
    rows, failed = rows_of(folder), rows_of(folder, "errors")
    ids = [row["id"] for row in rows]
    assert len(ids) == len(set(ids)) == images
    assert [row["id"] for row in failed] == errors
    assert not set(ids) & set(errors)
    assert not list((folder / "out").rglob(".*")), "nothing half written is left"
    assert not list((folder / "out" / "state").glob("attempts-*"))


def test_a_worker_is_killed(address, tmp_path, digit_model, write_images):
    write_images(tmp_path / "in", 59)
    (tmp_path / "in" / "030b.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    options = ["--steps", 400, "--rows-per-part", 6, "--batch-size", 10]
    run = start(tmp_path, digit_model, "in", "-o", "out", "--address", address, *options)
    killed = until(lambda: working(tmp_path), run)
    os.kill(killed, signal.SIGKILL)
    code, out, err = finish(run)
    assert code == 0, err
    assert "explained 59 rows, 1 errors" in out
    assert "1 rows could not be explained" in err
    assert_complete(tmp_path, 59, ["in/030b.png"])
    [error] = rows_of(tmp_path, "errors")
    assert error["stage"] == "read"


def test_the_driver_is_killed_and_the_run_goes_on(
    address, tmp_path, monkeypatch, digit_model, digit_images
):
    np.save(tmp_path / "x.npy", digit_images[:60])
    options = ["--steps", 400, "--rows-per-part", 4, "--batch-size", 10]
    command = [digit_model, "x.npy", "-o", "out", "--address", address, *options]
    run = start(tmp_path, *command)
    state = tmp_path / "out" / "state"
    until(lambda: len(list(state.glob("done-*"))) >= 3, run)
    run.kill()
    finish(run)
    done = {one.name[5:-4]: one.stat().st_mtime_ns for one in state.glob("done-*")}
    assert len(done) < 15, "it was killed too late"
    parts = {
        number: (tmp_path / "out" / "parts" / f"part-{number}.parquet").stat() for number in done
    }
    code, out, err = finish(start(tmp_path, *command))
    assert code == 0, err
    assert re.search(r"explained 60 rows, 0 errors, \d+ of 15 parts before", out), out
    assert_complete(tmp_path, 60, [])
    for number, before in parts.items():
        after = (tmp_path / "out" / "parts" / f"part-{number}.parquet").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="begun with steps = 400, now it is 401"):
        igonnx(*command, "--steps", 401)


def test_a_machine_alone(tmp_path, digit_model, write_images):
    """Without a cluster one is made and ended; a run that is stopped goes on; nothing but results is said."""
    pa = pytest.importorskip("pyarrow", reason="igonnx[ray] is not installed")
    write_images(tmp_path / "in", 5)
    files = [(tmp_path / "in" / f"{number:03}.png").read_bytes() for number in range(5)]
    parquet.write_table(pa.table({"image": [*files, b"no image"]}), tmp_path / "x.parquet")
    command = [digit_model, "x.parquet", "in", "-o", "out", "--overlays", "--actors", 1]
    command += ["--rows-per-part", 1, "--steps", 400]
    run = start(tmp_path, *command)
    until(lambda: list((tmp_path / "out" / "state").glob("done-*")), run)
    run.terminate()
    assert finish(run) == (143, "", "")
    code, out, err = finish(start(tmp_path, *command))
    assert code == 0, err
    said = [line for line in err.splitlines() if " of 11 rows" not in line]  # once a minute
    assert said == ["warning: 1 rows could not be explained; out/errors says why"]
    assert re.match(r"explained 10 rows, 1 errors, \d+ of 11 parts before\n", out)
    assert_complete(tmp_path, 10, ["x.parquet#5"])
    assert len(list((tmp_path / "out" / "overlays").glob("*.png"))) == 10
    rows = {row["id"]: row for row in rows_of(tmp_path)}
    for number in range(5):
        one, other = rows[f"x.parquet#{number}"], rows[f"in/{number:03}.png"]
        np.testing.assert_allclose(one["values"], other["values"], rtol=1e-4, atol=1e-5)
    assert "a data set explained" in (tmp_path / "out" / "summary.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "-o", "out"], "input 'missing' does not exist"),
        (["x.npy", "-o", "out", "--samples", "3"], "--samples is not for --method integrated-gra"),
        (["x.npy", "-o", "out", "--column", "a"], "--column changes nothing"),
        (["x.npy", "-o", "x.npy"], "cannot write to folder"),
        (["x.npy", "-o", "out", "--target", "cat"], "target 'cat' is no index"),
        (["x.npy", "-o", "out", "--wrt", "nothing"], "nothing"),
        (["x.npy", "-o", "out", "--address", "127.0.0.1:9"], "cannot connect to the Ray cluster"),
        (["x.npy", "-o", "out", "--address", "ray://127.0.0.1:9"], "expected 'auto' or host:port"),
    ],
)
def test_wrong_arguments_are_told(
    tmp_path, monkeypatch, digit_model, digit_images, arguments, message
):
    np.save(tmp_path / "x.npy", digit_images[:2])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        igonnx(digit_model, *arguments)


def test_rows_none_of_which_can_be_explained(
    tmp_path, monkeypatch, digit_model, digit_images, capsys
):
    """Where there is nothing to go on with, no cluster is needed to say so."""
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "x.npy", digit_images[:2])
    told = Summary(failed=2, errors=[("x.npy#0", "explain", "target 77 is not there")])
    outcome = Outcome(told, parts=1, of=1, page=tmp_path / "out" / "summary.html")
    monkeypatch.setattr("igonnx.cli.batch.run_job", lambda *_, **__: outcome)
    with pytest.raises(
        EngineError, match=r"none of 2 rows could be explained: 'x\.npy#0': target 77"
    ):
        igonnx(digit_model, "x.npy", "-o", "out", "--target", 77)
    assert "2 rows could not be explained" in capsys.readouterr().err

"""`igonnx batch`, measured: 2,000 images with a damaged file and a killed worker, and one actor beside two.

    python -m benchmarks.scale --output benchmarks/results/scale.json --publish

Needs the extras `ray` and `demo`, and an idle machine of two cores. docs/scale.md gets what it finds, with what 10
million images on 100 GPUs would take, computed from it. No GPU is measured: how many gradients one computes in a second
is a parameter of that computation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from igonnx.scale.summary import Summary, read_summary

__all__ = ["Run", "main", "needed", "written"]

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
BEGIN = "<!-- written by `python -m benchmarks.scale --publish`: begin -->"
END = "<!-- end -->"
GRADIENTS = (1_000, 3_000, 10_000)  # per second that a GPU may compute
# With one gradient per row, and as many rows in a file as there are by default: what reading and writing take.
PHOTOS, FILES = "EfficientNet-Lite0", "EfficientNet-Lite0, one step, parts of 64"
IMAGES, GPUS, STEPS = 10_000_000, 100, 50


@dataclass(frozen=True)
class Run:
    """One run of `igonnx batch`.

    seconds: in all, from the command's start to its end; steady: rows a second from the first part that was done to the
    last; read, explain, write: seconds per row in each stage; size: bytes per row in the tables.
    """

    name: str
    actors: int
    threads: int
    steps: int
    rows: int
    errors: int
    killed: int
    seconds: float
    steady: float
    read: float
    explain: float
    write: float
    size: float


@dataclass(frozen=True)
class Workload:
    """A model and a folder of images for it."""

    name: str
    model: Path
    folder: Path
    options: Sequence[str]
    steps: int


def run(work: Workload, actors: int, out: Path, *, kill: bool = False) -> Run:
    """Run the command, kill a worker on the way if asked, check the tables, and measure."""
    command = [sys.executable, "-m", "igonnx", "batch", str(work.model), str(work.folder)]
    command += ["-o", str(out), "--steps", str(work.steps), "--actors", str(actors)]
    command += ["--threads", "1", *work.options]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = _kill_a_worker(out, process) if kill else 0
    _, said = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {said}")
    return _measured(work, actors, out, seconds, killed)


def _kill_a_worker(out: Path, process: subprocess.Popen[str]) -> int:
    """Kill one that explains, after some parts are done; gives its number."""
    state = out / "state"
    while process.poll() is None:
        if len(list(state.glob("done-*"))) >= 5:
            for attempt in state.glob("attempts-*-explain"):
                try:
                    found = re.match(r"begun \S+ (\d+)\n", attempt.read_text())
                except FileNotFoundError:
                    continue
                if found:
                    os.kill(int(found[1]), signal.SIGKILL)
                    return int(found[1])
        time.sleep(0.002)
    raise RuntimeError("the run was over before a worker could be killed")


def _measured(work: Workload, actors: int, out: Path, seconds: float, killed: int) -> Run:
    from pyarrow import parquet

    ids = parquet.read_table(out / "parts", columns=["id"])["id"].to_pylist()
    if len(set(ids)) != len(ids):
        raise RuntimeError(f"{len(ids) - len(set(ids))} rows are there twice")
    states = sorted((out / "state").glob("done-*.npz"), key=lambda one: one.stat().st_mtime_ns)
    summary, later = Summary(), 0
    for index, state in enumerate(states):
        part = read_summary(state)
        later += part.rows if index else 0
        summary.merge(part)
    between = (states[-1].stat().st_mtime_ns - states[0].stat().st_mtime_ns) / 1e9
    size = sum(one.stat().st_size for one in (out / "parts").iterdir())
    rows = summary.rows
    return Run(
        name=work.name,
        actors=actors,
        threads=1,
        steps=work.steps,
        rows=rows,
        errors=summary.failed,
        killed=int(killed > 0),
        seconds=seconds,
        steady=later / between if later else math.nan,
        read=summary.seconds["read"] / rows,
        explain=summary.seconds["explain"] / rows,
        write=summary.seconds["write"] / rows,
        size=size / rows,
    )


def digits(folder: Path, count: int) -> Workload:
    """So many digits, one of them damaged; they repeat, with a little noise."""
    from PIL import Image

    from igonnx.models import digits as recipe

    images, _ = recipe.test_set()
    random = np.random.default_rng(0)
    (folder / "digits").mkdir()
    for number in range(count):
        pixels = 255 * images[number % len(images), 0] + random.normal(0, 4, (8, 8))
        path = folder / "digits" / f"{number:05}.png"
        Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)).save(path)
    (folder / "digits" / f"{count // 2:05}.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    onnx.save(recipe.load(), folder / "digits.onnx")
    return Workload("digits, 8 x 8", folder / "digits.onnx", folder / "digits", (), STEPS)


def photos(folder: Path, count: int) -> Workload:
    """Photos of 1.5 million pixels for EfficientNet-Lite0, cut from those of scikit-image."""
    import skimage.data
    from PIL import Image

    from igonnx.models import efficientnet_lite0

    names = ("chelsea", "coffee", "rocket", "astronaut")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(count):
        photo = Image.fromarray(getattr(skimage.data, names[number % 4])())
        left, top = (int(random.integers(0, side // 4)) for side in photo.size)
        cut = photo.crop((left, top, left + photo.width * 3 // 4, top + photo.height * 3 // 4))
        cut.resize((1500, 1000)).save(folder / "photos" / f"{number:03}.jpg", quality=90)
    onnx.save(efficientnet_lite0.build(), folder / "efficientnet.onnx")
    options = ("--apply", "softmax", "--rows-per-part", "4")
    return Workload(PHOTOS, folder / "efficientnet.onnx", folder / "photos", options, STEPS)


@dataclass(frozen=True)
class Need:
    """What a data set takes: hours, images a second, cores that read meanwhile, and GB written a second."""

    gradients: int
    hours: float
    rows_per_second: float
    reading_cores: float
    writing: float


def needed(
    files: Run, gradients: int, *, images: int = IMAGES, gpus: int = GPUS, steps: int = STEPS
) -> Need:
    """What `images` take on `gpus` of `gradients` a second each, if reading and writing take what they did in `files`.

    An actor writes what it has explained before it takes the next part: its GPU waits for that.
    """
    rate = gpus / (steps / gradients + files.write)
    return Need(gradients, images / rate / 3600, rate, rate * files.read, rate * files.size / 1e9)


def written(runs: Sequence[Run], about: Mapping[str, str]) -> str:
    """What the page tells."""
    lines = [
        f"Measured by `python -m benchmarks.scale` on {about['machine']}; {about['versions']}. One thread to each "
        "actor, 50 steps. Steady is the rate from the first part that was done to the last, without the start of Ray.",
        "",
        "| | actors | rows | errors | killed | seconds in all | steady, rows/s | read | explain | write |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.name} | {one.actors} | {one.rows:,} | {one.errors} | {one.killed} | {one.seconds:.1f} | "
        f"{'-' if math.isnan(one.steady) else f'{one.steady:.3g}'} | "
        f"{_milliseconds(one.read)} | {_milliseconds(one.explain)} | {_milliseconds(one.write)} |"
        for one in runs
    ]
    lines += [
        "",
        "Read, explain and write are milliseconds per row in the stage, of one worker.",
        "",
    ]
    for name in dict.fromkeys(one.name for one in runs):
        mine = {
            one.actors: one
            for one in runs
            if one.name == name and one.steady > 0 and not one.killed
        }
        if {1, 2} <= set(mine):
            gain = mine[2].steady / mine[1].steady
            lines.append(
                f"From one actor to two, {name}: **{gain:.2f} times** the rows per second."
            )
    photo = next((one for one in runs if one.name == PHOTOS and one.actors == 1), None)
    files = next((one for one in runs if one.name == FILES), None)
    if photo is not None and files is not None:
        lines += ["", *_computed(photo, files)]
    return "\n".join(lines)


def _computed(photo: Run, files: Run) -> Iterator[str]:
    yield "### Ten million images on a hundred GPUs, computed"
    yield ""
    core = photo.steps / photo.explain
    yield (
        f"**No GPU was measured.** One core of this machine computes {core:,.0f} gradients of EfficientNet-Lite0 a "
        f"second; so {IMAGES:,} photos of 1.5 million pixels, {STEPS} steps each, are "
        f"{IMAGES * STEPS / core / 3600:,.0f} core hours of explaining. What a GPU computes in a second is the "
        "unknown; the rest follows from what was measured:"
    )
    yield ""
    yield (
        "| gradients a second and GPU | images a second | hours | cores that decode | GPUs wait for files | "
        "GB/s written |"
    )
    yield "|---|---|---|---|---|---|"
    for gradients in GRADIENTS:
        need = needed(files, gradients)
        yield (
            f"| {gradients:,} | {need.rows_per_second:,.0f} | {need.hours:.1f} | {need.reading_cores:,.0f} | "
            f"{need.rows_per_second * files.write / GPUS:.0%} | {need.writing:.2f} |"
        )
    yield ""
    yield (
        f"A row takes {files.size / 1e3:,.0f} kB, so that all are {files.size * IMAGES / 1e12:.1f} TB: `--no-arrays` "
        "where scores and errors are enough. Reading is what has to grow with the GPUs: their machines need that many "
        "cores beside them, or smaller photos. `--rows-per-part 256` makes "
        f"{-(-IMAGES // 256):,} files of it."
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def _about() -> dict[str, str]:
    from importlib.metadata import version

    from benchmarks.machine import describe, one_line

    names = ("igonnx", "ray", "pyarrow", "onnxruntime")
    return {
        "machine": one_line(describe()),
        "versions": ", ".join(f"{name} {version(name)}" for name in names),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=2000, help="images of the small model")
    parser.add_argument("--photos", type=int, default=64, help="photos; 0: none")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    parser.add_argument("--publish", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args(arguments)
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small = digits(folder, options.digits)
        runs.append(run(small, 2, folder / "killed", kill=True))
        works = [small]
        if options.photos:
            works.append(photos(folder, options.photos))
            whole = replace(works[1], name=FILES, options=("--rows-per-part", "64"), steps=1)
            runs.append(run(whole, 1, folder / "files"))
        for work in works:
            for actors in (1, 2):
                out = folder / f"{work.model.stem}-{actors}"
                runs.append(run(work, actors, out))
    for one in runs:
        if (one.rows + one.errors, one.errors) not in ((options.digits, 1), (options.photos, 0)):
            raise RuntimeError(f"{one.rows} rows and {one.errors} errors: {one}")
    text = written(runs, _about())
    print(text)
    if options.output is not None:
        told = {"about": _about(), "runs": [asdict(one) for one in runs]}
        options.output.write_text(json.dumps(told, indent=2) + "\n")
    if options.publish:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

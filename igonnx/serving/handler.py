"""The request handler: one model, its predictions and explanations, without a protocol.

    handler = Handler.load("model.onnx")
    answer = await handler.explain_json({"instances": [...], "parameters": {"target": 3}})

Whoever serves calls its four coroutines. They raise `RequestError`, whose status says how to answer; when the task that
awaits one is cancelled, because the client has gone, its work stops.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from igonnx import Attribution, Explainer
from igonnx.cli.inputs import ImageOptions, preprocessing_for
from igonnx.cli.labels import read_labels
from igonnx.errors import Error, InputError
from igonnx.images import Preprocessing, image_shape
from igonnx.model import Model, TensorInfo
from igonnx.serving.answer import Explanation
from igonnx.serving.computing import Computing, kind_of
from igonnx.serving.limits import Limits
from igonnx.serving.question import Asker, Question
from igonnx.serving.reading import Reader, Received
from igonnx.serving.refusals import RequestError, as_request_error
from igonnx.serving.served import Served
from igonnx.serving.sharing import Job, SharedQueue, Together, outcome_of

__all__ = ["Handler", "Serving"]

T = TypeVar("T")

_SMALL = 20_000  # numbers of a request that are read at once, not in a thread


@dataclass(frozen=True)
class Serving:
    """How a model is served.

    labels: file with names of classes, as `igonnx explain --labels`. images: how images become inputs. max_batch:
    examples of all requests that are explained in one go; 1: each request by itself. workers: such goes at a time;
    others are those of `Explainer`.
    """

    labels: str | None = None
    images: ImageOptions = field(default_factory=ImageOptions)
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 64
    workers: int = 2
    output: str | None = None
    wrt: Sequence[str] = ()
    apply: str | None = None
    providers: Sequence[str] = ()
    threads: int | None = None
    memory_limit: int | None = None
    batch_size: int | None = None


class Handler:
    """Serves one model.

    told is called for every request that has ended, from any thread; computed with the verb, the requests and the
    examples of each go, and the seconds that it took.
    """

    def __init__(
        self,
        model: Model,
        serving: Serving | None = None,
        *,
        name: str = "model",
        sha256: str = "",
        told: Callable[[Served], None] | None = None,
        computed: Callable[[str, Together, float], None] | None = None,
    ) -> None:
        """Make the explainer and the queues; raises as `Explainer`, and `InputError` for labels or images."""
        self.serving = serving = serving or Serving()
        self.name, self.sha256 = name, sha256
        self.limits = serving.limits
        self.labels = read_labels(serving.labels)
        self.model = model
        self.explainer = Explainer(
            model,
            output=serving.output,
            wrt=list(serving.wrt) or None,
            apply=serving.apply,
            providers=list(serving.providers) or None,
            threads=serving.threads,
            memory_limit=serving.memory_limit,
            batch_size=serving.batch_size,
        )
        self.preprocessing = _preprocessing(model, serving.images)
        explained = self.explainer.wrt
        self._reader = Reader(model, explained, self.preprocessing, serving.limits)
        self._asker = Asker(self.labels, explained, self.preprocessing, serving.limits)
        self._told = told
        self.draining = False
        self._slow = ThreadPoolExecutor(2, thread_name_prefix=f"{name}-read")

        def queue(verb: str, run: Callable[[Together], Sequence[Any]], workers: int) -> SharedQueue:
            seen = None if computed is None else lambda jobs, took: computed(verb, jobs, took)
            return SharedQueue(
                run,
                name=f"{name}-{verb}",
                workers=workers,
                waiting=serving.limits.waiting,
                most=serving.max_batch,
                seen=seen,
            )

        computing = Computing(self.explainer, self.preprocessing)
        self._explaining = queue("explain", computing.explain, serving.workers)
        self._predicting = queue("predict", computing.predict, 1)

    @classmethod
    def load(cls, path: str | Path, serving: Serving | None = None, **options: Any) -> Handler:
        """A handler of a model file, ready to answer; `options` are those of the constructor.

        The file is read once, here: what becomes of it later does not change what is served.
        """
        path = Path(path)
        handler = cls(
            Model.load(path), serving, **{"name": path.stem, "sha256": _sha256(path), **options}
        )
        handler.warm_up()
        return handler

    def count_waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._explaining.waiting + self._predicting.waiting

    @property
    def inputs(self) -> list[TensorInfo]:
        """The model's inputs."""
        return self.model.inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """The model's outputs."""
        return self.model.outputs

    def warm_up(self) -> None:
        """Make the sessions, by an explanation of zeros, so that the first client need not wait for it.

        Models with axes of unknown size are left to the first request; so is what does not want zeros.
        """
        arrays: dict[str, NDArray[Any]] = {}
        for info in self.model.inputs:
            free = [n for n in info.shape[1:] if not isinstance(n, int)]
            shape = [n if isinstance(n, int) else 1 for n in info.shape]
            if info.name in self.preprocessing:
                arrays[info.name] = self.preprocessing[info.name].constant(0.5)
            elif not free and info.dtype not in ("string", "unknown"):
                arrays[info.name] = np.zeros(shape, dtype=info.dtype)
            else:
                return
        try:
            self.explainer.predict(arrays)
            self.explainer.integrated_gradients(arrays, steps=8)
        except Error:
            return  # whoever asks for it is told

    def close(self, timeout: float | None = None) -> None:
        """Take no more requests, finish those that were taken (at most `timeout` seconds)."""
        self.draining = True
        self._explaining.close(timeout)
        self._predicting.close(timeout)
        self._slow.shutdown(wait=False)

    # -- what whoever serves calls ---------------------------------------------------------------

    async def predict_json(self, body: Any) -> dict[str, Any]:
        """A V1 prediction: {"instances": [...]} gives {"predictions": [...]}, arrays in it."""

        async def answered(note: _Note) -> dict[str, Any]:
            received = await self._read_json(body)
            outputs = await self._predicted(received, note)
            names = [info.name for info in self.model.outputs]
            if len(names) == 1:
                return {"predictions": outputs[names[0]]}
            rows = range(received.examples)
            return {"predictions": [{name: outputs[name][i] for name in names} for i in rows]}

        return await self._served("predict", answered)

    async def explain_json(self, body: Any) -> dict[str, Any]:
        """A V1 explanation: {"instances": [...], "parameters": {...}} gives what `Explanation.to_json` says."""

        async def answered(note: _Note) -> dict[str, Any]:
            received = await self._read_json(body)
            question = self._asker.question(body.get("parameters", {}), received)
            return (await self._explained(received, question, note)).to_json()

        return await self._served("explain", answered)

    async def predict_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs by name; images are arrays [N] of `bytes`."""

        async def answered(note: _Note) -> dict[str, NDArray[Any]]:
            return await self._predicted(await self._read_tensors(tensors), note)

        return await self._served("predict", answered)

    async def explain_tensors(
        self, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]
    ) -> dict[str, NDArray[Any]]:
        """What `Explanation.to_tensors` says.

        Targets and baselines that are arrays may come as tensors `target` and `baseline_<input>`, unless the model has
        inputs of these names.
        """
        given, asked = dict(tensors), dict(parameters)
        names = {info.name for info in self.model.inputs}
        if "target" in given and "target" not in names:
            asked["target"] = given.pop("target")
        baselines = {
            name: given.pop(f"baseline_{name}")
            for name in names
            if f"baseline_{name}" in given and f"baseline_{name}" not in names
        }
        if baselines:
            asked["baseline"] = baselines

        async def answered(note: _Note) -> dict[str, NDArray[Any]]:
            received = await self._read_tensors(given)
            question = self._asker.question(asked, received)
            return (await self._explained(received, question, note)).to_tensors()

        return await self._served("explain", answered)

    # -- how it is done --------------------------------------------------------------------------

    async def _served(self, verb: str, answered: Callable[[_Note], Awaitable[T]]) -> T:
        """Run a request, turn what goes wrong into `RequestError`, and tell of it."""
        note, start = _Note(), time.monotonic()
        refusal = RequestError(499, "the client has gone")
        try:
            if self.draining:
                refusal = RequestError(503, "the server is shutting down", retry_after=1)
                raise refusal
            answer = await answered(note)
        except asyncio.CancelledError:
            self._tell(verb, note, start, refusal)
            raise
        except Exception as error:
            refusal = as_request_error(error)
            if refusal.status == 500 and refusal is not error:
                logging.getLogger("igonnx.serving").error("a request failed", exc_info=error)
            self._tell(verb, note, start, refusal)
            raise refusal from error
        self._tell(verb, note, start, None)
        return answer

    def _tell(self, verb: str, note: _Note, start: float, refusal: RequestError | None) -> None:
        if self._told is None:
            return
        job, explanation = note.job, note.explanation
        begun = job.begun if job is not None else None
        errors = None if explanation is None else explanation.completeness_error
        self._told(
            Served(
                model=self.name,
                verb=verb,
                status=200 if refusal is None else refusal.status,
                seconds=time.monotonic() - start,
                waited=0.0 if job is None or begun is None else begun - job.arrived,
                examples=0 if job is None else job.examples,
                method="" if explanation is None else explanation.question.method,
                steps=() if explanation is None else explanation.attribution.steps_used.tolist(),
                completeness_error=() if errors is None else errors.tolist(),
                together=0 if job is None or job.together is None else len(job.together.jobs),
                message="" if refusal is None else refusal.message,
            )
        )

    async def _read_json(self, body: Any) -> Received:
        if not isinstance(body, dict):
            raise InputError("the body is no JSON object; expected {'instances': [...]}")
        given = body.get("instances")
        if _count(given) <= _SMALL:
            return self._reader.instances(given)
        return await self._in_thread(lambda: self._reader.instances(given))

    async def _read_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> Received:
        small = all(array.dtype != object and array.size <= _SMALL for array in tensors.values())
        if small:
            return self._reader.tensors(tensors)
        return await self._in_thread(lambda: self._reader.tensors(tensors))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._slow, function)

    async def _predicted(self, received: Received, note: _Note) -> dict[str, NDArray[Any]]:
        seconds = self.limits.seconds
        work = (received, None)
        kind = kind_of(received, "predict")
        job = Job(kind, work, received.examples, received.examples, time.monotonic() + seconds)
        note.job = job
        outputs: dict[str, NDArray[Any]] = await outcome_of(self._predicting, job)
        return outputs

    async def _explained(self, received: Received, question: Question, note: _Note) -> Explanation:
        deadline = time.monotonic() + question.seconds
        if question.form != "arrays" and not any(
            name in self.preprocessing for name in self.explainer.wrt
        ):
            raise InputError("there is no picture to draw: no explained input takes images")
        kind = kind_of(received, question.kind)
        job = Job(kind, (received, question), received.examples, question.gradients, deadline)
        note.job = job
        attribution: Attribution = await outcome_of(self._explaining, job)
        explanation = Explanation(attribution, self.explainer.wrt, question)
        note.explanation = explanation
        if question.form == "arrays":
            return explanation
        return await self._in_thread(
            lambda: explanation.with_overlays(received.arrays, self.preprocessing)
        )


@dataclass
class _Note:
    """What is found out about a request while it is served."""

    job: Job | None = None
    explanation: Explanation | None = None


def _preprocessing(model: Model, images: ImageOptions) -> dict[str, Preprocessing]:
    """How images become those inputs that take some."""
    found = {}
    for info in model.inputs:
        try:
            image_shape(info.shape, name=info.name, layout=images.layout)
        except InputError:
            continue
        found[info.name] = preprocessing_for(model, info, images, [])
    return found


def _count(given: Any) -> int:
    """About how many numbers nested lists hold, by their first elements; images count as many."""
    count = 1
    while isinstance(given, list) and given:
        count *= len(given)
        given = given[0]
    if isinstance(given, dict):
        inner = (
            _count(value) if not isinstance(value, str) else _SMALL + 1 for value in given.values()
        )
        return count * max(inner, default=1)
    return count


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

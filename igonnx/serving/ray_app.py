"""Explanations by Ray Serve: the handler of `igonnx serve` as a deployment that grows and shrinks with its load.

    serve run igonnx.serving.ray_app:build model=model.onnx max_replicas=8

or in Python `ray.serve.run(application("model.onnx"))`. The V1 protocol is served: POST to `/v1/models/NAME:predict`
and `/v1/models/NAME:explain`, GET of `/v1/models/NAME` and `/v1/models`, as `igonnx serve` has them. Needs Ray Serve
(`pip install igonnx[ray]`); KServe is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from igonnx.checks import require_whole
from igonnx.cli.inputs import ImageOptions
from igonnx.errors import InputError
from igonnx.model import Model
from igonnx.serving.handler import Handler, Serving
from igonnx.serving.refusals import RequestError

__all__ = ["Explanations", "application", "build"]

# Requests that a replica works on: together they are explained much faster than one by one.
CAPACITY = 64
BUSY = 16  # requests on their way to each replica above which Ray Serve starts another one
WAITING = 256  # requests that wait for a replica before the next is refused (503)


class Explanations:
    """What each replica does: its own model, its own queue, answers over HTTP."""

    def __init__(self, model: str, name: str, serving: Serving) -> None:
        """Open the model and explain zeros once; raises as `Handler`."""
        self._handler = Handler.load(model, serving, name=name)
        self._name = name

    async def __call__(self, request: Request) -> Response:
        """Answer one request; an error is JSON with the field `error`, as V1 has it."""
        try:
            return await self._answer(request)
        except RequestError as error:
            after = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
            return JSONResponse({"error": error.message}, error.status, after)

    def check_health(self) -> None:
        """Ray Serve replaces a replica in which this raises."""
        if self._handler.draining:
            raise RequestError(503, "the replica is shutting down")

    def close(self) -> None:
        """Finish what was taken; Ray Serve calls `__del__`, which calls this, once no request is on its way."""
        self._handler.close()

    def __del__(self) -> None:
        if hasattr(self, "_handler"):
            self.close()

    async def _answer(self, request: Request) -> Response:
        path = request.url.path.rstrip("/")
        here = f"/v1/models/{self._name}"
        if request.method == "GET" and path == "/v1/models":
            return JSONResponse({"models": [self._name]})
        if request.method == "GET" and path == here:
            return JSONResponse({"name": self._name, "ready": True})
        verbs = {
            f"{here}:predict": self._handler.predict_json,
            f"{here}:explain": self._handler.explain_json,
        }
        if path not in verbs:
            raise RequestError(404, f"'{path}' is not here; expected {here}:explain or :predict")
        if request.method != "POST":
            wrong = f"{request.method} of '{path}', expected POST"
            return JSONResponse({"error": wrong}, 405, {"allow": "POST"})
        answer = await verbs[path](await self._body(request))
        return Response(json.dumps(answer, default=_plain), media_type="application/json")

    async def _body(self, request: Request) -> Any:
        """The body as JSON, if it is no larger than may be."""
        most = self._handler.limits.body
        data = await request.body()
        if len(data) > most:
            raise RequestError(413, f"the body has {len(data)} bytes; at most {most} are taken")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the body is no JSON: {str(error)[:200]}") from error


def application(
    model: str | Path,
    *,
    name: str | None = None,
    serving: Serving | None = None,
    min_replicas: int = 1,
    max_replicas: int = 4,
    cpus: float = 1,
    gpus: float = 0,
) -> serve.Application:
    """An application for `ray.serve.run`: from `min_replicas` to `max_replicas` replicas of this model.

    model: a path that all machines of the cluster see. name: in the addresses; default: the file's, without suffix.
    serving: how it is served. cpus, gpus: that Ray reserves for each replica; as many threads explain, and with gpus
    the runtime's CUDA provider, unless `serving` says otherwise. A replica is added while more than 16 requests are on
    their way to each, and taken away after a while of less; min_replicas 0 needs none while nobody asks.

    Raises `ModelError` for what cannot be opened, `InputError` for wrong numbers.
    """
    require_whole("min_replicas", min_replicas, 0, 10_000)
    require_whole("max_replicas", max_replicas, max(1, min_replicas), 10_000)
    path = Path(model).resolve()
    Model.load(path)  # here rather than in replicas, which would be started over and over
    settled = serving or Serving()
    if settled.threads is None:
        settled = replace(settled, threads=max(1, int(cpus)))
    if gpus and not settled.providers:
        settled = replace(settled, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    deployment = serve.deployment(
        Explanations,
        name=f"explanations-{name or path.stem}",
        max_ongoing_requests=CAPACITY,
        max_queued_requests=WAITING,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "initial_replicas": max(1, min_replicas),
            "target_ongoing_requests": BUSY,
            "upscale_delay_s": 5,
            "downscale_delay_s": 120,
        },
    )
    return deployment.bind(str(path), name or path.stem, settled)


def build(arguments: Mapping[str, str]) -> serve.Application:
    """The application from texts, for `serve run` and configuration files.

    model (needed), name, preset, labels, apply, min_replicas, max_replicas, cpus, gpus. Raises `InputError` for others.
    """
    known = {"model", "name", "preset", "labels", "apply"}
    numbers = {"min_replicas": int, "max_replicas": int, "cpus": float, "gpus": float}
    unknown = sorted(set(arguments) - known - set(numbers))
    if unknown or "model" not in arguments:
        wrong = f"'{unknown[0]}' is unknown" if unknown else "'model' is missing"
        raise InputError(f"{wrong}; expected {', '.join([*sorted(known), *numbers])}")
    settings: dict[str, Any] = {}
    for key, kind in numbers.items():
        if key in arguments:
            try:
                settings[key] = kind(arguments[key])
            except ValueError:
                raise InputError(f"{key} is '{arguments[key]}', expected a number") from None
    serving = Serving(
        labels=arguments.get("labels"),
        images=ImageOptions(preset=arguments.get("preset")),
        apply=arguments.get("apply"),
    )
    return application(arguments["model"], name=arguments.get("name"), serving=serving, **settings)


def _plain(value: Any) -> Any:
    """Arrays and their numbers as JSON has them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")

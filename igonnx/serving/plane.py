"""KServe's data plane, held to what is served: bodies are decoded strictly, models come and go with the server only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from kserve import InferInput, InferRequest
from kserve.errors import ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from igonnx.serving.refusals import RequestError

__all__ = ["FixedRepository", "StrictPlane"]

_JSON_SIZE = "inference-header-content-length"


class StrictPlane(DataPlane):
    """Decodes bodies itself: KServe's own decoding trusts them, and takes image files in binary for text."""

    ready_to_serve = True  # False: shutting down

    async def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.ready_to_serve

    async def get_model(self, name: str) -> Any:
        """The model of a name; `RequestError` where there is none."""
        try:
            return await super().get_model(name)
        except ModelNotFound:
            raise RequestError(404, f"there is no model {name[:100]!r}") from None

    def decode(
        self,
        body: Any,
        headers: Mapping[str, str],
        protocol_version: str = "v1",
        model_name: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """The parsed body: an object of V1, or an `InferRequest` of V2. Raises `RequestError`."""
        if protocol_version.lower() == "v1":
            return _loaded(body), {}
        return _request(body, headers.get(_JSON_SIZE), model_name or ""), {}

    async def explain(
        self, model_name: str, request: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[Any, dict[str, str]]:
        """As `infer`; KServe's own sends the request's headers back."""
        from kserve.model import InferenceVerb

        model = await self.get_model(model_name)
        answer, _ = await model(request, headers=headers, verb=InferenceVerb.EXPLAIN)
        return answer, {"content-type": "application/json"}


class FixedRepository(ModelRepositoryExtension):
    """Clients load and unload nothing."""

    async def load(self, model_name: str) -> None:
        """Refused."""
        del model_name
        raise RequestError(501, "models are loaded when the server starts, and only then")

    async def unload(self, model_name: str) -> None:
        """Refused."""
        del model_name
        raise RequestError(501, "models are unloaded when the server ends, and only then")


def _loaded(body: Any) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is no JSON: {error}") from None


def _request(body: bytes, json_size: str | None, model_name: str) -> InferRequest:
    """A V2 request: JSON, with the elements of binary inputs behind it where `json_size` tells its length."""
    size = len(body)
    if json_size is not None:
        if not json_size.isdecimal() or int(json_size) > len(body):
            raise RequestError(
                400, f"{_JSON_SIZE} is {json_size[:20]!r}; expected a length within the body"
            )
        size = int(json_size)
    given = _loaded(body[:size])
    inputs = given.get("inputs") if isinstance(given, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise RequestError(400, "'inputs' is missing; expected a list of objects")
    outputs = given.get("outputs") or []
    if not isinstance(outputs, list) or not all(_names_something(one) for one in outputs):
        raise RequestError(400, "'outputs' is no list of objects with a name")
    parameters = _object(given, "parameters")
    rest, tensors = memoryview(body)[size:], []
    for one in inputs:
        tensor, rest = _input(one, rest)
        tensors.append(tensor)
    if len(rest):
        raise RequestError(400, f"{len(rest)} bytes follow behind the last binary input")
    identity = given.get("id")
    return InferRequest(
        model_name=model_name,
        infer_inputs=tensors,
        request_id=identity if isinstance(identity, str) else None,
        parameters=parameters,
        request_outputs=[
            RequestedOutput(name=one["name"], parameters=_object(one, "parameters"))
            for one in outputs
        ]
        or None,
    )


def _input(given: dict[str, Any], rest: memoryview) -> tuple[InferInput, memoryview]:
    """One input, and the bytes behind its own."""
    name = given.get("name")
    if not isinstance(name, str) or not isinstance(given.get("datatype"), str):
        raise RequestError(400, "an input has no name or no datatype")
    parameters = _object(given, "parameters")
    tensor = InferInput(
        name=name,
        shape=given.get("shape"),
        datatype=given["datatype"],
        data=given.get("data"),
        parameters=parameters,
    )
    size = parameters.get("binary_data_size")
    if size is not None:
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
            raise RequestError(
                400, f"input {name[:60]!r} has {str(size)[:20]} binary bytes; {len(rest)} follow"
            )
        tensor._raw_data = bytes(rest[:size])
        rest = rest[size:]
    return tensor, rest


def _object(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = given.get(name) or {}
    if not isinstance(found, dict):
        raise RequestError(400, f"{name!r} is no object")
    return found


def _names_something(given: Any) -> bool:
    return isinstance(given, dict) and isinstance(given.get("name"), str)

"""Fuzz what the server makes of a request: a question that is checked, or a refusal with a status of the client's."""

from __future__ import annotations

import base64
import contextlib
import sys
import warnings
from typing import Any

import atheris
import orjson

with atheris.instrument_imports(include=["igonnx.serving", "igonnx.images", "igonnx.inputs"]):
    from igonnx.errors import InputError
    from igonnx.serving.handler import Handler
    from igonnx.serving.refusals import RequestError
    from igonnx.serving.tensors import read_tensor

from mutation import mutated_json

from igonnx.model import Model
from igonnx.models import digits

_HANDLER = Handler(Model.load(digits.load()))


def _other(data: bytes, most: int, seed: int) -> bytes:
    """Another request; now and then, other bytes."""
    if seed % 8 == 0:
        return bytes(atheris.Mutate(data, most))
    return mutated_json(data, most, seed)


def _request(data: bytes) -> None:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    if not isinstance(body, dict):
        return
    for read in (_instances, _tensors):
        try:
            read(body)
        except InputError as error:
            if "\n" in str(error):
                raise RuntimeError("a message of several lines") from error
        except RequestError as error:
            if error.status >= 500:
                raise


def _instances(body: dict[str, Any]) -> None:
    received = _HANDLER._reader.instances(body.get("instances"))
    _HANDLER._asker.question(body.get("parameters", {}), received)


def _tensors(body: dict[str, Any]) -> None:
    raw, tensors = None, {}
    with contextlib.suppress(ValueError, TypeError):
        raw = base64.b64decode(body.get("raw"))
    inputs = body.get("inputs")
    for given in inputs if isinstance(inputs, list) else []:
        if not isinstance(given, dict):
            return
        parts = [given.get(key) for key in ("name", "datatype", "shape", "data")]
        tensors[parts[0]] = read_tensor(*parts, raw)
    received = _HANDLER._reader.tensors(tensors)
    _HANDLER._asker.question(body.get("parameters", {}), received)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, _request, custom_mutator=_other)
    atheris.Fuzz()

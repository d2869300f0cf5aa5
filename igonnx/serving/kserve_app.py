"""KServe models around request handlers.

V1 has `:predict` and `:explain`; V2 inference is a prediction under `<name>`, an explanation under `<name>-explain`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import orjson
from kserve import InferRequest, Model
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse
from kserve.protocol.infer_type import to_http_parameters
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.model import TensorInfo
from igonnx.serving.handler import Handler
from igonnx.serving.refusals import RequestError, as_request_error
from igonnx.serving.tensors import datatype_of, json_tensor, raw_bytes, read_tensor

__all__ = ["EXPLAIN_SUFFIX", "ExplainedModel", "models_of"]

EXPLAIN_SUFFIX = "-explain"

# Parameters that belong to the protocol or to tritonclient, not to the question.
_PROTOCOLS_OWN = frozenset(
    ["binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority"]
)
_JSON_SIZE = "inference-header-content-length"

Tensors = dict[str, NDArray[Any]]


class ExplainedModel(Model):
    """One name of a served model; `explains`: whether V2 inference on it is an explanation."""

    def __init__(self, handler: Handler, *, explains: bool) -> None:
        super().__init__(
            handler.name + (EXPLAIN_SUFFIX if explains else ""), return_response_headers=True
        )
        self._handler = handler
        self._explains = explains
        self.ready = True

    async def healthy(self) -> bool:
        """Whether requests are taken."""
        return self.ready and not self._handler.draining

    def load(self) -> bool:
        """It was loaded before it was registered; a server that shuts down takes no more."""
        return not self._handler.draining

    def stop(self) -> None:
        """Nothing: the server closes the handlers when all requests have ended."""

    def get_input_types(self) -> list[dict[str, Any]]:
        """Metadata of the inputs."""
        return [_metadata(info) for info in self._handler.inputs]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Metadata of the outputs; of an explanation those that every request gets."""
        if not self._explains:
            return [_metadata(info) for info in self._handler.outputs]
        by_name = {info.name: info for info in self._handler.inputs}
        explained = [by_name[name] for name in self._handler.explainer.wrt if name in by_name]
        attributions = [
            {**_metadata(info), "name": f"attribution_{info.name}", "datatype": _attributed(info)}
            for info in explained
        ]
        numbers = [("score", "FP64"), ("baseline_score", "FP64"), ("steps", "INT64")]
        return attributions + [
            {"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in numbers
        ]

    async def predict(
        self,
        payload: Any,
        headers: Mapping[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """V1 `:predict`, or V2 inference."""
        del headers
        if isinstance(payload, InferRequest):
            return await self._infer(payload, {} if response_headers is None else response_headers)
        answer = self._handler.explain_json if self._explains else self._handler.predict_json
        return await _as_bytes(answer, payload)

    async def explain(self, payload: Any, headers: Mapping[str, str] | None = None) -> bytes:
        """V1 `:explain`."""
        del headers
        return await _as_bytes(self._handler.explain_json, payload)

    async def _infer(self, request: InferRequest, response_headers: dict[str, str]) -> Any:
        try:
            tensors = _tensors(request)
            parameters = to_http_parameters(request.parameters or {})
        except (InputError, AttributeError, TypeError) as error:
            refusal = as_request_error(error)
            raise refusal if refusal.status < 500 else _malformed() from error
        asked = {name: value for name, value in parameters.items() if name not in _PROTOCOLS_OWN}
        if self._explains:
            outputs = await self._handler.explain_tensors(tensors, asked)
        elif asked:
            raise RequestError(
                400, f"parameters are for the model {self.name}{EXPLAIN_SUFFIX}, which explains"
            )
        else:
            outputs = await self._handler.predict_tensors(tensors)
        outputs = _requested(outputs, request)
        if request.from_grpc:
            return _grpc_answer(self.name, request, outputs)
        return _rest_answer(self.name, request, outputs, response_headers)


def models_of(handler: Handler) -> list[ExplainedModel]:
    """The two names of a handler: predictions, and explanations."""
    return [ExplainedModel(handler, explains=False), ExplainedModel(handler, explains=True)]


async def _as_bytes(answer: Callable[[Any], Awaitable[Any]], payload: Any) -> bytes:
    return _dumped(await answer(payload))


def _dumped(answer: Any) -> bytes:
    """JSON; arrays become lists, and what is not finite null."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=_as_list)


def _as_list(value: Any) -> Any:
    """What orjson does not know: arrays that are not contiguous, or of float16 or texts."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    raise TypeError(type(value).__name__)


def _malformed() -> RequestError:
    return RequestError(400, "the request is malformed: it does not follow the V2 protocol")


def _tensors(request: InferRequest) -> Tensors:
    """The inputs by name."""
    tensors: Tensors = {}
    for given in request.inputs:
        if given.name in tensors:
            raise InputError(f"input {given.name!r} is given twice")
        raw = given._raw_data
        array = read_tensor(given.name, given.datatype, list(given.shape), given._data, raw)
        tensors[given.name] = array
    return tensors


def _requested(outputs: Tensors, request: InferRequest) -> Tensors:
    """The outputs that were asked for, in that order; all where none was named."""
    wanted = request.request_outputs
    if not wanted:
        return outputs
    missing = next((one.name for one in wanted if one.name not in outputs), None)
    if missing is not None:
        raise RequestError(
            400, f"there is no output {missing[:60]!r}; this answer has {', '.join(outputs)}"
        )
    return {one.name: outputs[one.name] for one in wanted}


def _rest_answer(
    name: str, request: InferRequest, outputs: Tensors, headers: dict[str, str]
) -> bytes:
    """The body: JSON, with the elements of binary outputs behind it."""
    binary = {one.name: one.binary_data for one in request.request_outputs or ()}
    default = bool(request.use_binary_outputs)
    pieces, tensors = [], []
    for output, array in outputs.items():
        chosen = binary.get(output)
        raw = default if chosen is None else bool(chosen)
        tensors.append(json_tensor(output, array, binary=raw))
        if raw:
            pieces.append(raw_bytes(array))
    answer: dict[str, Any] = {"model_name": name, "outputs": tensors}
    if request.id:
        answer["id"] = request.id
    head = _dumped(answer)
    if pieces:
        headers[_JSON_SIZE] = str(len(head))
    return b"".join([head, *pieces])


def _grpc_answer(name: str, request: InferRequest, outputs: Tensors) -> ModelInferResponse:
    """The message; elements are raw contents, as tritonclient reads them."""
    tensors = [
        ModelInferResponse.InferOutputTensor(
            name=output, datatype=datatype_of(array), shape=list(array.shape)
        )
        for output, array in outputs.items()
    ]
    return ModelInferResponse(
        id=request.id,
        model_name=name,
        outputs=tensors,
        raw_output_contents=[raw_bytes(array) for array in outputs.values()],
    )


def _metadata(info: TensorInfo) -> dict[str, Any]:
    kind = "BYTES" if info.dtype == "string" else datatype_of(np.empty(0, _known(info.dtype)))
    shape = [length if isinstance(length, int) else -1 for length in info.shape]
    return {"name": info.name, "datatype": kind, "shape": [-1, *shape[1:]] if shape else []}


def _known(dtype: str) -> str:
    """A dtype that V2 has; bfloat16 and the like travel as float32."""
    try:
        return dtype if np.dtype(dtype).kind in "biuf" else "float32"
    except TypeError:
        return "float32"


def _attributed(info: TensorInfo) -> str:
    return "FP64" if info.dtype == "float64" else "FP32"

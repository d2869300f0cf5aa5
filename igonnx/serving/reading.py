"""What clients send, as arrays for the model: numbers, and images as the bytes of their files."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.images import Preprocessing, decode_image
from igonnx.inputs import batched_inputs, checked_inputs
from igonnx.model import Model
from igonnx.serving.limits import Limits

__all__ = ["Reader", "Received"]


@dataclass(frozen=True)
class Received:
    """The inputs of one request, checked: of the model's dtypes, all with `examples` examples along the first axis.

    pictures: the inputs that came as images. joinable: whether every input counts examples along its first axis, so
    that requests can be laid one behind the other.
    """

    arrays: dict[str, NDArray[Any]]
    examples: int
    pictures: frozenset[str]
    joinable: bool


@dataclass(frozen=True)
class Reader:
    """Reads requests for one model; `preprocessing` is that of the inputs that take images."""

    model: Model
    explained: Sequence[str]
    preprocessing: Mapping[str, Preprocessing]
    limits: Limits
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Look up what the model takes."""
        object.__setattr__(self, "names", tuple(info.name for info in self.model.inputs))

    def instances(self, given: Any) -> Received:
        """The examples of a V1 request: a list with one entry each.

        An entry is what the model's one input takes of an example, as nested lists of numbers or {"b64": image file},
        or {input: that} for each of several. Raises `InputError`, or `RequestError` for what the limits do not allow.
        """
        if not isinstance(given, list) or not given:
            raise InputError(
                "'instances' is missing or empty; expected a list with one entry per example"
            )
        self.limits.require_examples(len(given))
        by_name = isinstance(given[0], dict) and set(given[0]) != {"b64"}
        if not by_name:
            if len(self.names) != 1:
                raise InputError(
                    f"the model has the inputs {', '.join(self.names)}: give each instance as an object of them"
                )
            return self._checked({self.names[0]: given})
        columns: dict[str, list[Any]] = {}
        for index, entry in enumerate(given):
            if not isinstance(entry, dict) or entry.keys() != given[0].keys():
                raise InputError(f"instance {index} does not name the same inputs as the first one")
            for name, value in entry.items():
                columns.setdefault(name, []).append(value)
        return self._checked(columns)

    def tensors(self, given: Mapping[str, NDArray[Any]]) -> Received:
        """The inputs of a V2 request: arrays by name, with the batch axis; images as arrays [N] of `bytes`."""
        arrays = {}
        for name, array in given.items():
            files = array.dtype == object and name in self.preprocessing
            if files and array.ndim != 1:
                raise InputError(
                    f"input {name!r} has {array.ndim} axes; expected one, of image files"
                )
            if files:
                self.limits.require_examples(len(array))
            arrays[name] = array if files or array.dtype != object else _as_texts(array, name)
        return self._checked(arrays)

    def _checked(self, given: Mapping[str, Any]) -> Received:
        arrays, pictures = {}, set[str]()
        for name, values in given.items():
            if name not in self.names:
                raise InputError(
                    f"there is no input {name!r}; the model has {', '.join(self.names)}"
                )
            if _are_files(values) and name in self.preprocessing:
                arrays[name] = self._decoded(name, values)
                pictures.add(name)
            elif isinstance(values, list) and any(isinstance(one, dict) for one in values):
                raise InputError(f"input {name!r} takes no images, only numbers")
            else:
                arrays[name] = _as_numbers(values, name)
                self.limits.require_values(name, arrays[name].shape)
        checked = checked_inputs(self.model, arrays, self.explained)
        batched = batched_inputs(self.model, checked, self.explained)
        examples = len(checked[batched.certain[0]]) if batched.certain else 1
        self.limits.require_examples(examples)
        joinable = set(batched.certain) == set(self.names)
        return Received(checked, examples, frozenset(pictures), joinable)

    def _decoded(self, name: str, files: Sequence[Any]) -> NDArray[Any]:
        """One image file per example, as the model takes them."""
        preprocessing = self.preprocessing[name]
        images = []
        for index, file in enumerate(files):
            what = f"image {index} of input {name!r}"
            data = _file_bytes(file, what)
            image = decode_image(data, most_pixels=self.limits.pixels, name=what)
            images.append(preprocessing.apply(image, name=what))
        return np.concatenate(images)


def _are_files(values: Any) -> bool:
    """Whether these are image files: {"b64": text} of JSON, or bytes of a tensor."""
    if isinstance(values, np.ndarray):
        return values.dtype == object and values.size > 0 and isinstance(values.flat[0], bytes)
    first = values[0] if values else None
    return isinstance(first, dict) and set(first) == {"b64"}


def _file_bytes(given: Any, what: str) -> bytes:
    if isinstance(given, bytes):
        return given
    text = given.get("b64") if isinstance(given, dict) else None
    if not isinstance(text, str):
        raise InputError(f"{what} is not given as {{'b64': text}}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{what} is no base64: {error}") from error


def _as_texts(array: NDArray[Any], name: str) -> NDArray[Any]:
    """An array of `bytes` as one of texts."""
    texts = np.empty(array.size, dtype=object)
    try:
        texts[:] = [one.decode() if isinstance(one, bytes) else str(one) for one in array.flat]
    except UnicodeDecodeError as error:
        raise InputError(f"input {name!r} holds bytes that are no text in UTF-8") from error
    return texts.reshape(array.shape)


def _as_numbers(values: Any, name: str) -> NDArray[Any]:
    """Nested lists as an array of numbers, booleans or texts."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"input {name!r} is no array: its lists differ in length or depth"
        ) from error
    if array.dtype == object and not isinstance(values, np.ndarray):
        raise InputError(f"input {name!r} holds something other than numbers")
    return array

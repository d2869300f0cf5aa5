"""Layers: the tensors inside a model, found by name or by pattern.

There are no modules in a graph, but every tensor has a name. A layer is any floating tensor on a way from what is
explained (`wrt`) to the output, these ends included.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.transform import between
from igonnx.errors import InputError
from igonnx.graph.builder import dims
from igonnx.graph.node_view import operator_name
from igonnx.model import Model, dtype_name, is_floating

__all__ = ["InnerTensor", "computed_tensors", "find_layers", "layers_between"]

_LISTED = 6  # names in a message


@dataclass(frozen=True)
class InnerTensor:
    """A tensor inside a model: its name, the operator that makes it ("input" of a model's input), dtype and shape.

    An axis of the shape is an integer, a symbol's name, or None; the shape is None where nothing is known of it.
    """

    name: str
    operator: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        """In one line, as `igonnx inspect --tensors` has it."""
        axes = ["?" if dim is None else str(dim) for dim in self.shape or ()]
        shape = "unknown shape" if self.shape is None else f"[{', '.join(axes)}]"
        return f"{self.name}: {self.operator}, {self.dtype} {shape}"


def layers_between(model: Model, wrt: Sequence[str], output: str) -> list[InnerTensor]:
    """The floating tensors on any way from `wrt` to `output`, both included, in order of computation."""
    sources = [model.find_tensor(name) for name in wrt]
    target = model.find_output(output)
    nodes = between(model.ir.graph, sources, [target])
    # What computes an explained tensor lies in front of it.
    made = [value for node in nodes for value in node.outputs if value not in sources]
    needed = {target, *(value for node in nodes for value in node.inputs)}
    return [_described(value) for value in [*sources, *made] if _is_layer(value, needed)]


def computed_tensors(model: Model) -> list[InnerTensor]:
    """Every floating tensor that the model computes, wherever it leads."""
    return [
        _described(value) for node in model.ir.graph for value in node.outputs if is_floating(value)
    ]


def find_layers(
    known: Sequence[InnerTensor],
    layer: str | Sequence[str],
    where: str,
    *,
    several: bool = True,
) -> tuple[str, ...]:
    """The names of the layers that a caller's `layer` stands for: a name, a pattern that one name matches, or several.

    A pattern is of the kind that files are found by: `*` for any characters, `?` for one. A name that is there goes
    before a pattern. `where` says in messages where `known` is from. Raises `InputError` for what matches nothing, or
    more than one tensor.
    """
    if several and isinstance(layer, Sequence) and not isinstance(layer, str):
        given = list(layer)
        if not given:
            raise InputError("layer is an empty list; expected at least one tensor's name")
    else:
        given = [cast("str", layer)]
    names = [tensor.name for tensor in known]
    found = [_one(names, pattern, where) for pattern in given]
    if len(set(found)) < len(found):
        raise InputError(f"layer names a tensor twice: {found}")
    return tuple(found)


def _one(names: Sequence[str], pattern: object, where: str) -> str:
    if not isinstance(pattern, str):
        raise InputError(
            f"layer is {pattern!r}; expected the name of a tensor, or a pattern such as '*conv5*'"
        )
    if pattern in names:
        return pattern
    matches = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(
            f"layer {pattern!r} matches {len(matches)} tensors: {_listed(matches)}; name one of them"
        )
    plain = pattern.strip("*?")
    close = [
        name for name in names if plain and plain.lower() in name.lower()
    ] or difflib.get_close_matches(plain, names, n=_LISTED, cutoff=0.5)
    hint = f"did you mean {_listed(close)}?" if close else f"there are {_listed(names)}"
    raise InputError(
        f"layer {pattern!r} is no floating tensor {where}; {hint} ('igonnx inspect --tensors' lists them)"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")


def _is_layer(value: ir.Value, needed: set[ir.Value | None]) -> bool:
    return bool(value.name) and is_floating(value) and value in needed


def _described(value: ir.Value) -> InnerTensor:
    node = value.producer()
    return InnerTensor(
        value.name or "",
        "input" if node is None else operator_name(node),
        dtype_name(value),
        None if value.shape is None else dims(value),
    )

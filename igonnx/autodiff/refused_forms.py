"""Which forms of an operator its rule or lowering refuses, read off its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["refused_forms"]

# Rules and lowerings, and what they share with others of their kind.
_ROOMS = ("igonnx.autodiff.rules.", "igonnx.autodiff.residuals", "igonnx.lowering.")


def refused_forms(function: Callable[..., Any]) -> list[str]:
    """What `function`, or what it calls in these rooms, passes to `unsupported`; "*name*" stands for a value."""
    found: dict[str, None] = {}
    seen: set[object] = set()
    queue: list[Any] = [function] if _is_ours(function) else []
    while queue:
        current = queue.pop(0)
        if current in seen:
            continue
        seen.add(current)
        names = vars(inspect.getmodule(current))
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(current)))):
            if isinstance(node, ast.Name) and _is_ours(names.get(node.id)):
                queue.append(names[node.id])
            elif isinstance(node, ast.Call) and _calls_unsupported(node):
                found["".join(_words(node.args[0], names))] = None
    return list(found)


def _is_ours(thing: object) -> bool:
    code = inspect.isfunction(thing) or inspect.isclass(thing)
    return code and getattr(thing, "__module__", "").startswith(_ROOMS)


def _calls_unsupported(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr == "unsupported"


def _words(node: ast.expr, names: dict[str, Any]) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield from _words(part, names)
    elif isinstance(node, ast.FormattedValue):
        yield from _words(node.value, names)
    elif isinstance(node, ast.Name) and isinstance(names.get(node.id), int | str):
        yield str(names[node.id])
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        yield f"*{node.args[0].value!s}*"  # an attribute's name
    else:
        yield f"*{ast.unparse(node).rsplit('.', 1)[-1]}*"

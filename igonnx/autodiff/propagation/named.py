"""Propagations without parameters, which a name is enough for: tables of rules that the walk asks first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from igonnx.autodiff.propagation.base import Propagation, PropagationSpec
from igonnx.autodiff.propagation.relu_rules import RELU_RULES, Override
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.errors import InputError

__all__ = ["GRADIENT", "PROPAGATIONS", "Named", "require_propagation", "specification"]

GRADIENT = "gradient"
_TABLES: Mapping[str, Mapping[tuple[str, str], Override]] = {GRADIENT: {}, **RELU_RULES}
PROPAGATIONS = tuple(_TABLES)


@dataclass(frozen=True)
class Named(PropagationSpec):
    """The propagation that a name of `PROPAGATIONS` stands for; `InputError` for an unknown one."""

    known_as: str
    acts_on: ClassVar[str | None] = "ReLU"

    def __post_init__(self) -> None:
        """Check the name."""
        require_propagation(self.known_as)

    @property
    def name(self) -> str:
        """The name itself."""
        return self.known_as

    def walk(self) -> Propagation:
        """A walk that asks the table of this name first."""
        return _TableWalk(self.known_as, _TABLES[self.known_as])


class _TableWalk(Propagation):
    def __init__(self, name: str, table: Mapping[tuple[str, str], Override]) -> None:
        super().__init__(name)
        self._table = table

    def rule(self, v: Vjp) -> Gradients | None:
        domain = "" if v.node.domain == "ai.onnx" else v.node.domain
        override = self._table.get((domain, v.node.op_type))
        return None if override is None else override(v)


def specification(propagation: str | PropagationSpec) -> PropagationSpec:
    """The specification that a caller's argument stands for; `InputError` for an unknown name or anything else."""
    if isinstance(propagation, PropagationSpec):
        return propagation
    return Named(propagation)


def require_propagation(propagation: object) -> None:
    """Raise `InputError` unless `propagation` is one of `PROPAGATIONS` or a specification."""
    if isinstance(propagation, PropagationSpec):
        return
    if not isinstance(propagation, str) or propagation not in PROPAGATIONS:
        known = ", ".join(map(repr, PROPAGATIONS))
        raise InputError(f"propagation is {propagation!r}; expected one of {known}")

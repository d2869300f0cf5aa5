"""How every operator is served, as a page: `python -m igonnx.autodiff.operator_table docs/operators.md` writes it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.refused_forms import refused_forms
from igonnx.autodiff.serving import How, serving
from igonnx.lowering import registry as lowerings
from igonnx.lowering.apply import PRIVATE_DOMAIN

__all__ = ["Entry", "operator_page", "operator_table"]

_UPGRADED = "upgraded"
_ORDER = (*How, _UPGRADED)
_ON_LOADING = {
    ("", "Scatter"): "becomes ScatterElements",
    ("", "Upsample"): "becomes Resize",
    ("ai.onnx.ml", "ZipMap"): "taken out; the tensor that it would take apart is the output",
}
_EXPLAINED = {
    How.rule: "a backward rule",
    How.lowering: "written in other operators, which have rules",
    How.body: "written as the ONNX standard itself defines it",
    How.straight_through: "gradients go straight through the rounding, inside the range of the codes",
    How.no_derivative: "no gradient exists, or it is zero wherever it exists: gradients stop there, as they should",
    How.refused: "refused, with a reason and what to do instead",
    How.missing: "refused: nothing serves it",
    _UPGRADED: "not there any more once a model is loaded",
}
_TEXT = """# Operators

How igonnx differentiates each operator. `make docs` writes this page from the registries of rules and lowerings, and
from onnx {version} (opset {opset}). `igonnx inspect MODEL` tells the same of one model.

{legend}

A gradient that would have to cross a refused operator, or a form of an operator that is refused, is an error that names
the node and the reason; nothing is ever left out silently. Operators off the path from the explained tensors to the
output are not asked.

{summary}
"""


@dataclass(frozen=True)
class Entry:
    """One operator: where it is from, its newest version (0 outside the standard), and how it is served."""

    domain: str
    name: str
    version: int
    how: str
    text: str


def operator_table() -> list[Entry]:
    """Every operator that the installed onnx knows, and those outside the standard that something is registered for."""
    newest: dict[tuple[str, str], onnx.defs.OpSchema] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        key = (schema.domain, schema.name)
        if key not in newest or newest[key].since_version < schema.since_version:
            newest[key] = schema
    keys = {*newest, *registry.known_operators(), *lowerings.registered()}
    return [
        _entry(domain, name, newest.get((domain, name)))
        for domain, name in sorted(keys)
        if domain not in (PRIVATE_DOMAIN, "ai.igonnx")
    ]


def _entry(domain: str, name: str, schema: onnx.defs.OpSchema | None) -> Entry:
    node = ir.Node(domain, name, [])
    known = serving(node, onnx.defs.onnx_opset_version())
    version = 0 if schema is None else schema.since_version
    if (domain, name) in _ON_LOADING:
        return Entry(domain, name, version, _UPGRADED, _sentence(_ON_LOADING[domain, name]))
    # Products are no emphasis.
    sentences = [text.replace("*", "\\*") for text in (known.description, known.notes)]
    if known.how is How.no_derivative:
        sentences = [] if schema is None else [_why_constant(schema)]
    elif known.how is How.body:
        sentences = [] if schema is None else [_made_of(schema)]
    elif known.how is How.missing:
        sentences = []
    function, lowering = registry.find(node), lowerings.find(node)
    serves = function or (lowering.function if lowering is not None else None)
    forms = [] if serves is None else refused_forms(serves)
    if forms:
        sentences.append(f"**Refused:** {'; '.join(forms)}")
    return Entry(
        domain, name, version, known.how, " ".join(map(_sentence, filter(None, sentences)))
    )


def _why_constant(schema: onnx.defs.OpSchema) -> str:
    if not any("float" in kind or "double" in kind for out in schema.outputs for kind in out.types):
        return "its results are integers, booleans or text"
    if schema.name.startswith(("Random", "Bernoulli")):
        return "random; the values of its inputs only say how likely what is"
    reads_reals = any("float" in kind for value in schema.inputs for kind in value.types)
    if not reads_reals or schema.name in ("ConstantOfShape", "EyeLike", "MelWeightMatrix"):
        return "follows from sizes and settings"
    return "piecewise constant"


def _made_of(schema: onnx.defs.OpSchema) -> str:
    names = {node.op_type for node in schema.function_body.node} - {"Constant", "CastLike"}
    if not names:
        return "which operators depends on the node's attributes and types"
    return f"made of {', '.join(sorted(names))}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def operator_page() -> str:
    """The table as Markdown."""
    table = operator_table()
    legend = "\n".join(f"- **{how}**: {_EXPLAINED[how]}" for how in _ORDER)
    parts = [
        _TEXT.format(
            version=onnx.__version__,
            opset=onnx.defs.onnx_opset_version(),
            legend=legend,
            summary=_summary([entry for entry in table if entry.version]),
        )
    ]
    for domain in sorted({entry.domain for entry in table}):
        parts.append(_section(domain, [entry for entry in table if entry.domain == domain]))
    return "\n".join(parts)


def _summary(entries: Sequence[Entry]) -> str:
    counts = Counter(entry.how for entry in entries)
    listed = ", ".join(f"{counts[how]} {how}" for how in _ORDER if counts[how])
    return f"Of the {len(entries)} operators that this onnx knows: {listed}."


def _section(domain: str, entries: Sequence[Entry]) -> str:
    lines = [f"## {domain or 'ai.onnx'}", ""]
    if any(entry.version for entry in entries):
        lines += ["| Operator | newest version | served by | |", "|---|---|---|---|"]
        lines += [f"| {e.name} | {e.version or ''} | {e.how} | {_cell(e.text)} |" for e in entries]
    else:
        lines += ["| Operator | served by | |", "|---|---|---|"]
        lines += [f"| {e.name} | {e.how} | {_cell(e.text)} |" for e in entries]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(
        description="Write how every operator is served, as Markdown."
    )
    _parser.add_argument("page", type=Path, help="file to write")
    _parser.parse_args().page.write_text(operator_page(), encoding="utf-8")

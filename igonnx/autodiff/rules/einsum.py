"""Einsum: sums of products over named axes (https://onnx.ai/onnx/operators/onnx__Einsum.html)."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.gathering import counting
from igonnx.graph.builder import Dim, GraphBuilder, dims, rank


@rule("Einsum")
def einsum(v: Vjp) -> Gradients:
    """Einsum: the gradient of an operand is the einsum of the incoming one with the other operands.

    An axis that only this operand has was summed over: its gradient is spread along it. An axis named twice took a
    diagonal: there the gradient goes. An axis of size one that was broadcast gets the sum.
    """
    operands = cast("list[ir.Value]", list(v.node.inputs))
    equation = v.attribute("equation")
    if "->" not in equation and equation not in (equation.lower(), equation.upper()):
        # In the alphabet of the standard, capitals come first; in that of ONNX Runtime, last.
        raise v.unsupported("an implicit output with both small and capital letters")
    terms, output = explicit_terms(equation, [rank(value) for value in operands])
    return [
        _to_operand(v.op, v.g, operands, terms, output, index) if wanted else None
        for index, wanted in enumerate(v.wanted)
    ]


def explicit_terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the output: a letter per axis, also for those an ellipsis stands for."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    named = Counter(letter for term in terms for letter in term if letter != ".")
    spare = [letter for letter in string.ascii_letters if letter not in named]
    unnamed = [
        n - len(term.replace("...", "")) if "..." in term else 0
        for term, n in zip(terms, ranks, strict=True)
    ]
    # Ellipses broadcast: they align at their last axis.
    ellipsis = "".join(spare[: max(unnamed)])
    terms = [
        term.replace("...", ellipsis[len(ellipsis) - count :])
        for term, count in zip(terms, unnamed, strict=True)
    ]
    if not arrow:
        output = "..." + "".join(sorted(letter for letter, times in named.items() if times == 1))
    return terms, output.replace("...", ellipsis)


def _to_operand(
    op: GraphBuilder,
    g: ir.Value,
    operands: list[ir.Value],
    terms: list[str],
    output: str,
    index: int,
) -> ir.Value:
    operand, term = operands[index], terms[index]
    labels = "".join(dict.fromkeys(term))
    others = [i for i in range(len(operands)) if i != index]
    elsewhere = set(output).union(*(terms[i] for i in others))
    present = "".join(label for label in labels if label in elsewhere)
    full = _contracted(op, g, output, [(operands[i], terms[i]) for i in others], present)
    absent = [axis for axis, label in enumerate(labels) if label not in elsewhere]
    if absent:
        full = op.Unsqueeze(full, absent)
    sources = [
        _size(label, operands, terms, None if label in output else index)
        if label in elsewhere
        else 1
        for label in labels
    ]
    places = [term.index(label) for label in labels]
    full = _fitted(op, full, sources, operand, places, [label in output for label in labels])
    return full if len(labels) == len(term) else _on_diagonals(op, full, operand, term)


def _contracted(
    op: GraphBuilder,
    g: ir.Value,
    output: str,
    others: list[tuple[ir.Value, str]],
    present: str,
) -> ir.Value:
    """The einsum of the incoming gradient and the other operands, with the axes `present`."""
    if not others:
        order = [output.index(label) for label in present]
        return g if order == sorted(order) else cast("ir.Value", op.Transpose(g, perm=order))
    values, terms = [value for value, _ in others], [term for _, term in others]
    if output:
        equation = ",".join([output, *terms]) + "->" + present
        return cast("ir.Value", op.Einsum(g, *values, equation=equation))
    return cast(
        "ir.Value", op.Mul(op.Einsum(*values, equation=",".join(terms) + "->" + present), g)
    )


def _size(label: str, operands: list[ir.Value], terms: list[str], without: int | None) -> Dim:
    """The size that broadcasting gives `label`, over all operands or all but one; None where unknown."""
    sizes = [
        dims(value)[term.index(label)]
        for i, (value, term) in enumerate(zip(operands, terms, strict=True))
        if label in term and i != without
    ]
    larger = next((size for size in sizes if isinstance(size, int) and size != 1), None)
    if larger is not None:
        return larger
    return sizes[0] if all(size == sizes[0] for size in sizes) else None


def _fitted(
    op: GraphBuilder,
    full: ir.Value,
    sources: list[Dim],
    operand: ir.Value,
    places: list[int],
    kept: list[bool],
) -> ir.Value:
    """`full`, of sizes `sources`, summed or spread to the sizes of `operand` at `places`.

    `kept` tells which axes the output has: there, broadcasting can only have made them larger.
    """
    total, spread, unsettled = [], False, False
    for axis, (source, place, in_output) in enumerate(zip(sources, places, kept, strict=True)):
        target = dims(operand)[place]
        if source == target and source is not None:
            continue
        if target == 1:
            total.append(axis)
        elif isinstance(target, int) and in_output:
            continue
        elif source == 1 or isinstance(target, int):
            spread = True
        else:
            unsettled = True
    if not (total or spread or unsettled):
        return full
    shape = op.shape(operand)
    if places != list(range(rank(operand))):
        shape = op.join(*(op.dim(operand, place) for place in places))
    if unsettled:
        differs = op.Not(op.Equal(op.Shape(full), shape))
        full = op.ReduceSum(
            full, op.Reshape(op.NonZero(differs), [-1]), keepdims=1, noop_with_empty_axes=1
        )
    elif total:
        full = op.ReduceSum(full, total, keepdims=1)
    return cast("ir.Value", op.Expand(full, shape)) if spread or unsettled else full


def _on_diagonals(op: GraphBuilder, full: ir.Value, operand: ir.Value, term: str) -> ir.Value:
    """`full`, with an axis per different label, where all axes of a label meet; zeros elsewhere."""
    n, zero = len(term), op.scalar(0, operand)
    repeated = [axis for axis in range(n) if term.index(term[axis]) < axis]
    full = op.Unsqueeze(full, repeated)
    for axis in repeated:
        steps = counting(op, op.dim(operand, axis))
        along = [
            op.Unsqueeze(steps, [other for other in range(n) if other != place])
            for place in (term.index(term[axis]), axis)
        ]
        full = op.Where(op.Equal(*along), full, zero)
    return full

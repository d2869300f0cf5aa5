"""Einsum: products, sums, diagonals, broadcasts."""

from __future__ import annotations

from rule_cases.case import Case, held, real

_EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij, jk", (2, 3), (3, 4)),
    ("bhid,bhjd->bhij", (2, 1, 3, 2), (2, 1, 4, 2)),
    ("ij->ji", (2, 3)),
    ("ij", (2, 3)),
    ("ba", (2, 3)),
    ("ij->", (2, 3)),
    ("ij->i", (2, 3)),
    ("ij->j", (1, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ii->", (3, 3)),
    ("iji->j", (2, 3, 2)),
    ("jii->ij", (2, 3, 3)),
    ("iii->i", (2, 2, 2)),
    ("ii,ij->j", (2, 2), (2, 3)),
    ("ii,jj->ij", (2, 2), (3, 3)),
    ("i,i->", (3,), (3,)),
    ("i,i", (3,), (3,)),
    ("i,j->ij", (3,), (2,)),
    ("i,j->", (3,), (2,)),
    ("i,j->j", (3,), (2,)),
    ("ij,ij->ij", (2, 3), (2, 3)),
    ("ij,ij->", (2, 3), (2, 3)),
    (",ij->ij", (), (2, 3)),
    ("ij,->i", (2, 3), ()),
    (",->", (), ()),
    ("->", ()),
    ("...ij,...jk->...ik", (2, 2, 3), (2, 3, 4)),
    ("...ij,...jk", (2, 2, 3), (2, 3, 4)),
    ("...ii->...i", (2, 3, 3)),
    ("...ii->...", (2, 3, 3)),
    ("...i->i...", (2, 4, 3)),
    ("...,...->...", (2, 3), (2, 3)),
    ("b...,b->...", (2, 3, 1), (2,)),
    ("i...->...", (2, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 1), (1, 2)),
    ("bi,oij,bj->bo", (2, 3), (2, 3, 2), (2, 2)),
    ("a,b,c,ab->c", (2,), (3,), (2,), (2, 3)),
    ("Ab,bC->AC", (2, 3), (3, 2)),
    ("ij,jk->ik", (2, 1), (3, 4)),
    ("ij,ij->i", (2, 1), (2, 3)),
    ("ij,j->ij", (1, 3), (3,)),
    ("ij,jk->ik", (0, 3), (3, 4)),
    ("ij,jk->ik", (2, 0), (0, 4)),
]


def _einsum():
    for equation, *shapes in _EQUATIONS:
        given = {"equation": equation}
        yield Case("Einsum", f"{equation} {shapes}", [real(*shape) for shape in shapes], given)
    # The standard's shape inference takes the first size it sees; onnxruntime broadcasts.
    for equation, shape, larger in [
        ("ij,ij->ij", (2, 1), (2, 3)),
        ("...ij,...jk->...ik", (1, 2, 3), (4, 3, 2)),
    ]:
        inputs = [real(*shape), held(*larger)]
        yield Case(
            "Einsum",
            f"{equation} {shape} to {larger}",
            inputs,
            {"equation": equation},
            layouts=("unnamed",),
        )
    yield Case("Einsum", "held", [real(2, 3), held(3, 4)], {"equation": "ij,jk->ik"})
    yield Case("Einsum", "held spread", [real(2, 3), held(4)], {"equation": "ij,k->k"})


CASES = list(_einsum())

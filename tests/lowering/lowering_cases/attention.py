"""Attention in all its forms, and rotary embeddings."""

from __future__ import annotations

import numpy as np
from scipy import special

from lowering_cases.case import Case, constant, fed, held, real

B, S, N, H = 2, 3, 2, 4
D = N * H


def _attention():
    x, w, b = real(B, S, 5), real(5, 3 * D), real(3 * D)
    heads = {"num_heads": N}
    yield Case("Attention", "plain", [x, w, b], heads)
    yield Case("Attention", "held", [x, held(5, 3 * D), held(3 * D)], heads)
    yield Case("Attention", "one", [real(1, 1, 5), w, b], heads)
    yield Case("Attention", "scale", [x, w, b], {**heads, "scale": 0.3})
    yield Case("Attention", "ahead", [x, w, b], {**heads, "unidirectional": 1})
    yield Case("Attention", "sizes", [x, real(5, 2 * D + 6), real(2 * D + 6)],
               {**heads, "qkv_hidden_sizes": [D, D, 6]})  # fmt: skip
    masks = {
        "ends": fed([2, 3]),
        "ends and starts": fed([3, 2, 1, 0]),
        "rows": fed([[1, 1, 0], [0, 1, 1]]),
        "matrices": fed([[[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[1, 1, 1], [0, 1, 1], [0, 0, 1]]]),
        "nothing kept": fed([[1, 1, 1], [0, 0, 0]]),
    }
    for label, mask in masks.items():
        # The gradient is float32: the softmax of scores as large as a mask's has lost some digits.
        slope = 1e-3 if label == "nothing kept" else None
        yield Case("Attention", label, [x, w, b, mask], heads, slope=slope)
        given = {**heads, "unidirectional": 1, "mask_filter_value": -50.0}
        yield Case("Attention", f"{label} ahead", [x, w, b, mask], given)
    for label, shape in [("bias", (B, N, S, S)), ("one bias", (1, 1, S, S))]:
        yield Case("Attention", label, [x, w, b, None, None, real(*shape)], heads)
    yield Case(
        "Attention", "bias and mask", [x, w, b, masks["rows"], None, real(1, N, S, S)], heads
    )
    past = real(2, B, N, 2, H)
    yield Case("Attention", "present", [x, w, b], heads, (True, True))
    yield Case("Attention", "past", [x, w, b, None, past], heads, (True, True))
    yield Case("Attention", "past ahead", [x, w, b, None, past],
               {**heads, "unidirectional": 1}, (True, True))  # fmt: skip
    kept = fed([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    yield Case("Attention", "past and mask", [x, w, b, kept, past],
               {**heads, "unidirectional": 1}, (True, True), explained_output=1)  # fmt: skip


def _attend(q, k, v):
    scores = np.einsum("bsnh,btnh->bnst", q, k) / np.sqrt(H)
    return np.einsum("bnst,btnh->bsnh", special.softmax(scores, -1), v).reshape(B, -1, D)


def _multi_head():
    heads = {"num_heads": N}
    q, k, v, b = real(B, S, D), real(B, 5, D), real(B, 5, D), real(3 * D)
    name = "MultiHeadAttention"
    yield Case(name, "plain", [q, k, v], heads)
    yield Case(name, "no bias needed", [real(1, 1, D), real(1, 1, D), real(1, 1, D)], heads)
    yield Case(name, "bias", [q, k, v, b], {**heads, "scale": 0.2})
    yield Case(name, "other values", [q, k, real(B, 5, 6), real(2 * D + 6)], heads)
    yield Case(name, "ahead", [q, real(B, S, D), real(B, S, D)], {**heads, "unidirectional": 1})
    yield Case(
        name, "packed", [real(B, S, N, 3, H)], heads, kernel=False,
        expected=lambda x: _attend(*(x[:, :, :, i] for i in range(3))),
    )  # fmt: skip
    yield Case(
        name, "packed keys", [q, real(B, 5, N, 2, H)], heads, kernel=False,
        expected=lambda q, k: _attend(q.reshape(B, S, N, H), k[..., 0, :], k[..., 1, :]),
    )  # fmt: skip
    yield Case(name, "split keys", [q, real(B, N, 5, H), real(B, N, 5, H)], heads)
    split = real(B, N, 5, H)
    yield Case(name, "split keys and bias", [q, split, real(B, N, 5, H), held(3 * D)], heads)
    yield Case(name, "ends and more", [q, k, v, b, fed([2, 5, 0, 1, 2, 3, 4, 5])], heads)
    yield Case(name, "rows", [q, k, v, b, fed([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]])], heads)
    yield Case(name, "ends", [q, k, v, b, fed([2, 5])], heads)
    matrices = fed(np.tril(np.ones((B, S, 5))))
    yield Case(name, "matrices", [q, k, v, None, matrices], {**heads, "mask_filter_value": -20.0})
    yield Case(name, "attention bias", [q, k, v, None, None, real(1, N, S, 5)], heads)
    yield Case(name, "attention bias all", [q, k, v, b, None, real(B, 1, S, 5)], heads)
    past = [real(B, N, 2, H), real(B, N, 2, H)]
    new = [q, real(B, S, D), real(B, S, D)]
    yield Case(name, "present", [*new, b], heads, (True, True, True))
    yield Case(name, "past", [*new, b, None, None, *past], heads, (True, True, True))
    yield Case(name, "past ahead", [*new, None, None, None, *past],
               {**heads, "unidirectional": 1}, (True, True, True))  # fmt: skip
    yield Case(name, "scores", [*new], heads, (True, False, False, True))
    yield Case(
        name,
        "of scores",
        [*new[:2], held(B, S, D), held(3 * D)],
        heads,
        (True, True, True, True),
        explained_output=3,
    )


def _rotary():
    cos, sin = real(6, H // 2), real(6, H // 2)
    flat, split = real(B, S, D), real(B, N, S, H)
    positions = fed([[0, 1, 2], [2, 3, 5]], np.int64)
    start = fed([2], np.int64)
    for interleaved in (0, 1):
        given, tag = {"interleaved": interleaved}, f" {interleaved}"
        yield Case("RotaryEmbedding", "flat" + tag, [flat, positions, cos, sin], given)
        yield Case("RotaryEmbedding", "split" + tag, [split, positions, cos, sin], given)
        yield Case("RotaryEmbedding", "start" + tag, [flat, start, cos, sin], given)
        part = [real(6, 1), real(6, 1)]
        yield Case("RotaryEmbedding", "part" + tag, [flat, positions, *part],
                   {**given, "num_heads": N, "rotary_embedding_dim": 2})  # fmt: skip
        yield Case("RotaryEmbedding", "part split" + tag, [split, start, *part],
                   {**given, "num_heads": N, "rotary_embedding_dim": 2, "scale": 1.0})  # fmt: skip


def _grouped():
    name, heads = "GroupQueryAttention", {"num_heads": 4, "kv_num_heads": 2}
    h, every = 16, (True, True, True)
    q, k, v = real(B, S, 4 * h), real(B, S, 2 * h), real(B, S, 2 * h)
    first = [fed([S - 1, S - 1]), constant(S, np.int32)]
    none = [None, None]
    tables = [held(16, h // 2), held(16, h // 2)]
    yield Case(name, "first", [q, k, v, *none, *first], heads, every)
    yield Case(name, "packed", [real(B, S, 8 * h), *none, *none, *first], heads, every)
    yield Case(
        name, "all heads", [q, q, q, *none, *first], {"num_heads": 4, "kv_num_heads": 4}, every
    )
    yield Case(
        name, "scale", [q, k, v, *none, *first], {**heads, "scale": 0.1, "softcap": 0.4}, every
    )
    yield Case(name, "window", [q, k, v, *none, *first], {**heads, "local_window_size": 1}, every)
    yield Case(name, "window 2", [q, k, v, *none, *first], {**heads, "local_window_size": 2}, every)
    yield Case(name, "smooth", [q, k, v, *none, *first], {**heads, "smooth_softmax": 1}, every)
    for interleaved in (0, 1):
        given = {**heads, "do_rotary": 1, "rotary_interleaved": interleaved}
        yield Case(name, f"rotary {interleaved}", [q, k, v, *none, *first, *tables], given, every)
        for label, ids in [("", [[3, 4, 5], [7, 8, 9]]), (" swapped", [[2, 1, 0], [0, 1, 2]])]:
            yield Case(name, f"positions {interleaved}{label}",
                       [q, k, v, *none, *first, *tables, fed(ids, np.int64)], given, every)  # fmt: skip
        yield Case(name, f"rotary packed {interleaved}",
                   [real(B, S, 8 * h), *none, *none, *first, *tables], given, every)  # fmt: skip
    rest = [*none, None]
    sink = real(4)
    yield Case(name, "sink", [q, k, v, *none, *first, *rest, None, sink], heads, every)
    bias = real(1, 4, S, S)
    yield Case(
        name, "bias", [q, k, v, *none, *first, *rest, bias], {**heads, "softcap": 0.7}, every
    )
    buffers = [real(B, 2, 6, h), real(B, 2, 6, h)]
    yield Case(name, "first in a buffer", [q, k, v, *buffers, *first, *tables],
               {**heads, "do_rotary": 1}, every)  # fmt: skip
    ragged = [fed([1, 2]), constant(S, np.int32)]
    yield Case(name, "first ragged", [q, k, v, *none, *ragged], heads, every)
    for kind in (1, 2):
        yield Case(name, f"scores {kind}", [q, k, v, *none, *first],
                   {**heads, "qk_output": kind, "softcap": 0.5}, (*every, True))  # fmt: skip
    yield Case(name, "both ways", [q, k, v, *none, *first], {**heads, "causal": 0}, every)
    # One token more: a past of 4 in slots of 4 or 6.
    one = [real(B, 1, 4 * h), real(B, 1, 2 * h), real(B, 1, 2 * h)]
    for slots in (4, 7):
        past = [real(B, 2, slots, h), real(B, 2, slots, h)]
        for label, ends in [("", [4, 4]), (" ragged", [2, 4])]:
            step = [fed(ends), constant(5, np.int32)]
            yield Case(name, f"next positions {slots}{label}",
                       [*one, *past, *step, *tables, fed([[4], [9]], np.int64)],
                       {**heads, "do_rotary": 1}, every)  # fmt: skip
            yield Case(name, f"next {slots}{label}", [*one, *past, *step], heads, every)
            yield Case(name, f"next rotary {slots}{label}", [*one, *past, *step, *tables],
                       {**heads, "do_rotary": 1, "local_window_size": 3}, every)  # fmt: skip
    several = [real(1, 2, 4 * h), real(1, 2, 2 * h), real(1, 2, 2 * h)]
    past = [real(1, 2, 4, h), real(1, 2, 4, h)]
    yield Case(name, "two more", [*several, *past, fed([5]), constant(6, np.int32), *tables],
               {**heads, "do_rotary": 1}, every)  # fmt: skip


def _normalized():
    """Heads normalised before attention: a formula, for the CPU has no such kernel."""
    q, k, v, norms = real(B, S, D), real(B, S, D), real(B, S, D), [real(H), real(H)]
    inputs = [q, k, v, None, None, fed([S - 1, S - 1]), constant(S, np.int32), *[None] * 7, *norms]

    def expected(q, k, v, *rest):
        q, k, v = (x.reshape(B, S, N, H) for x in (q, k, v))
        q, k = (
            x / np.sqrt((x * x).mean(-1, keepdims=True) + 0.01) * w
            for x, w in ((q, rest[-2]), (k, rest[-1]))
        )
        scores = np.einsum("bsnh,btnh->bnst", q, k) / np.sqrt(H)
        scores = np.where(np.tril(np.ones((S, S), bool)), scores, -np.inf)
        return np.einsum("bnst,btnh->bsnh", special.softmax(scores, -1), v).reshape(B, S, D)

    yield Case("GroupQueryAttention", "norms", inputs,
               {"num_heads": N, "kv_num_heads": N, "qk_norm_epsilon": 0.01},
               kernel=False, expected=expected)  # fmt: skip


CASES = [*_normalized(), *_attention(), *_multi_head(), *_rotary(), *_grouped()]

"""GridSample: every interpolation and padding, at places inside the image, at its border and far away."""

from __future__ import annotations

import itertools

import numpy as np

from rule_cases.case import Case, held, real

# label: (image, places)
_SHAPES = {
    "square": ((2, 2, 4, 4), (2, 3, 5)),
    "wide": ((1, 3, 2, 7), (1, 1, 6)),
    "one pixel high": ((2, 1, 1, 3), (2, 4, 1)),
}
_VOLUMES = {
    "volume": ((2, 2, 3, 2, 4), (2, 2, 3, 1)),
    "flat volume": ((1, 1, 1, 3, 3), (1, 1, 2, 4)),
}


def _grid(shape, places, align, reach):
    """Places whose coordinates in pixels are not close to whole or half numbers."""
    sizes = np.array(shape[2:][::-1], float)
    rng = np.random.default_rng(len(shape) * 100 + shape[-1])
    counts = rng.integers(
        np.floor(-reach * sizes), np.ceil((1 + reach) * sizes), (*places, len(sizes))
    )
    pixels = counts + rng.choice([0.15, 0.3, 0.65, 0.8], counts.shape)
    return 2 * pixels / np.maximum(sizes - 1, 0.5) - 1 if align else (2 * pixels + 1) / sizes - 1


def _cases():
    shapes = [(label, *given) for label, given in (_SHAPES | _VOLUMES).items()]
    modes = ("linear", "nearest", "cubic")
    paddings = ("zeros", "border", "reflection")
    for (label, shape, places), mode, padding, align in itertools.product(
        shapes, modes, paddings, (0, 1)
    ):
        if (mode == "cubic" and len(shape) > 4) or (align and 1 in shape[2:]):
            continue
        attributes = {"padding_mode": padding, "align_corners": align}
        grid = _grid(shape, places, align, 0.3 if mode == "linear" else 1.2)
        name = f"{mode} {padding} align {align} {label}"
        given = attributes | {"mode": mode}
        opsets = (20, 99) if label == "wide" else (20,)
        yield Case("GridSample", name, [real(*shape), _at(grid)], given, opsets, linear=True)
        if mode != "nearest":
            yield Case("GridSample", f"{name} by grid", [held(*shape), _moving(grid)], given, (20,))
        if len(shape) == 4:
            given = attributes | {"mode": mode if mode == "nearest" else f"bi{mode}"}
            yield Case(
                "GridSample", f"{name} 16", [real(*shape), _at(grid)], given, (17,), linear=True
            )
    both = [real(2, 2, 3, 4), _moving(_grid((2, 2, 3, 4), (2, 2, 3), 0, 0.5))]
    yield Case("GridSample", "image and grid", both, {}, (20, 99))
    yield Case("GridSample", "no images", [real(0, 2, 3, 4), held(0, 2, 3, 2)], {}, (20,))
    yield Case("GridSample", "no places", [real(1, 2, 3, 4), real(1, 0, 3, 2)], {}, (20,))


def _at(grid):
    return held(*grid.shape, values=grid)


def _moving(grid):
    return real(*grid.shape, values=grid)


CASES = list(_cases())

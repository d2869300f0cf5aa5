"""Col2Im in one to three dimensions and MaxUnpool, with places that several values share."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, fed, real

_NEW = (18, 99)
# label: (batch, channels, image, block, attributes)
_BLOCKS = {
    "dense": (1, 2, [4, 5], [2, 3], {}),
    "apart": (2, 1, [4, 6], [2, 2], {"strides": [2, 2]}),
    "with a rest": (2, 2, [5, 7], [2, 3], {"strides": [2, 3]}),
    "padded": (1, 2, [4, 4], [3, 2], {"pads": [1, 0, 2, 1]}),
    "dilated": (1, 1, [6, 7], [2, 3], {"dilations": [3, 2]}),
    "all": (2, 2, [5, 6], [2, 3], {"dilations": [2, 1], "pads": [0, 1, 1, 0], "strides": [2, 3]}),
    "1d": (2, 3, [7], [3], {"strides": [2], "pads": [1, 0]}),
    "3d": (1, 2, [3, 2, 4], [2, 1, 3], {"pads": [0, 1, 0, 0, 0, 1]}),
    "no batch": (0, 2, [4, 5], [2, 3], {}),
}


def _col2im():
    for label, (batch, channels, image, block, attributes) in _BLOCKS.items():
        n = len(image)
        pads = attributes.get("pads", [0] * (2 * n))
        strides, dilations = (attributes.get(name, [1] * n) for name in ("strides", "dilations"))
        counts = [
            (size + pads[i] + pads[n + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
            for i, size in enumerate(image)
        ]
        x = real(batch, channels * int(np.prod(block)), int(np.prod(counts)))
        for give in (constant, fed):
            name = label if give is constant else f"{label} fed"
            inputs = [x, give(image), give(block)]
            yield Case("Col2Im", name, inputs, attributes, _NEW, linear=True)


def _max_unpool():
    rng = np.random.default_rng(5)
    for label, shape, attributes in [
        ("1d", (2, 2, 3), {"kernel_shape": [2], "strides": [2]}),
        ("2d", (2, 1, 2, 3), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("3d", (1, 1, 2, 1, 2), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
        ("padded", (1, 2, 3, 3), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    ]:
        pads = attributes.get("pads", [0] * 2 * (len(shape) - 2))
        spatial = [
            (size - 1) * stride + kernel - pads[i] - pads[i + len(shape) - 2]
            for i, (size, stride, kernel) in enumerate(
                zip(shape[2:], attributes["strides"], attributes["kernel_shape"], strict=True)
            )
        ]
        places = int(np.prod([*shape[:2], *spatial]))
        indices = rng.choice(places, shape, replace=False)
        shared = rng.integers(0, places, shape)
        shared[..., -1] = shared[..., 0]
        x = real(*shape)
        yield Case("MaxUnpool", label, [x, constant(indices)], attributes, linear=True)
        yield Case("MaxUnpool", f"{label} fed", [x, fed(indices)], attributes, (17,), linear=True)
        yield Case("MaxUnpool", f"{label} shared", [x, fed(shared)], attributes, (17,), linear=True)
    given = {"kernel_shape": [2, 2], "strides": [2, 2]}
    indices = np.array([[[[5, 7], [13, 21]]]])
    for give in (constant, fed):
        inputs = [real(1, 1, 2, 2), constant(indices), give([1, 1, 5, 5])]
        yield Case("MaxUnpool", f"output_shape {give.__name__}", inputs, given, linear=True)


CASES = [*_col2im(), *_max_unpool()]

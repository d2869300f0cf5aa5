"""DeformConv: groups of channels and of offsets, strides, dilations, pads, with and without mask and bias."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, held, real

# label: (batch, channels, image, outputs, kernel, attributes)
_NODES = {
    "plain": (1, 2, (4, 5), 3, (2, 2), {}),
    "padded": (2, 1, (3, 4), 2, (3, 2), {"pads": [1, 0, 2, 1]}),
    "strided": (1, 2, (6, 5), 1, (2, 3), {"strides": [2, 1], "dilations": [1, 2]}),
    "groups": (2, 4, (3, 4), 2, (2, 1), {"group": 2}),
    "offset groups": (2, 4, (3, 4), 2, (1, 2), {"offset_group": 2}),
    "both groups": (1, 4, (4, 4), 4, (2, 2), {"group": 4, "offset_group": 2, "pads": [1, 1, 0, 0]}),
}


def _places(image, kernel, attributes):
    pads = attributes.get("pads", [0] * 4)
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return [
        (image[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(2)
    ]


def _cases():
    rng = np.random.default_rng(3)
    for label, (batch, channels, image, outputs, kernel, attributes) in _NODES.items():
        places, taps = _places(image, kernel, attributes), int(np.prod(kernel))
        groups = attributes.get("offset_group", 1)
        x = real(batch, channels, *image)
        w = real(outputs, channels // attributes.get("group", 1), *kernel, fixed=(2, 3))
        shape = (batch, groups * taps * 2, *places)
        # Not close to whole pixels, where the interpolation has a kink.
        moved = rng.integers(-2, 3, shape) + rng.choice([0.15, 0.4, 0.75], shape)
        offset = real(*shape, values=moved)
        mask = real(batch, groups * taps, *places)
        yield Case("DeformConv", label, [x, w, offset], attributes, (19,))
        full = [x, w, offset, real(outputs), mask]
        yield Case("DeformConv", f"{label} masked", full, attributes, (22, 99))
        given = attributes | {"kernel_shape": list(kernel)}
        held_weight = held(*w.shape)
        yield Case(
            "DeformConv", f"{label} held", [x, held_weight, offset, None, mask], given, (19,)
        )


CASES = list(_cases())

"""Resize: every interpolation, every place of the samples, scales and sizes, given at once and at run time."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, fed, real

_NEW = (18, 99)
_PLACES = [
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
]  # fmt: skip
# label: (shape, scales)
_SCALES = {
    "doubled": ((2, 3, 3, 2), [1, 1, 2, 2]),
    "tripled wide": ((1, 1, 2, 3), [1, 1, 2, 3]),
    "up": ((1, 2, 4, 5), [1, 1, 1.7, 2.3]),
    "down": ((1, 2, 5, 7), [1, 1, 0.6, 0.45]),
    "up and down": ((2, 1, 4, 6), [1, 1, 1.5, 0.5]),
    "height kept": ((1, 2, 4, 5), [1, 1, 1.1, 1.7]),
    "one axis": ((1, 2, 4, 5), [1, 1, 1, 1.6]),
    "to one": ((1, 2, 3, 5), [1, 1, 0.4, 0.3]),
    "too little to change": ((1, 1, 3, 4), [1, 1, 1.1, 1.2]),
}


def _case(
    label, shape, attributes, opsets, *, scales=None, sizes=None, roi=None, at_run_time=False
):
    give = fed if at_run_time else constant
    inputs = [
        real(*shape),
        None if roi is None else give(np.array(roi, np.float32)),
        None if scales is None else give(np.array(scales, np.float32)),
        None if sizes is None else give(np.array(sizes, np.int64)),
    ]
    while inputs[-1] is None:
        inputs.pop()
    return Case("Resize", label, inputs, attributes, opsets, linear=True)


def _modes():
    for mode in ("nearest", "linear", "cubic"):
        for place in _PLACES:
            given = {"mode": mode, "coordinate_transformation_mode": place}
            for label, (shape, scales) in _SCALES.items():
                yield f"{mode} {place} {label}", given, shape, scales


def _interpolations():
    for index, (label, given, shape, scales) in enumerate(_modes()):
        at_run_time = index % 2 == 1
        opsets = (17, 18, 99)[index % 3 : index % 3 + 1]
        if index % 4 < 2:
            yield _case(label, shape, given, opsets, scales=scales, at_run_time=at_run_time)
            continue
        sizes = [max(int(s * n + 0.3), 1) for s, n in zip(scales, shape, strict=True)]
        yield _case(
            f"{label} sizes", shape, given, opsets, sizes=sizes, at_run_time=not at_run_time
        )


def _nearest():
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for place in ("half_pixel", "asymmetric", "align_corners"):
            given = {"nearest_mode": nearest, "coordinate_transformation_mode": place}
            label = f"nearest {nearest} {place}"
            yield _case(label, (1, 2, 3, 4), given, (17,), scales=[1, 1, 2, 3])
            yield _case(f"{label} down", (1, 1, 6, 5), given, (17,), scales=[1, 1, 0.5, 0.7])
            yield _case(f"{label} sizes", (1, 2, 3, 4), given, (18,), sizes=[1, 2, 6, 12])
            yield _case(f"{label} odd", (1, 2, 3, 4), given, (99,), sizes=[1, 2, 5, 7])
    asymmetric = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    for shape, scales in [
        ((5,), [2]),
        ((2, 3), [2, 1.4]),
        ((1, 2, 3), [3, 1, 2]),
        ((1, 2, 2, 2, 2), [1, 2, 2, 1, 3]),
    ]:
        yield _case(f"nearest {shape}", shape, asymmetric, (17, 99), scales=scales)
        yield _case(
            f"nearest {shape} fed", shape, asymmetric, (17,), scales=scales, at_run_time=True
        )


def _ranks():
    for shape, scales in [
        ((4, 5), [1.5, 2]),
        ((3, 4, 5), [1.5, 1, 0.6]),
        ((3, 2, 4), [2, 1.5, 1.3]),
        ((2, 3, 4, 2), [1, 1.5, 2, 1]),
        ((1, 2, 2, 3, 4), [1, 1, 2, 1.4, 0.6]),
    ]:
        yield _case(f"linear {shape}", shape, {"mode": "linear"}, (17, 99), scales=scales)
        yield _case(
            f"linear {shape} fed", shape, {"mode": "linear"}, (17,), scales=scales, at_run_time=True
        )
    for shape, scales in [((4, 5), [1.5, 2]), ((1, 4, 5, 2), [1, 1.5, 2, 1])]:
        yield _case(f"cubic {shape}", shape, {"mode": "cubic"}, (17,), scales=scales)
    for mode in ("linear", "nearest"):
        empty = {"mode": mode, "coordinate_transformation_mode": "align_corners"}
        yield _case(f"{mode} empty rows", (1, 2, 0, 3), empty, (17,), sizes=[1, 2, 0, 5])
        yield _case(f"{mode} empty columns", (1, 2, 3, 0), empty, (18,), scales=[1, 1, 2, 1.5])
        yield _case(f"{mode} to nothing", (1, 2, 3, 1), empty, (99,), scales=[1, 1, 2, 0.5])
    yield _case("empty batch", (0, 2, 3, 4), {"mode": "linear"}, (17,), scales=[1, 1, 2, 2])


def _cubic():
    for coefficient in (-0.5, -0.75):
        for exclude in (0, 1):
            given = {"mode": "cubic", "cubic_coeff_a": coefficient, "exclude_outside": exclude}
            label = f"cubic {coefficient} exclude {exclude}"
            yield _case(label, (1, 2, 4, 5), given, (17,), scales=[1, 1, 1.6, 0.7])
            yield _case(f"{label} sizes", (1, 1, 4, 3), given, _NEW, sizes=[1, 1, 7, 2])


def _antialias():
    for mode in ("linear", "cubic"):
        for place in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"):
            given = {"mode": mode, "antialias": 1, "coordinate_transformation_mode": place}
            label = f"{mode} antialias {place}"
            yield _case(label, (1, 2, 6, 7), given, _NEW, scales=[1, 1, 0.6, 0.45])
            yield _case(f"{label} sizes", (1, 1, 7, 6), given, _NEW, sizes=[1, 1, 3, 5])
            yield _case(
                f"{label} fed", (1, 1, 5, 4), given, _NEW, sizes=[1, 1, 3, 7], at_run_time=True
            )
        excluding = {"mode": mode, "antialias": 1, "exclude_outside": 1}
        yield _case(
            f"{mode} antialias excluding", (1, 1, 7, 6), excluding, _NEW, scales=[1, 1, 0.6, 0.4]
        )
    yield _case(
        "antialias trilinear",
        (3, 5, 4),
        {"mode": "linear", "antialias": 1},
        _NEW,
        scales=[0.7, 0.6, 0.5],
    )


def _crop():
    for mode in ("nearest", "linear", "cubic"):
        given = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize"}
        roi = [0, 0, 0.4, 0.6, 1, 1, 1.3, 0.9]
        outside = given | {"extrapolation_value": 10.0}
        for label, attributes in (("crop", given), ("crop extrapolated", outside)):
            for at_run_time in (False, True):
                how = f"{mode} {label}" + (" fed" if at_run_time else "")
                yield _case(
                    how,
                    (1, 2, 4, 5),
                    attributes,
                    (17, 99),
                    sizes=[1, 2, 3, 4],
                    roi=roi,
                    at_run_time=at_run_time,
                )
                yield _case(
                    f"{how} scales", (1, 1, 4, 4), attributes, (17,), scales=[1, 1, 1.5, 0.8], roi=roi,
                    at_run_time=at_run_time,
                )  # fmt: skip
        axes = given | {"axes": [3, 2]}
        yield _case(
            f"{mode} crop axes", (1, 2, 4, 5), axes, _NEW, sizes=[4, 3], roi=[0.6, 0.4, 0.9, 1.3]
        )


def _axes():
    for axes in ([2, 3], [3, 2], [3]):
        for mode in ("nearest", "linear", "cubic"):
            given = {"mode": mode, "axes": axes}
            count = len(axes)
            label = f"{mode} axes {axes}"
            yield _case(label, (1, 2, 3, 4), given, _NEW, scales=[1.5, 0.8][:count])
            yield _case(f"{label} sizes", (1, 2, 3, 4), given, _NEW, sizes=[5, 7][:count])
            yield _case(
                f"{label} fed", (1, 2, 3, 4), given, _NEW, sizes=[5, 7][:count], at_run_time=True
            )


def _policies():
    for policy in ("not_larger", "not_smaller", "stretch"):
        for mode in ("nearest", "linear", "cubic"):
            for sizes, place in (
                ([7, 8], "half_pixel"),
                ([8, 5], "asymmetric"),
                ([2, 3], "half_pixel"),
                ([3, 5], "asymmetric"),
                ([2, 4], "align_corners"),
                ([7, 6], "align_corners"),
            ):
                given = {
                    "mode": mode, "axes": [2, 3], "keep_aspect_ratio_policy": policy,
                    "coordinate_transformation_mode": place,
                }  # fmt: skip
                label = f"{mode} {policy} {sizes} {place}"
                yield _case(
                    label, (1, 1, 3, 5), given, _NEW[:1], sizes=sizes, at_run_time=sizes == [8, 5]
                )
    given = {"keep_aspect_ratio_policy": "not_larger"}
    yield _case("all axes not_larger", (2, 4), given, _NEW, sizes=[3, 7])


CASES = [
    *_interpolations(), *_nearest(), *_ranks(), *_cubic(), *_antialias(), *_crop(), *_axes(), *_policies(),
]  # fmt: skip

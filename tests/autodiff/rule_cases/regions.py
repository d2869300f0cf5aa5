"""RoiAlign and MaxRoiPool: regions inside, across and beyond the border, tiny, turned around; none at all."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, fed, held, real

_X = (2, 3, 5, 6)
_ROIS = [
    [0.3, 0.4, 4.1, 3.7],
    [-3.1, -2.2, 2.2, 3.3],
    [2.3, 1.1, 9.4, 8.2],
    [1.3, 1.2, 1.6, 1.5],
    [3.2, 3.1, 2.3, 2.4],
]
_IMAGES = [0, 1, 1, 0, 1]


def _align():
    rois, images = np.array(_ROIS), fed(_IMAGES)
    for mode in ("avg", "max"):
        for place in ("half_pixel", "output_half_pixel"):
            for ratio in (0, 1, 2, 3):
                given = {
                    "mode": mode, "coordinate_transformation_mode": place, "sampling_ratio": ratio,
                    "output_height": 2, "output_width": 3,
                }  # fmt: skip
                label = f"{mode} {place} ratio {ratio}"
                yield Case("RoiAlign", label, [real(*_X), constant(rois), images], given, (17,))
                scaled = given | {"spatial_scale": 0.6, "output_width": 1}
                if mode == "avg":
                    by_rois = [held(*_X), real(*rois.shape, values=rois), images]
                    yield Case("RoiAlign", f"{label} by rois", by_rois, given, (17,))
                    both = [real(*_X), real(*rois.shape, values=rois), constant(_IMAGES)]
                    yield Case("RoiAlign", f"{label} scaled, both", both, scaled, (17,))
                else:
                    yield Case(
                        "RoiAlign",
                        f"{label} scaled",
                        [real(*_X), constant(rois), images],
                        scaled,
                        (17,),
                    )
    one = [real(1, 2, 4, 4), real(2, 4, values=rois[:2]), constant([0, 0])]
    yield Case("RoiAlign", "one image, by default", one, {}, (17,))
    for mode in ("avg", "max"):
        none = [real(1, 2, 4, 4), fed(np.zeros((0, 4))), fed(np.zeros(0, np.int64))]
        yield Case("RoiAlign", f"no regions {mode}", none, {"mode": mode, "output_width": 2}, (17,))


def _pool():
    rois = np.array(
        [
            [0, 0, 0, 5, 4],
            [1, 1, 1, 8, 8],
            [1, 2, 2, 1, 1],
            [0, -3, -2, 3, 2],
            [1, 7, 1, 9, 3],
            [0, 0.6, 1.4, 3.3, 2.8],
        ]
    )
    for label, given in {
        "2x2": {"pooled_shape": [2, 2]},
        "3x1": {"pooled_shape": [3, 1]},
        "scaled": {"pooled_shape": [2, 4], "spatial_scale": 0.7},
    }.items():
        x = real(*_X, distinct=True, low=0.5, high=2.0)
        yield Case("MaxRoiPool", label, [x, constant(rois)], given, (17,), formula=_max_roi_pool)
        yield Case(
            "MaxRoiPool", f"{label} fed", [x, fed(rois)], given, (17,), formula=_max_roi_pool
        )
    none = [real(1, 2, 4, 4), fed(np.zeros((0, 5)))]
    yield Case(
        "MaxRoiPool", "no regions", none, {"pooled_shape": [2, 2]}, (17,), formula=_max_roi_pool
    )


def _bounds(start, end, bins, size):
    edges = np.arange(bins + 1, dtype=np.float32) * np.float32(max(end - start + 1, 1) / bins)
    firsts = np.clip(np.floor(edges[:-1]) + start, 0, size).astype(int)
    return list(zip(firsts, np.clip(np.ceil(edges[1:]) + start, 0, size).astype(int), strict=True))


def _max_roi_pool(x, rois, pooled_shape, spatial_scale=1.0):
    result = np.zeros((len(rois), x.shape[1], *pooled_shape))
    for r, roi in enumerate(rois):
        ends = np.sign(roi[1:]) * np.floor(np.abs(roi[1:] * spatial_scale) + 0.5)
        rows = _bounds(ends[1], ends[3], pooled_shape[0], x.shape[2])
        columns = _bounds(ends[0], ends[2], pooled_shape[1], x.shape[3])
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                if bottom > top and right > left:
                    result[r, :, i, j] = x[int(roi[0]), :, top:bottom, left:right].max(axis=(1, 2))
    return result


CASES = [*_align(), *_pool()]

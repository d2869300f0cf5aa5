"""The pointing game by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import igonnx
from igonnx.metrics import pointing_game


def _peaks(*places: tuple[int, int]) -> Any:
    values = np.zeros((len(places), 8, 10))
    for one, place in zip(values, places, strict=True):
        one[place] = 1
    return values


def test_boxes_by_hand() -> None:
    values = _peaks((2, 3), (2, 5), (6, 9), (0, 0))
    boxes = [(3, 2, 5, 4), (3, 2, 5, 4), (0, 0, 10, 8), [(8, 6, 10, 8), (0, 0, 1, 1)]]
    found = pointing_game(values, boxes, tolerance=0)
    np.testing.assert_array_equal(found.point, [[2, 3], [2, 5], [6, 9], [0, 0]])
    np.testing.assert_array_equal(found.distance, [0, 1, 0, 0])
    np.testing.assert_array_equal(found.hit, [True, False, True, True])
    np.testing.assert_array_equal(found.score, [1, 0, 1, 1])
    assert found.accuracy == 0.75
    assert pointing_game(values, boxes, tolerance=1).accuracy == 1


def test_the_tolerance_is_a_euclidean_distance() -> None:
    box = [(0, 0, 1, 1)]
    found = pointing_game(_peaks((3, 4)), box, tolerance=4.99)
    assert found.distance[0] == 5
    assert not found.hit[0]
    assert pointing_game(_peaks((3, 4)), box, tolerance=5).hit[0]
    assert pointing_game(_peaks((7, 9)), box).hit[0]  # 15 pixels, as the paper has it


def test_masks_and_channels() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2, 8, 10))
    heat = values.sum(axis=1)
    masks = heat == heat.max(axis=(1, 2), keepdims=True)
    for given in (values, heat):
        assert pointing_game(given, masks, tolerance=0).accuracy == 1
    assert pointing_game(heat, np.roll(masks, 1, axis=2), tolerance=0).accuracy == 0
    last = np.moveaxis(values, 1, 3)
    assert pointing_game(last, masks, tolerance=0, channel_axis=-1).accuracy == 1
    several = rng.normal(size=(2, 3, 12))
    total = several.sum(axis=1)
    peaks = total == total.max(axis=1, keepdims=True)
    assert pointing_game(several, peaks, tolerance=0).accuracy == 1
    assert pointing_game(several, np.roll(peaks, 2, axis=1), tolerance=1).accuracy == 0
    series = rng.normal(size=(2, 12))
    assert pointing_game(series, series == series.max(axis=1, keepdims=True)).accuracy == 1


def test_the_first_of_several_peaks_counts() -> None:
    found = pointing_game(np.ones((1, 4, 4)), np.eye(4, dtype=bool)[None], tolerance=0)
    np.testing.assert_array_equal(found.point, [[0, 0]])


def test_attributions_are_taken_too(pictures: igonnx.Explainer) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 9)).astype(np.float32)
    attribution = pictures.integrated_gradients(x, target=0)
    expected = attribution.of().sum(axis=1).reshape(2, -1).argmax(axis=1)
    found = pointing_game(attribution, [(0, 0, 9, 8)] * 2)
    np.testing.assert_array_equal(found.point, np.stack(np.unravel_index(expected, (8, 9)), axis=1))


@pytest.mark.parametrize(
    ("values", "regions", "message"),
    [
        (_peaks((1, 1)), [(0, 0, 0.2, 0.2)], r"^the object of example 0 has no pixel$"),
        (_peaks((1, 1)), [(5, 0, 3, 2)], r"^a box is \(5, 0, 3, 2\); expected \(left, top,"),
        (_peaks((1, 1)), [(5, 0, 3)], r"^boxes have shape \[3\]; expected \[4\] or"),
        (_peaks((1, 1)), 5, r"^regions is 5; expected masks, or boxes for each image$"),
        (_peaks((1, 1)), [(0, 0, 3, 3)] * 2, r"^2 boxes were given for .* \[1, 8, 10\]"),
        (_peaks((1, 1)), np.ones((1, 8, 9), bool), r"^the masks have shape \[1, 8, 9\]; expected"),
        (np.ones(3), np.ones(3, bool), r"^the attribution has shape \[3\]"),
        (np.full((1, 2, 2), np.nan), [(0, 0, 1, 1)], r"NaN"),
    ],
)
def test_what_is_refused(values: Any, regions: Any, message: str) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        pointing_game(values, regions)


@pytest.mark.parametrize("tolerance", [-1, np.nan, "far"])
def test_tolerances_that_make_no_sense(tolerance: Any) -> None:
    with pytest.raises(igonnx.InputError, match=r"^tolerance is .*; expected a number of at least"):
        pointing_game(_peaks((1, 1)), [(0, 0, 3, 3)], tolerance=tolerance)

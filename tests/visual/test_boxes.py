"""Boxes and masks on pictures; detectors and segmentations explained from end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import igonnx
from igonnx.errors import InputError
from igonnx.targets import box_target, mask_target, matching_box
from igonnx.visual import draw_boxes, draw_mask

GREY = np.full((40, 60, 3), 0.5)
RED = (255, 0, 0)


def _drawn(picture: Any) -> Any:
    """Where the line is: bool [H, W]."""
    return (picture[..., 0] > 200) & (picture[..., 1] < 60)


class TestDrawing:
    def test_box(self) -> None:
        picture = draw_boxes(GREY, [10, 5, 50, 30], colour=RED, width=2)
        assert picture.dtype == np.uint8
        assert picture.shape == (40, 60, 3)
        expected = np.zeros((40, 60), bool)
        expected[4:31, 9:51] = True
        expected[6:29, 11:49] = False
        corners = [(4, 9), (4, 50), (30, 9), (30, 50)]  # they are round
        for corner in corners:
            expected[corner] = _drawn(picture)[corner]
        np.testing.assert_array_equal(_drawn(picture), expected)
        assert (picture[15:20, 20:40] == 128).all()

    @pytest.mark.parametrize(
        ("box", "options"),
        [
            ([10, 5, 40, 25], {"box_format": "xywh"}),
            ([30, 17.5, 40, 25], {"box_format": "cxcywh"}),
            ([10 / 60, 5 / 40, 50 / 60, 30 / 40], {"relative": True}),
            ([[10, 5, 50, 30]] * 2, {}),
        ],
    )
    def test_formats(self, box: Any, options: dict[str, Any]) -> None:
        np.testing.assert_array_equal(
            draw_boxes(GREY, box, **options), draw_boxes(GREY, [10, 5, 50, 30])
        )

    def test_no_box_and_boxes_beyond_the_picture(self) -> None:
        assert (draw_boxes(GREY, np.zeros((0, 4))) == 128).all()
        assert (draw_boxes(GREY, [-100, -100, 200, 200]) == 128).all()
        assert (
            _drawn(draw_boxes(GREY, [-100, 10, 20, 300], colour=RED, width=3))[:, 19:21].sum() > 50
        )

    def test_mask(self) -> None:
        mask = np.zeros((40, 60), bool)
        mask[10:30, 20:40] = True
        found = _drawn(draw_mask(GREY, mask, colour=RED, width=2))
        assert found[12:28, 19:21].all()
        assert not found[14:26, 24:36].any()
        assert not found[:6].any()
        np.testing.assert_array_equal(found, found[::-1])
        assert (draw_mask(GREY, np.zeros((4, 6))) == 128).all()
        small = draw_mask(GREY, mask[::5, ::5], colour=RED, width=2)
        assert small.shape == (40, 60, 3)
        assert _drawn(small)[15:25, 18:22].any()
        assert draw_mask(GREY, np.ones((40, 60))).shape == (40, 60, 3)

    @pytest.mark.parametrize(
        ("draw", "message"),
        [
            (
                lambda: draw_boxes(GREY, [1, 2, 3]),
                r"boxes has shape \[3\], expected \[4\] or \[K, 4\]",
            ),
            (lambda: draw_boxes(GREY, [1, 2, np.nan, 4]), "1 of 4 values of boxes are NaN"),
            (lambda: draw_boxes(GREY, [5, 5, 1, 9]), r"box 0 is \[5.0, 5.0, 1.0, 9.0\] \(xyxy\)"),
            (lambda: draw_boxes(GREY, [0, 0, 1, 1], box_format="yx"), "box_format is 'yx'"),  # type: ignore[arg-type]
            (lambda: draw_boxes(GREY, [0, 0, 1, 1], colour=(1, 2, 300)), "colour is"),
            (
                lambda: draw_boxes(GREY, [0, 0, 1, 1], width=0),
                "width is 0, expected a number of pixels > 0",
            ),
            (lambda: draw_boxes(np.zeros(3), [0, 0, 1, 1]), "the image has shape"),
            (lambda: draw_mask(GREY, np.zeros((1, 4, 4))), r"the mask has shape \[1, 4, 4\]"),
            (lambda: draw_mask(GREY, np.full((4, 4), np.nan)), "16 of 16 values of the mask"),
        ],
    )
    def test_bad_input(self, draw: Callable[[], Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            draw()


# -- targets -------------------------------------------------------------------------------------


class TestBoxTarget:
    scores = np.random.default_rng(0).normal(size=(2, 7, 5))

    def test_index(self) -> None:
        target = box_target(self.scores, 3, 2)
        assert target.shape == self.scores.shape
        assert target.dtype == np.float64
        assert np.argwhere(target).tolist() == [[0, 3, 2], [1, 3, 2]]
        assert (target.sum(axis=(1, 2)) == 1).all()
        assert np.argwhere(box_target(self.scores, [1, -1], 0)).tolist() == [[0, 1, 0], [1, 6, 0]]

    def test_best(self) -> None:
        for target, expected in (
            (box_target(self.scores), self.scores.max(axis=(1, 2))),
            (box_target(self.scores, class_index=4), self.scores[..., 4].max(axis=1)),
            (box_target(self.scores, 2), self.scores[:, 2].max(axis=1)),
            (box_target(self.scores, first_class=3), self.scores[..., 3:].max(axis=(1, 2))),
            (box_target(self.scores, 2, 1, first_class=3), self.scores[:, 2, 4]),
        ):
            np.testing.assert_array_equal((target * self.scores).sum(axis=(1, 2)), expected)

    def test_other_layouts(self) -> None:
        swapped = box_target(self.scores.swapaxes(1, 2), 3, 1, box_axis=2, first_class=1)
        np.testing.assert_array_equal(
            swapped.swapaxes(1, 2), box_target(self.scores, 3, 1, first_class=1)
        )
        flat = box_target(self.scores[..., 0])
        assert flat.shape == (2, 7)
        np.testing.assert_array_equal(flat.argmax(axis=1), self.scores[..., 0].argmax(axis=1))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"box": 7}, "box is 7, expected 0 to 6"),
            ({"box": "a"}, "1 boxes were given for 2 examples"),
            ({"box": [1.5, 2]}, "box is 1.5, expected 0 to 6"),
            ({"box": [1, 2, 3]}, "3 boxes were given for 2 examples"),
            ({"class_index": 5}, "class_index is 5, expected 0 to 4"),
            ({"class_index": 1, "first_class": 4}, "class_index is 1, expected 0 to 0"),
            ({"first_class": 5}, "first_class is 5, expected 0 to 4"),
            ({"box_axis": 3}, "box_axis is 3, expected 1, or 2"),
            ({"output": np.zeros(3)}, r"the output has shape \[3\] and dtype float64, expected numbers \[N, boxes\]"),
            ({"output": np.full((1, 2), np.nan)}, "the output holds values that are not finite"),
        ],
    )  # fmt: skip
    def test_bad_input(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            box_target(**({"output": self.scores} | arguments))


class TestMatchingBox:
    boxes = np.array(
        [[[0, 0, 4, 4], [2, 2, 6, 6], [2, 2, 20, 20]], [[0, 0, 9, 9], [8, 8, 9, 9], [5, 5, 5, 5]]]
    )

    def test_overlap(self) -> None:
        assert matching_box(self.boxes, [2, 2, 7, 7]).tolist() == [1, 0]
        assert matching_box(self.boxes, [[1, 1, 4, 4], [8, 8, 9, 9]]).tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ([30, 30, 40, 40], r"no box of example 0 overlaps with \[30.0, 30.0, 40.0, 40.0\]"),
            ([[2, 2, 3, 3], [5, 5, 5, 5]], r"no box of example 1 overlaps with \[5.0, 5.0, 5.0, 5.0\]"),
            ([1, 2, 3], "boxes has shape"),
        ],
    )  # fmt: skip
    def test_bad_input(self, box: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            matching_box(self.boxes, box)


class TestMaskTarget:
    logits = np.random.default_rng(1).normal(size=(2, 3, 4, 5))

    def test_where_the_class_wins(self) -> None:
        target = mask_target(self.logits, 1)
        assert target.shape == self.logits.shape
        assert not target[:, [0, 2]].any()
        np.testing.assert_array_equal(target[:, 1], self.logits.argmax(axis=1) == 1)
        last = mask_target(np.moveaxis(self.logits, 1, -1), 1, class_axis=-1)
        np.testing.assert_array_equal(np.moveaxis(last, -1, 1), target)
        single = mask_target(self.logits[:, :1], 0)
        np.testing.assert_array_equal(single, self.logits[:, :1] > 0)

    def test_masks_and_means(self) -> None:
        mask = np.zeros((4, 5), bool)
        mask[1:3, 2:4] = True
        scores = (mask_target(self.logits, 2, mask) * self.logits).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(scores, self.logits[:, 2, 1:3, 2:4].sum(axis=(1, 2)))
        both = np.stack([mask, np.ones_like(mask)])
        means = (mask_target(self.logits, -1, both, mean=True) * self.logits).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(
            means, [self.logits[0, 2, 1:3, 2:4].mean(), self.logits[1, 2].mean()]
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"class_index": 3}, "class_index is 3, expected 0 to 2"),
            ({"mask": np.ones((5, 4))}, r"the mask has shape \[5, 4\], expected \[4, 5\] or \[2, 4, 5\]"),
            ({"mask": np.ones(4)}, r"the mask has shape \[4\]"),
            ({"mask": np.zeros((4, 5))}, "example 0: the mask is zero everywhere"),
            ({"mask": np.full((4, 5), np.nan)}, "the mask holds values that are not finite"),
            ({"mask": np.resize([1, -1], (4, 5)), "mean": True}, "weights add up to 0"),
            ({"class_axis": 0}, "class_axis is 0, expected an axis of"),
            ({"class_axis": 4}, "class_axis is 4"),
            ({"logits": np.stack([np.ones((4, 5)), np.zeros((4, 5))])[None]}, "example 0: class 1 wins nowhere"),
            ({"logits": np.zeros(3)}, r"logits has shape \[3\]"),
        ],
    )  # fmt: skip
    def test_bad_input(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            mask_target(**({"logits": self.logits, "class_index": 1} | arguments))


# -- from end to end -------------------------------------------------------------------------------


def test_detector(model: Callable[..., onnx.ModelProto]) -> None:
    """16 boxes that see a patch of 2 by 2 pixels each, 3 classes; linear, so w x is the attribution."""
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(3, 3, 2, 2)).astype(np.float32)
    detector = model(
        """(float[N, 3, 8, 8] image) => (float[N, 16, 4] boxes, float[N, 16, 3] scores) {
            patches = Conv<strides = [2, 2]>(image, w)
            columns = Reshape(patches, shape)
            scores = Transpose<perm = [0, 2, 1]>(columns)
            first = Slice(scores, zero, one, two)
            boxes = Concat<axis = 2>(scores, first)
        }""",
        {
            "w": weights,
            "shape": np.array([0, 3, 16]),
            "zero": np.array([0]),
            "one": np.array([1]),
            "two": np.array([2]),
        },
    )
    image = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    explainer = igonnx.Explainer(detector, output="scores")
    scores = explainer.predict(image)["scores"]
    target = box_target(scores, [5, 10], class_index=2)
    found = explainer.integrated_gradients(image, target=target, steps=3)
    np.testing.assert_allclose(found.scores, [scores[0, 5, 2], scores[1, 10, 2]], rtol=1e-5)
    assert found.target == [None, None]
    for example, (row, column) in enumerate([(1, 1), (2, 2)]):
        patch = np.s_[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = np.zeros((3, 8, 8), np.float32)
        expected[patch] = weights[2] * image[example][patch]
        np.testing.assert_allclose(found.of()[example], expected, atol=1e-5)
    overlay = draw_boxes(found.render(np.full((8, 8), 0.5)), [2, 2, 4, 4])
    assert overlay.shape == (8, 8, 3)


def test_segmentation(model: Callable[..., onnx.ModelProto]) -> None:
    """Logits of a pixel that depend on that pixel alone: nothing is attributed outside the mask."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(2, 3, 1, 1)).astype(np.float32)
    segmentation = model(
        "(float[N, 3, 6, 6] image) => (float[N, 2, 6, 6] logits) { logits = Conv(image, w) }",
        {"w": weights},
    )
    image = rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
    explainer = igonnx.Explainer(segmentation)
    logits = explainer.predict(image)["logits"]
    target = mask_target(logits, 1, mean=True)
    inside = logits.argmax(axis=1)[0] == 1
    found = explainer.integrated_gradients(image, target=target, steps=3)
    np.testing.assert_allclose(found.scores, logits[0, 1][inside].mean(), rtol=1e-5)
    expected = np.where(inside, weights[1] * image[0] / inside.sum(), 0)
    np.testing.assert_allclose(found.of()[0], expected, atol=1e-6)
    assert draw_mask(found.render(np.full((6, 6), 0.5)), inside).shape == (6, 6, 3)

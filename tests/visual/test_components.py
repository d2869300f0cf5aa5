"""Cleaning up, holes, borders and components: against small pictures drawn by hand."""

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import (
    border,
    clean_up,
    component_sums,
    connected_components,
    fill_holes,
    top_components,
)


def drawn(picture):
    """A mask from rows of text, `#` being inside."""
    return np.array([[letter == "#" for letter in row] for row in picture.split()])


RING = drawn("""
    ........
    .#####..
    .#...#..
    .#...#..
    .#####..
    .......#
    ........""")


class TestMorphology:
    def test_holes_are_filled(self):
        np.testing.assert_array_equal(
            fill_holes(RING),
            drawn("""
                ........
                .#####..
                .#####..
                .#####..
                .#####..
                .......#
                ........"""),
        )

    def test_border_is_one_pixel_wide_and_closed_at_the_frame(self):
        np.testing.assert_array_equal(border(fill_holes(RING)), RING)
        frame = border(np.ones((5, 6), dtype=bool))
        assert frame[0].all()
        assert frame[:, -1].all()
        assert not frame[1:-1, 1:-1].any()
        assert border(np.ones((5, 6)), thickness=2).sum() == 30 - 2

    def test_specks_go_and_gaps_close(self):
        heat = np.full((9, 9), 2.0)
        heat[4, 4] = 0.0
        heat[0:3, 0:3] = 5.0
        cleaned = clean_up(heat)
        assert cleaned[4, 4] == 2
        np.testing.assert_array_equal(cleaned[0:3, 0:3], np.full((3, 3), 5.0))
        speck = np.zeros((9, 9))
        speck[4, 4:6] = 1.0
        assert not clean_up(speck).any()
        np.testing.assert_array_equal(clean_up(speck, 1), speck)

    @pytest.mark.parametrize("side", [2, 3, 4])
    def test_cleaning_twice_changes_nothing(self, side):
        heat = np.random.default_rng(0).random((20, 17))
        once = clean_up(heat, side)
        np.testing.assert_array_equal(clean_up(once, side), once)

    @pytest.mark.parametrize("dtype", [np.bool_, np.int16, np.float16])
    def test_any_dtype_and_any_rank(self, dtype):
        block = np.zeros((7, 7, 7), dtype=dtype)
        block[2:5, 2:5, 2:5] = 1
        np.testing.assert_array_equal(clean_up(block), block.astype(float))
        assert border(block).sum() == 26
        assert fill_holes(border(block)).sum() == 27

    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (0, 3)])
    def test_small_maps(self, shape):
        constant = np.full(shape, 3.0)
        np.testing.assert_array_equal(clean_up(constant), constant)
        np.testing.assert_array_equal(border(constant), constant > 0)
        np.testing.assert_array_equal(fill_holes(constant), constant > 0)

    @pytest.mark.parametrize("footprint", [0, np.ones(3), np.zeros((3, 3))])
    def test_bad_footprint(self, footprint):
        with pytest.raises(InputError, match="the footprint "):
            clean_up(np.ones((4, 4)), footprint)

    @pytest.mark.parametrize("thickness", [0, 1.5, np.nan, None])
    def test_bad_thickness(self, thickness):
        with pytest.raises(InputError, match="thickness is "):
            border(np.ones((4, 4)), thickness)

    def test_nan_is_an_error(self):
        for function in (clean_up, fill_holes, border, connected_components):
            with pytest.raises(InputError, match=r"1 of 4 values of the .* are NaN"):
                function(np.array([[np.nan, 1], [0, 0]]))


class TestComponents:
    def test_numbers_and_diagonals(self):
        mask = drawn("#.. .#. ..#")
        assert connected_components(mask).max() == 1
        np.testing.assert_array_equal(
            connected_components(mask, diagonal=False), [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
        )

    def test_sums_are_of_magnitudes(self):
        labels = np.array([[1, 1, 0, 2]])
        np.testing.assert_array_equal(component_sums(labels, [[1.0, -2.0, 9.0, 4.0]]), [3, 4])
        assert component_sums(np.zeros((2, 2), dtype=int), np.ones((2, 2))).shape == (0,)

    def test_the_fewest_that_hold_the_share(self):
        heat = np.array([[5.0, 0, 3, 0, 1, 0, 1]])
        mask = heat > 0

        def kept(**options):
            return np.flatnonzero(top_components(mask, heat, **options)).tolist()

        assert kept(percentage=0) == [0]
        assert kept(percentage=50) == [0]
        assert kept(percentage=51) == [0, 2]
        assert kept(percentage=90) == [0, 2, 4]
        assert kept(percentage=100) == [0, 2, 4]
        assert kept(percentage=100, at_most=None) == [0, 2, 4, 6]
        assert kept(percentage=100, at_most=1) == [0]

    def test_the_larger_of_equal_components(self):
        mask = np.array([[1, 0, 1, 1]])
        heat = np.array([[2.0, 0, 1, 1]])
        np.testing.assert_array_equal(
            top_components(mask, heat, percentage=10), [[False, False, True, True]]
        )
        np.testing.assert_array_equal(
            top_components(mask, 0 * heat, percentage=10), [[False, False, True, True]]
        )

    def test_an_empty_mask_stays_empty(self):
        assert not top_components(np.zeros((3, 3)), np.ones((3, 3))).any()
        assert top_components(np.zeros((0, 3)), np.ones((0, 3))).shape == (0, 3)

    def test_components_of_a_volume_go_through_its_slices(self):
        mask = np.zeros((3, 4, 4), dtype=bool)
        mask[:, 0, 0] = True
        mask[1, 3, 3] = True
        heat = np.where(mask, 1.0, 0.0)
        heat[1, 3, 3] = 2.5  # more than the other in any slice, less than it in all
        kept = top_components(mask, heat, at_most=1)
        assert kept[:, 0, 0].all()
        assert not kept[1, 3, 3]

    def test_bad_arguments(self):
        mask = np.ones((2, 2))
        with pytest.raises(InputError, match=r"the heat map has shape \(3, 3\), expected that of"):
            top_components(mask, np.ones((3, 3)))
        with pytest.raises(InputError, match="percentage is 101, expected 0 to 100"):
            top_components(mask, mask, percentage=101)
        for bad in (0, 1.5, "9"):
            with pytest.raises(InputError, match=f"at_most is {bad!r}, expected a whole number"):
                top_components(mask, mask, at_most=bad)

"""Volumes slice by slice."""

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import find_regions, montage, outline_slices, render, render_slices

SIGNS = ["all", "positive", "negative", "absolute"]


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(2, 5, 20, 30))


@pytest.fixture
def volume():
    return np.random.default_rng(1).random((5, 20, 30))


class TestRenderSlices:
    @pytest.mark.parametrize("sign", SIGNS)
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_shape(self, values, volume, sign, axis):
        drawn = render_slices(values, volume, sign=sign, axis=axis)
        expected = np.moveaxis(volume, axis, 0).shape
        assert drawn.shape == (*expected, 3)
        assert drawn.dtype == np.uint8

    def test_one_slice_is_a_picture(self, values, volume):
        for sign in SIGNS:
            drawn = render_slices(values[:, :1], volume[:1], sign=sign, smooth=1.5, share=0.7)
            picture = render(
                values[:, 0], volume[0], sign=sign, smooth=1.5, share=0.7, layout="NCHW"
            )
            np.testing.assert_array_equal(drawn[0], picture)

    def test_all_slices_have_one_scale(self, volume):
        heat = np.zeros((5, 20, 30))
        heat[1], heat[3] = 1.0, 0.1
        strong, weak = (
            np.ptp(render_slices(heat, volume)[number].astype(int), axis=2).mean()
            for number in (1, 3)
        )
        assert strong > 2 * weak > 0

    def test_layouts_agree(self, values, volume):
        expected = render_slices(values, volume)
        for same in (np.moveaxis(values, 0, 3), values[None]):
            np.testing.assert_array_equal(render_slices(same, volume), expected)
        colour = np.repeat(volume[..., None], 3, axis=3)
        for same in (volume[None], volume[..., None], colour, np.moveaxis(colour, 3, 0)):
            np.testing.assert_array_equal(render_slices(values, same), expected)
        as_bytes = np.rint(255 * volume).astype(np.uint8)
        np.testing.assert_array_equal(
            render_slices(values, as_bytes), render_slices(values, as_bytes / 255)
        )

    def test_zeros(self, volume):
        assert not np.ptp(render_slices(np.zeros((5, 20, 30)), volume), axis=3).any()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"values": np.ones((20, 30))}, "expected [D, H, W], [C, D, H, W] or [D, H, W, C]"),
            (
                {"values": np.ones((5, 20, 31))},
                "(5, 20, 31) values in space, expected the volume's",
            ),
            ({"values": np.full((5, 20, 30), np.nan)}, "are NaN or infinite"),
            ({"volume": np.ones((20, 30))}, "the volume has shape (20, 30), expected [D, H, W]"),
            ({"volume": np.full((5, 20, 30), 2.0)}, "values from 2 to 2, expected 0 to 1"),
            ({"axis": 3}, "axis is 3, expected 0, 1 or 2"),
            ({"sign": "both"}, "sign is 'both'"),
            ({"opacity": -1}, "opacity is -1"),
        ],
    )
    def test_bad_arguments(self, values, volume, arguments, message):
        with pytest.raises(InputError) as caught:
            render_slices(**({"values": values, "volume": volume} | arguments))
        assert message in str(caught.value)


class TestOutlineSlices:
    def test_a_ball_is_outlined_by_circles(self):
        depth, rows, columns = np.mgrid[:9, :80, :80] - np.array([4, 40, 30]).reshape(3, 1, 1, 1)
        ball = rows**2 + columns**2 + 20 * depth**2 < 20**2
        volume = np.where(ball, 0.8, 0.4)
        drawn = outline_slices(ball * 1.0, volume)
        lines = (drawn != np.rint(255 * volume)[..., None]).any(axis=3).sum(axis=(1, 2))
        assert lines[4] == lines.max()
        assert lines[0] < lines[2] < lines[4]

    def test_regions_are_those_of_the_volume(self):
        heat = np.zeros((4, 70, 70))
        heat[:, 10:25, 10:25] = 1.0
        heat[2, 40:60, 40:60] = 1.2
        mask, _ = find_regions(heat, at_most=1, percentage=50)
        assert mask[:, 17, 17].all()
        assert not mask[:, 50, 50].any()

    def test_nothing_leaves_the_volume(self, volume):
        drawn = outline_slices(np.zeros((5, 20, 30)), volume, sign="all", dim=0.5)
        np.testing.assert_array_equal(drawn, np.rint(255 * volume)[..., None].repeat(3, axis=3))


class TestMontage:
    def test_places(self):
        slices = np.zeros((5, 4, 6, 3), dtype=np.uint8)
        slices += np.arange(5, dtype=np.uint8)[:, None, None, None]
        page = montage(slices, columns=3, gap=1)
        assert page.shape == (2 * 4 + 1, 3 * 6 + 2, 3)
        assert page[0, 0, 0] == 0
        assert page[0, 7, 0] == 1
        assert page[5, 7, 0] == 4
        assert (page[5:, 14:] == 255).all()
        assert (page[4] == 255).all()

    def test_about_square(self):
        assert montage(np.zeros((9, 8, 8, 3), dtype=np.uint8), gap=0).shape == (24, 24, 3)
        assert montage(np.zeros((1, 8, 8, 3), dtype=np.uint8)).shape == (8, 8, 3)

    @pytest.mark.parametrize(
        ("slices", "options"),
        [
            (np.zeros((4, 4, 3), dtype=np.uint8), {}),
            (np.zeros((0, 4, 4, 3), dtype=np.uint8), {}),
            (np.zeros((2, 4, 4, 3)), {}),
            (np.zeros((2, 4, 4, 3), dtype=np.uint8), {"columns": 0}),
            (np.zeros((2, 4, 4, 3), dtype=np.uint8), {"columns": 1.5}),
            (np.zeros((2, 4, 4, 3), dtype=np.uint8), {"gap": -1}),
            (np.zeros((2, 4, 4, 3), dtype=np.uint8), {"gap": None}),
        ],
    )
    def test_bad_arguments(self, slices, options):
        with pytest.raises(InputError, match="expected"):
            montage(slices, **options)

"""The post-processing of the tutorials, by their own formulas, written here anew in NumPy.

Where the Keras example's class errs it is not followed; `TestKnownErrors` has each such case, with what its formula
gives and what is done here instead.
"""

import numpy as np
import pytest

from igonnx.visual import (
    GradVisualizer,
    clean_up,
    linear_transform,
    reduce_channels,
    share_threshold,
    top_components,
)
from igonnx.visual.heatmap import normalise

GREEN, RED = np.array([0.0, 255, 0]), np.array([255.0, 0, 0])


def threshold_by_share(heat, percentage):
    """The value at which the running sum of sorted magnitudes reaches its share of the signed total."""
    if percentage == 100:
        return heat.min()
    ordered = np.sort(np.abs(heat), axis=None)[::-1]
    reached = 100 * np.cumsum(ordered) / heat.sum() >= percentage
    return ordered[reached][0]


def stretch(heat, above, below, lower_end):
    """The line through (e, lower_end) and (m, 1), cut to [0, 1], zero below lower_end."""
    m = threshold_by_share(heat, 100 - above)
    e = threshold_by_share(heat, 100 - below)
    line = np.sign(heat) * (lower_end + (1 - lower_end) * (np.abs(heat) - e) / (m - e))
    return np.where(line >= lower_end, np.clip(line, 0, 1), 0)


def extremes(heat, side, pick):
    """The largest or smallest value of the square of neighbours around each pixel, mirrored at the edge."""
    wide = np.pad(heat, side // 2, mode="symmetric")
    return pick(np.lib.stride_tricks.sliding_window_view(wide, (side, side)), axis=(2, 3))


def closed_and_opened(heat, side):
    for pick in (np.max, np.min, np.min, np.max):
        heat = extremes(heat, side, pick)
    return heat


def flood(start, within, reach):
    """All pixels that steps of `reach` lead to from the start without leaving `within`."""
    found = start & within
    while True:
        wide = np.pad(found, 1)
        grown = within & np.any(
            [np.roll(wide, step, axis=(0, 1))[1:-1, 1:-1] for step in reach], axis=0
        )
        if (grown | found).sum() == found.sum():
            return found
        found |= grown


CROSS = [(0, 1), (0, -1), (1, 0), (-1, 0)]
SQUARE = [*CROSS, (1, 1), (1, -1), (-1, 1), (-1, -1)]


def filled(mask):
    frame = np.pad(np.zeros(np.subtract(mask.shape, 2), bool), 1, constant_values=True)
    return ~flood(frame, ~mask, CROSS)


def components(mask):
    left, found = mask.copy(), []
    while left.any():
        start = np.zeros_like(mask)
        start[np.unravel_index(left.argmax(), mask.shape)] = True
        found.append(flood(start, left, SQUARE))
        left &= ~found[-1]
    return found


def outlined(heat, percentage):
    """Borders of the components that hold the share, by attribution (the example: by pixels), three at most."""
    mask = filled(heat > 0.001)
    ordered = sorted(components(mask), key=lambda piece: -heat[piece].sum())
    sums = np.cumsum([heat[piece].sum() for piece in ordered])
    last = np.flatnonzero(sums >= percentage * heat[mask].sum() / 100 - 1e-9)[0]
    kept = np.any(ordered[: min(last, 2) + 1], axis=0)
    wide = np.pad(kept, 1)
    inner = np.all([np.roll(wide, step, axis=(0, 1))[1:-1, 1:-1] for step in CROSS], axis=0)
    return (kept & ~inner).astype(float)


def process(image, attributions, polarity, above, below, cleanup, outlines, percentage, overlay):
    low, high, colour = (0, 1, GREEN) if polarity == "positive" else (-1, 0, RED)
    heat = np.abs(np.clip(attributions, low, high)).mean(axis=2)
    heat = stretch(heat, above, below, 0.0)
    if cleanup:
        heat = closed_and_opened(heat, 3)
    if outlines:
        heat = outlined(heat, percentage)
    drawn = heat[..., None] * colour
    return np.clip(0.8 * drawn + image, 0, 255) if overlay else drawn


def attribution(seed, shape=(24, 31, 3)):
    """Random attributions in [-1, 1] with the grain and the lumps that attributions have."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    lumps = sum(
        np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)
        for y, x in random.integers(3, 21, (4, 2))
    )
    grain = random.normal(0, 0.2, shape)
    return np.clip(grain * (0.2 + lumps[..., None]), -1, 1)


@pytest.fixture
def image():
    return np.random.default_rng(9).integers(0, 256, (24, 31, 3), dtype=np.uint8)


class TestKerasExample:
    @pytest.mark.parametrize("polarity", ["positive", "negative"])
    @pytest.mark.parametrize(("above", "below"), [(99.9, 0), (99, 0), (95, 28), (80, 70)])
    @pytest.mark.parametrize(
        ("cleanup", "outlines", "percentage"),
        [
            (False, False, 90),
            (True, False, 90),
            (False, True, 90),
            (True, True, 90),
            (True, True, 40),
        ],
    )
    @pytest.mark.parametrize("overlay", [True, False])
    def test_process_grads(
        self, image, polarity, above, below, cleanup, outlines, percentage, overlay
    ):
        for seed in range(3):
            values = attribution(seed)
            expected = process(
                image, values, polarity, above, below, cleanup, outlines, percentage, overlay
            )
            drawn = GradVisualizer().process_grads(
                image,
                values,
                polarity,
                clip_above_percentile=above,
                clip_below_percentile=below,
                morphological_cleanup=cleanup,
                structure=np.ones((3, 3)),
                outlines=outlines,
                outlines_component_percentage=percentage,
                overlay=overlay,
            )
            np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-9)
            assert np.ptp(expected) > 0

    def test_defaults(self, image):
        values = attribution(5)
        expected = process(image, values, "positive", 99.9, 0, False, False, 90, True)
        np.testing.assert_allclose(
            GradVisualizer().process_grads(image, values), expected, atol=1e-9
        )

    def test_linear_transform_defaults(self):
        heat = np.abs(attribution(6)).mean(axis=2)
        np.testing.assert_allclose(
            linear_transform(heat), stretch(heat, 99.9, 70.0, 0.2), atol=1e-12
        )

    @pytest.mark.parametrize("percentage", [0, 0.1, 5, 30, 72, 99.9, 100])
    def test_share_threshold(self, percentage):
        heat = np.abs(attribution(7)).mean(axis=2)
        assert share_threshold(heat, percentage) == threshold_by_share(heat, percentage)

    @pytest.mark.parametrize("side", [1, 3, 5])
    def test_clean_up(self, side):
        heat = np.abs(attribution(8)).mean(axis=2)
        np.testing.assert_array_equal(
            clean_up(heat, np.ones((side, side))), closed_and_opened(heat, side)
        )


class TestOtherTutorials:
    def test_tensorflow_mask_is_the_sum_of_magnitudes_over_channels(self):
        values = attribution(0)
        expected = np.zeros(values.shape[:2])
        for channel in range(3):
            expected += np.abs(values[..., channel])
        np.testing.assert_allclose(reduce_channels(values, absolute=True), expected)

    def test_geeksforgeeks_scale_is_the_largest_magnitude(self):
        values = attribution(1)
        np.testing.assert_allclose(
            normalise(values, outlier_percentile=0), values / np.abs(values).max()
        )


class TestKnownErrors:
    """What the Keras example's formulas give, and what is done here."""

    def test_components_are_ranked_by_attribution_not_by_pixels(self):
        heat = np.zeros((12, 12))
        heat[1:6, 1:6] = 0.01  # many pixels, 0.25 in all
        heat[8:10, 8:10] = 1.0  # few pixels, 4 in all
        pieces = components(heat > 0.001)
        largest = max(pieces, key=lambda piece: (heat > 0.001)[piece].sum())
        assert largest[1, 1]
        kept = top_components(heat > 0.001, heat, percentage=50)
        assert kept[8, 8]
        assert not kept[1, 1]

    def test_shares_are_of_the_magnitude_not_of_the_signed_total(self):
        heat = np.array([4.0, -3.0, -2.0, 1.0])
        assert heat.sum() == 0  # which magnitudes are divided by there
        negative = np.array([1.0, -3.0, -2.0])
        with pytest.raises(IndexError):
            threshold_by_share(negative, 30)  # a negative total: no share is ever reached
        assert share_threshold(negative, 30) == 3
        assert threshold_by_share(negative, 100) == -3  # the smallest value, not magnitude
        assert share_threshold(negative, 100) == 1
        assert share_threshold(heat, 40) == 4
        assert share_threshold(heat, 41) == 3
        assert share_threshold(heat, 100) == 1

    def test_nothing_passes_the_threshold(self, image):
        with np.errstate(invalid="ignore"), pytest.raises(IndexError):
            stretch(np.zeros((3, 3)), 99.9, 28, 0.0)
        for outlines in (True, False):
            for nothing in (np.zeros(image.shape), -np.ones(image.shape)):
                drawn = GradVisualizer().process_grads(
                    image, nothing, clip_below_percentile=28, outlines=outlines
                )
                np.testing.assert_array_equal(drawn, image)

    def test_a_constant_map_is_drawn_in_full(self, image):
        constant = np.ones((3, 3))
        m, e = threshold_by_share(constant, 0.1), threshold_by_share(constant, 100)
        assert m == e  # and (1 - e) / (m - e) is NaN
        drawn = GradVisualizer().process_grads(image, np.ones(image.shape), overlay=False)
        np.testing.assert_array_equal(drawn, np.broadcast_to(GREEN, image.shape))

    def test_the_scale_of_the_scores_does_not_matter(self, image):
        values = 40 * attribution(2)
        clipped = process(image, values, "positive", 99.9, 0, False, False, 90, True)
        small = GradVisualizer().process_grads(image, attribution(2))
        assert np.abs(clipped - small).max() > 50
        np.testing.assert_allclose(GradVisualizer().process_grads(image, values), small, atol=1e-6)

    def test_the_sign_is_kept(self):
        heat = np.array([4.0, -3.0, -2.0, 1.0])
        np.testing.assert_allclose(linear_transform(heat, 100, 0, 0.0), [1, -2 / 3, -1 / 3, 0])

    def test_rounding_does_not_keep_a_share_from_being_reached(self):
        heat = np.full(10, 0.1)
        total = heat.sum() * (1 + 1e-15)
        reached = 100 * np.cumsum(heat) / total >= 100 - 1e-14
        assert not reached.any()
        assert share_threshold(heat, 100 - 1e-14) == 0.1

    def test_a_structure_tells_neighbours_not_heights(self):
        speck = np.zeros((9, 9))
        speck[4, 3:6] = 1.0  # a bar: opening by a bar keeps it, by a square does not
        bar = np.zeros((3, 3))
        bar[1] = 1
        np.testing.assert_array_equal(clean_up(speck, bar), speck)
        assert not clean_up(speck, np.ones((3, 3))).any()

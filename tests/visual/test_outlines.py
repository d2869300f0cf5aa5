"""Regions and the lines around them: on objects whose place is known, and on photos of nothing."""

import numpy as np
import pytest
from scipy import ndimage

from igonnx.attribution import Attribution
from igonnx.errors import InputError
from igonnx.visual import draw_outlines, find_regions, outline
from igonnx.visual.edge_aware import follow_edges
from igonnx.visual.outlines import AGAINST_COLOUR, FOR_COLOUR
from igonnx.visual.regions import otsu_threshold
from igonnx.visual.strokes import coverage, signed_distance

SIGNS = ["all", "positive", "negative", "absolute"]


def disc(side=224, centre=(100, 120), radius=45):
    rows, columns = np.mgrid[:side, :side]
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


@pytest.fixture
def grain():
    """An attribution [3, 224, 224] as networks give them: grain of both signs, stronger on the disc."""
    strength = np.where(disc(), 1.0, 0.12)
    return np.random.default_rng(0).laplace(size=(3, 224, 224)) * strength


@pytest.fixture
def photo():
    """A bright disc on a dark ground."""
    return np.where(disc(), 0.8, 0.3)[..., None] * np.array([1.0, 0.9, 0.7])


def overlap(mask, other):
    return (mask & other).sum() / (mask | other).sum()


def components(mask):
    return ndimage.label(mask, np.ones((3, 3)))[1]


class TestRegions:
    def test_hugs_the_object(self, grain, photo):
        heat = np.abs(grain).sum(axis=0)
        along_edges, against = find_regions(heat, photo)
        assert overlap(along_edges, disc()) > 0.98
        assert not against.any()
        alone, _ = find_regions(heat)
        assert 0.85 < overlap(alone, disc()) < overlap(along_edges, disc())
        assert components(along_edges) == components(alone) == 1
        # Without smoothing the same threshold gives nothing but grain.
        scattered, _ = find_regions(np.abs(grain[0]), smooth=0, at_most=None, percentage=100)
        assert components(scattered) > 50

    def test_share(self, grain):
        heat = np.abs(grain).sum(axis=0)
        small, large = (find_regions(heat, share=share)[0] for share in (0.2, 0.6))
        assert small.sum() < large.sum()
        assert find_regions(heat, share=1.0)[0].all()

    def test_both_signs(self):
        there, here = disc(centre=(60, 60), radius=30), disc(centre=(150, 150), radius=30)
        positive, negative = find_regions(there * 1.0 - here * 1.0)
        assert overlap(positive, there) > 0.9
        assert overlap(negative, here) > 0.9

    def test_the_strongest_regions_win(self):
        heat = np.zeros((224, 224))
        for number, column in enumerate((30, 80, 130, 180)):
            heat[disc(centre=(100, column), radius=14)] = 1 + 0.1 * number
        for at_most, expected in ((1, 1), (3, 3), (None, 4)):
            mask, _ = find_regions(heat, at_most=at_most, percentage=100)
            assert components(mask) == expected
            assert mask[100, 180]

    @pytest.mark.parametrize("side", [1, 2, 63, 64, 100])
    def test_edge_cases(self, side):
        picture = np.random.default_rng(0).random((side, side, 3))
        for guide in (None, picture):
            none = find_regions(np.zeros((side, side)), guide)
            assert not np.any(none)
            positive, negative = find_regions(np.full((side, side), -2.0), guide)
            assert not positive.any()
            assert negative.all()
            one = np.zeros((side, side))
            one[0, 0] = 3.0
            positive, negative = find_regions(one, guide)
            assert positive[0, 0]
            assert not negative.any()

    def test_scale_does_not_matter(self, grain):
        heat = np.abs(grain).sum(axis=0)
        expected, _ = find_regions(heat)
        for factor in (1e-12, 1e12):
            np.testing.assert_array_equal(find_regions(factor * heat)[0], expected)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"share": 0}, "share is 0, expected more than 0"),
            ({"share": np.nan}, "share is nan, expected"),
            ({"smooth": -1}, "smooth is -1, expected"),
            ({"percentage": 101}, "percentage is 101, expected 0 to 100"),
            ({"at_most": 0}, "at_most is 0, expected"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(InputError) as caught:
            find_regions(np.eye(5), **options)
        assert message in str(caught.value)

    def test_shapes(self):
        with pytest.raises(InputError, match=r"the heat map has shape \(5,\), expected"):
            find_regions(np.ones(5))
        with pytest.raises(InputError, match=r"the picture has shape \(4, 4, 3\), expected that"):
            find_regions(np.eye(5), np.ones((4, 4, 3)))


class TestOtsu:
    def test_agrees_with_the_definition(self):
        values = np.random.default_rng(3).gamma(2.0, size=300).round(2)

        def between(threshold):
            high, low = values[values >= threshold], values[values < threshold]
            return high.size * low.size * (high.mean() - low.mean()) ** 2

        candidates = np.unique(values)[1:]
        assert otsu_threshold(values) == max(candidates, key=between)

    def test_equal_values(self):
        assert otsu_threshold(np.full((3, 3), 2.5)) == 2.5
        assert otsu_threshold(np.array([1.0])) == 1.0
        assert otsu_threshold(np.array([0.0, 0.0, 1.0])) == 1.0


class TestFollowEdges:
    def test_a_flat_picture_gives_a_blur(self):
        heat = np.random.default_rng(0).random((40, 50))
        blurred = ndimage.gaussian_filter(ndimage.gaussian_filter(heat, 3), 3)
        np.testing.assert_allclose(follow_edges(heat, np.full((40, 50, 3), 0.4), 3), blurred)

    def test_a_linear_function_of_the_colours_is_kept(self):
        picture = np.random.default_rng(0).random((40, 50, 3))
        heat = picture @ np.array([1.0, -2.0, 0.5]) + 0.3
        np.testing.assert_allclose(follow_edges(heat, picture, 3, 1e-9), heat, atol=1e-6)


class TestStrokes:
    def test_distance_of_a_half_plane(self):
        mask = np.zeros((40, 60), dtype=bool)
        mask[:, :30] = True
        distance = signed_distance(mask)
        np.testing.assert_allclose(distance[20, 25:35], np.arange(4.5, -5, -1), atol=1e-6)
        np.testing.assert_allclose(coverage(distance)[20, 28:32], [1, 1, 0, 0], atol=1e-6)

    def test_distance_is_in_pixels_of_the_larger_picture(self):
        large = signed_distance(disc(60, (30, 30), 20), (180, 180))
        assert large.shape == (180, 180)
        assert large[91, 91] == pytest.approx(60, rel=0.1)
        assert large[91, 0] == pytest.approx(-30, rel=0.1)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 5)])
    def test_small_masks(self, shape):
        assert (signed_distance(np.ones(shape, dtype=bool)) > 0).all()


class TestOutline:
    def test_line_lies_on_the_border_of_the_object(self, grain, photo):
        drawn = outline(grain, photo).astype(float)
        assert drawn.shape == (224, 224, 3)
        touched = np.abs(drawn - np.rint(photo * 255)).max(axis=2) > 2
        away = np.abs(signed_distance(disc()))
        assert away[touched].max() < 5
        assert touched[away < 0.5].mean() > 0.97  # all around

    def test_line_is_anti_aliased(self, grain, photo):
        shades = np.unique(outline(grain, photo).reshape(-1, 3), axis=0)
        assert len(shades) > 30

    def test_colours_of_the_signs(self):
        image = np.full((224, 224), 0.5)
        bright = disc(centre=(60, 60), radius=30) * 1.0
        dark = disc(centre=(150, 150), radius=30) * -1.0
        yellow, blue = (bytes.fromhex(colour[1:]) for colour in (FOR_COLOUR, AGAINST_COLOUR))

        def has(drawn, colour):
            return (drawn == np.frombuffer(colour, dtype=np.uint8)).all(axis=2).any()

        found = {}
        for sign in SIGNS:
            drawn = outline(bright + dark, image, sign=sign)
            found[sign] = has(drawn, yellow), has(drawn, blue)
        assert found == {
            "all": (True, True),
            "positive": (True, False),
            "negative": (False, True),
            "absolute": (True, False),
        }
        chosen = outline(bright, image, colour=(1, 2, 3))
        assert has(chosen, bytes([1, 2, 3]))

    @pytest.mark.parametrize("sign", SIGNS)
    def test_nothing_to_outline(self, photo, sign):
        drawn = outline(np.zeros((3, 224, 224)), photo, sign=sign, dim=0.5)
        np.testing.assert_array_equal(drawn, np.rint(photo * 255))
        negative = outline(-np.ones((224, 224)), photo, sign="positive")
        np.testing.assert_array_equal(negative, np.rint(photo * 255))

    def test_layouts_images_and_dtypes_agree(self, grain, photo):
        expected = outline(grain, photo)
        for values in (grain[None], np.moveaxis(grain, 0, 2), grain.astype(np.float32)):
            np.testing.assert_array_equal(outline(values, photo), expected)
        as_bytes = np.rint(photo * 255).astype(np.uint8)
        for image in (np.moveaxis(as_bytes, 2, 0), as_bytes.astype(np.int32)):
            np.testing.assert_array_equal(outline(grain, image), outline(grain, as_bytes))
        outline(grain[:1], photo[..., :1])
        outline(np.abs(grain) > 2, photo[..., 0])

    def test_dim(self, grain, photo):
        drawn = outline(grain, photo, dim=0.5)
        np.testing.assert_array_equal(drawn[0, 0], np.rint(photo[0, 0] * 127.5))
        np.testing.assert_array_equal(drawn[100, 120], np.rint(photo[100, 120] * 255))

    def test_large_images_are_outlined_as_small_ones(self, grain, photo):
        large = np.kron(photo, np.ones((4, 4, 1)))
        drawn = outline(grain, large)
        assert drawn.shape == (896, 896, 3)
        touched = np.abs(drawn - np.rint(large * 255)).max(axis=2) > 2
        away = np.abs(signed_distance(disc(896, (401.5, 481.5), 182)))
        assert away[touched].max() < 20
        assert touched[away < 0.5].mean() > 0.97

    def test_map_of_an_inner_layer(self, photo):
        inner = np.zeros((7, 7))
        inner[2:5, 3:5] = 1.0
        drawn = outline(inner, photo)
        assert (drawn != np.rint(photo * 255)).any()

    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
    def test_tiny_images(self, shape):
        assert outline(np.ones(shape), np.zeros(shape)).shape == (*shape, 3)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"values": np.full((4, 6), np.nan)}, "24 of 24 values of the attribution are NaN"),
            ({"values": np.ones(4)}, "the attribution has shape (4,), expected [H, W]"),
            ({"values": np.ones((6, 4))}, "the attribution has 6 x 4 pixels and the image 4 x 6"),
            ({"image": np.ones((4, 6, 2))}, "the image has shape (4, 6, 2)"),
            ({"sign": "both"}, "sign is 'both'; expected one of"),
            ({"percentage": -1}, "percentage is -1, expected 0 to 100"),
            ({"share": 2}, "share is 2, expected"),
            ({"width": 0}, "width is 0, expected"),
            ({"dim": 2}, "dim is 2, expected 0 to 1"),
            ({"colour": "yellow"}, "the colour is 'yellow', expected '#rrggbb'"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(InputError) as caught:
            outline(**({"values": np.ones((4, 6)), "image": np.ones((4, 6))} | arguments))
        assert message in str(caught.value)


class TestDrawOutlines:
    def test_any_number_of_masks(self):
        masks = [disc(centre=(c, c), radius=20) for c in (50, 110, 170)]
        drawn = draw_outlines(np.zeros((224, 224)), masks, ["#ff0000", "#00ff00", "#0000ff"])
        for channel in range(3):
            other = np.delete(drawn, channel, axis=2).max(axis=2)
            line = (drawn[..., channel] > 200) & (other == 0)
            assert np.argwhere(line).mean() == pytest.approx((50, 110, 170)[channel], abs=1)

    def test_one_colour_for_each(self):
        with pytest.raises(InputError, match="1 colours for 2 masks"):
            draw_outlines(np.zeros((4, 4)), [np.eye(4), np.eye(4)], ["#ffffff"])

    def test_masks_fit_the_image(self):
        with pytest.raises(InputError, match="expected the same proportions"):
            draw_outlines(np.zeros((40, 40)), [np.ones((20, 40))], ["#ffffff"])
        with pytest.raises(InputError, match=r"a mask has shape \(4,\), expected \[H, W\]"):
            draw_outlines(np.zeros((4, 4)), [np.ones(4)], ["#ffffff"])


def test_attribution_outlines_one_of_its_examples(photo, grain):
    one = np.zeros(2)
    explained = Attribution(np.stack([0 * grain, grain]), one, one, one, [None, None], [], one)
    np.testing.assert_array_equal(
        explained.outline(photo, index=1, dim=0.3), outline(grain, photo, dim=0.3)
    )

"""XRAI: regions against a second, plain implementation; what they add up to; images that are hardly any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from scipy import ndimage

import igonnx
from igonnx.methods.region_ranking import ranked_regions
from igonnx.methods.segments import MARGIN, segments
from igonnx.methods.xrai import regions

SIZE = 40
Array = np.ndarray[Any, np.dtype[Any]]
ModelMaker = Callable[..., onnx.ModelProto]


def scene(size: int = SIZE, channels: int = 3, seed: int = 0) -> Array:
    """A picture with edges, float32 [channels, size, size]: a disc and a bar on a slope."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((size, size)) / size
    disc = np.hypot(row - 0.4, column - 0.5) < 0.25
    bar = np.abs(row - 0.85) < 0.06
    layers = [disc * rng.random() + bar * rng.random() + 0.3 * column for _ in range(channels)]
    return np.asarray(layers, np.float32)


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {
        "w": rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(5, 4)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def network(model: ModelMaker, weights: dict[str, Array]) -> onnx.ModelProto:
    """A small convolutional network, [N, 3, 40, 40] to [N, 4]."""
    return model(
        f"""(float[N, 3, {SIZE}, {SIZE}] x) => (float[N, 4] y) {{
            h = Conv(x, w)
            r = Relu(h)
            p = GlobalAveragePool(r)
            f = Flatten(p)
            y = MatMul(f, v)
        }}""",
        weights,
    )


@pytest.fixture(scope="module")
def explainer(network: onnx.ModelProto) -> igonnx.Explainer:
    return igonnx.Explainer(network, batch_size=8)


@pytest.fixture(scope="module")
def images() -> Array:
    return np.stack([scene(seed=seed) for seed in range(2)])


# -- the ranking -------------------------------------------------------------------------------


def plain_ranking(heat: Array, masks: list[Array], fast: bool, fewest: int) -> list[Array]:
    """Masks of the regions in order: the definition, with every density computed anew."""
    free, left, found = np.ones(heat.shape, bool), list(masks), []
    if fast:
        left.sort(key=lambda mask: -float(heat[mask].mean()))
    while left := [mask for mask in left if (mask & free).sum() >= fewest]:
        best = 0 if fast else int(np.argmax([heat[mask & free].mean() for mask in left]))
        found.append(left[best] & free)
        free &= ~left[best]
    if free.any():
        found.append(free)
    return sorted(found, key=lambda mask: -float(heat[mask].mean()))


@pytest.mark.parametrize("variant", ["full", "fast"])
@pytest.mark.parametrize("seed", range(4))
def test_a_plain_implementation_finds_the_same_regions(variant: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (50, 61)
    heat = ndimage.gaussian_filter(rng.normal(size=size), seed)
    masks = [
        ndimage.gaussian_filter(rng.normal(size=size), 4) > 0.05 * rng.random() for _ in range(25)
    ]
    masks += [masks[3], np.zeros(size, bool) | (np.indices(size).sum(axis=0) < 1)]
    given = [np.flatnonzero(mask) for mask in masks]
    found = ranked_regions(heat, given, variant)
    expected = plain_ranking(heat, masks, variant == "fast", fewest=3)
    assert len(found) == len(expected) > 10
    for region, mask in zip(found, expected, strict=True):
        np.testing.assert_array_equal(region.mask, mask)
        assert region.density == pytest.approx(heat[mask].mean())


@pytest.mark.parametrize("variant", ["full", "fast"])
def test_regions_divide_the_picture(variant: str) -> None:
    heat = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    found = regions(heat, scene(), variant=variant)
    assert len(found) > 2
    np.testing.assert_array_equal(sum(region.mask.astype(int) for region in found), 1)
    densities = [region.density for region in found]
    assert densities == sorted(densities, reverse=True)
    total = sum(region.density * region.mask.sum() for region in found)
    assert total == pytest.approx(heat.sum())


def test_the_object_that_the_attribution_lies_on_comes_first() -> None:
    row, column = np.indices((SIZE, SIZE)) / SIZE
    disc = np.hypot(row - 0.4, column - 0.5) < 0.25
    heat = disc + np.random.default_rng(0).normal(size=(SIZE, SIZE))
    density = np.zeros((SIZE, SIZE))
    for region in regions(heat, scene()):
        density[region.mask] = region.density
    strongest = density >= np.sort(density, axis=None)[-disc.sum()]
    noisy = heat >= np.sort(heat, axis=None)[-disc.sum()]
    assert disc[noisy].mean() < 0.5
    assert disc[strongest].mean() > 0.8


def test_segments_are_widened_on_all_sides() -> None:
    picture = np.zeros((224, 224, 1))
    picture[:, 112:] = 1
    found = [np.unique(pixels % 224) for pixels in segments(picture, (224, 224))]
    for columns in found:
        np.testing.assert_array_equal(np.diff(columns), 1)
    assert {(columns[0], columns[-1]) for columns in found} >= {(0, 113), (110, 223)}
    # the smoothed edge itself makes segments of a single column
    assert min(len(columns) for columns in found) == 1 + 2 * MARGIN


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 5, 3), (2, 2, 1), (7, 7, 16), (1, 700, 3), (3, 300, 1)],
    ids=str,
)
@pytest.mark.parametrize("variant", ["full", "fast"])
def test_tiny_and_narrow_pictures(shape: tuple[int, int, int], variant: str) -> None:
    rng = np.random.default_rng(0)
    heat = rng.normal(size=shape[:2])
    found = ranked_regions(heat, segments(rng.random(shape), shape[:2]), variant)
    np.testing.assert_array_equal(sum(region.mask.astype(int) for region in found), 1)


@pytest.mark.parametrize("value", [0, 7, -1e300])
def test_a_constant_picture_is_one_region(value: float) -> None:
    heat = np.random.default_rng(0).normal(size=(20, 30))
    (only,) = regions(heat, np.full((20, 30), value))
    assert only.mask.all()
    assert only.density == pytest.approx(heat.mean())


def test_the_range_of_the_picture_does_not_matter() -> None:
    heat = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    first = regions(heat, scene())
    other = regions(heat, (scene() * 200).astype(np.float64) - 90)
    assert [r.mask.tolist() for r in first] == [r.mask.tolist() for r in other]


# -- the method --------------------------------------------------------------------------------


def test_values_share_the_density_over_the_channels(
    explainer: igonnx.Explainer, images: Array
) -> None:
    base = explainer.integrated_gradients(images, steps=20)
    found = explainer.xrai(images, of=base)
    assert isinstance(found.values, np.ndarray)
    assert found.values.shape == images.shape
    assert found.values.dtype == np.float32
    for index, image in enumerate(images):
        for region in regions(base.of()[index], image):
            here = found.values[index][:, region.mask]
            np.testing.assert_allclose(here, region.density / 3, rtol=1e-5, atol=1e-9)
    sums = found.values.sum(axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(sums, base.of().sum(axis=(1, 2, 3), dtype=np.float64), rtol=1e-4)
    np.testing.assert_array_equal(found.delta, base.delta)
    np.testing.assert_array_equal(found.steps_used, base.steps_used)
    assert found.target == base.target
    assert found.method.startswith("xrai variant=full of integrated_gradients")


def test_by_default_it_is_integrated_gradients_from_black_and_white(
    explainer: igonnx.Explainer, images: Array
) -> None:
    base = explainer.integrated_gradients(images, baseline=["black", "white"], steps=20, target=2)
    expected = explainer.xrai(images, of=base)
    found = explainer.xrai(images, steps=20, target=2)
    np.testing.assert_array_equal(found.of(), expected.of())
    np.testing.assert_array_equal(found.baseline_scores, base.baseline_scores)
    zeros = explainer.xrai(images, steps=20, target=2, baseline=0.0)
    np.testing.assert_array_equal(
        zeros.of(),
        explainer.xrai(images, of=explainer.integrated_gradients(images, steps=20, target=2)).of(),
    )


@pytest.mark.parametrize("variant", ["full", "fast"])
def test_an_example_is_explained_alike_alone(
    explainer: igonnx.Explainer, images: Array, variant: str
) -> None:
    base = explainer.saliency(images, target=1)
    together = explainer.xrai(images, of="saliency", target=1, variant=variant).of()
    for index in range(len(images)):
        one = slice(index, index + 1)
        alone = explainer.xrai(images[one], of="saliency", target=1, variant=variant).of()
        np.testing.assert_allclose(alone, together[one], rtol=1e-5, atol=1e-8)
    assert not np.allclose(together, base.of())


def test_options_go_to_the_method(explainer: igonnx.Explainer, images: Array) -> None:
    told: list[tuple[int, int]] = []
    found = explainer.xrai(
        images,
        of="saliency",
        absolute=False,
        noise="smoothgrad",
        noise_samples=3,
        seed=4,
        progress=lambda done, total: told.append((done, total)),
    )
    base = explainer.saliency(images, absolute=False, noise="smoothgrad", noise_samples=3, seed=4)
    np.testing.assert_array_equal(found.of(), explainer.xrai(images, of=base).of())
    assert told[-1][0] == told[-1][1]


def test_channels_last(model: ModelMaker, weights: dict[str, Array], images: Array) -> None:
    turned = igonnx.Explainer(
        model(
            f"""(float[N, {SIZE}, {SIZE}, 3] x) => (float[N, 4] y) {{
                c = Transpose<perm = [0, 3, 1, 2]>(x)
                h = Conv(c, w)
                r = Relu(h)
                p = GlobalAveragePool(r)
                f = Flatten(p)
                y = MatMul(f, v)
            }}""",
            weights,
        )
    )
    rng = np.random.default_rng(0)
    values = rng.normal(size=images.shape).astype(np.float32)
    base = turned.saliency(images.transpose(0, 2, 3, 1))
    last = turned.xrai(
        images.transpose(0, 2, 3, 1), of=_with(base, values.transpose(0, 2, 3, 1))
    ).of()
    for index, image in enumerate(images):
        for region in regions(values[index], image):
            np.testing.assert_allclose(
                last[index][region.mask], region.density / 3, rtol=1e-5, atol=1e-8
            )


def _with(attribution: igonnx.Attribution, values: Array) -> igonnx.Attribution:
    import dataclasses

    return dataclasses.replace(attribution, values=values)


def test_an_attribution_of_nothing_stays_nothing(
    explainer: igonnx.Explainer, images: Array
) -> None:
    base = explainer.saliency(images)
    found = explainer.xrai(images, of=_with(base, np.zeros_like(base.of())))
    np.testing.assert_array_equal(found.of(), 0)


def test_one_channel_in_double_precision(model: ModelMaker) -> None:
    linear = np.random.default_rng(0).normal(size=(256, 2))
    explainer = igonnx.Explainer(
        model(
            "(double[N, 1, 16, 16] x) => (double[N, 2] y) { f = Flatten(x) \n y = MatMul(f, w) }",
            {"w": linear},
        )
    )
    x = scene(16, 1)[None].astype(np.float64)
    found = explainer.xrai(x, target=0, baseline=0.0, steps=1)
    assert found.of().dtype == np.float64
    assert found.of().sum() == pytest.approx(float(x.ravel() @ linear[:, 0]))
    for region in regions((x.ravel() * linear[:, 0]).reshape(16, 16), x[0]):
        np.testing.assert_allclose(found.of()[0, 0][region.mask], region.density)


# -- what is segmented -------------------------------------------------------------------------


def test_another_image_may_be_segmented(explainer: igonnx.Explainer, images: Array) -> None:
    base = explainer.saliency(images)
    large = np.stack([scene(90, seed=seed) for seed in range(2)])
    found = explainer.xrai(images, of=base, image=large).of()
    for index in range(2):
        for region in regions(base.of()[index], large[index]):
            np.testing.assert_allclose(found[index][0][region.mask], region.density / 3, rtol=1e-5)
    grey = explainer.xrai(images, of=base, image=large.mean(axis=1)).of()
    assert not np.array_equal(grey, found)


def test_one_example_needs_no_axis(explainer: igonnx.Explainer, images: Array) -> None:
    base = explainer.saliency(images[:1])
    other = scene(60, seed=5)
    expected = explainer.xrai(images[:1], of=base, image=other[None]).of()
    for image in (other, other.transpose(1, 2, 0)):
        np.testing.assert_array_equal(
            explainer.xrai(images[:1], of=base, image=image).of(), expected
        )


def test_inside_the_model_the_input_is_segmented(network: onnx.ModelProto, images: Array) -> None:
    inner = igonnx.Explainer(network, wrt="r", batch_size=8)
    base = inner.integrated_gradients(images, steps=5)
    assert base.of().shape == (2, 5, SIZE - 2, SIZE - 2)
    expected = inner.xrai(images, of=base, image=images).of()
    np.testing.assert_array_equal(inner.xrai(images, of=base).of(), expected)
    np.testing.assert_array_equal(inner.xrai({"x": images}, of=base).of(), expected)
    black_and_white = inner.integrated_gradients(images, steps=5, baseline=["black", "white"])
    np.testing.assert_array_equal(
        inner.xrai(images, steps=5).of(), inner.xrai(images, of=black_and_white).of()
    )


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "slow"}, r"^variant is 'slow'; expected 'full' or 'fast'$"),
        ({"of": "integrated"}, r"^of is 'integrated'; expected the name of another method"),
        ({"of": "xrai"}, r"^of is 'xrai'; expected the name of another method"),
        ({"of": "predict"}, r"^of is 'predict'; expected"),
        ({"of": 3}, r"^of is 3; expected"),
        ({"image": np.zeros((3, 9, 9))}, r"shape \[3, 9, 9\]; expected \[2, H, W\].* for 2 attr"),
        ({"image": np.zeros((2, 9))}, r"^the image to segment has shape \[2, 9\]"),
        ({"image": np.zeros((2, 0, 9))}, r"^the image to segment has shape \[2, 0, 9\]"),
        ({"image": np.full((2, 9, 9), np.nan)}, r"the image to segment are NaN"),
        ({"steps": 0}, r"steps"),
    ],
)
def test_refused(
    explainer: igonnx.Explainer, images: Array, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        explainer.xrai(images, **({"steps": 1} | arguments if "of" not in arguments else arguments))


def test_an_attribution_has_no_settings_any_more(
    explainer: igonnx.Explainer, images: Array
) -> None:
    base = explainer.saliency(images)
    with pytest.raises(igonnx.InputError, match=r"^of is an Attribution.*: target, steps cannot"):
        explainer.xrai(images, of=base, target=1, steps=9)
    with pytest.raises(igonnx.InputError, match=r"expected \[2, H, W\].* for 2 attributions"):
        explainer.xrai(images[:1], of=base)


def test_what_is_no_image(model: ModelMaker, mlp: onnx.ModelProto) -> None:
    with pytest.raises(
        igonnx.InputError, match=r"^xrai explains .*; the input has shape \[2, 6\]$"
    ):
        igonnx.Explainer(mlp).xrai(np.ones((2, 6)))
    with pytest.raises(igonnx.InputError, match=r"; the explained tensor has shape \[2, 9\]$"):
        igonnx.Explainer(mlp, wrt="t").xrai(
            np.ones((2, 6)), of="saliency", image=np.ones((2, 1, 9, 9))
        )
    two = igonnx.Explainer(
        model(
            "(float[N, 1, 4, 4] a, float[N, 1, 4, 4] b) => (float[N, 1, 4, 4] y) { y = Mul(a, b) }"
        )
    )
    pair = dict.fromkeys("ab", np.ones((1, 1, 4, 4), np.float32))
    with pytest.raises(igonnx.InputError, match=r"2 tensors are explained: choose one with wrt="):
        two.xrai(pair, target=(0, 0, 0))


def test_which_of_several_images(model: ModelMaker) -> None:
    inner = igonnx.Explainer(
        model(
            """(float[N, 1, 4, 4] a, float[N, 1, 4, 4] b) => (float[N, 1, 4, 4] y) {
                p = Mul(a, b)
                y = Mul(p, p)
            }"""
        ),
        wrt="p",
    )
    pair = dict.fromkeys("ab", np.ones((1, 1, 4, 4), np.float32))
    with pytest.raises(igonnx.InputError, match=r"^2 of the inputs may be images: pass .* image=$"):
        inner.xrai(pair, of="saliency", target=(0, 0, 0))
    inner.xrai(pair, of="saliency", target=(0, 0, 0), image=pair["a"])

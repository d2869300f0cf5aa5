"""The views against Captum's own: strengths, masked image, and opacity."""

from __future__ import annotations

import numpy as np
import pytest

from igonnx.visual.views import strengths, view

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
captum_views = pytest.importorskip("captum.attr._utils.visualization")

pytestmark = pytest.mark.parity

CAPTUM_SIGN = {
    "all": "all",
    "positive": "positive",
    "negative": "negative",
    "absolute": "absolute_value",
}


@pytest.fixture
def values():
    return np.random.default_rng(7).normal(size=(24, 17, 3)) ** 3


@pytest.mark.parametrize("percentile", [0.1, 2, 30, 99])
@pytest.mark.parametrize("sign", CAPTUM_SIGN)
def test_strengths(values, sign, percentile):
    expected = captum_views._normalize_attr(values.sum(axis=2), CAPTUM_SIGN[sign], percentile)
    found, _ = strengths(values, sign=sign, outlier_percentile=percentile)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["masked_image", "alpha_scaling", "original_image"])
@pytest.mark.parametrize("sign", ["positive", "negative", "absolute"])
def test_pictures(values, kind, sign):
    """But for one step of 255: Captum cuts colours where they are rounded here."""
    image = np.random.default_rng(8).integers(0, 256, size=(24, 17, 3), dtype=np.uint8)
    _, axes = captum_views.visualize_image_attr(
        values, image, method=kind, sign=CAPTUM_SIGN[sign], use_pyplot=False
    )
    expected = np.asarray(axes.images[0].get_array(), dtype=int)
    found = view(values, image, kind=kind, sign=sign).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("sign", CAPTUM_SIGN)
def test_heat_map(values, sign):
    """The same colours for the same strengths, where the colour map is the same."""
    _, axes = captum_views.visualize_image_attr(
        values, method="heat_map", sign=CAPTUM_SIGN[sign], cmap="viridis", use_pyplot=False
    )
    expected = axes.images[0].to_rgba(axes.images[0].get_array(), bytes=True)[..., :3].astype(int)
    found = view(values, kind="heat_map", sign=sign, colours="viridis").astype(int)
    assert np.abs(found - expected).max() <= 1

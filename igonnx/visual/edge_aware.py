"""Smoothing a map along the edges of the picture that it belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["follow_edges"]


def follow_edges(
    heat: NDArray[np.float64],
    picture: NDArray[np.float64],
    window: float,
    regularity: float = 1e-3,
) -> NDArray[np.float64]:
    """Smooth a map [H, W] so that it changes where the picture [H, W, 3] does: float64 [H, W].

    The guided filter (He, Sun and Tang, 2010, "Guided Image Filtering") with a colour guide and
    Gaussian windows: in each window the map is fitted as a linear function of the colours, by least
    squares with the ridge term `regularity`, and the fits of all windows around a pixel are
    averaged. window: standard deviation in pixels; regularity: the variance of colours (each in
    [0, 1]) below which a window counts as flat, where the filter is a plain blur. The map's mean
    over a flat picture is kept, its range is not quite: near strong edges it may overshoot.
    """
    from scipy import ndimage  # slow to import

    def mean(array: NDArray[Any]) -> NDArray[np.float64]:
        deviations = (window, window) + (0,) * (array.ndim - 2)
        return np.asarray(ndimage.gaussian_filter(array, deviations, mode="reflect"))

    mean_colour, mean_heat = mean(picture), mean(heat)
    together = mean(picture * heat[..., None]) - mean_colour * mean_heat[..., None]
    products = picture[..., :, None] * picture[..., None, :]
    covariance = mean(products) - mean_colour[..., :, None] * mean_colour[..., None, :]
    covariance += regularity * np.eye(3)
    slope = np.linalg.solve(covariance, together[..., None])[..., 0]
    offset = mean_heat - (slope * mean_colour).sum(axis=-1)
    return np.asarray((mean(slope) * picture).sum(axis=-1) + mean(offset))

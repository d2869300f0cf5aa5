"""Pictures of rows: the input as it is shown, and the attribution laid over it."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import reduce_channels
from igonnx.scale.job import Job
from igonnx.scale.listing import Row, row_id
from igonnx.visual import render

__all__ = ["class_map", "overlay_name", "overlay_of", "png", "thumbnail"]

THUMBNAIL = 144  # pixels of a thumbnail's longer side
CLASS_MAP = 32  # pixels of the longer side of a class's mean map, at most

Picture = NDArray[np.uint8]  # RGB [H, W, 3]


def overlay_of(
    job: Job, x: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]
) -> tuple[Picture, Picture] | None:
    """The picture of one row, and the attribution over it; None where nothing explained is a picture.

    x, values: arrays without batch axis, by the names of inputs and of explained tensors.
    """
    if job.drawn is None:
        return None
    name, layout = job.drawn
    drawn = _drawn(name, values)
    if drawn is None:
        return None
    if job.preprocessing is not None:
        shown: NDArray[Any] = job.preprocessing.inverse(next(iter(x.values())))
    else:
        shown = _stretched(np.moveaxis(x[name], 0, -1) if layout == "NCHW" else x[name])
    image = np.asarray(np.rint(np.clip(shown, 0, 1) * 255), dtype=np.uint8)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return image, render(drawn, image, layout=layout)


def class_map(job: Job, values: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    """The sum over the channels of what is drawn, on at most 32 x 32 fields whose sum is the same; None: no picture."""
    drawn = None if job.drawn is None else _drawn(job.drawn[0], values)
    if job.drawn is None or drawn is None:
        return None
    heat = reduce_channels(drawn, layout=job.drawn[1])
    height, width = heat.shape
    largest = max(height, width)
    rows, columns = (max(1, round(side * min(1, CLASS_MAP / largest))) for side in heat.shape)
    summed = np.add.reduceat(heat, np.arange(rows) * height // rows, axis=0)
    summed = np.add.reduceat(summed, np.arange(columns) * width // columns, axis=1)
    return np.asarray(summed, dtype=np.float32)


def overlay_name(row: Row) -> str:
    """The name of a row's picture: of its file, and distinct for every row."""
    known = row_id(row)
    stem = re.sub(r"[^\w.-]+", "_", Path(known).stem)[:60]
    return f"{stem}-{hashlib.sha256(known.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}.png"


def thumbnail(picture: Picture) -> Picture:
    """The picture in the size of a thumbnail; the pixels of small ones become squares."""
    side = max(picture.shape[:2])
    if side <= THUMBNAIL // 2:
        times = THUMBNAIL // side
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _drawn(name: str, values: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The values that are drawn, [C, H, W] or [H, W, C]: of that tensor, or the only ones, as those of a layer are."""
    drawn = values.get(name, next(iter(values.values())) if len(values) == 1 else None)
    return None if drawn is None or drawn.ndim != 3 else drawn


def _stretched(picture: NDArray[Any]) -> NDArray[np.float64]:
    """Bring numbers of an unknown range to [0, 1] for display."""
    numbers = picture.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and high <= 255:
        return numbers if high <= 1 else numbers / 255
    return (numbers - low) / (high - low) if high > low else np.zeros_like(numbers)

"""Images in and out of a model: reading, cropping, normalising, and back for display.

An image is RGB, float32 [H, W, 3] in [0, 1] here, whatever its file holds. `Preprocessing` turns
it into what one image input of a model takes, as (image * scale - mean) / std.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout
from igonnx.checks import require_choice
from igonnx.errors import InputError

__all__ = [
    "PRESETS",
    "ImageShape",
    "Layout",
    "Preprocessing",
    "decode_image",
    "image_shape",
    "read_image",
]

Image = NDArray[np.float32]
Shape = Sequence[int | str | None]

# What is taken from strangers: formats whose decoders run nothing and read no other file.
STRANGERS_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")

# Of one file: more is no photograph but a file of a few bytes that unfolds to gigabytes. Pillow warns from here on.
MOST_PIXELS = 1 << 26

DEFAULT_SIZE = 224  # of models that take any: what most classifiers were trained on


@dataclass(frozen=True)
class Preset:
    """The numbers of a usual normalisation, (image * scale - mean) / std."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0


PRESETS = {
    "imagenet": Preset(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "tf": Preset(mean=(0.5,), std=(0.5,)),
    "zero-one": Preset(),
    "efficientnet-lite": Preset(mean=(0.498,), std=(0.502,)),
}


@dataclass(frozen=True)
class ImageShape:
    """What an image input takes: layout, channels (1 or 3) and (height, width), None where any."""

    layout: Layout
    channels: int
    size: tuple[int | None, int | None]


def image_shape(shape: Shape, *, name: str = "the input", layout: str | None = None) -> ImageShape:
    """Read an input's shape, with batch axis, as that of an image input.

    The channel axis is the one of 1 or 3, the second where both could be (NCHW); with `layout`
    given, an axis of unknown size there counts as 3 channels. Raises `InputError`, naming the
    input, if it takes no images of one or three channels.
    """
    if layout is not None:
        require_choice("layout", layout, Layout)
    given = f"input '{name}' has shape {format_shape(shape)}"
    if len(shape) != 4:
        raise InputError(f"{given}: an image needs four axes, NCHW or NHWC")
    for candidate, axis in (("NCHW", 1), ("NHWC", 3)):
        channels = shape[axis]
        if layout is not None and layout != candidate:
            continue
        if layout is not None and not isinstance(channels, int):
            channels = 3
        if channels in (1, 3):
            height, width = (shape[2], shape[3]) if axis == 1 else (shape[1], shape[2])
            size = tuple(length if isinstance(length, int) else None for length in (height, width))
            return ImageShape("NCHW" if axis == 1 else "NHWC", int(channels), (size[0], size[1]))
    if layout is not None:
        channels = shape[1 if layout == "NCHW" else 3]
        raise InputError(f"{given}: that is {channels} channels in {layout}, an image has 1 or 3")
    unknown = not isinstance(shape[1], int) or not isinstance(shape[3], int)
    hint = "; pass the layout if its channel axis has no fixed size" if unknown else ""
    raise InputError(f"{given}: no channel axis of 1 or 3, as an image has{hint}")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes one image input of a model, and how that is shown again.

    size: (height, width); channels: 1 or 3; mean and std: one number, or one per channel; scale:
    what the range [0, 1] is multiplied by first (255 for models that take 0..255). grey: colour
    images may be turned grey for a one-channel model, which is an error otherwise.
    """

    size: tuple[int, int]
    channels: int = 3
    layout: Layout = "NCHW"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    dtype: str = "float32"
    grey: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}, expected 1 or 3")
        if min(self.size) < 1:
            raise InputError(f"the image size is {self.size}, expected positive height and width")
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, self.channels):
                expected = "1" if self.channels == 1 else f"1 or {self.channels}"
                raise InputError(
                    f"{what} has {len(numbers)} numbers, expected {expected} for a model of "
                    f"{self.channels} channel{'s' * (self.channels > 1)}"
                )
            if not np.isfinite(numbers).all():
                raise InputError(f"{what} is {numbers}, expected finite numbers")
        if 0 in self.std or self.scale == 0 or not np.isfinite(self.scale):
            raise InputError(
                f"std is {self.std} and scale is {self.scale}, expected finite numbers other than 0"
            )

    def fit(self, image: Image) -> Image:
        """Crop the middle to the model's aspect ratio and resize: [*size, 3] in [0, 1]."""
        from skimage.transform import resize  # slow to import

        cropped = centre_crop(image, self.size)
        if cropped.shape[:2] == self.size:
            return cropped
        resized = resize(cropped, self.size, order=1, mode="reflect", anti_aliasing=True)
        return np.asarray(np.clip(resized, 0.0, 1.0), dtype=np.float32)

    def apply(self, image: Image, *, name: str = "the image") -> NDArray[Any]:
        """Turn an RGB image [H, W, 3] in [0, 1] into the model's input, with a batch axis of 1.

        Raises `InputError`, naming the image, for a colour image and a one-channel model.
        """
        if self.channels == 1 and not self.grey and not is_grey(image):
            raise InputError(
                f"'{name}' is a colour image of 3 channels, the model takes 1 channel; "
                "convert it to grey first, or ask for it (--grey)"
            )
        fitted = self.fit(image)
        if self.channels == 1:
            from skimage.color import rgb2gray

            fitted = np.asarray(rgb2gray(fitted), dtype=np.float32)[..., None]
        return self._to_model(fitted)

    def inverse(self, values: NDArray[Any]) -> Image:
        """Turn a model input, with a batch axis of 1 or none, back into RGB [H, W, 3] in [0, 1]."""
        array = np.asarray(values, dtype=np.float64)
        array = array[0] if array.ndim == 4 else array
        if self.layout == "NCHW":
            array = np.moveaxis(array, 0, -1)
        pixels = (array * np.asarray(self.std) + np.asarray(self.mean)) / self.scale
        rgb = np.broadcast_to(np.clip(pixels, 0.0, 1.0), (*pixels.shape[:2], 3))
        return np.asarray(rgb, dtype=np.float32)

    def constant(self, colour: float) -> NDArray[Any]:
        """Preprocess an image of one shade (0 is black, 1 is white): a baseline."""
        return self._to_model(np.full((*self.size, self.channels), colour, dtype=np.float32))

    def _to_model(self, pixels: Image) -> NDArray[Any]:
        """Normalise [H, W, channels]; give it batch axis, layout and dtype of the model."""
        normalised = (pixels * self.scale - np.asarray(self.mean)) / np.asarray(self.std)
        if self.layout == "NCHW":
            normalised = np.moveaxis(normalised, -1, 0)
        dtype = np.dtype(self.dtype)
        if dtype.kind in "ui":
            normalised = np.rint(normalised)
        return np.ascontiguousarray(normalised[None], dtype=dtype)


def centre_crop(image: Image, size: tuple[int, int]) -> Image:
    """Cut out the largest centred part with the aspect ratio of `size` (height, width)."""
    height, width = image.shape[:2]
    ratio = min(height / size[0], width / size[1])
    rows = min(height, max(1, round(size[0] * ratio)))
    columns = min(width, max(1, round(size[1] * ratio)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def is_grey(image: Image) -> bool:
    """Whether an RGB image holds no colour, up to what lossy compression adds."""
    return bool(np.ptp(image, axis=2).max() <= 2 / 255)


def read_image(path: str | Path) -> Image:
    """Read an image file as RGB float32 [H, W, 3] in [0, 1], by scikit-image's readers.

    Grey becomes RGB, transparency is laid over white, 16 bits are scaled, palettes and CMYK are
    resolved, a photo is turned upright as its camera says; of an animation the first frame is
    taken. Floating point images must lie in [0, 1]. Raises `InputError`, naming the file, if it is
    missing or no such image.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise InputError(f"image '{path}' {what}")
    try:
        width, height = _header_size(file)
        if width * height > MOST_PIXELS:
            raise InputError(
                f"image '{path}' has {width} x {height} pixels; at most {MOST_PIXELS} are decoded"
            )
        pixels = _decode(file)
    except InputError:
        raise
    except _decoding_errors() as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if "given uri" in reason:  # imageio's words for a format it does not know
            reason = "its format is not known"
        raise InputError(f"'{path}' cannot be read as an image: {reason}") from error
    return _to_rgb(pixels, path)


def decode_image(data: bytes, *, most_pixels: int, name: str = "the image") -> Image:
    """Read an image from the bytes of a file, PNG, JPEG, GIF, BMP or WebP: what `read_image` gives.

    The size is looked up in the header first: one of more than `most_pixels` is not decoded. Raises `InputError`,
    naming the image by `name`, for that and for what is no such image.
    """
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data), formats=STRANGERS_FORMATS) as header:
            width, height = header.size
        if width * height > most_pixels:
            raise InputError(
                f"{name} has {width} x {height} pixels; at most {most_pixels} are decoded"
            )
        pixels = _decode_with_pillow(data)
    except InputError:
        raise
    except PIL.UnidentifiedImageError as error:
        message = f"{name} is no image in one of the formats {', '.join(STRANGERS_FORMATS)}"
        raise InputError(message) from error
    except _decoding_errors() as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{name} cannot be read as an image: {reason}") from error
    return _to_rgb(pixels, name)


def format_shape(shape: Sequence[Any]) -> str:
    """Write a shape as people do: [batch, 3, ?, ?]."""
    return "[" + ", ".join("?" if length is None else str(length) for length in shape) + "]"


def _header_size(file: Path) -> tuple[int, int]:
    """Width and height as the header tells them, nothing being decoded."""
    if file.suffix.lower() in (".tif", ".tiff"):
        from tifffile import TiffFile

        with TiffFile(file) as tiff:
            page = tiff.pages.first
            # What lies behind the axes counts too: scikit-image reads all of it.
            series = max((math.prod(one.shape) for one in tiff.series), default=0)
            return max(page.imagewidth, series // max(page.imagelength, 1) // 4), page.imagelength
    import PIL.Image

    with PIL.Image.open(file) as header:
        width, height = header.size
    return width, height


def _decode(file: Path) -> NDArray[Any]:
    """Decode a file: [H, W], or [H, W, 1 to 4] in grey, grey with alpha, RGB, RGBA."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return _decode_with_pillow(file)
    from skimage.io import imread
    from tifffile import PHOTOMETRIC, TiffFile

    with TiffFile(file) as tiff:
        printing_colours = tiff.pages.first.photometric == PHOTOMETRIC.SEPARATED
    return _decode_with_pillow(file) if printing_colours else np.asarray(imread(str(file)))


def _decode_with_pillow(file: Path | bytes) -> NDArray[Any]:
    """Decode the first picture of a file, or of its bytes, upright, its palette or printing colours resolved."""
    import imageio.v3  # what scikit-image itself reads with; it alone tells orientation and mode

    with imageio.v3.imopen(file, "r", plugin="pillow") as opened:
        metadata = opened.metadata(index=0)
        options: dict[str, Any] = {"rotate": True, "mode": None}
        if metadata["mode"] == "P":
            options["mode"] = "RGBA" if "transparency" in metadata else "RGB"
        elif metadata["mode"] in ("CMYK", "YCbCr", "LAB", "HSV"):
            options["mode"] = "RGB"
        return np.asarray(opened.read(index=0, **options))


def _decoding_errors() -> tuple[type[Exception], ...]:
    """List what the decoders beneath raise on broken files; each has its own way."""
    from PIL.Image import DecompressionBombError, DecompressionBombWarning
    from tifffile import TiffFileError

    return (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        LookupError,
        TypeError,
        RuntimeError,
        struct.error,
        DecompressionBombError,
        DecompressionBombWarning,
        TiffFileError,
    )


def _to_rgb(pixels: NDArray[Any], path: str | Path) -> Image:
    """Bring decoded pixels of any kind to RGB in [0, 1]."""
    given = f"image '{path}' has shape {format_shape(pixels.shape)} and dtype {pixels.dtype}"
    array = pixels[..., None] if pixels.ndim == 2 else pixels
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or array.size == 0:
        raise InputError(f"{given}, expected one grey, RGB or RGBA picture")
    if array.dtype.kind == "u":
        array = array / np.float64(np.iinfo(array.dtype).max)
    elif array.dtype.kind == "i" and array.min() >= 0 and array.max() <= 65535:
        array = array / 65535.0  # how some files hold 16-bit grey
    elif array.dtype.kind not in "fb":
        raise InputError(f"{given}, expected unsigned integers or floats in [0, 1]")
    if not ((array >= 0) & (array <= 1)).all():
        raise InputError(
            f"{given} and values from {array.min():g} to {array.max():g}, expected 0 to 1"
        )
    colours = array[..., :1] if array.shape[2] == 2 else array[..., :3]
    if array.shape[2] in (2, 4):
        alpha = array[..., -1:].astype(np.float64)
        colours = colours * alpha + (1.0 - alpha)
    rgb = np.broadcast_to(colours, (*colours.shape[:2], 3))
    return np.ascontiguousarray(rgb, dtype=np.float32)

"""Images into a model and back."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.transform import resize

from igonnx.errors import InputError
from igonnx.images import (
    PRESETS,
    Preprocessing,
    centre_crop,
    decode_image,
    image_shape,
    read_image,
)

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
PICTURE = Image.fromarray(COLOURS)
EXPECTED = COLOURS.astype(np.float32) / 255


def file_of(picture, form, **options):
    written = io.BytesIO()
    picture.save(written, form, **options)
    return written.getvalue()


class TestDecoding:
    @pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
    def test_bytes_are_read_as_the_file_would_be(self, tmp_path, form):
        (tmp_path / "a").write_bytes(file_of(PICTURE, form))
        decoded = decode_image(file_of(PICTURE, form), most_pixels=600)
        np.testing.assert_array_equal(decoded, read_image(tmp_path / "a"))

    def test_large_images_are_not_decoded(self):
        with pytest.raises(InputError, match="photo has 30 x 20 pixels; at most 599"):
            decode_image(file_of(PICTURE, "PNG"), most_pixels=599, name="photo")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"no image",
            file_of(PICTURE, "TIFF"),
            file_of(PICTURE, "PDF"),
            file_of(PICTURE, "EPS"),
        ],
    )
    def test_other_formats_are_refused(self, data):
        with pytest.raises(InputError, match="the image is no image in one of the formats PNG"):
            decode_image(data, most_pixels=10**6)

    def test_cut_files_are_refused(self):
        with pytest.raises(InputError, match="cannot be read as an image"):
            decode_image(file_of(PICTURE, "JPEG")[:-200], most_pixels=10**6)


class TestReading:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
    def test_lossless_formats(self, tmp_path, suffix):
        PICTURE.save(tmp_path / f"a.{suffix}")
        image = read_image(tmp_path / f"a.{suffix}")
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, EXPECTED)

    @pytest.mark.parametrize("suffix", ["jpg", "webp", "gif"])
    def test_lossy_formats(self, tmp_path, suffix):
        Image.new("RGB", (30, 20), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
        image = read_image(tmp_path / f"a.{suffix}")
        assert image.shape == (20, 30, 3)
        np.testing.assert_allclose(image[10, 10], np.array([200, 100, 50]) / 255, atol=0.02)

    def test_grey(self, tmp_path):
        PICTURE.convert("L").save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        assert image.shape == (20, 30, 3)
        assert not np.ptp(image, axis=2).any()

    def test_black_and_white(self, tmp_path):
        PICTURE.convert("1").save(tmp_path / "a.png")
        assert set(np.unique(read_image(tmp_path / "a.png"))) == {0.0, 1.0}

    def test_sixteen_bits(self, tmp_path):
        deep = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / "a.png")
        tifffile.imwrite(tmp_path / "b.tif", np.stack([deep] * 3, axis=2))
        for name in ("a.png", "b.tif"):
            np.testing.assert_allclose(read_image(tmp_path / name)[..., 1], deep / 65535, atol=1e-6)

    def test_transparency_is_laid_over_white(self, tmp_path):
        pixels = np.dstack([COLOURS, np.zeros((20, 30), np.uint8)])
        pixels[:, :10, 3] = 255
        pixels[:, 10:20, 3] = 51
        Image.fromarray(pixels).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        np.testing.assert_allclose(image[:, :10], EXPECTED[:, :10], atol=1e-6)
        np.testing.assert_allclose(image[:, 10:20], 0.2 * EXPECTED[:, 10:20] + 0.8, atol=1e-6)
        np.testing.assert_allclose(image[:, 20:], 1.0)

    def test_grey_with_transparency(self, tmp_path):
        pixels = np.zeros((4, 4, 2), np.uint8)
        pixels[:2, :, 1] = 255
        Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        assert (image[:2] == 0).all()
        assert (image[2:] == 1).all()

    def test_palette(self, tmp_path):
        palette = PICTURE.quantize(16)
        palette.save(tmp_path / "a.png")
        expected = np.asarray(palette.convert("RGB"), dtype=np.float32) / 255
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
        clear = int(np.asarray(palette)[0, 0])
        palette.save(tmp_path / "b.png", transparency=clear)
        assert (read_image(tmp_path / "b.png")[np.asarray(palette) == clear] == 1).all()

    @pytest.mark.parametrize("suffix", ["jpg", "tif"])
    def test_printing_colours(self, tmp_path, suffix):
        ink = Image.new("CMYK", (30, 20), (0, 255, 255, 0))
        ink.save(tmp_path / f"a.{suffix}")
        red, green, blue = read_image(tmp_path / f"a.{suffix}")[5, 5]
        assert red > 0.9
        assert max(green, blue) < 0.2

    def test_upright_as_the_camera_says(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        PICTURE.save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg").shape == (30, 20, 3)

    def test_first_frame_of_an_animation(self, tmp_path):
        black, white = Image.new("RGB", (5, 4)), Image.new("RGB", (5, 4), "white")
        black.save(tmp_path / "a.gif", save_all=True, append_images=[white])
        assert (read_image(tmp_path / "a.gif") == 0).all()

    def test_floats(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", EXPECTED, photometric="rgb")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), EXPECTED)

    def test_name_without_suffix(self, tmp_path):
        PICTURE.save(tmp_path / "a", format="png")
        np.testing.assert_array_equal(read_image(tmp_path / "a"), EXPECTED)

    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"image '.*none.png' does not exist"):
            read_image(tmp_path / "none.png")
        with pytest.raises(InputError, match="is a folder"):
            read_image(tmp_path)

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a.foo", "a"])
    @pytest.mark.parametrize("content", [b"", b"hello, world"])
    def test_no_image(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}' cannot be read as an image") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
    def test_truncated(self, tmp_path, suffix):
        file = tmp_path / f"a.{suffix}"
        PICTURE.resize((300, 200)).save(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(InputError, match="cannot be read as an image"):
            read_image(file)

    @pytest.mark.parametrize(
        ("pixels", "message"),
        [
            (np.zeros((5, 20, 30), np.uint8), "expected one grey, RGB or RGBA picture"),
            (np.full((20, 30), 99.5, np.float32), "values from 99.5 to 99.5, expected 0 to 1"),
            (np.full((20, 30), np.nan, np.float32), "expected 0 to 1"),
            (np.full((20, 30), -5, np.int16), "expected unsigned integers"),
        ],
    )
    def test_numbers_that_are_no_picture(self, tmp_path, pixels, message):
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / "a.tif")


class TestShape:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            (("N", 3, 224, 224), ("NCHW", 3, (224, 224))),
            ((1, 224, 192, 3), ("NHWC", 3, (224, 192))),
            (("N", 1, "H", None), ("NCHW", 1, (None, None))),
            (("N", "H", 32, 1), ("NHWC", 1, (None, 32))),
            (("N", 3, 3, 3), ("NCHW", 3, (3, 3))),
        ],
    )
    def test_detected(self, shape, expected):
        found = image_shape(shape)
        assert (found.layout, found.channels, found.size) == expected

    def test_layout_given(self):
        assert image_shape(("N", 3, 3, 3), layout="NHWC").layout == "NHWC"
        assert image_shape(("N", "C", "H", "W"), layout="NCHW").channels == 3

    @pytest.mark.parametrize(
        ("shape", "layout", "message"),
        [
            (("N", 4, 8, 8), None, r"'x' has shape \[N, 4, 8, 8\]: no channel axis of 1 or 3"),
            (("N", 4, 8, 8), "NCHW", "that is 4 channels in NCHW, an image has 1 or 3"),
            (("N", "C", 8, None), None, "pass the layout"),
            (("N", 10), None, "needs four axes"),
            (("N", 3, 8, 8), "CHW", "layout is 'CHW'"),
        ],
    )
    def test_no_image_input(self, shape, layout, message):
        with pytest.raises(InputError, match=message):
            image_shape(shape, name="x", layout=layout)


class TestPreprocessing:
    def test_presets(self):
        white = np.ones((4, 4, 3), np.float32)
        for name, expected in {
            "imagenet": [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225],
            "tf": [1, 1, 1],
            "zero-one": [1, 1, 1],
            "efficientnet-lite": [1, 1, 1],
        }.items():
            preset = PRESETS[name]
            steps = Preprocessing((4, 4), mean=preset.mean, std=preset.std, scale=preset.scale)
            np.testing.assert_allclose(steps.apply(white)[0, :, 0, 0], expected, rtol=1e-6)
        assert Preprocessing((4, 4), mean=(0.5,), std=(0.5,)).constant(0).min() == -1
        assert Preprocessing((4, 4), scale=255).apply(white).max() == 255

    @pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
    def test_round_trip(self, layout):
        steps = Preprocessing(
            (20, 30), layout=layout, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), scale=2.0
        )
        prepared = steps.apply(EXPECTED)
        assert prepared.shape == ((1, 3, 20, 30) if layout == "NCHW" else (1, 20, 30, 3))
        assert prepared.dtype == np.float32
        assert prepared.flags.c_contiguous
        np.testing.assert_allclose(steps.inverse(prepared), EXPECTED, atol=1e-6)
        np.testing.assert_allclose(steps.inverse(prepared[0]), EXPECTED, atol=1e-6)

    def test_centre_crop_then_resize(self):
        photo = np.random.default_rng(2).random((60, 100, 3)).astype(np.float32)
        expected = resize(photo[:, 20:80], (24, 24), order=1, anti_aliasing=True)
        np.testing.assert_allclose(Preprocessing((24, 24)).fit(photo), expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("image", "size", "expected"),
        [
            ((60, 100), (10, 10), (60, 60)),
            ((100, 60), (10, 20), (30, 60)),
            ((1, 100), (224, 224), (1, 1)),
            ((7, 7), (7, 7), (7, 7)),
        ],
    )
    def test_crop_has_the_aspect_ratio(self, image, size, expected):
        assert centre_crop(np.zeros((*image, 3), np.float32), size).shape[:2] == expected

    def test_one_channel(self):
        grey = np.repeat(EXPECTED[..., :1], 3, axis=2)
        steps = Preprocessing((20, 30), channels=1)
        np.testing.assert_allclose(steps.apply(grey)[0, 0], grey[..., 0], atol=1e-6)
        np.testing.assert_allclose(steps.inverse(steps.apply(grey)), grey, atol=1e-6)
        with pytest.raises(
            InputError, match=r"'cat\.png' is a colour image of 3 channels, the model"
        ):
            steps.apply(EXPECTED, name="cat.png")
        luminance = EXPECTED @ np.array([0.2125, 0.7154, 0.0721], np.float32)
        converted = Preprocessing((20, 30), channels=1, grey=True).apply(EXPECTED)
        np.testing.assert_allclose(converted[0, 0], luminance, atol=1e-5)

    def test_baseline_colours(self):
        steps = Preprocessing((4, 5), mean=(0.5, 0.4, 0.3), std=(0.2,))
        assert steps.constant(0).shape == (1, 3, 4, 5)
        np.testing.assert_allclose(steps.constant(0)[0, :, 0, 0], [-2.5, -2, -1.5], rtol=1e-6)
        assert not steps.inverse(steps.constant(0)).any()
        assert (steps.inverse(steps.constant(1)) > 0.999).all()

    def test_integer_models(self):
        prepared = Preprocessing((20, 30), scale=255, dtype="uint8").apply(EXPECTED)
        assert prepared.dtype == np.uint8
        np.testing.assert_array_equal(prepared[0], np.moveaxis(COLOURS, 2, 0))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"channels": 4}, "channels is 4, expected 1 or 3"),
            ({"size": (0, 4)}, "image size"),
            ({"mean": (1.0, 2.0)}, "mean has 2 numbers, expected 1 or 3"),
            ({"channels": 1, "std": (1.0,) * 3}, "std has 3 numbers, expected 1 for a model of 1"),
            ({"std": (0.0,)}, "other than 0"),
            ({"scale": 0.0}, "other than 0"),
            ({"mean": (float("nan"),)}, "expected finite numbers"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(InputError, match=message):
            Preprocessing(**{"size": (4, 4), **settings})

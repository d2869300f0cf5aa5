"""Rows as the model takes them, and what is refused of files that are damaged or hostile."""

from __future__ import annotations

import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from igonnx.errors import InputError
from igonnx.model import TensorInfo
from igonnx.scale import reading
from igonnx.scale.listing import ONLY
from igonnx.scale.reading import read_row
from igonnx.scale.tables import choose_columns

pa = pytest.importorskip("pyarrow", reason="igonnx[ray] is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="igonnx[ray] is not installed")

IMAGE = [TensorInfo("image", "float32", ("batch", 1, 8, 8))]
PAIR = [TensorInfo("ids", "int64", ("n", 4)), TensorInfo("mask", "float32", ("n", 4))]


def png_header(width, height):
    """A PNG file of this size that is a few bytes long."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def with_columns(job, columns):
    return type(job)(**{**job.__dict__, "columns": columns})


def test_images_are_prepared(job, tmp_path, write_images, digit_images):
    write_images(tmp_path, 2)
    found = read_row(job, IMAGE, ("001.png", ONLY))
    np.testing.assert_allclose(found["image"], digit_images[1:2], atol=1e-6)
    Image.open(tmp_path / "001.png").save(tmp_path / "001.tif")
    np.testing.assert_allclose(read_row(job, IMAGE, ("001.tif", ONLY))["image"], found["image"])


def test_arrays_are_cut_out(job, tmp_path, digit_images):
    np.save(tmp_path / "x.npy", digit_images[:3])
    np.save(tmp_path / "one.npy", digit_images[4])
    np.savez(tmp_path / "x.npz", anything=digit_images[:3])
    for row in (("x.npy", 2), ("x.npz", 2)):
        np.testing.assert_array_equal(read_row(job, IMAGE, row)["image"], digit_images[2:3])
    found = read_row(job, IMAGE, ("one.npy", ONLY))["image"]
    np.testing.assert_array_equal(found, digit_images[4:5])


def test_cells_of_tables_are_lists_tensors_or_images(job, tmp_path, write_images, digit_images):
    write_images(tmp_path, 3)
    files = [(tmp_path / f"{number:03}.png").read_bytes() for number in range(3)]
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(digit_images[:3])
    table = pa.table(
        {
            "flat": [image.ravel().tolist() for image in digit_images[:3]],
            "nested": [image.tolist() for image in digit_images[:3]],
            "tensor": tensors,
            "bytes": files,
            "photo": [{"bytes": data, "path": None} for data in files],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    for column in table.column_names:
        columns = choose_columns(tmp_path / "t.parquet", IMAGE, column)
        for row in (0, 2):
            found = read_row(with_columns(job, columns), IMAGE, ("t.parquet", row))["image"]
            np.testing.assert_allclose(
                found, digit_images[row : row + 1], atol=1e-6, err_msg=column
            )


def test_several_inputs_come_from_archives_and_tables(job, tmp_path):
    ids, mask = np.arange(8).reshape(2, 4), np.ones((2, 4), np.float32)
    np.savez(tmp_path / "both.npz", ids=ids, mask=mask, more=ids)
    parquet.write_table(
        pa.table({"mask": mask.tolist(), "ids": ids.tolist()}), tmp_path / "both.parquet"
    )
    columns = choose_columns(tmp_path / "both.parquet", PAIR)
    for file in ("both.npz", "both.parquet"):
        found = read_row(with_columns(job, columns), PAIR, (file, 1))
        assert found["ids"].dtype == np.int64
        np.testing.assert_array_equal(found["ids"], ids[1:])
        np.testing.assert_array_equal(found["mask"], mask[1:])


DAMAGED = {
    "missing.png": "'missing.png' cannot be read: no such file",
    "missing.npy": "does not exist",
    "empty.png": "no image in one of the formats",
    "cut.png": "cannot be read as an image",
    "bomb.png": "3600000000 pixels",
    "text.jpg": "no image in one of the formats",
    "text.tif": "cannot be read as an image",
    "nan.npy": "NaN or infinity",
    "wide.npy": r"has shape \[1, 1, 8, 9\]",
    "words.npy": "holds <U1, expected numbers",
    "pickle.npy": "cannot be read as a NumPy file",
    "objects.npy": "cannot be read as a NumPy file",
    "other.npz": "holds no array 'image'",
    "broken.npz": "cannot be read as a NumPy file",
    "broken.parquet": "cannot be read as a table",
}


def write_damaged(folder):
    """Files that no row can be read from."""
    ones = np.ones((1, 1, 8, 8), np.float32)
    bad = ones.copy()
    bad[0, 0, 3, 4] = np.nan
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes(png_header(8, 8))
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (folder / "text.jpg").write_text("hello")
    (folder / "text.tif").write_text("hello")
    np.save(folder / "nan.npy", bad)
    np.save(folder / "wide.npy", np.ones((1, 1, 8, 9), np.float32))
    np.save(folder / "words.npy", np.full((1, 1, 8, 8), "a"))
    (folder / "pickle.npy").write_bytes(pickle.dumps([1]))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(folder / "other.npz", a=ones, b=ones)
    (folder / "broken.npz").write_bytes(b"PK\x03\x04")
    (folder / "broken.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize("file", DAMAGED)
def test_what_cannot_be_read_says_why(job, tmp_path, file):
    write_damaged(tmp_path)
    with pytest.raises(InputError, match=DAMAGED[file]) as raised:
        read_row(job, IMAGE, (file, ONLY))
    assert "\n" not in str(raised.value)


def test_a_large_tiff_is_not_decoded(job, tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "large.tif")
    small = type(job)(**{**job.__dict__, "max_pixels": 1000})
    with pytest.raises(InputError, match="64 x 64 pixels; at most 1000"):
        read_row(small, IMAGE, ("large.tif", ONLY))


def test_an_archive_that_unfolds_to_much_is_not_read(job, tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "zeros.npz", image=np.zeros((1000, 1, 8, 8), np.float32))
    monkeypatch.setattr(reading, "MAX_ARCHIVE", 100_000)
    with pytest.raises(InputError, match="unfolds to 256,"):
        read_row(job, IMAGE, ("zeros.npz", 0))


def test_rows_that_went_missing_are_told(job, tmp_path, digit_images):
    np.save(tmp_path / "x.npy", digit_images[:3])
    with pytest.raises(InputError, match=r"x\.npy' has no row 3"):
        read_row(job, IMAGE, ("x.npy", 3))


def test_a_missing_cell_is_told(job, tmp_path):
    parquet.write_table(pa.table({"image": [[0.0] * 64, None]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="missing"):
        read_row(with_columns(job, {"image": "image"}), IMAGE, ("t.parquet", 1))


def test_columns_are_found_or_asked_for(tmp_path):
    parquet.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no column 'image', only 'a', 'b'"):
        choose_columns(tmp_path / "t.parquet", IMAGE)
    assert choose_columns(tmp_path / "t.parquet", IMAGE, "b") == {"image": "b"}
    with pytest.raises(InputError, match="for models of one input"):
        choose_columns(tmp_path / "t.parquet", PAIR, "b")

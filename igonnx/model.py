"""Load, check and normalise an ONNX model; know its inputs, its outputs and the tensors in between."""

from __future__ import annotations

import difflib
import math
import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, cast

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx import upgrade
from igonnx.acceptance import described, mended
from igonnx.errors import Error, InputError, ModelError
from igonnx.graph.branches import inline_settled_branches
from igonnx.graph.builder import dims
from igonnx.graph.ceil_mode import settle_ceil_mode
from igonnx.graph.constant_folding import fold_constants
from igonnx.graph.constants import settle_constants
from igonnx.graph.external_data import require_own_files
from igonnx.graph.functions import inlined_size
from igonnx.graph.node_view import operator_name, subgraphs
from igonnx.graph.shape_inference import infer_shapes
from igonnx.graph.tensors import own_tensor
from igonnx.lowering.dialect import without_dialect
from igonnx.lowering.shapes import infer_shapes_everywhere
from igonnx.maps import without_maps

__all__ = ["MINIMUM_OPSET", "Model", "ModelSource", "TensorInfo"]

# Below 17, axes and bounds are attributes here and inputs there, and scatters cannot add.
MINIMUM_OPSET = upgrade.TARGET
_MOST_NODES = 1_000_000  # after functions are inlined; real models have thousands
_MOST_ELEMENTS = 1 << 36  # of one tensor; in float32, 256 GiB
_PROTOBUF_LIMIT = 2**31 - 1  # bytes that protobuf can serialise
_MINIMUM_IR_VERSION = 8  # the IR version that opset 17 came with

ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto | Model"


@dataclass(frozen=True)
class TensorInfo:
    """Name, NumPy dtype and shape of an input or output; an axis is an integer, a symbol's name, or None."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype} [{axes}]"


class Model:
    """An ONNX model ready to be differentiated.

    Functions are inlined, constants are initializers, the opset is at least 17, shapes and dtypes are inferred.
    `ir` is that graph (never changed after loading: work on `clone()`), `name` says in messages which model it is,
    `folder` is where external data lies.
    """

    def __init__(self, model: ir.Model, *, name: str, folder: Path | None = None) -> None:
        self.ir = model
        self.name = name
        self.folder = folder
        # Counted before anything is inlined, lifted or folded: what the author of the file put in it.
        self.operator_counts = dict(
            sorted(Counter(operator_name(node) for node in model.graph.all_nodes()).items())
        )
        self.parameter_count = sum(
            value.const_value.size
            for value in model.graph.initializers.values()
            if value.const_value is not None and value.const_value.dtype.is_floating_point()
        )
        self.file_opset = model.opset_imports.get("", 0)

    @classmethod
    def load(cls, source: ModelSource) -> Model:
        """Load a path, serialized bytes or a `ModelProto`; a `Model` is returned as it is.

        Raises `ModelError` when it cannot be read, is not valid ONNX, or cannot be brought to opset 17.
        """
        if isinstance(source, Model):
            return source
        loaded = cls._opened(source)
        loaded._normalised()
        return loaded

    @classmethod
    def load_beside_original(cls, source: ModelSource) -> tuple[Model, ir.Model]:
        """The model as `load` has it, and its graph as the file has it: not normalised, but of IR version 8 or later.

        A `Model` stands for its own original.
        """
        if isinstance(source, Model):
            return source, source.clone()
        loaded = cls._opened(source)
        original = loaded.clone()
        _own_constants(original)
        _raise_ir_version(original)
        loaded._normalised()
        return loaded, original

    @classmethod
    def _opened(cls, source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Model:
        """The model as it is, checked."""
        if isinstance(source, onnx.ModelProto):
            name, folder = source.graph.name or "model", None
            require_own_files(source, folder, name)
            proto = _mended(source, name)
            _check(proto, name)
        elif isinstance(source, bytes | bytearray | memoryview):
            name, folder = "model bytes", None
            read = _parse(bytes(source), name)
            require_own_files(read, folder, name)
            proto = _mended(read, name)
            _check(proto, name)
        elif isinstance(source, str | os.PathLike):
            if not str(source) or "\0" in str(source):
                raise InputError(
                    f"model path is {str(source)!r}; expected the path of an ONNX file"
                )
            path = Path(source)
            read = _read(path)
            name, folder = path.name, path.resolve().parent
            require_own_files(read, folder, name)
            proto = _mended(read, name)
            _check(proto, name, path if proto is read else None)
        else:
            raise InputError(
                f"model must be a path, bytes or an onnx.ModelProto, not {type(source).__name__}"
            )
        proto = without_maps(proto, name)
        try:
            model = ir.from_proto(proto)
            _require_text(model)
            _own_constants(model)
        except (ValueError, TypeError, KeyError, AttributeError, ir.serde.SerdeError) as error:
            raise ModelError(f"{name}: not a usable ONNX graph: {_first_line(error)}") from error
        _name_parts(model.graph)
        if folder is not None:
            ir.external_data.set_base_dir(model.graph, folder)
        upgrade.unify_opsets(model, name)
        return cls(model, name=name, folder=folder)

    def _normalised(self) -> None:
        try:
            self._normalise()
        except Error:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The checker leaves much to the runtime: how many values a branch gives, whether a tensor fits its shape.
            reason = f"{type(error).__name__}: {_first_line(error)}"
            raise ModelError(f"{self.name}: not a usable ONNX graph: {reason}") from error

    def _normalise(self) -> None:
        _raise_ir_version(self.ir)
        self._inline_functions()
        self._upgrade()
        settle_constants(self.ir)
        inline_settled_branches(self.ir)
        _name_everything(self.ir.graph)
        if fold_constants(self.ir.graph):
            inline_settled_branches(self.ir)
        written = [value.shape and value.shape.copy() for value in self.ir.graph.outputs]
        infer_shapes_everywhere(self.ir)
        if settle_ceil_mode(self.ir.graph):
            for value, shape in zip(self.ir.graph.outputs, written, strict=True):
                value.shape = shape
            infer_shapes_everywhere(self.ir)
        if fold_constants(self.ir.graph):
            # Shapes known only now were arithmetic's last missing piece.
            inline_settled_branches(self.ir)
            infer_shapes_everywhere(self.ir)
        _require_sizes(self.ir, self.name)

    def _inline_functions(self) -> None:
        if not self.ir.functions:
            return
        count = inlined_size(self.ir)
        if count > _MOST_NODES:
            raise ModelError(
                f"{self.name}: its functions call each other so often that {count:,} nodes would come of it; "
                f"at most {_MOST_NODES:,} can be explained"
            )
        folder = "" if self.folder is None else self.folder
        for function in self.ir.functions.values():
            ir.external_data.set_base_dir(function.graph, folder)
        try:
            passes.InlinePass()(self.ir)
        except (ValueError, ir.passes.PassError, ir.passes.InvariantError) as error:
            raise ModelError(
                f"{self.name}: its functions cannot be inlined: {_first_line(error)}"
            ) from error

    def _upgrade(self) -> None:
        if self.opset >= MINIMUM_OPSET:
            return
        # Known ranks make shorter graphs. A Scan of opset 8 has a batch axis that inference does not expect.
        if self.opset > 8 or not any(node.op_type == "Scan" for node in self.ir.graph.all_nodes()):
            infer_shapes(self.ir)
        upgrade.upgrade(self.ir, self.name)

    def with_graph(self, model: ir.Model) -> Model:
        """This model with another graph: its name, folder and statistics stay."""
        other = Model.__new__(Model)
        other.__dict__.update(
            {key: value for key, value in self.__dict__.items() if key not in ("inputs", "outputs")}
        )
        other.ir = model
        return other

    def with_output(self, name: str) -> Model:
        """This model with the tensor called `name` among its outputs, as the last of them if it is none yet."""
        if name in [value.name for value in self.ir.graph.outputs]:
            return self
        model = self.with_graph(self.clone())
        value = model.find_tensor(name)
        if value.producer() is None:
            raise InputError(
                f"tensor {name!r} is an input of the model; expected one that it computes"
            )
        model.ir.graph.outputs.append(value)
        return model

    def clone(self) -> ir.Model:
        """A copy of the graph that may be changed; tensors' data are shared."""
        return self.ir.clone()

    def to_proto(self) -> onnx.ModelProto:
        """The normalised model as a protobuf."""
        return ir.to_proto(self.ir)

    # -- what is in it -----------------------------------------------------------------------

    @cached_property
    def inputs(self) -> list[TensorInfo]:
        """The inputs a caller provides: those that no initializer fills."""
        return [_info(value) for value in self.input_values]

    @cached_property
    def outputs(self) -> list[TensorInfo]:
        """The outputs, in order."""
        return [_info(value) for value in self.ir.graph.outputs]

    @property
    def input_values(self) -> list[ir.Value]:
        """Graph values of `inputs`."""
        filled = self.ir.graph.initializers
        return [value for value in self.ir.graph.inputs if value.name not in filled]

    @property
    def inner_symbols(self) -> set[str]:
        """Symbols that name a later axis of some input (a height, a sequence's length): they do not count examples."""
        return {dim for info in self.inputs for dim in info.shape[1:] if isinstance(dim, str)}

    @property
    def opset(self) -> int:
        """Version of the standard operators after normalisation."""
        return self.ir.opset_imports.get("", 0)

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata_props."""
        return dict(self.ir.metadata_props)

    # -- names to values ---------------------------------------------------------------------

    def find_output(self, name: str | None) -> ir.Value:
        """The output called `name`, or the first floating one."""
        outputs = self.ir.graph.outputs
        if name is None:
            found = next((value for value in outputs if is_floating(value)), None)
            if found is None:
                raise ModelError(f"{self.name}: no output is floating, so none has a gradient")
            return found
        for value in outputs:
            if value.name == name:
                if not is_floating(value):
                    raise InputError(
                        f"output {name!r} is {dtype_name(value)}: only floating outputs can be explained"
                    )
                return value
        raise InputError(_unknown("output", name, [cast("str", value.name) for value in outputs]))

    def find_tensor(self, name: str) -> ir.Value:
        """The input or intermediate tensor called `name`."""
        known = {value.name: value for value in self.ir.graph.inputs}
        known.update({value.name: value for node in self.ir.graph for value in node.outputs})
        if not isinstance(name, str) or name not in known:
            raise InputError(_unknown("tensor", name, [n for n in known if n]))
        return known[name]


def is_floating(value: ir.Value) -> bool:
    """Whether `value` is a floating-point tensor; floats of less than 16 bits are codes, as small integers are."""
    dtype = value.dtype
    return dtype is not None and dtype.is_floating_point() and dtype.bitwidth >= 16


def dtype_name(value: ir.Value) -> str:
    """The dtype of `value` as NumPy calls it: "float32", "int64", "bfloat16"; "unknown" where nothing is known."""
    name = "unknown" if value.dtype is None else value.dtype.name.lower()
    return {"float": "float32", "double": "float64", "undefined": "unknown"}.get(name, name)


def _info(value: ir.Value) -> TensorInfo:
    axes = () if value.shape is None else dims(value)
    return TensorInfo(value.name or "", dtype_name(value), axes)


def _read(path: Path) -> onnx.ModelProto:
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if path.is_dir():
        raise ModelError(f"{path}: a folder, expected an ONNX file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return _parse(data, str(path))


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{name}: not an ONNX model, or a damaged one ({len(data):,} bytes cannot be decoded)"
        ) from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(
            f"{name}: not an ONNX model: no graph was found in its {len(data):,} bytes"
        )
    return proto


def _mended(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    try:
        return mended(proto)
    except (ValueError, TypeError, IndexError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{name}: not a valid ONNX model: {_first_line(error)}") from error


def _check(proto: onnx.ModelProto, name: str, path: Path | None = None) -> None:
    try:
        # The path form reads external data where it lies and has no limit of 2 GB.
        if path is not None:
            onnx.checker.check_model(str(path))
        elif proto.ByteSize() < _PROTOBUF_LIMIT:
            onnx.checker.check_model(proto)
        # Else the checker, which serialises what is in memory, cannot see it.
    except (onnx.checker.ValidationError, ValueError, UnicodeDecodeError) as error:
        plain = None
        try:
            if "No Op registered" in str(error) or "is deprecated in domain_version" in str(error):
                plain = without_dialect(proto)
            elif "is required but missing" in str(error):
                plain = described(proto)
        except UnicodeDecodeError:  # a name that is not UTF-8 can be parsed, not copied
            plain = None
        if plain is None:
            raise ModelError(f"{name}: not a valid ONNX model: {_first_line(error)}") from error
        # What ONNX Runtime's optimiser writes into the standard domain is no reason to refuse a model, nor is a shape
        # of an input or output that nobody wrote down.
        _check(plain, name)


def _raise_ir_version(model: ir.Model) -> None:
    if model.ir_version < 4:
        # Then, every initializer had to be listed as an input too; nobody meant to feed it.
        passes.RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version, _MINIMUM_IR_VERSION)


def _require_text(model: ir.Model) -> None:
    """Refuse names that are not UTF-8, which protobuf hands out as bytes."""
    names: list[object] = [value.name for value in model.graph.inputs]
    for node in model.graph.all_nodes():
        names += [node.name, node.op_type, node.domain]
        names += [value.name for value in node.outputs]
        names += [value.name for body in subgraphs(node).values() for value in body.inputs]
    broken = next((name for name in names if isinstance(name, bytes)), None)
    if broken is not None:
        raise ValueError(f"the name {broken!r} is not UTF-8")


def _require_sizes(model: ir.Model, name: str) -> None:
    """Refuse a model that computes what no memory holds, before the runtime tries."""
    for value in [*model.graph.inputs, *(v for n in model.graph.all_nodes() for v in n.outputs)]:
        sizes = [dim for dim in value.shape or () if isinstance(dim, int)]
        if math.prod(sizes) > _MOST_ELEMENTS:
            raise ModelError(
                f"{name}: tensor {value.name!r} has {math.prod(sizes):,} elements or more; "
                f"expected at most {_MOST_ELEMENTS:,}"
            )


def _own_constants(model: ir.Model) -> None:
    """Keep what lifting constants does to their names out of the protobuf they came from."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in graph.all_nodes():
            value = node.attributes.get("value")
            if (
                node.op_type == "Constant"
                and value is not None
                and value.type == ir.AttributeType.TENSOR
            ):
                node.attributes["value"] = ir.AttrTensor("value", own_tensor(value.as_tensor()))


def _name_parts(graph: ir.Graph) -> None:
    """Name the nameless outputs of Split: those at the end would be lost, and their number counts."""
    nodes = [node for node in graph.all_nodes() if node.op_type == "Split"]
    if all(value.name for node in nodes for value in node.outputs):
        return
    taken = {value.name for node in graph.all_nodes() for value in node.outputs}
    taken |= {value.name for value in [*graph.inputs, *graph.initializers.values()]}
    for index, node in enumerate(nodes):
        for part, value in enumerate(node.outputs):
            name = value.name or f"split_{index}_{part}"
            while not value.name and name in taken:
                name += "_"
            taken.add(name)
            value.name = name


def _name_everything(graph: ir.Graph) -> None:
    """Give unnamed nodes a name, so that messages can point at them."""
    taken = {node.name for node in graph.all_nodes()}
    for index, node in enumerate(graph.all_nodes()):
        if not node.name:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            taken.add(name)
            node.name = name


def _unknown(kind: str, name: object, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(repr(n) for n in known[:8]) + (", ..." if len(known) > 8 else "")
    return f"unknown {kind} {name!r}; the model has {listed or 'none'}{hint}"


def _first_line(error: BaseException) -> str:
    """What `error` says before it quotes the node: one line, or as many joined as its first sentence takes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    last = next((i for i, line in enumerate(lines) if not line.endswith(":")), 0)
    if last and lines[0].endswith("of node:"):
        last = next((i for i, line in enumerate(lines) if line.startswith("is not")), last)
    return " ".join(lines[: last + 1])

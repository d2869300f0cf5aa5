"""The operator ai.igonnx::ActivationMask in an ordinary session, against NumPy."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from igonnx import _core

ONNX_TYPE = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}
# Around the widths of vectors, and around the blocks that are handed to threads (64 KiB).
LENGTHS = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 1000, 8191, 8193, 16385, 100003]


def session_of(
    nodes: list[onnx.NodeProto],
    dtype: type,
    shape: list[int | str] | None,
    out_shape: list[int | str] | None = None,
) -> ort.InferenceSession:
    """A session with inputs g and y and output dx; shape None is an unknown rank."""
    onnx_type = ONNX_TYPE[dtype]
    graph = helper.make_graph(
        nodes,
        "mask",
        [helper.make_tensor_value_info(name, onnx_type, shape) for name in ("g", "y")],
        [helper.make_tensor_value_info("dx", onnx_type, out_shape or shape)],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.igonnx", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    options = ort.SessionOptions()
    options.register_custom_ops_library(_core.__file__)
    options.log_severity_level = 4
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def mask_node(*names: str, **attributes: float) -> onnx.NodeProto:
    *inputs, output = names or ("g", "y", "dx")
    return helper.make_node("ActivationMask", inputs, [output], domain="ai.igonnx", **attributes)


def expected(g: np.ndarray, y: np.ndarray, lower: float = 0, upper: float = np.inf) -> np.ndarray:
    return np.where((lower < y) & (y < upper), g, np.zeros_like(g))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("attributes", [{}, {"upper": 6.0}, {"lower": -1, "upper": 1}])
def test_every_length_equals_numpy(dtype: type, attributes: dict[str, float]) -> None:
    session = session_of([mask_node(**attributes)], dtype, ["n"])
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        g = rng.standard_normal(length).astype(dtype)
        y = np.clip(4 * rng.standard_normal(length), -1, 6).astype(dtype)
        (dx,) = session.run(None, {"g": g, "y": y})
        assert dx.dtype == dtype
        np.testing.assert_array_equal(dx, expected(g, y, **attributes), err_msg=f"{length}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_misaligned_inputs_equal_numpy(dtype: type) -> None:
    session = session_of([mask_node()], dtype, ["n"])
    g = np.random.default_rng(1).standard_normal(200).astype(dtype)
    for start in range(1, 17):
        (dx,) = session.run(None, {"g": g[start:101], "y": g[: 101 - start]})
        np.testing.assert_array_equal(dx, expected(g[start:101], g[: 101 - start]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_are_masked_and_nan_never_passes_a_mask(dtype: type) -> None:
    nan, inf = np.nan, np.inf
    y = np.array([nan, 0, 6, 3, 3, -1, 7, inf, -inf, -0.0] * 5, dtype)
    g = np.array([1, 2, 3, 4, nan, nan, nan, 8, 9, 10] * 5, dtype)
    (dx,) = session_of([mask_node(upper=6.0)], dtype, ["n"]).run(None, {"g": g, "y": y})
    np.testing.assert_array_equal(dx, np.array([0, 0, 0, 4, nan, 0, 0, 0, 0, 0] * 5, dtype))


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (2, 0, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    g = np.asarray(np.random.default_rng(2).standard_normal(shape), np.float32)
    session = session_of([mask_node()], np.float32, list(shape))
    (dx,) = session.run(None, {"g": np.asarray(g), "y": np.asarray(-g)})
    np.testing.assert_array_equal(dx, expected(g, -g), strict=True)


def test_a_shape_known_only_when_run() -> None:
    """A rank that inference does not know must not be taken for that of a scalar."""
    nodes = [
        mask_node("g", "y", "first"),
        helper.make_node("Neg", ["first"], ["negative"]),
        mask_node("negative", "y", "dx"),
    ]
    session = session_of(nodes, np.float32, None, ["a", "b"])
    assert session.get_outputs()[0].shape == ["a", "b"]
    g = np.random.default_rng(3).standard_normal((3, 1000)).astype(np.float32)
    y = g[::-1].copy()
    (dx,) = session.run(None, {"g": g, "y": y})
    np.testing.assert_array_equal(dx, -expected(g, y))


def test_the_output_shape_is_inferred() -> None:
    session = session_of([mask_node()], np.float32, ["n", 3], ["m", "k"])
    # What a session says of its outputs is what inference found out, merged with what was declared.
    assert session.get_outputs()[0].shape[1] == 3


@pytest.mark.parametrize("in_place", ["gradient", "output"])
def test_in_place_of_an_intermediate(in_place: str) -> None:
    """Inputs that nobody reads later may be overwritten; those that are read later stay whole."""
    nodes = [
        helper.make_node("Mul", ["g", "g"], ["squared"]),
        helper.make_node("Exp", ["y"], ["exponential"]),
        mask_node("squared", "exponential", "masked", lower=1.0),
        helper.make_node(
            "Sum", ["masked", "exponential" if in_place == "gradient" else "squared"], ["dx"]
        ),
    ]
    rng = np.random.default_rng(4)
    g, y = rng.standard_normal((2, 50000)).astype(np.float32)
    (dx,) = session_of(nodes, np.float32, ["n"]).run(None, {"g": g, "y": y})
    kept = np.exp(y) if in_place == "gradient" else g * g
    np.testing.assert_allclose(dx, expected(g * g, np.exp(y), lower=1) + kept, rtol=1e-6)


def test_the_same_tensor_twice() -> None:
    nodes = [
        helper.make_node("Neg", ["g"], ["n"]),
        mask_node("n", "n", "m"),
        mask_node("m", "y", "dx"),
    ]
    g = np.linspace(-1, 1, 40000, dtype=np.float32)
    (dx,) = session_of(nodes, np.float32, ["n"]).run(None, {"g": g, "y": np.ones_like(g)})
    np.testing.assert_array_equal(dx, np.maximum(-g, 0))


def test_different_shapes_are_refused() -> None:
    session = session_of([mask_node()], np.float32, ["n"], ["m"])
    g = np.zeros(3, np.float32)
    with pytest.raises(Exception, match="ActivationMask: gradient and output differ in shape"):
        session.run(None, {"g": g, "y": g[:2]})

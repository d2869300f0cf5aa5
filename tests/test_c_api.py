"""libigonnx and its example, built and installed by CMake; their numbers are those of `Explainer`."""

from __future__ import annotations

import ctypes as ct
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from c_library import (
    CANCELLED,
    DEADLINE,
    INVALID_ARGUMENT,
    MODEL_ERROR,
    NOT_FINITE,
    RULES,
    CError,
    CExplainer,
    CLibrary,
    Explained,
    Provider,
    Request,
)
from onnx import TensorProto, helper

import igonnx
from igonnx.models import digits
from igonnx.quadrature import nodes_and_weights

ROOT = Path(__file__).parents[1]
HEADER = ROOT / "csrc" / "include" / "igonnx" / "igonnx.h"


def tool(*names: str) -> str:
    """A program of this environment or of the system."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    if found is None:
        pytest.skip(f"{' or '.join(names)} is not installed")
    return found


def run(*arguments: object, expected: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done


def build(source: Path, folder: Path, **settings: object) -> None:
    tool("c++", "g++", "clang++")
    cmake = tool("cmake")
    options = [f"-D{name}={value}" for name, value in settings.items()]
    run(
        cmake,
        "-S",
        source,
        "-B",
        folder,
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        *options,
    )
    run(cmake, "--build", folder)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Processes that run parts of the tests wait for each other, where they do so at all."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import fcntl

    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libigonnx is installed, with the example beside it."""
    base = tmp_path_factory.getbasetemp()
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = (base.parent if shared else base) / "c_api"
    folder.mkdir(exist_ok=True)
    with one_at_a_time(folder):
        if not (folder / "built").exists():
            build(
                ROOT,
                folder / "library",
                CMAKE_BUILD_TYPE="Debug",  # compiles fastest
                CMAKE_INSTALL_PREFIX=folder / "installed",
                CMAKE_INSTALL_LIBDIR="lib",
                IGONNX_EXTENSION="OFF",
                IGONNX_LIBRARY="ON",
                IGONNX_WARNINGS_AS_ERRORS="ON",
            )
            run(tool("cmake"), "--install", folder / "library")
            build(
                ROOT / "examples" / "cpp",
                folder / "example",
                CMAKE_PREFIX_PATH=folder / "installed",
                CMAKE_CXX_FLAGS="-Wall -Wextra -Wpedantic -Werror",
            )
            (folder / "built").touch()
    return folder / "installed"


@pytest.fixture(scope="session")
def example(installed: Path) -> Path:
    return installed.parent / "example" / "explain"


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The shared library of the installed onnxruntime: another copy than the one that Python uses."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    found = sorted([*folder.glob("libonnxruntime.so*"), *folder.glob("libonnxruntime*.dylib")])
    if not found:
        pytest.skip("this onnxruntime has no shared library of its own")
    return found[0]


@pytest.fixture(scope="session")
def library(installed: Path, runtime: Path) -> CLibrary:
    path = next((installed / "lib").glob("libigonnx.[sd]*"))
    return CLibrary(path, runtime)


@pytest.fixture(scope="module")
def explainer(library: CLibrary, mlp: onnx.ModelProto) -> Iterator[CExplainer]:
    with library.create(igonnx.compile(mlp).SerializeToString()) as made:
        yield made


X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def expected(model: Any, inputs: Any, target: Any = None, **options: Any) -> igonnx.Attribution:
    known = {name: options.pop(name) for name in ("apply", "wrt", "output") if name in options}
    return igonnx.Explainer(model, **known).integrated_gradients(inputs, target=target, **options)


def assert_same(got: Explained, want: igonnx.Attribution, tolerance: float = 1e-5) -> None:
    values = (
        want.values if isinstance(want.values, dict) else dict.fromkeys(got.values, want.values)
    )
    assert got.values.keys() == values.keys()
    scale = max(np.abs(want.scores).max(), np.abs(want.baseline_scores).max())
    pairs = [(got.values[name], values[name]) for name in values]
    pairs += [(got.score, want.scores), (got.baseline_score, want.baseline_scores)]
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        size = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (size or scale))
    np.testing.assert_allclose(got.delta, want.delta, rtol=0, atol=tolerance * scale)
    totals = sum(array.reshape(len(array), -1).sum(axis=1) for array in got.values.values())
    change = got.score - got.baseline_score
    np.testing.assert_allclose(got.delta, totals - change, rtol=0, atol=tolerance * scale)


class TestExample:
    def test_equals_python(self, example: Path, runtime: Path, tmp_path: Path) -> None:
        model, x = digits.load(), digits.test_set()[0][:3]
        onnx.save(igonnx.compile(model), tmp_path / "digits.explain.onnx")
        np.save(tmp_path / "x.npy", x)
        done = run(
            example, runtime, tmp_path / "digits.explain.onnx", tmp_path / "x.npy", 3, tmp_path / "a.npy", 20
        )  # fmt: skip
        want = expected(model, x, 3, steps=20)
        values, known = np.load(tmp_path / "a.npy"), np.asarray(want.values)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, known, rtol=0, atol=1e-5 * np.abs(known).max())
        lines = [line.split() for line in done.stdout.splitlines()]
        scores = [float(line[3].strip(",")) for line in lines]
        np.testing.assert_allclose(scores, want.scores, rtol=1e-5)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing.onnx", "x.npy", "0", "a.npy"], "missing.onnx cannot be opened\n"),
            (["m.onnx", "missing.npy", "0", "a.npy"], "missing.npy: cannot be opened\n"),
            (["m.onnx", "m.onnx", "0", "a.npy"], "m.onnx: is no .npy file\n"),
            (["m.onnx", "double.npy", "0", "a.npy"], "double.npy: is not of float32\n"),
            (["m.onnx", "x.npy", "4", "a.npy"], "expected 0 to 3\n"),
            (["m.onnx", "x.npy", "one", "a.npy"], "one is no number\n"),
            (["m.onnx", "x.npy", "0", "no/a.npy"], "no/a.npy: cannot be written\n"),
            (["m.onnx"], "usage: explain RUNTIME MODEL INPUT.npy TARGET OUTPUT.npy [STEPS]\n"),
        ],
    )
    def test_errors(
        self,
        example: Path,
        runtime: Path,
        mlp: onnx.ModelProto,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        onnx.save(igonnx.compile(mlp), "m.onnx")
        np.save("x.npy", X)
        np.save("double.npy", X.astype(np.float64))
        assert run(example, runtime, *arguments, expected=2).stderr.endswith(message)

    def test_a_library_that_is_no_runtime(self, example: Path, tmp_path: Path) -> None:
        done = run(example, tmp_path / "none.so", "m", "x", 0, "a", expected=2)
        assert "none.so" in done.stderr


class TestLibrary:
    def test_version(self, library: CLibrary) -> None:
        assert library.functions.igonnx_version().decode() == igonnx.__version__

    def test_nothing_else_is_exported(self, installed: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("symbols are restricted on Linux alone")
        listed = run(tool("nm"), "-D", "--defined-only", installed / "lib" / "libigonnx.so").stdout
        names = {line.split()[-1] for line in listed.splitlines()}
        assert "igonnx_explain" in names
        assert {name for name in names if not name.startswith("igonnx_")} == {"RegisterCustomOps"}

    def test_every_declared_function_is_exported(self, library: CLibrary) -> None:
        declared = [
            part.rsplit(" ", 1)[-1].lstrip("*")
            for line in HEADER.read_text().splitlines()
            if line.startswith("IGONNX_API ")
            for part in [line.split("(")[0]]
        ]
        assert len(declared) == 12
        for name in declared:
            assert hasattr(library.functions, name)

    @pytest.mark.parametrize("language", ["-xc -std=c99", "-xc++ -std=c++11"])
    def test_header_by_itself(self, tmp_path: Path, language: str) -> None:
        source = tmp_path / "use"
        source.write_text(
            '#include "igonnx/igonnx.h"\n'
            "int use(igonnx_explainer* e) {\n"
            "  igonnx_options options = IGONNX_OPTIONS_INIT;\n"
            "  igonnx_request request = IGONNX_REQUEST_INIT;\n"
            "  igonnx_result result = IGONNX_RESULT_INIT;\n"
            "  igonnx_tensor_info info = IGONNX_TENSOR_INFO_INIT;\n"
            "  return options.threads + (int)igonnx_input_count(e) + (int)info.role +\n"
            "         (int)igonnx_explain(e, &request, &result, 0);\n"
            "}\n"
        )
        warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
        run(
            tool("cc", "gcc", "clang"),
            *language.split(),
            *warnings,
            f"-I{HEADER.parents[1]}",
            source,
        )

    def test_it_is_a_plugin(self, library: CLibrary) -> None:
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(library.functions._name)
        info = helper.make_tensor_value_info
        node = helper.make_node("ActivationMask", ["g", "y"], ["z"], domain="ai.igonnx", upper=6.0)
        ends = [info(name, TensorProto.FLOAT, ["N"]) for name in "gyz"]
        graph = helper.make_graph([node], "mask", ends[:2], ends[2:])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.igonnx", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        y = np.array([-1, 0, 3, 6, 7], np.float32)
        (z,) = session.run(None, {"g": np.ones(5, np.float32), "y": y})
        assert z.tolist() == [0, 0, 1, 0, 0]


class TestPath:
    @pytest.mark.parametrize("rule", RULES)
    def test_equals_numpy(self, library: CLibrary, rule: str) -> None:
        for steps in (*range(1, 21), 50, 101, 300, 1000):
            alpha, weight = library.path(RULES[rule], steps)
            known_alpha, known_weight = nodes_and_weights(rule, steps)
            ends = [end for end in (0.0, 1.0) if end not in known_alpha]
            inner = slice(int(0.0 in ends), len(alpha) - int(1.0 in ends))
            np.testing.assert_allclose(alpha[inner], known_alpha, rtol=0, atol=1e-15)
            np.testing.assert_allclose(weight[inner], known_weight, rtol=0, atol=1e-13)
            assert (alpha[0], alpha[-1]) == (0, 1)
            assert all(weight[int(-end)] == 0 for end in ends)
            assert weight.sum() == pytest.approx(1, abs=1e-14)

    def test_gauss_legendre_is_exact_for_polynomials(self, library: CLibrary) -> None:
        alpha, weight = library.path(RULES["gauss_legendre"], 5)
        for degree in range(10):
            assert weight @ alpha**degree == pytest.approx(1 / (degree + 1), rel=1e-14)

    def test_most_steps(self, library: CLibrary) -> None:
        alpha, weight = library.path(RULES["gauss_legendre"], 5000)
        assert weight @ np.exp(alpha) == pytest.approx(np.e - 1, rel=1e-14)

    @pytest.mark.parametrize(
        ("rule", "steps", "message"),
        [
            (0, 0, "steps is 0; expected 1 to 5000"),
            (0, 5001, "steps is 5001; expected 1 to 5000"),
            (2, -1, "steps is -1; expected 1 to 10000000"),
            (5, 10, "rule is 5; expected one of enum igonnx_rule"),
        ],
    )
    def test_errors(self, library: CLibrary, rule: int, steps: int, message: str) -> None:
        with pytest.raises(CError, match=f"^{message}$") as caught:
            library.path(rule, steps)
        assert caught.value.code == INVALID_ARGUMENT


class TestExplain:
    @pytest.mark.parametrize("rule", RULES)
    def test_rules(self, explainer: CExplainer, mlp: onnx.ModelProto, rule: str) -> None:
        got = explainer.explain(X, target=2, rule=rule, steps=7)
        assert_same(got, expected(mlp, X, 2, rule=rule, steps=7))

    def test_a_target_for_each_example(self, explainer: CExplainer, mlp: onnx.ModelProto) -> None:
        assert_same(explainer.explain(X, target=[3, 0, 1, 1, 2]), expected(mlp, X, [3, 0, 1, 1, 2]))

    def test_cotangent(self, explainer: CExplainer, mlp: onnx.ModelProto) -> None:
        weights = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
        assert_same(explainer.explain(X, cotangent=weights), expected(mlp, X, weights))

    @pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 6), (5, 1), (5, 6)])
    def test_baselines_broadcast(
        self, explainer: CExplainer, mlp: onnx.ModelProto, shape: tuple[int, ...]
    ) -> None:
        start = np.asarray(np.random.default_rng(4).normal(size=shape), np.float32)
        whole = np.ascontiguousarray(np.broadcast_to(start, X.shape))
        got = explainer.explain(X, target=0, baseline=start)
        assert_same(got, expected(mlp, X, 0, baseline=whole))

    @pytest.mark.parametrize("batch_size", [1, 7, 1000])
    @pytest.mark.parametrize("threads", [0, 1, 3])
    def test_batches_and_threads(
        self, library: CLibrary, mlp: onnx.ModelProto, batch_size: int, threads: int
    ) -> None:
        model = igonnx.compile(mlp).SerializeToString()
        with library.create(model, batch_size=batch_size, threads=threads) as made:
            assert_same(made.explain(X, target=1), expected(mlp, X, 1))

    def test_path(self, explainer: CExplainer, mlp: onnx.ModelProto) -> None:
        got = explainer.explain(X, target=1, rule="trapezoid", steps=9)
        want = expected(mlp, X, 1, rule="trapezoid", steps=9)
        np.testing.assert_allclose(got.path_score, [path.score for path in want.path], atol=1e-5)
        np.testing.assert_allclose(got.path_slope, [path.slope for path in want.path], atol=1e-5)

    def test_several_and_fixed_inputs(self, library: CLibrary, model: Callable[..., Any]) -> None:
        net = model(
            """(float[N, 3] a, float[N, 2, 2] b, float[N] scale, float[3] shift) => (float[N, 3] y) {
                s = Add(a, shift)
                t = Tanh(s)
                f = Flatten(b)
                m = MatMul(f, w)
                u = Unsqueeze(scale, one)
                v = Mul(u, m)
                y = Mul(t, v)
            }""",
            {
                "w": np.random.default_rng(6).normal(size=(4, 3)).astype(np.float32),
                "one": np.array([1]),
            },
        )
        rng = np.random.default_rng(7)
        shapes = {"a": (4, 3), "b": (4, 2, 2), "scale": (4,), "shift": (3,)}
        arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        compiled = igonnx.compile(net, wrt=["a", "b"])
        with library.create(compiled.SerializeToString()) as made:
            assert made.inputs() == [
                ("explained", "a", [-1, 3], 1),
                ("explained", "b", [-1, 2, 2], 1),
                ("per example", "scale", [-1], 1),
                ("shared", "shift", [3], 1),
            ]
            assert made.output() == ("output", "", [-1, 3], 1)
            start = {"b": np.ones(2, np.float32)}
            got = made.explain(dict(reversed(arrays.items())), target=[0, 1, 2, 0], baseline=start)
            whole = {"b": np.ones((4, 2, 2), np.float32)}
            want = expected(net, arrays, [0, 1, 2, 0], baseline=whole, wrt=["a", "b"])
            assert_same(got, want)
            with pytest.raises(
                CError, match=r"^input 'shift' was not given; .* takes 'a', 'b', 'scale', 'shift'$"
            ):
                made.explain({name: arrays[name] for name in ("a", "b", "scale")}, target=0)
            short = {**arrays, "scale": arrays["scale"][:3]}
            with pytest.raises(CError, match=r"^input 'scale' has shape \[3\]; expected \[4\]$"):
                made.explain(short, target=0)
            with pytest.raises(CError, match=r"^an input has no name; expected one of 'a', 'b'"):
                made.explain({**arrays, "": X}, target=0)

    def test_double_precision(self, library: CLibrary, model: Callable[..., Any]) -> None:
        net = model(
            "(double[N, 3] x) => (double[N] y) { s = Sin(x) y = ReduceProd<axes=[1], keepdims=0>(s) }"
        )
        x = np.random.default_rng(8).normal(size=(3, 3))
        with library.create(igonnx.compile(net).SerializeToString()) as made:
            assert_same(made.explain(x, target=0), expected(net, x, ()), 1e-12)

    def test_a_fixed_batch(self, library: CLibrary, model: Callable[..., Any]) -> None:
        net = model("(float[1, 3] x) => (float[1, 3] y) { r = Reshape(x, one) s = Sin(r) y = Reshape(s, one) }",
                    {"one": np.array([1, 3])})  # fmt: skip
        with library.create(igonnx.compile(net).SerializeToString()) as made:
            assert_same(made.explain(X[:4, :3], target=2), expected(net, X[:4, :3], 2))

    def test_external_data(self, library: CLibrary, mlp: onnx.ModelProto, tmp_path: Path) -> None:
        own = onnx.load_from_string(mlp.SerializeToString())  # saving changes it
        onnx.save(
            own,
            tmp_path / "m.onnx",
            save_as_external_data=True,
            size_threshold=0,
            location="weights",
        )
        onnx.save(igonnx.compile(tmp_path / "m.onnx"), tmp_path / "c.onnx")
        assert (tmp_path / "weights").exists()
        want = expected(mlp, X, 1)
        with library.create(tmp_path / "c.onnx") as made:
            assert_same(made.explain(X, target=1), want)
        folder = str(tmp_path).encode()
        with library.create(
            (tmp_path / "c.onnx").read_bytes(), external_data_folder=folder
        ) as made:
            assert_same(made.explain(X, target=1), want)

    def test_a_folder_with_other_letters(
        self, library: CLibrary, mlp: onnx.ModelProto, tmp_path: Path
    ) -> None:
        path = tmp_path / "мoдель ü.onnx"
        path.write_bytes(igonnx.compile(mlp).SerializeToString())
        with library.create(path) as made:
            with pytest.raises(CError, match=r"^мoдель ü\.onnx takes no input 'z'; it takes 'x'$"):
                made.explain({"z": X}, target=0)
            assert_same(made.explain({"x": X}, target=0), expected(mlp, X, 0))

    def test_a_gradient_that_is_not_finite_at_the_baseline(
        self, library: CLibrary, model: Callable[..., Any]
    ) -> None:
        net = model("(float[N, 3] x) => (float[N] y) { y = ReduceL2<axes=[1], keepdims=0>(x) }")
        with library.create(igonnx.compile(net).SerializeToString()) as made:
            assert_same(made.explain(X[:, :3], target=0), expected(net, X[:, :3], ()))
            bad = X[:, :3].copy()
            bad[3, 1] = np.inf
            with pytest.raises(
                CError, match=r"^the score is not finite at alpha = \S+ on the path of example 3:"
            ) as caught:
                made.explain(bad, target=0)
            assert caught.value.code == NOT_FINITE


class TestModels:
    """Exports of Hugging Face's models, with random weights."""

    @pytest.mark.parametrize(
        "name", ["resnet_script", "mobilenet_v2_any_size_dynamo", "vit_script"]
    )
    def test_images(self, library: CLibrary, data: Path, name: str) -> None:
        x = np.load(data / f"{name}.npz")["pixel_values"]
        with library.create(igonnx.compile(data / f"{name}.onnx").SerializeToString()) as made:
            got = made.explain(x, target=[3, 7], steps=10)
        assert_same(got, expected(data / f"{name}.onnx", x, [3, 7], steps=10), 2e-5)

    def test_the_embedding_of_a_text(self, library: CLibrary, data: Path) -> None:
        model = onnx.load(data / "bert_script.onnx")
        names = ["input_ids", "attention_mask", "token_type_ids"]
        with np.load(data / "bert_script.npz") as arrays:
            tokens = {name: arrays[name] for name in names}
        with library.create(igonnx.compile(model).SerializeToString()) as made:
            (_, tensor, shape, _), *others = made.inputs()
            assert shape == [-1, -1, 32]
            assert [(role, name) for role, name, *_ in others] == [
                ("per example", n) for n in names
            ]
            # What a program does as well: the embedding is computed by the front part of the model.
            front = onnx.load_from_string(model.SerializeToString())
            front.graph.output.add(name=tensor)
            session = onnxruntime.InferenceSession(front.SerializeToString())
            (embedding,) = session.run([tensor], tokens)
            got = made.explain({tensor: embedding, **tokens}, target=1)
        assert_same(got, expected(model, tokens, 1))


class TestStopping:
    ENDLESS: Mapping[str, Any] = {"target": 0, "rule": "middle", "steps": 1_000_000}

    @pytest.fixture
    def slow(self, library: CLibrary, mlp: onnx.ModelProto) -> Iterator[CExplainer]:
        with library.create(igonnx.compile(mlp).SerializeToString(), batch_size=1) as made:
            yield made

    def test_deadline(self, slow: CExplainer) -> None:
        with pytest.raises(CError, match=r"^the model: .*deadline") as caught:
            slow.explain(X, timeout=0.05, **self.ENDLESS)
        assert caught.value.code == DEADLINE

    def test_cancel_from_another_thread(
        self, library: CLibrary, slow: CExplainer, mlp: onnx.ModelProto
    ) -> None:
        token = ct.c_void_p(library.functions.igonnx_cancel_token_create())
        begun = threading.Event()

        def progress(done: int, _total: int) -> int:
            if done > 0:
                begun.set()
            return 0

        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(slow.explain, X, cancel=token, progress=progress, **self.ENDLESS)
            assert begun.wait(60)
            library.functions.igonnx_cancel(token)
            with pytest.raises(
                CError, match=r"^the model: cancelled with \d+ of 5000010 rows done$"
            ) as caught:
                call.result(60)
        assert caught.value.code == CANCELLED
        with pytest.raises(CError, match="cancelled with 0 of"):
            slow.explain(X, target=0, cancel=token)
        library.functions.igonnx_cancel_token_free(token)
        assert_same(slow.explain(X, target=0), expected(mlp, X, 0))

    def test_progress_may_cancel(self, slow: CExplainer) -> None:
        told: list[tuple[int, int]] = []

        def progress(done: int, total: int) -> int:
            told.append((done, total))
            return len(told) == 3

        with pytest.raises(CError, match=r"^cancelled by its progress function with") as caught:
            slow.explain(X, progress=progress, **self.ENDLESS)
        assert caught.value.code == CANCELLED
        assert len(told) == 3

    def test_progress_to_the_end(self, explainer: CExplainer) -> None:
        told: list[tuple[int, int]] = []

        def progress(done: int, total: int) -> int:
            told.append((done, total))
            return 0

        explainer.explain(X, target=0, progress=progress)
        assert told[-1] == (5 * 52, 5 * 52)


def test_threads_share_an_explainer(explainer: CExplainer, mlp: onnx.ModelProto) -> None:
    rng = np.random.default_rng(9)
    inputs = [rng.normal(size=(1 + i % 3, 6)).astype(np.float32) for i in range(24)]
    want = [expected(mlp, x, i % 4) for i, x in enumerate(inputs)]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(explainer.explain, x, target=i % 4) for i, x in enumerate(inputs)]
        for call, known in zip(calls, want, strict=True):
            assert_same(call.result(60), known)


OUTSIDE = "is outside the output, which has 4 elements per example: expected 0 to 3"
NO_BROADCAST = "which does not broadcast to [5, 6]"


class TestErrors:
    @pytest.mark.parametrize(
        ("inputs", "options", "message"),
        [
            (X[0], {"target": 0}, "input 'x' has shape [6]; expected [?, 6]"),
            (X[:, :5], {"target": 0}, "input 'x' has shape [5, 5]; expected [?, 6]"),
            (X[:0], {"target": 0}, "input 'x' has no examples; expected some"),
            (X.astype(np.float64), {"target": 0}, "input 'x' has dtype float64; expected float32"),
            ({"y": X}, {"target": 0}, "the model takes no input 'y'; it takes 'x'"),
            ({}, {"target": 0}, "input 'x' was not given; the model takes 'x'"),
            (X, {}, "neither a target nor a cotangent was given"),
            (X, {"target": 4}, f"target 4 of example 0 {OUTSIDE}"),
            (X, {"target": [0, 0, 0, 0, -1]}, f"target -1 of example 4 {OUTSIDE}"),
            (X, {"target": [0, 1]}, "2 targets were given for 5 examples; expected one for each, or one for all"),
            (X, {"target": 0, "cotangent": X[:, :4]}, "both a target and a cotangent were given"),
            (X, {"cotangent": X}, "the cotangent has shape [5, 6]; expected [5, 4]"),
            (X, {"cotangent": X[:, :4].astype(np.int64)}, "the cotangent has dtype int64; expected float32"),
            (X, {"target": 0, "baseline": X[:, :5]}, f"baseline 'x' has shape [5, 5], {NO_BROADCAST}"),
            (X, {"target": 0, "baseline": X[None]}, f"baseline 'x' has shape [1, 5, 6], {NO_BROADCAST}"),
            (X, {"target": 0, "baseline": np.zeros(X.shape)}, "baseline 'x' has dtype float64; expected float32"),
            (X, {"target": 0, "baseline": {"z": X}}, "the model takes no baseline 'z'; it takes 'x'"),
            (X, {"target": 0, "steps": 0}, "steps is 0; expected 1 to 5000"),
            (X, {"target": 0, "timeout": -1.0}, "timeout_seconds is -1.000000; expected 0 or more"),
            (X, {"target": 0, "struct_size": 8}, "request.struct_size is 8; expected sizeof(igonnx_request)"),
            ({"x": X, "": X}, {"target": 0}, "input 'x' was given twice"),
            (X, {"target_count": 3}, "target is NULL; expected 3 elements"),
            (X, {"target": 0, "baseline_count": 3}, "baseline is NULL; expected 3 elements"),
        ],
    )  # fmt: skip
    def test_requests(
        self, explainer: CExplainer, inputs: Any, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(CError) as caught:
            explainer.explain(inputs, **options)
        assert str(caught.value) == message
        assert caught.value.code == INVALID_ARGUMENT

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"threads": -1}, "threads is -1; expected 0 to 1024"),
            ({"batch_size": 1 << 21}, "batch_size is 2097152; expected 0 to 1048576"),
            ({"provider_count": 1}, "providers is NULL; expected 1 elements"),
        ],
    )
    def test_options(
        self, library: CLibrary, mlp: onnx.ModelProto, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(CError, match=f"^{message}$") as caught:
            library.create(igonnx.compile(mlp).SerializeToString(), **options)
        assert caught.value.code == INVALID_ARGUMENT

    def test_a_provider_that_is_not_there(self, library: CLibrary, mlp: onnx.ModelProto) -> None:
        one = Provider(b"CUDAExecutionProvider")
        model = igonnx.compile(mlp).SerializeToString()
        with pytest.raises(CError, match="CUDA") as caught:
            library.create(model, providers=ct.pointer(one), provider_count=1, name=b"mlp")
        assert str(caught.value).startswith("mlp: cannot create a session: ")
        assert caught.value.code == MODEL_ERROR

    def test_models(self, library: CLibrary, mlp: onnx.ModelProto, tmp_path: Path) -> None:
        def refused(model: Path | bytes) -> str:
            with pytest.raises(CError) as caught:
                library.create(model)
            assert caught.value.code == MODEL_ERROR
            return str(caught.value)

        missing, empty = tmp_path / "missing.onnx", tmp_path / "empty.onnx"
        empty.touch()
        assert refused(missing) == f"{missing} cannot be opened"
        assert refused(empty) == f"{empty} cannot be read"
        assert refused(tmp_path) == f"{tmp_path} cannot be read"
        assert refused(b"") == "the model in memory is empty"
        assert refused(b"garbage").startswith("the model: cannot create a session: ")
        assert refused(mlp.SerializeToString()) == (
            "the model is no explanation graph, it has no metadata 'igonnx.explanation_graph': write one with "
            "`igonnx compile MODEL -o OUT`"
        )
        compiled = igonnx.compile(mlp)
        (description,) = (p for p in compiled.metadata_props if p.key == "igonnx.explanation_graph")
        known = description.value
        description.value = known.replace('["x"]', '["z"]')
        assert refused(compiled.SerializeToString()) == (
            "the model is no explanation graph: it has no input 'x:z'"
        )
        description.value = known[:-1]
        assert "are not understood: JSON is wrong at byte" in refused(compiled.SerializeToString())

    def test_structs_of_other_versions(self, library: CLibrary, explainer: CExplainer) -> None:
        class Newer(ct.Structure):
            _fields_ = [("request", Request), ("more", ct.c_int64)]

        request, result = Newer(), (ct.c_size_t * 32)(64)
        request.request.struct_size = ct.sizeof(Newer)
        request.request.steps = 5

        def refused() -> str:
            with pytest.raises(CError) as caught:
                library.call("explain", explainer.handle, ct.byref(request), ct.byref(result))
            assert caught.value.code == INVALID_ARGUMENT
            return str(caught.value)

        assert refused() == "input 'x' was not given; the model takes 'x'"
        request.more = 1
        version = igonnx.__version__
        assert (
            refused() == f"request has a field that igonnx {version} does not know; expected zero"
        )
        request.request.struct_size = ct.sizeof(Request) - 8
        assert refused() == (
            f"request.struct_size is {ct.sizeof(Request) - 8}; expected sizeof(igonnx_request)"
        )

    def test_null(self, library: CLibrary, explainer: CExplainer) -> None:
        made = ct.c_void_p()
        for function, arguments, name in [
            ("create", (None, b"m", None, ct.byref(made)), "runtime"),
            ("create", (library.base, None, None, ct.byref(made)), "path"),
            ("create", (library.base, b"m", None, None), "explainer"),
            ("create_from_memory", (library.base, None, ct.c_size_t(3), None, ct.byref(made)), "data"),
            ("explain", (explainer.handle, None, None), "request"),
            ("input_info", (None, ct.c_size_t(0), None), "explainer"),
            ("output_info", (explainer.handle, None), "tensor_info"),
        ]:  # fmt: skip
            with pytest.raises(CError, match=f"^{name} is NULL$") as caught:
                library.call(function, *arguments)
            assert caught.value.code == INVALID_ARGUMENT
        library.functions.igonnx_free(None)
        library.functions.igonnx_cancel(None)
        library.functions.igonnx_cancel_token_free(None)
        assert library.functions.igonnx_input_count(None) == 0
        # Without a struct for it, the message is lost and the code is not.
        assert library.functions.igonnx_explain(None, None, None, None) == INVALID_ARGUMENT

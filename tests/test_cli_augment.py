"""`igonnx augment` and `igonnx compile`: the files they write, what they print, and what they refuse."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import Message

import igonnx
from igonnx.augmentation.triton import triton_config, with_required_target
from igonnx.cli import main
from igonnx.cli.choices import AugmentMethod, HeatMap
from igonnx.cli.model_files import weight_files
from igonnx.cli.outputs import Outputs
from igonnx.models import digits

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the digits model, one that has its weights outside, and names of classes."""
    onnx.save(digits.load(), tmp_path / "digits.onnx")
    (tmp_path / "outside" / "data").mkdir(parents=True)
    onnx.save(
        digits.load(),
        tmp_path / "outside" / "big.onnx",
        save_as_external_data=True,
        location="data/weights.bin",
        size_threshold=0,
    )
    (tmp_path / "labels.txt").write_text("\n".join(f"digit {index}" for index in range(10)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `igonnx ...` in `folder`, in this process; gives exit code, standard output and standard error."""
    assert Path.cwd() == folder

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["igonnx", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        return (int(done.value.code or 0), *capsys.readouterr())

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def same(one: Message, other: Message) -> bool:
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--steps", "7", "--rule", "trapezoid", "--chunk", "3"], {"steps": 7, "rule": "trapezoid", "chunk": 3}),
        (["--baseline", "0.25", "--target", "3"], {"baseline": 0.25, "target": 3}),
        (["--target", "digit 4", "--labels", "labels.txt"], {"target": 4}),
        (["--apply", "softmax", "--output", "logits"], {"apply": "softmax", "output": "logits"}),
        (["--method", "ig", "--lazy", "--heatmap", "sum"], {"lazy": True, "heatmap": "sum"}),
        (["--method", "saliency", "--no-straight-through"], {"method": "saliency", "straight_through": False}),
        (
            ["--method", "smoothgrad-ig", "--noise-samples", "2", "--noise-std", "0.1", "--seed", "5"],
            {"method": "smoothgrad_ig", "noise_samples": 2, "noise_std": 0.1, "seed": 5},
        ),
        (["--heatmap", "overlay", "--heatmap-threshold", "0.5"], {"heatmap": "overlay", "heatmap_threshold": 0.5}),
        (["--wrt", "image"], {"wrt": ["image"]}),
    ],
)  # fmt: skip
def test_options(
    options: list[str], arguments: dict[str, Any], folder: Path, command: Command
) -> None:
    code, _, err = command("augment", "digits.onnx", "-o", "out.onnx", *options)
    assert (code, err) == (0, "")
    assert same(onnx.load("out.onnx"), igonnx.augment(folder / "digits.onnx", **arguments))


@pytest.mark.parametrize("method", AugmentMethod)
@pytest.mark.parametrize("heatmap", [None, *HeatMap])
def test_every_method_and_heat_map(
    method: AugmentMethod, heatmap: HeatMap | None, command: Command
) -> None:
    drawn = [] if heatmap is None else ["--heatmap", heatmap.value]
    code, out, err = command(
        "augment", "digits.onnx", "-o", "out.onnx", "--method", method.value, *drawn
    )
    assert (code, err) == (0, "")
    names = [output.name for output in onnx.load("out.onnx").graph.output]
    assert ("heatmap_image" in names, "overlay_image" in names) == (
        heatmap is not None,
        heatmap is HeatMap.overlay,
    )
    assert all(name in out for name in names)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_printed_lines_run(
    lazy: bool, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = command("augment", "digits.onnx", "-o", "out.onnx", *(["--lazy"] if lazy else []))
    lines = [line.strip() for line in out.splitlines()][-3:]
    assert lines[0] == "import numpy, onnxruntime"
    images = digits.test_set()[0][:2]
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Quiet)
    found: dict[str, Any] = {"image": images}
    exec("\n".join(lines), found)
    np.testing.assert_allclose(found["attribution_image"], expected.values, rtol=1e-3, atol=1e-5)
    assert found["logits"].shape == (2, 10)


class Quiet(onnxruntime.InferenceSession):
    """A session that does not remark on standard error that inputs have defaults."""

    def __init__(self, path: str) -> None:
        super().__init__(path, quiet(), providers=["CPUExecutionProvider"])


def test_what_is_printed(command: Command) -> None:
    code, out, _ = command("augment", "digits.onnx", "-o", "out.onnx", "--lazy")
    rows = {
        line.split()[1]: line.split()
        for line in out.splitlines()
        if line.split()[:1] in (["input"], ["output"])
    }
    assert code == 0
    assert rows["image"][:3] == ["input", "image", "float32"]
    assert rows["explain"] == ["input", "explain", "bool", "[1]", "optional"]
    assert "optional" not in rows["image"]
    written = next(line for line in out.splitlines() if line.startswith("wrote "))
    sizes = [Path(name).stat().st_size for name in ("out.onnx", "digits.onnx")]
    assert written == (
        f"wrote out.onnx: {sizes[0] / 1e6:.2f} MB, {sizes[0] / sizes[1] - 1:.1%} larger than digits.onnx"
    )


def test_variables_have_names_that_python_takes(folder: Path, command: Command) -> None:
    model = digits.load()
    model.graph.output[0].name = model.graph.node[-1].output[0] = "class"
    model.graph.input[0].name = model.graph.node[0].input[0] = "the image:0"
    onnx.save(model, folder / "odd.onnx")
    _, out, _ = command("augment", "odd.onnx", "-o", "out.onnx")
    assert out.splitlines()[-1].strip() == (
        "_class, attribution_the_image_0, completeness_delta = session.run(None, {'the image:0': the_image_0})"
    )


def test_triton(folder: Path, command: Command) -> None:
    code, out, err = command(
        "augment", "digits.onnx", "--triton", "models/here", "--lazy", "--steps", "9"
    )
    assert (code, err) == (0, "")
    home = folder / "models" / "here" / "digits"
    model = igonnx.augment(folder / "digits.onnx", lazy=True, steps=9)
    assert sorted(files(folder / "models")) == [
        "here", "here/digits", "here/digits/1", "here/digits/1/model.onnx", "here/digits/config.pbtxt",
    ]  # fmt: skip
    assert same(onnx.load(home / "1" / "model.onnx"), model)
    assert (home / "config.pbtxt").read_text() == triton_config(model, name="digits")
    assert f"tritonserver --model-repository={folder / 'models' / 'here'}" in out


def test_triton_batched_and_a_file(folder: Path, command: Command) -> None:
    options = ["-o", "out.onnx", "--triton", "models", "--name", "why-7", "--max-batch-size", "6"]
    code, _, err = command("augment", "digits.onnx", *options)
    assert code == 0
    assert (
        err == "note: each request sends 'target', one for each example; -1 is the highest score\n"
    )
    model = igonnx.augment(folder / "digits.onnx")
    assert same(onnx.load("out.onnx"), model)
    served = with_required_target(model)
    assert same(onnx.load("models/why-7/1/model.onnx"), served)
    expected = triton_config(served, name="why-7", max_batch_size=6)
    assert Path("models/why-7/config.pbtxt").read_text() == expected
    assert "max_batch_size: 6\n" in expected


def test_triton_again(folder: Path, command: Command) -> None:
    for steps in ("5", "6"):
        assert command("augment", "digits.onnx", "--triton", "models", "--steps", steps)[0] == 0
    made = json.loads(onnx.load("models/digits/1/model.onnx").metadata_props[0].value)
    assert made["steps"] == 6
    assert len(files(folder / "models")) == 4


def test_weights_outside_come_along(folder: Path, command: Command) -> None:
    source = str(Path("outside", "big.onnx"))
    weights = Path("outside/data/weights.bin").read_bytes()
    code, out, err = command(
        "augment", source, "-o", "out.onnx", "--triton", "models", "--name", "big"
    )
    assert (code, err) == (0, "")
    assert Path("data/weights.bin").read_bytes() == weights
    assert Path("models/big/1/model.onnx/data/weights.bin").read_bytes() == weights
    images = digits.test_set()[0][:2]
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images)
    for path in ("out.onnx", "models/big/1/model.onnx/model.onnx"):
        assert Path(path).stat().st_size < 60_000  # the weights, 91 kB, are not in it
        session = onnxruntime.InferenceSession(path, quiet(), providers=["CPUExecutionProvider"])
        found = session.run(["attribution_image"], {"image": images})[0]
        np.testing.assert_allclose(found, expected.values, rtol=1e-3, atol=1e-5)
    before = files(folder)
    assert command("augment", source, "-o", "out.onnx")[0] == 0  # they are there already
    assert files(folder) == before
    assert "wrote out.onnx: 0.1" in out


def test_weights_in_the_same_folder_stay(folder: Path, command: Command) -> None:
    before = files(folder / "outside")
    assert command("augment", "outside/big.onnx", "-o", "outside/out.onnx")[0] == 0
    after = files(folder / "outside")
    del after["out.onnx"]
    assert after == before


def test_weights_of_others_are_not_overwritten(folder: Path, command: Command) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "weights.bin").write_bytes(b"of another model")
    before = files(folder)
    code, out, err = command("augment", "outside/big.onnx", "-o", "out.onnx")
    assert (code, out) == (2, "")
    assert (
        "its weights 'data/weights.bin' belong beside it, where another file of that name is" in err
    )
    assert files(folder) == before


def test_weights_in_bodies_of_loops_are_found(model: Callable[..., onnx.ModelProto]) -> None:
    graph = model(
        "(bool c, float[3] x) => (float[3] y) { y = If(c)"
        "<then_branch = one () => (float[3] p) { p = Identity(x) },"
        " else_branch = two () => (float[3] q) <float[3] w = {1, 2, 3}> { q = Mul(x, w) }> }"
    )
    (tensor,) = graph.graph.node[0].attribute[1].g.initializer
    assert weight_files(graph) == []
    tensor.ClearField("float_data")
    tensor.raw_data = np.arange(1, 4, dtype=np.float32).tobytes()
    onnx.external_data_helper.set_external_data(tensor, "deep/w.bin")
    assert weight_files(graph) == ["deep/w.bin"]


def test_compile(folder: Path, command: Command) -> None:
    code, out, err = command("compile", "digits.onnx", "-o", "c.onnx", "--apply", "softmax")
    assert (code, err) == (0, "")
    assert same(onnx.load("c.onnx"), igonnx.compile(folder / "digits.onnx", apply="softmax"))
    assert "weighted_gradient:image" in out
    assert "\nwrote c.onnx: 0." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["augment", "digits.onnx"], "nothing to write: expected -o OUT.onnx, --triton DIR, or both"),
        (["augment", "digits.onnx", "-o", ""], "-o is empty, expected a path"),
        (["augment", "digits.onnx", "--triton", ""], "--triton is empty, expected a path"),
        (["augment", "digits.onnx", "-o", "digits.onnx"], "it is one of the files read"),
        (["augment", "digits.onnx", "-o", "out.bin"], "expected a name that ends in .onnx"),
        (["augment", "digits.onnx", "-o", "nowhere/out.onnx"], "no such file or directory"),
        (["augment", "none.onnx", "-o", "out.onnx"], "no such file"),
        (["augment", "labels.txt", "-o", "out.onnx"], "not an ONNX model"),
        (["augment", "digits.onnx", "-o", "out.onnx", "--target", "digit 4"], "names of classes need --labels"),
        (["augment", "digits.onnx", "-o", "out.onnx", "--target", "10"], "10"),
        (["augment", "digits.onnx", "-o", "out.onnx", "--wrt", "imag"], "'image'"),
        (["augment", "digits.onnx", "-o", "out.onnx", "--baseline", "dark"], "invalid value for '--baseline'"),
        (["augment", "digits.onnx", "-o", "out.onnx", "--steps", "0"], "invalid value for '--steps'"),
        (
            ["augment", "digits.onnx", "-o", "out.onnx", "--method", "saliency", "--steps", "5"],
            "--steps is not for --method saliency, which takes no such option",
        ),
        (
            ["augment", "digits.onnx", "-o", "out.onnx", "--noise-std", "1"],
            "--noise-std is not for --method integrated-gradients, which takes --steps, --rule, --chunk",
        ),
        (
            ["augment", "digits.onnx", "-o", "out.onnx", "--heatmap", "sum", "--heatmap-threshold", "0.5"],
            "--heatmap-threshold is for --heatmap overlay",
        ),
        (["augment", "digits.onnx", "-o", "out.onnx", "--name", "x"], "--name is for --triton, which is not given"),
        (["augment", "digits.onnx", "-o", "out.onnx", "--max-batch-size", "2"], "--max-batch-size is for --triton"),
        (["augment", "digits.onnx", "--triton", "new/models", "--name", "../x"], "cannot be the name of a model"),
        (["augment", "digits.onnx", "--triton", "digits.onnx/models"], "cannot make folder"),
        (
            ["augment", "digits.onnx", "--triton", "new/models", "--lazy", "--max-batch-size", "2"],
            "--max-batch-size does not go with --lazy",
        ),
        (
            ["augment", "digits.onnx", "--triton", "new/models", "--target", "2", "--max-batch-size", "2"],
            "--max-batch-size does not go with --target",
        ),
        (["augment", "digits.onnx", "--triton", "new/models", "--wrt", "none"], "'none'"),
        (["augment", "digits.onnx", "-o", "a.onnx", "--triton", "a.onnx"], "where --triton 'a.onnx' needs a folder"),
        (["augment", "digits.onnx", "-o", "a.onnx", "--triton", "a.onnx/b"], "-o 'a.onnx' would be a file"),
        (["augment", "digits.onnx", "-o", "out.onnx", "--baseline", "1e39"], "expected a finite number in float32"),
        (["compile", "digits.onnx"], "missing option '-o'"),
        (["compile", "digits.onnx", "-o", ""], "-o is empty, expected the path of an .onnx file"),
        (["compile", "digits.onnx", "-o", "digits.onnx"], "it is one of the files read"),
        (["compile", "digits.onnx", "-o", "c.onnx", "--output", "logit"], "'logits'"),
    ],
)  # fmt: skip
def test_wrong_use(arguments: list[str], message: str, folder: Path, command: Command) -> None:
    before = files(folder)
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert files(folder) == before


def test_folders_are_removed_again(tmp_path: Path) -> None:
    def fail() -> None:
        with Outputs() as outputs:
            outputs.make_folder(tmp_path / "a" / "b" / "c")
            outputs.reserve(tmp_path / "a" / "b" / "c" / "x").write_text("x")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_first_file_reserved_appears_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[str] = []
    replace = __import__("os").replace

    def noted(source: Path, target: Path) -> None:
        placed.append(target.name)
        replace(source, target)

    monkeypatch.setattr("igonnx.cli.outputs.os.replace", noted)
    with Outputs() as outputs:
        for name in ("model.onnx", "weights.bin"):
            outputs.reserve(tmp_path / name).write_text(name)
    assert placed == ["weights.bin", "model.onnx"]
    assert [path.name for path in outputs.written] == ["model.onnx", "weights.bin"]


PAGE = (Path(__file__).parent.parent / "docs" / "deploying.md").read_text(encoding="utf-8")


def test_the_page_on_deploying(command: Command, model: Callable[..., onnx.ModelProto]) -> None:
    """Its commands run, and its request fits the configuration that they write."""
    weights = {"w": np.eye(4, 3, dtype=np.float32)}
    onnx.save(
        model("(float[N, 4] features) => (float[N, 3] scores) { scores = MatMul(features, w) }", weights),
        "model.onnx",
    )  # fmt: skip
    (commands,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in commands.splitlines():
        code, _, err = command(*shlex.split(line.split("#")[0])[1:])
        assert (code, err) == (0, "")
    (text,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    request = json.loads(text)
    config = Path("repository/model/config.pbtxt").read_text()
    types = {"FP32": np.float32, "BOOL": np.bool_, "INT64": np.int64}
    feeds = {}
    for entry in request["inputs"]:
        assert (
            f'name: "{entry["name"]}"\n    data_type: TYPE_{entry["datatype"]}\n    dims: ['
            in config
        )
        array = np.array(entry["data"], types[entry["datatype"]])
        feeds[entry["name"]] = array.reshape(entry["shape"])
    path = "repository/model/1/model.onnx"
    session = onnxruntime.InferenceSession(path, quiet(), providers=["CPUExecutionProvider"])
    wanted = [entry["name"] for entry in request["outputs"]]
    scores, attribution, delta = session.run(wanted, feeds)
    np.testing.assert_allclose(attribution, [[0, 0, feeds["features"][0, 2], 0]], atol=1e-6)
    np.testing.assert_allclose(scores[0, 2], feeds["features"][0, 2])
    np.testing.assert_allclose(delta, [0], atol=1e-6)

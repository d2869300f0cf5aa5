"""The command line, through its real entry point."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from igonnx.attribution import Attribution
from igonnx.autodiff.path_report import path_report
from igonnx.cli.console import results
from igonnx.cli.inputs import ImageOptions, read_baseline, read_inputs
from igonnx.cli.labels import parse_target, read_labels
from igonnx.cli.outputs import Outputs, picture_paths
from igonnx.cli.path_table import print_path
from igonnx.cli.report import percent, probabilities, rows_of
from igonnx.errors import InputError
from igonnx.model import Model
from igonnx.models import digits

COMMAND = [sys.executable, "-m", "igonnx"]
PNG = b"\x89PNG"


def igonnx(*arguments, cwd):
    """Run the command; gives exit code, stdout and stderr."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={key: value for key, value in os.environ.items() if key != "COLUMNS"},
    )
    return done.returncode, done.stdout, done.stderr


def save_model(path, nodes, inputs, outputs, initializers=()):
    """Save a small model; inputs and outputs are (name, shape) or (name, shape, type)."""
    values = [
        [
            helper.make_tensor_value_info(name, (*kind, TensorProto.FLOAT)[0], shape)
            for name, shape, *kind in group
        ]
        for group in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "graph", *values, initializer=list(initializers))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def weights(name, shape):
    array = np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
    return onnx.numpy_helper.from_array(array, name)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Models, images and arrays; nothing may be added here but by tests that clean up."""
    folder = tmp_path_factory.mktemp("examples")
    onnx.save(digits.load(), folder / "digits.onnx")
    content = (folder / "digits.onnx").read_bytes()
    (folder / "truncated.onnx").write_bytes(content[: len(content) // 2])
    (folder / "text.onnx").write_text("not a model\n")
    (folder / "twice.txt").write_text("crane\ndog\ncrane\n")
    images, _ = digits.test_set()
    for index in range(2):
        pixels = np.rint(images[index, 0] * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"digit{index}.png")
    np.save(folder / "digits.npy", images[:2])
    holed = images[:1].copy()
    holed[0, 0, 2, 3] = np.nan
    np.save(folder / "nan.npy", holed)
    np.save(folder / "three_channels.npy", np.repeat(images[:1], 3, axis=1))
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "colours.png")
    save_model(
        folder / "no_path.onnx",
        [
            helper.make_node("Greater", ["x", "zero"], ["above"]),
            helper.make_node("Cast", ["above"], ["y"], to=TensorProto.FLOAT),
        ],
        [("x", ["n", 4])],
        [("y", ["n", 4])],
        [onnx.numpy_helper.from_array(np.float32(0), "zero")],
    )
    save_model(
        folder / "quantised.onnx",
        [
            helper.make_node("QuantizeLinear", ["x", "scale"], ["codes"]),
            helper.make_node("DequantizeLinear", ["codes", "scale"], ["y"]),
        ],
        [("x", ["n", 4])],
        [("y", ["n", 4])],
        [onnx.numpy_helper.from_array(np.float32(0.1), "scale")],
    )
    save_model(
        folder / "no_rule.onnx",
        [
            helper.make_node(
                "TreeEnsembleRegressor",
                ["x"],
                ["y"],
                domain="ai.onnx.ml",
                nodes_treeids=[0],
                nodes_nodeids=[0],
                nodes_featureids=[0],
                nodes_values=[0.0],
                nodes_modes=["LEAF"],
                nodes_truenodeids=[0],
                nodes_falsenodeids=[0],
                target_treeids=[0],
                target_nodeids=[0],
                target_ids=[0],
                target_weights=[3.0],
                n_targets=1,
            )
        ],
        [("x", ["n", 4])],
        [("y", ["n", 1])],
    )
    np.save(folder / "four.npy", np.arange(4, dtype=np.float32))
    np.save(folder / "four_by_four.npy", np.eye(4, dtype=np.float32))
    save_model(
        folder / "two_inputs.onnx",
        [
            helper.make_node("MatMul", ["a", "wa"], ["ya"]),
            helper.make_node("MatMul", ["b", "wb"], ["yb"]),
            helper.make_node("Add", ["ya", "yb"], ["y"]),
        ],
        [("a", ["n", 4]), ("b", ["n", 2])],
        [("y", ["n", 3])],
        [weights("wa", (4, 3)), weights("wb", (2, 3))],
    )
    np.savez(folder / "both.npz", a=np.ones((2, 4), np.float32), b=np.ones((2, 2), np.float32))
    np.save(folder / "a.npy", np.ones((2, 4), np.float32))
    np.save(folder / "b.npy", np.ones((2, 2), np.float32))
    save_model(
        folder / "words.onnx",
        [
            helper.make_node("Gather", ["table", "ids"], ["embedding"]),
            helper.make_node("ReduceMean", ["embedding", "axis"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "w"], ["y"]),
        ],
        [("ids", ["n", "length"], TensorProto.INT64)],
        [("y", ["n", 3])],
        [
            weights("table", (20, 5)),
            weights("w", (5, 3)),
            onnx.numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    np.save(folder / "ids.npy", np.array([7, 8, 9]))
    save_model(
        folder / "any_size.onnx",
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)],
        [("x", ["n", 3, "height", "width"])],
        [("y", ["n", 3])],
        [onnx.numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    save_model(
        folder / "channels_last.onnx",
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)],
        [("x", ["n", 8, 8, 3])],
        [("y", ["n", 3])],
        [onnx.numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    return folder


@pytest.fixture
def unchanged(examples):
    """Check that a test leaves no file behind."""
    before = sorted(examples.rglob("*"))
    yield examples
    assert sorted(examples.rglob("*")) == before


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing.onnx", "digit0.png"], "missing.onnx: no such file"),
            (["truncated.onnx", "digit0.png"], "truncated.onnx: not an ONNX model, or a damaged"),
            (["text.onnx", "digit0.png"], "text.onnx: not an ONNX model"),
            (["digits.onnx", "missing.png"], "image 'missing.png' does not exist"),
            (["digits.onnx", "text.onnx"], "'text.onnx' cannot be read as an image"),
            (
                ["digits.onnx", "colours.png"],
                "'colours.png' is a colour image of 3 channels, the model takes 1 channel",
            ),
            (
                ["digits.onnx", "three_channels.npy"],
                "shape [1, 3, 8, 8], but input 'image' takes [batch, 1, 8, 8]",
            ),
            (["digits.onnx", "nan.npy"], "'nan.npy' for input 'image' holds NaN or infinity in 1"),
            (["digits.onnx", "digit0.png", "--target", "10"], "target 10 is outside the output"),
            (["digits.onnx", "digit0.png", "--output", "scores"], "unknown output 'scores'"),
            (["digits.onnx", "digit0.png", "--wrt", "pixels"], "unknown tensor 'pixels'"),
            (
                ["digits.onnx", "digit0.png", "-o", "text.onnx/a.png"],
                "cannot write 'text.onnx/a.png': folder 'text.onnx': not a directory",
            ),
            (
                ["digits.onnx", "digit0.png", "-o", "none/a.png"],
                "cannot write 'none/a.png': folder 'none': no such file or directory",
            ),
            (
                ["digits.onnx", "digit0.png", "--save", "none/a.npz"],
                "cannot write 'none/a.npz': folder 'none': no such file or directory",
            ),
            (["no_path.onnx", "four.npy"], "no differentiable path from 'x' to output 'y'"),
            (
                ["quantised.onnx", "four.npy", "--no-straight-through"],
                "with straight_through=False rounding to codes has none",
            ),
            (["no_rule.onnx", "four.npy"], "trees are piecewise constant"),
            (["digits.onnx", "digit0.png", "--tolerance", "-1"], "tolerance"),
            (["digits.onnx", "digit0.png", "--preset", "none"], "unknown preset 'none'"),
            (["digits.onnx", "digit0.png", "--size", "9"], "--size asks for 9x9"),
            (["digits.onnx", "digit0.png", "--mean", "a"], "--mean is 'a', expected numbers"),
            (["digits.onnx", "digit0.png", "--labels", "none"], "cannot read labels from 'none'"),
            (["two_inputs.onnx", "a.npy"], "write NAME=a.npy"),
            (["two_inputs.onnx", "a=a.npy"], "no file for input 'b'"),
            (
                ["digits.onnx", "digit0.png", "--baseline", "nan"],
                "the baseline is nan; expected a finite number",
            ),
            (["digits.onnx", "digit0.png", "-o", ""], "-o is empty, expected the path of a file"),
            (["digits.onnx", "digit0.png", "--save", ""], "--save is empty, expected the path"),
            (
                ["digits.onnx", "digit0.png", "--labels", "twice.txt", "--target", "crane"],
                "target 'crane' is the name of 2 classes, 0, 2: give the index",
            ),
        ],
    )
    def test_one_line_and_no_file(self, unchanged, arguments, message):
        writes = [] if "-o" in arguments or "--save" in arguments else ["--save", "saved.npz"]
        code, out, err = igonnx("explain", *arguments, *writes, cwd=unchanged)
        assert code == 2
        assert out == ""
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        assert message in err

    def test_error_after_the_work_began_removes_everything(self, unchanged):
        arguments = ["digits.onnx", "digit0.png", "digit1.png", "-o", "new", "--save", "new.npz"]
        code, _, err = igonnx("explain", *arguments, "--target", "11", cwd=unchanged)
        assert code == 2
        assert "target 11" in err

    def test_no_rule_names_the_operator_in_inspect(self, unchanged):
        code, out, _ = igonnx("inspect", "no_rule.onnx", cwd=unchanged)
        assert code == 0
        refused = "refused: ai.onnx.ml::TreeEnsembleRegressor 'TreeEnsembleRegressor_0': trees are"
        *_, refusal, advice = out.splitlines()
        assert refusal.startswith(refused)
        assert advice.startswith("1 of 1 node on the path cannot be crossed; ")

    @pytest.mark.parametrize(
        ("arguments", "message", "command"),
        [
            (["explain"], "missing argument 'MODEL'", "igonnx explain"),
            (["explain", "digits.onnx"], "missing argument 'INPUT...'", "igonnx explain"),
            (
                ["explain", "a", "b", "--steps", "0"],
                "invalid value for '--steps'",
                "igonnx explain",
            ),
            (
                ["explain", "a", "b", "--steps", "abc"],
                "invalid value for '--steps'",
                "igonnx explain",
            ),
            (["inspect", "a", "--unheard"], "no such option: --unheard", "igonnx inspect"),
            (["x"], "no such command 'x'", "igonnx"),
        ],
    )
    def test_usage(self, unchanged, arguments, message, command):
        code, out, err = igonnx(*arguments, cwd=unchanged)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert message in err
        assert err.endswith(f"; see {command} --help\n")

    def test_files_that_are_read_are_not_written(self, examples, tmp_path):
        folder = tmp_path / "photos"
        folder.mkdir()
        for name in ("digit0.png", "digit1.png", "digits.npy"):
            (folder / name).write_bytes((examples / name).read_bytes())
        np.savez(folder / "digits.npz", image=np.load(folder / "digits.npy"))
        np.savez(folder / "black.npz", np.zeros((1, 1, 8, 8), np.float32))
        (tmp_path / "model.npz").write_bytes((examples / "digits.onnx").read_bytes())
        (tmp_path / "names.npz").write_text("zero\none\n")
        (tmp_path / "link.png").symlink_to(folder / "digit0.png")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
        photo = "photos/digit0.png"
        for model, arguments, path in (
            (None, [photo, "photos/digit1.png", "-o", "photos/"], photo),
            (None, [photo, "-o", "photos/../photos/digit0.png"], "photos/../photos/digit0.png"),
            (None, [photo, "-o", "link.png"], "link.png"),
            (None, [f"image={photo}", "-o", photo], photo),
            (None, ["photos/digits.npz", "--save", "photos/digits.npz"], "photos/digits.npz"),
            (
                None,
                [photo, "--baseline", "image=photos/black.npz", "--save", "photos/black.npz"],
                "photos/black.npz",
            ),
            (
                None,
                [photo, "--baseline", "photos/digit1.png", "-o", "photos/digit1.png"],
                "photos/digit1.png",
            ),
            (None, [photo, "--labels", "names.npz", "--save", "names.npz"], "names.npz"),
            ("model.npz", [photo, "--save", "model.npz"], "model.npz"),
        ):
            code, out, err = igonnx(
                "explain", model or examples / "digits.onnx", *arguments, cwd=tmp_path
            )
            assert (code, out) == (2, "")
            assert "error: " + f"cannot write '{path}': it is one of the files read" in err
            assert "Traceback" not in err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupt(self, unchanged, number, code):
        arguments = ["explain", "digits.onnx", "digits.npy", "-o", "new", "--save", "new.npz"]
        settings = ["--steps", "1000000", "--rule", "trapezoid", "--batch-size", "1"]
        # What runs in the background of a shell ignores Ctrl-C, and so would its children.
        heed = f"signal.signal({int(number)}, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
        started = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os, signal, sys; {heed}",
                *COMMAND,
                *arguments,
                *settings,
            ],
            cwd=unchanged,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while not (unchanged / "new").exists() and started.poll() is None:
            time.sleep(0.05)
        time.sleep(1)
        started.send_signal(number)
        out, err = started.communicate(timeout=60)
        assert started.returncode == code
        assert out == b""
        assert b"Traceback" not in err

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize("arguments", [["inspect", "--no-measure"], ["--help"], ["--version"]])
    def test_full_disk(self, examples, arguments):
        model = ["digits.onnx"] if arguments[0] == "inspect" else []
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*COMMAND, *arguments, *model],
                cwd=examples,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=300,
            )
        assert done.returncode == 2
        assert done.stderr == "error: no space left on device\n"

    def test_reader_goes_away(self, examples):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*COMMAND, "inspect", "digits.onnx", "--no-measure"],
            cwd=examples,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, "")

    def test_without_typer(self, tmp_path):
        (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no', name='typer')")
        code, out, err = igonnx("--help", cwd=tmp_path)
        assert (code, out) == (2, "")
        assert err == "error: the command line needs typer: pip install igonnx[cli]\n"


class TestExplain:
    def test_pictures_and_arrays(self, examples, tmp_path):
        inputs = [examples / "digit0.png", examples / "digit1.png"]
        code, out, err = igonnx(
            "explain", examples / "digits.onnx", *inputs, "-o", "shown", "--save", "saved.npz",
            "--apply", "softmax", "--tolerance", "0.01", cwd=tmp_path,
        )  # fmt: skip
        assert code == 0, err
        assert sorted(p.name for p in tmp_path.rglob("*")) == [
            "digit0.png", "digit1.png", "saved.npz", "shown"
        ]  # fmt: skip
        assert (tmp_path / "shown" / "digit0.png").read_bytes().startswith(PNG)
        with np.load(tmp_path / "saved.npz") as saved:
            assert saved["values"].shape == (2, 1, 8, 8)
            labels = saved["target"][:, 0]
        np.testing.assert_array_equal(labels, digits.test_set()[1][:2])
        for name, label in zip(("digit0", "digit1"), labels, strict=True):
            row = next(line for line in out.splitlines() if name in line)
            cells = re.split(r"\s{2,}", row.strip())
            assert cells[:2] == [name, str(label)]
            assert float(cells[2].removesuffix(" %")) > 50
            error = re.fullmatch(r"[+-][\d.e+-]+ \(([\d.]+) %\)", cells[5])
            assert error is not None
            assert float(error[1]) <= 1
        assert "probability: softmax of the output 'logits'" in out

    def test_array_of_several_examples(self, examples, tmp_path):
        code, out, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digits.npy", "-o", "d_{name}.png",
            cwd=tmp_path,
        )  # fmt: skip
        assert code == 0, err
        assert sorted(p.name for p in tmp_path.iterdir()) == ["d_digits-0.png", "d_digits-1.png"]
        assert "wrote d_digits-0.png" in out

    @pytest.mark.parametrize("suffix", ["jpg", "svg", "pdf", "webp"])
    def test_picture_formats(self, examples, tmp_path, suffix):
        code, _, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digit0.png", "--steps", 2,
            "-o", f"a.{suffix}", cwd=tmp_path,
        )  # fmt: skip
        assert code == 0, err
        assert (tmp_path / f"a.{suffix}").stat().st_size > 1000

    def test_labels_and_targets_by_name(self, examples, tmp_path):
        names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
        (tmp_path / "names.txt").write_text("\n".join(names))
        code, out, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digits.npy", "--labels", "names.txt",
            "--target", "Seven", "--target", "3", cwd=tmp_path,
        )  # fmt: skip
        assert code == 0, err
        assert re.search(r"digits-0 +7 +seven", out)
        assert re.search(r"digits-1 +3 +three", out)
        assert "labels" not in err

    def test_wrong_number_of_labels_is_said(self, examples, tmp_path):
        code, _, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digit0.png", "--labels", "imagenet",
            cwd=tmp_path,
        )  # fmt: skip
        assert code == 0
        assert "warning: 1000 labels, but 'logits' has 10 classes" in err

    def test_several_inputs(self, examples, tmp_path):
        tables = []
        for inputs in (["both.npz"], ["a=a.npy", "b=b.npy"], ["b=b.npy", "a.npy"]):
            files = [
                name.replace("=", f"={examples}/") if "=" in name else examples / name
                for name in inputs
            ]
            code, out, err = igonnx("explain", examples / "two_inputs.onnx", *files, cwd=tmp_path)
            assert code == 0, err
            tables.append(re.findall(r"[+-]\d+\.\d+\b", out))
            assert "strongest of 'a'" in out
            assert "strongest of 'b'" in out
        assert tables[0] == tables[1] == tables[2]

    def test_words(self, examples, tmp_path):
        code, out, err = igonnx(
            "explain", examples / "words.onnx", examples / "ids.npy", "--target", "1", cwd=tmp_path
        )
        assert code == 0, err
        assert "strongest of 'embedding'" in out
        assert {line.split()[1] for line in out.splitlines() if "%" in line} >= {"7", "8", "9"}
        code, _, err = igonnx(
            "explain", examples / "words.onnx", examples / "ids.npy", "-o", "a.png", cwd=tmp_path
        )
        assert code == 2
        assert "nothing to draw: 'embedding' is no picture" in err

    def test_unreached_tolerance_is_said(self, examples, tmp_path):
        code, _, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digit0.png", "--tolerance", "1e-9",
            "--max-steps", "20", cwd=tmp_path,
        )  # fmt: skip
        assert code == 0
        assert re.search(r"^warning: .*toleran", err, flags=re.MULTILINE)

    def test_exact_sum(self, examples, tmp_path):
        code, _, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digit0.png", "--tolerance", "0.01",
            "--memory-limit", "100000", "--exact-sum", "--save", "a.npz", cwd=tmp_path,
        )  # fmt: skip
        assert code == 0, err
        with np.load(tmp_path / "a.npz") as saved:
            change = saved["scores"] - saved["baseline_scores"]
            np.testing.assert_allclose(saved["values"].sum(dtype=np.float64), change[0], rtol=1e-6)
            assert 0 < abs(saved["correction"][0]) < 0.01
        code, _, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digit0.png", "--tolerance", "0.01",
            "--memory-limit", "100", cwd=tmp_path,
        )  # fmt: skip
        assert code == 2
        assert "memory_limit is 100 bytes; expected at least" in err

    def test_grey(self, examples, tmp_path):
        code, _, err = igonnx(
            "explain", examples / "digits.onnx", examples / "colours.png", "--grey", cwd=tmp_path
        )
        assert code == 0, err

    def test_inner_tensor_over_the_image(self, examples, tmp_path):
        model = onnx.load(examples / "digits.onnx")
        inner = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
        code, _, err = igonnx(
            "explain", examples / "digits.onnx", examples / "digit0.png", "--wrt", inner,
            "-o", "a.png", cwd=tmp_path,
        )  # fmt: skip
        assert code == 0, err
        assert (tmp_path / "a.png").read_bytes().startswith(PNG)

    def test_channels_last(self, examples, tmp_path):
        code, out, err = igonnx(
            "explain", examples / "channels_last.onnx", examples / "colours.png", "--preset", "tf",
            "--steps", 2, "-o", "a.png", "--save", "a.npz", cwd=tmp_path,
        )  # fmt: skip
        assert code == 0, err
        assert re.search(r"\([\d.]+ %\)", out)
        with np.load(tmp_path / "a.npz") as saved:
            assert saved["values"].shape == (1, 8, 8, 3)

    def test_free_size_is_said(self, examples, tmp_path):
        arguments = ["explain", examples / "any_size.onnx", examples / "colours.png", "--steps", 1]
        code, _, err = igonnx(*arguments, cwd=tmp_path)
        assert code == 0, err
        assert "takes images of any size: 224" in err
        assert "images are scaled to 0..1" in err
        code, _, err = igonnx(*arguments, "--size", "8x6", "--preset", "tf", cwd=tmp_path)
        assert code == 0
        assert "any size" not in err
        assert "scaled" not in err


class TestOtherCommands:
    def test_inspect(self, examples, tmp_path):
        code, out, err = igonnx("inspect", examples / "digits.onnx", cwd=tmp_path)
        assert code == 0, err
        for expected in (
            r"input +image +float32 +\[batch, 1, 8, 8\]",
            r"output +logits +float32 +\[batch, 10\]",
            r"parameters +[\d,]+",
            r"dynamic axes +batch \(image\[0\], logits\[0\]\)",
            r"Conv +3 +rule +Conv with groups",
            r"11 nodes on the path, none off it",
            r"explained +output 'logits' by 'image'",
            r"cost +a gradient takes [\d.e-]+ m?s",
        ):
            assert re.search(expected, out), expected
        assert list(tmp_path.iterdir()) == []

    def test_inspect_for_machines(self, examples, tmp_path):
        arguments = ["inspect", examples / "digits.onnx", "--json"]
        code, out, err = igonnx(*arguments, "--no-measure", cwd=tmp_path)
        assert code == 0, err
        found = json.loads(out)
        assert found["differentiable"] is True
        assert found["inputs"] == [
            {"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 8]}
        ]
        assert found["cost"] is None
        operators = {entry["operator"]: entry for entry in found["path"]["served"]}
        assert operators["Conv"]["nodes"] == 3
        assert operators["Conv"]["how"] == "rule"
        _, out, _ = igonnx(*arguments, cwd=tmp_path)
        assert json.loads(out)["cost"]["gradient_seconds"] >= 0

    @pytest.mark.parametrize("width", [40, 80, 160])
    def test_inspect_fits_the_terminal(self, examples, monkeypatch, capsys, width):
        monkeypatch.setenv("COLUMNS", str(width))
        report = path_report(examples / "digits.onnx")
        print_path(report, results())
        lines = capsys.readouterr().out.splitlines()
        rows = [line for line in lines if re.match(r" *(BatchNormalization|Conv|Relu) +\d", line)]
        assert len(rows) == 3
        assert max(map(len, lines)) <= width
        assert ("its bias" in rows[1]) == (width == 160)

    def test_inspect_says_why_there_is_no_path(self, examples, tmp_path):
        code, out, err = igonnx("inspect", examples / "no_path.onnx", cwd=tmp_path)
        assert code == 0, err
        assert "nothing: no_path.onnx: no differentiable path from 'x' to output 'y'" in out
        assert re.search(r"Greater +1 +no derivative", out)

    def test_inspect_words(self, examples, tmp_path):
        code, out, err = igonnx("inspect", examples / "words.onnx", "--length", "5", cwd=tmp_path)
        assert code == 0, err
        assert "by 'embedding'" in out
        assert "ids [1, 5]" in out

    @pytest.mark.parametrize("command", [[], ["explain"], ["inspect"], ["demo"]])
    def test_help(self, tmp_path, command):
        code, out, _ = igonnx(*command, "--help", cwd=tmp_path)
        assert code == 0
        assert "Usage" in out

    def test_version(self, tmp_path):
        code, out, _ = igonnx("--version", cwd=tmp_path)
        assert code == 0
        assert re.fullmatch(r"igonnx \d+\.\d+\.\d+\S*\n", out)

    @pytest.mark.slow
    def test_demo(self, tmp_path):
        code, out, err = igonnx("demo", cwd=tmp_path)
        assert code == 0, err
        photos = {
            "chelsea": "285   Egyptian cat",
            "coffee": "967   espresso",
            "rocket": "657   missile",
            "astronaut": "450   bobsled",
        }
        page = (tmp_path / "demo" / "index.html").read_text("utf-8")
        for name, shown in photos.items():
            row = next(line for line in out.splitlines() if name in line)
            assert shown in row
            assert float(re.search(r"\(([\d.]+) %\)", row)[1]) <= 1
            assert (tmp_path / "demo" / f"{name}.png").read_bytes().startswith(PNG)
            assert f'src="{name}.png"' in page
        assert "://" not in page
        assert str(Path("demo") / "index.html") in out
        assert len(list((tmp_path / "demo").iterdir())) == 5


class TestPictures:
    def test_paths(self, tmp_path):
        (tmp_path / "folder.d").mkdir()
        assert picture_paths("a.png", ["x"]) == ([Path("a.png")], False)
        assert picture_paths("a", ["x"]) == ([Path("a/x.png")], True)
        assert picture_paths(f"{tmp_path}/folder.d", ["x"])[0] == [tmp_path / "folder.d" / "x.png"]
        assert picture_paths("a/{name}!.jpg", ["x", "y"])[0] == [Path("a/x!.jpg"), Path("a/y!.jpg")]
        with pytest.raises(InputError, match="2 examples give 2 pictures, but -o"):
            picture_paths("a.png", ["x", "y"])
        with pytest.raises(InputError, match=r"cannot write pictures as '\.bmp'"):
            picture_paths("a.bmp", ["x"])

    def test_all_or_nothing(self, tmp_path):
        (tmp_path / "old").write_text("old")

        def interrupted():
            with Outputs() as outputs:
                outputs.reserve(tmp_path / "old").write_text("new")
                outputs.reserve(tmp_path / "made" / "b", make_folder=True).write_text("new")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert [p.name for p in tmp_path.iterdir()] == ["old"]
        assert (tmp_path / "old").read_text() == "old"
        with Outputs() as outputs:
            outputs.reserve(tmp_path / "old").write_text("new")
        assert outputs.written == [tmp_path / "old"]
        assert (tmp_path / "old").read_text() == "new"

    def test_refused_paths(self, tmp_path):
        with Outputs() as outputs:
            outputs.reserve(tmp_path / "a.npz", suffix=".npz")
            for path, message in (
                (tmp_path, "it is a folder"),
                (tmp_path / "a.npy", "ends in .npz"),
                (tmp_path / "a.npz", "twice"),
            ):
                with pytest.raises(InputError, match=message):
                    outputs.reserve(path, suffix="" if path == tmp_path else ".npz")


class TestInputs:
    def test_names_are_distinct(self, examples):
        model = Model.load(examples / "digits.onnx")
        file = str(examples / "digit0.png")
        given = read_inputs(model, [file, file, str(examples / "digits.npy")], ImageOptions())
        assert given.names == ["digit0", "digit0-2", "digits-0", "digits-1"]
        assert given.arrays["image"].shape == (4, 1, 8, 8)

    def test_preset_of_the_model(self, examples):
        model = onnx.load(examples / "any_size.onnx")
        helper.set_model_props(model, {"igonnx.preset": "tf"})
        colours = str(examples / "colours.png")
        options = ImageOptions(size=(8, 8))
        given = read_inputs(Model.load(model), [colours], options)
        assert given.preprocessing["x"].mean == (0.5,)
        assert given.notes == []
        given = read_inputs(Model.load(model), [colours], ImageOptions(size=(8, 8), scale=255))
        assert given.preprocessing["x"].scale == 255
        helper.set_model_props(model, {"igonnx.preset": "unheard"})
        with pytest.raises(InputError, match="the model names the preset 'unheard'"):
            read_inputs(Model.load(model), [colours], options)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            (["c=a.npy"], "the model has no input 'c'"),
            (["a=a.npy", "b=a.npy"], "shape [2, 4], but input 'b' takes [n, 2]"),
            (["a=four_by_four.npy", "b=missing.npy"], "'missing.npy' does not exist"),
            (["a=text.onnx", "b=b.npy"], "needs four axes"),
            (["a=broken.npy", "b=b.npy"], "cannot be read as a NumPy file"),
        ],
    )
    def test_wrong_files(self, examples, tmp_path, monkeypatch, files, message):
        for source in examples.glob("*.npy"):
            (tmp_path / source.name).write_bytes(source.read_bytes())
        (tmp_path / "broken.npy").write_text("no numbers")
        Image.new("RGB", (4, 4)).save(tmp_path / "text.onnx", format="png")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError) as caught:
            read_inputs(Model.load(examples / "two_inputs.onnx"), files, ImageOptions())
        assert message in str(caught.value)

    def test_baselines(self, examples):
        model = Model.load(examples / "any_size.onnx")
        options = ImageOptions(size=(8, 8), preset="tf")
        colours = str(examples / "colours.png")
        given = read_inputs(model, [colours], options)
        steps = given.preprocessing["x"]
        assert read_baseline("0.5", "x", None) == 0.5
        assert (read_baseline("black", "x", steps) == -1).all()
        assert (read_baseline("white", "x", steps) == 1).all()
        np.testing.assert_array_equal(read_baseline(colours, "x", steps), given.arrays["x"])
        assert read_baseline(str(examples / "a.npy"), "x", steps).shape == (2, 4)
        with pytest.raises(InputError, match="'black' is for images"):
            read_baseline("black", "x", None)
        with pytest.raises(InputError, match="baseline 'blue' of 'x' is no number"):
            read_baseline("blue", "x", steps)
        with pytest.raises(InputError, match="holds 2 arrays"):
            read_baseline(str(examples / "both.npz"), "x", steps)

    def test_targets(self):
        labels = ["cat", "dog"]
        assert parse_target("7", labels) == 7
        assert parse_target("1,-2") == (1, -2)
        assert parse_target("Dog", labels) == 1
        with pytest.raises(InputError, match="no class has that name"):
            parse_target("cow", labels)
        with pytest.raises(InputError, match="need --labels"):
            parse_target("cow")
        labels = ["crane", "Crane", "dog", "crane"]
        assert parse_target("Crane", labels) == 1
        with pytest.raises(InputError, match="'crane' is the name of 2 classes, 0, 3: give the"):
            parse_target("crane", labels)
        with pytest.raises(InputError, match="3 classes, 0, 1, 3"):
            parse_target("CRANE", labels)

    def test_imagenet_labels(self):
        assert read_labels("imagenet")[285] == "Egyptian cat"


class TestReport:
    def test_probabilities(self):
        logits = np.array([[1.0, 3.0, 2.0]])
        softmax = np.exp(logits[0]) / np.exp(logits[0]).sum()
        found, how = probabilities(logits, [(1,)], None)
        assert found == pytest.approx([softmax[1]])
        assert how.startswith("softmax")
        found, how = probabilities(softmax[None], [(1,)], None)
        assert found == pytest.approx([softmax[1]])
        assert how.startswith("the output as it is")
        found, how = probabilities(logits, [(1,)], "sigmoid")
        assert found == pytest.approx([1 / (1 + np.exp(-3))])
        assert how.startswith("sigmoid")
        assert probabilities(np.array([[-1e4, 1e4]]), [(0,)], "sigmoid")[0] == [0.0]
        for output, target in ((logits, None), (logits[..., None], (1, 0)), (logits[:, :1], (0,))):
            assert probabilities(output, [target], None) == ([None], "")

    @pytest.mark.parametrize(
        "output",
        [
            [[0.9, 0.8, 0.1]],  # labels that do not exclude each other
            [[1.0]],
            [[-3.0, 2.0]],  # two quantities, maybe no classes
            [[0.2, 0.7]],
        ],
    )
    def test_no_probability(self, output):
        assert probabilities(np.array(output), [(0,)], None) == ([None], "")

    def test_probability_is_asked_for(self):
        two = np.array([[-3.0, 2.0]])
        for apply in ("softmax", "log_softmax"):
            found, how = probabilities(two, [(1,)], apply)
            assert found == pytest.approx([1 / (1 + np.exp(-5))])
            assert how.startswith("softmax")
        found, _ = probabilities(np.array([[0.9, 0.8, 0.1]]), [(0,)], "softmax")
        assert found[0] < 0.5
        found, how = probabilities(np.array([[0.5, 0.5005]]), [(0,)], None)
        assert found == [0.5]
        assert probabilities(np.array([[0.5, 0.502]]), [(0,)], None) == ([None], "")

    def test_rows(self):
        attribution = Attribution(
            values=np.zeros((2, 4)),
            delta=np.array([-0.02, 0.1]),
            scores=np.array([2.0, 1.0]),
            baseline_scores=np.array([1.0, 1.0]),
            target=[(3,), None],
            path=[],
            steps_used=np.array([5, 6]),
        )
        row, flat = rows_of(attribution, ["a", "b"], [], [None, None])
        assert [row.relative_error, flat.relative_error] == list(attribution.relative_delta)
        assert row.relative_error == pytest.approx(0.02)
        assert row.title == "class 3"
        assert percent(flat.relative_error) == "-"
        assert flat.class_index == "mask"

    def test_percent(self):
        assert [percent(p) for p in (0.405, 0.0021, 0.1, 0.09994)] == [
            "40.5 %", "0.21 %", "10.0 %", "9.99 %"
        ]  # fmt: skip

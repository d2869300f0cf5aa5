"""What the two stages make of a part, without a cluster: the same numbers as `Explainer`, and errors beside them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
from PIL import Image

from igonnx import Explainer
from igonnx.errors import ModelError
from igonnx.images import Preprocessing
from igonnx.model import Model
from igonnx.scale.folder import Attempts, Folder
from igonnx.scale.job import hash_of_model
from igonnx.scale.listing import list_inputs
from igonnx.scale.page import page
from igonnx.scale.pictures import overlay_name
from igonnx.scale.stages import ExplainPart, read_part
from igonnx.scale.summary import Summary, read_summary

pa = pytest.importorskip("pyarrow", reason="igonnx[ray] is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="igonnx[ray] is not installed")


def run_parts(job, names, *, rows_per_part=100):
    """List, read and explain as a run does, in this process; gives the folder and the number of parts."""
    infos = Model.load(job.model).inputs
    listing = list_inputs(names, job.root, infos)
    folder = Folder(job.root / "out")
    parts = -(-len(listing.rows) // rows_per_part)
    with folder.locked():
        folder.begin(job, listing, rows_per_part)
        explain = ExplainPart(job, folder)
        for part in range(parts):
            told = explain(
                read_part({"part": np.array([part])}, job=job, folder=folder, infos=infos)
            )
            assert told == {"part": [part], "rows": [len(folder.rows_of(part))]}
    return folder, parts


def rows_of(folder, what="parts"):
    return parquet.read_table(folder.path / what).to_pylist()


def summary_of(folder, parts):
    summary = Summary()
    for part in range(parts):
        summary.merge(read_summary(folder.state(part)))
    return summary


def values_of(row):
    return np.reshape(np.array(row["values"], np.float32), row["shape"])


def test_rows_are_those_of_the_explainer(job, tmp_path, write_images, digit_images):
    write_images(tmp_path / "in", 5)
    (tmp_path / "in" / "002b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    folder, parts = run_parts(job, ["in"], rows_per_part=4)
    assert parts == 2
    rows = rows_of(folder)
    expected = Explainer(job.model, threads=1, batch_size=8).integrated_gradients(
        digit_images[:5], steps=8
    )
    assert [row["id"] for row in rows] == [f"in/{number:03}.png" for number in range(5)]
    for index, row in enumerate(rows):
        np.testing.assert_allclose(values_of(row), expected.values[index], rtol=1e-4, atol=1e-5)
        assert row["class"] == expected.target[index][0]
        assert row["score"] == pytest.approx(expected.scores[index], rel=1e-5)
        assert row["baseline_score"] == pytest.approx(expected.baseline_scores[index], rel=1e-5)
        assert row["completeness_error"] == pytest.approx(expected.delta[index], abs=1e-4)
        assert row["relative_error"] == pytest.approx(expected.relative_delta[index], abs=1e-5)
        assert (row["steps"], row["method"]) == (8, expected.method)
        assert row["model_sha256"] == job.model_sha256
        assert row["row"] is None
    [error] = rows_of(folder, "errors")
    assert (error["id"], error["stage"]) == ("in/002b.png", "read")
    assert "in/002b.png" in error["reason"]


def test_the_numbers_do_not_depend_on_how_rows_are_put_together(job, tmp_path, digit_images):
    np.save(tmp_path / "x.npy", digit_images[:7])
    values = []
    for number, (size, batch) in enumerate([(7, 7), (2, 1), (4, 3)]):
        (tmp_path / str(number)).mkdir()
        np.save(tmp_path / str(number) / "x.npy", digit_images[:7])
        one = dataclasses.replace(job, root=tmp_path / str(number), batch=batch)
        folder, _ = run_parts(one, ["x.npy"], rows_per_part=size)
        rows = rows_of(folder)
        assert [row["row"] for row in rows] == list(range(7))
        values.append(np.stack([values_of(row) for row in rows]))
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-4, atol=1e-5)


def test_a_part_that_is_done_is_not_done_again(job, tmp_path, write_images):
    write_images(tmp_path / "in", 3)
    folder, _ = run_parts(job, ["in"])
    before = folder.part(0).stat()
    run_parts(job, ["in"])
    after = folder.part(0).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_part_done_twice_is_there_once(job, tmp_path, write_images):
    write_images(tmp_path / "in", 3)
    folder, _ = run_parts(job, ["in"])
    folder.state(0).unlink()
    run_parts(job, ["in"])
    assert len(rows_of(folder)) == 3
    assert sorted(one.name for one in folder.path.rglob("*") if one.is_file()) == [
        "done-000000.npz",
        "errors-000000.parquet",
        "lock",
        "manifest.json",
        "part-000000.parquet",
        "rows.parquet",
    ]


def test_a_row_that_cannot_be_explained_leaves_the_others(job, tmp_path, model):
    """The gradient of a square root is infinite at 0: at the end of the path of a row of zeros alone."""
    path = tmp_path / "root.onnx"
    text = "(float[N, 3] x) => (float[N, 2] y) { r = Sqrt(x)  y = MatMul(r, w) }"
    onnx.save(model(text, {"w": np.ones((3, 2), np.float32)}), path)
    x = np.ones((9, 3), np.float32)
    x[4] = 0
    np.save(tmp_path / "x.npy", x)
    asked = dataclasses.replace(
        job,
        model=path,
        model_sha256=hash_of_model(path, Model.load(path)),
        method="saliency",
        options={},
        preprocessing=None,
        drawn=None,
        adds_up=False,
    )
    folder, parts = run_parts(asked, ["x.npy"])
    rows = rows_of(folder)
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert all(row["completeness_error"] is None for row in rows)
    [error] = rows_of(folder, "errors")
    assert (error["id"], error["stage"]) == ("x.npy#4", "explain")
    assert "not finite" in error["reason"]
    assert summary_of(folder, parts).reasons == {"explain": 1}


def damaged(data, random):
    """The bytes of a file with some changed, added, or the end cut off."""
    broken = bytearray(data)
    for _ in range(random.integers(1, 6)):
        place = int(random.integers(min(len(broken), random.choice([200, 100_000]))))
        kind = random.integers(4)
        if kind < 2:
            broken[place] = int(random.integers(256))
        elif kind == 2:
            broken[place:place] = random.bytes(3)
        elif random.random() < 0.2:
            del broken[max(place, 2) :]
    return bytes(broken)


def test_damaged_files_stop_nothing(job, tmp_path, write_images, digit_images):
    """Whatever their decoders raise: each row is read or told, and the part is done."""
    random = np.random.default_rng(7)
    write_images(tmp_path, 1)
    with Image.open(tmp_path / "000.png") as picture:
        for suffix in ("jpg", "gif", "bmp", "webp", "tif"):
            picture.save(tmp_path / f"000.{suffix}")
    np.save(tmp_path / "000.npy", digit_images[:1])
    np.savez_compressed(tmp_path / "000.npz", image=digit_images[:1])
    lists = {"image": digit_images[:1].reshape(1, 64).tolist()}
    parquet.write_table(pa.table(lists), tmp_path / "000.parquet", use_dictionary=False)
    (tmp_path / "in").mkdir()
    for whole in tmp_path.glob("000.*"):
        for number in range(12):
            broken = damaged(whole.read_bytes(), random)
            (tmp_path / "in" / f"{number:02}{whole.suffix}").write_bytes(broken)
    asked = dataclasses.replace(job, columns={"image": "image"})
    folder, parts = run_parts(asked, ["in"])
    failed = rows_of(folder, "errors")
    listed = sum(len(folder.rows_of(part)) for part in range(parts))
    assert listed >= 9 * 12
    assert len(rows_of(folder)) + len(failed) == listed
    assert len(failed) > listed / 4
    assert all(error["reason"].isprintable() for error in failed)


def test_a_row_on_which_workers_die_is_an_error(job, tmp_path, digit_images):
    np.save(tmp_path / "x.npy", digit_images[:4])
    infos = Model.load(job.model).inputs
    folder = Folder(tmp_path / "out")
    with folder.locked():
        folder.begin(job, list_inputs(["x.npy"], tmp_path, infos), 4)
        for stage in ("read", "explain"):
            for rows in ([], [], [0, 1, 2] if stage == "read" else [0, 1]):
                attempts = Attempts(folder, 0, stage).__enter__()
                assert all(attempts.survived(row) for row in rows)
        read = read_part({"part": np.array([0])}, job=job, folder=folder, infos=infos)
        ExplainPart(job, folder)(read)
    assert [row["row"] for row in rows_of(folder)] == [0, 3]
    errors = [(error["row"], error["stage"]) for error in rows_of(folder, "errors")]
    assert errors == [(1, "explain"), (2, "read")]
    assert not list((folder.path / "state").glob("attempts-*"))


def test_images_of_other_shapes_are_explained_apart(job, tmp_path, model):
    path = tmp_path / "pool.onnx"
    text = """(float[N, 1, H, W] image) => (float[N, 3] y) {
        m = GlobalAveragePool(image)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    onnx.save(model(text, {"w": np.array([[1, 2, 3]], np.float32)}), path)
    for number, side in enumerate((4, 6, 4)):
        np.save(tmp_path / f"{number}.npy", np.ones((1, side, side), np.float32))
    asked = dataclasses.replace(
        job,
        model=path,
        model_sha256=hash_of_model(path, Model.load(path)),
        preprocessing=None,
    )
    folder, parts = run_parts(asked, ["0.npy", "1.npy", "2.npy"])
    assert [row["shape"] for row in rows_of(folder)] == [[1, 4, 4], [1, 6, 6], [1, 4, 4]]
    assert [row["id"] for row in rows_of(folder)] == ["0.npy", "1.npy", "2.npy"]
    assert summary_of(folder, parts).classes["2"].count == 3


def test_a_model_of_several_inputs(job, tmp_path, model):
    path = tmp_path / "two.onnx"
    text = "(float[N, 3] a, float[N, 3] b) => (float[N, 3] y) { y = Mul(a, b) }"
    onnx.save(model(text), path)
    a, b = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", a=a, b=b)
    asked = dataclasses.replace(
        job,
        model=path,
        model_sha256=hash_of_model(path, Model.load(path)),
        preprocessing=None,
        drawn=None,
    )
    folder, _ = run_parts(asked, ["x.npz"])
    expected = Explainer(path).integrated_gradients({"a": a, "b": b}, steps=8)
    for name in ("a", "b"):
        found = [row[f"values:{name}"] for row in rows_of(folder)]
        np.testing.assert_allclose(found, expected.values[name], rtol=1e-4, atol=1e-6)


def test_arrays_are_left_out_where_they_are_not_wanted(job, tmp_path, write_images):
    write_images(tmp_path / "in", 2)
    folder, _ = run_parts(dataclasses.replace(job, arrays=False), ["in"])
    rows = rows_of(folder)
    assert len(rows) == 2
    assert not {"values", "shape"} & set(rows[0])


def test_a_part_without_rows_has_the_columns_of_others(job, tmp_path, write_images):
    write_images(tmp_path / "in", 1)
    (tmp_path / "in" / "zzz.png").touch()
    folder, _ = run_parts(job, ["in"], rows_per_part=1)
    schemas = [parquet.read_schema(folder.part(part)) for part in range(2)]
    assert schemas[0] == schemas[1]
    assert len(rows_of(folder)) == len(rows_of(folder, "errors")) == 1


def test_overlays_are_drawn_of_every_row(job, tmp_path, write_images):
    write_images(tmp_path / "in", 3)
    folder, _ = run_parts(dataclasses.replace(job, overlays=True), ["in"])
    names = {overlay_name((f"in/{number:03}.png", -1)) for number in range(3)}
    assert {one.name for one in folder.overlays.iterdir()} == names
    for one in folder.overlays.iterdir():
        with Image.open(one) as picture:
            assert (picture.size, picture.mode) == ((8, 8), "RGB")


def test_a_model_that_was_replaced_is_not_explained(job, tmp_path, digit_model):
    path = tmp_path / "model.onnx"
    path.write_bytes(digit_model.read_bytes())
    copy = dataclasses.replace(job, model=path)
    assert copy.explainer().output == "logits"
    proto = onnx.load(path)
    proto.doc_string = "another"
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="has changed since this run began"):
        copy.explainer()


def test_the_hash_counts_the_weights_beside_a_model(tmp_path):
    path = tmp_path / "model.onnx"
    weights = onnx.numpy_helper.from_array(np.ones((3, 400), np.float32), "w")
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    values = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", length])]
        for name, length in (("x", 3), ("y", 400))
    ]
    graph = onnx.helper.make_graph(nodes, "g", *values, [weights])
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = hash_of_model(path, Model.load(path))
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert hash_of_model(path, Model.load(path)) != before


def test_the_page_tells_of_all_parts(job, tmp_path, write_images):
    write_images(tmp_path / "in", 40)
    (tmp_path / "in" / "<b>.png").touch()
    asked = dataclasses.replace(
        job,
        options={"tolerance": 1e-9, "max_steps": 20},
        labels=tuple(f"<digit {number}>" for number in range(10)),
    )
    folder, parts = run_parts(asked, ["in"], rows_per_part=7)
    summary = summary_of(folder, parts)
    rows = rows_of(folder)
    assert (summary.rows, summary.failed, summary.parts) == (40, 1, 6)
    assert summary.steps == sum(row["steps"] for row in rows)
    assert summary.unconverged == 40
    assert sum(summary.histogram) == 40
    worst = max(rows, key=lambda row: row["relative_error"])
    assert summary.worst[0].id == worst["id"]
    assert summary.worst[0].relative_error == pytest.approx(worst["relative_error"])
    for key, one in summary.classes.items():
        mine = [row for row in rows if str(row["class"]) == key]
        assert one.count == len(mine)
        total = sum(values_of(row)[0] for row in mine)
        np.testing.assert_allclose(one.heat, total, rtol=1e-4, atol=1e-4)
    text = page(summary, asked)
    assert text.count("data:image/png;base64,") >= 2 * 12 + 10
    assert "in/&lt;b&gt;.png" in text
    assert "&lt;digit 3&gt;" in text
    assert "<b>.png" not in text
    assert "<digit" not in text
    assert "http" not in text.replace("http-equiv", ""), "nothing is loaded from elsewhere"


def test_the_manifest_is_plain_json(job, tmp_path, write_images):
    write_images(tmp_path / "in", 1)
    baseline = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    folder, _ = run_parts(dataclasses.replace(job, baseline=baseline, target=(3,)), ["in"])
    settings = json.loads((folder.path / "manifest.json").read_text())["settings"]
    assert settings["target"] == [3]
    assert settings["baseline"]["image"].startswith("float32[1, 1, 8, 8] ")
    assert rows_of(folder)[0]["class"] == 3


def test_colour_photos_are_shown_small(job, tmp_path, model):
    """A map on 32 fields a side at most, whose sum is that of the attribution."""
    path = tmp_path / "mean.onnx"
    text = """(float[N, 3, 70, 50] image) => (float[N, 2] y) {
        m = GlobalAveragePool(image)  f = Flatten(m)  y = MatMul(f, w)
    }"""
    onnx.save(model(text, {"w": np.ones((3, 2), np.float32)}), path)
    pixels = np.random.default_rng(2).integers(0, 255, (90, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    asked = dataclasses.replace(
        job,
        model=path,
        model_sha256=hash_of_model(path, Model.load(path)),
        preprocessing=Preprocessing((70, 50)),
    )
    folder, parts = run_parts(asked, ["photo.jpg"])
    summary, [row] = summary_of(folder, parts), rows_of(folder)
    heat = summary.classes[str(row["class"])].heat
    assert heat.shape == (32, 23)
    assert heat.sum() == pytest.approx(row["score"] - row["baseline_score"], rel=1e-4)
    assert len(summary.worst[0].pictures) == 2

"""V1 and V2, REST and gRPC, by real clients: predictions and explanations are those of the library."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from serving_process import ServingProcess

import igonnx
from igonnx.models import digits

Images = NDArray[np.float32]


def png_of(image: NDArray[Any]) -> bytes:
    """A digit [1, 8, 8] in 0..1 as a PNG file of 16 grey levels' precision."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.rint(image[0] * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def test_v1_predict_gives_one_prediction_per_instance(
    server: ServingProcess, images: Images
) -> None:
    answer = server.post("/v1/models/digits:predict", {"instances": images[:3].tolist()})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"predictions"}
    expected = igonnx.Explainer(digits.load()).predict(images[:3])["logits"]
    np.testing.assert_allclose(answer.json["predictions"], expected, rtol=1e-5, atol=1e-5)


def test_v1_explain_gives_what_the_library_gives(
    server: ServingProcess, images: Images, explained: Any
) -> None:
    answer = server.explain(images[:4].tolist())
    assert answer.status == 200
    assert set(answer.json) == {"explanations", "method"}
    assert len(answer.json["explanations"]) == 4
    for index, one in enumerate(answer.json["explanations"]):
        assert set(one) == {
            "target", "score", "baseline_score", "steps", "delta", "completeness_error", "attribution",
        }  # fmt: skip
        np.testing.assert_allclose(
            one["attribution"], explained.values[index], rtol=1e-4, atol=1e-5
        )
        assert one["target"] == explained.target[index][0]
        assert one["score"] == pytest.approx(explained.scores[index], rel=1e-5)
        assert one["steps"] == 50


def test_v1_parameters_are_heeded(server: ServingProcess, images: Images) -> None:
    explainer = igonnx.Explainer(digits.load())
    found = server.explain(
        images[:2].tolist(), target=["three", 4], baseline=0.5, steps=20, rule="trapezoid"
    ).json
    expected = explainer.integrated_gradients(
        images[:2], target=[3, 4], baseline=0.5, steps=20, rule="trapezoid"
    )
    for index, one in enumerate(found["explanations"]):
        assert one["target"] == [3, 4][index]
        np.testing.assert_allclose(one["attribution"], expected.values[index], rtol=1e-4, atol=1e-5)
    refined = server.explain(images[:1].tolist(), tolerance=0.01).json["explanations"][0]
    assert refined["completeness_error"] <= 0.01
    assert refined["error_estimate"] <= 0.01
    saliency = server.explain(images[:1].tolist(), method="saliency").json
    np.testing.assert_allclose(
        saliency["explanations"][0]["attribution"],
        explainer.saliency(images[:1]).values[0],
        rtol=1e-4,
        atol=1e-5,
    )
    assert "completeness_error" not in saliency["explanations"][0]


def test_a_baseline_may_be_an_array_or_several(server: ServingProcess, images: Images) -> None:
    explainer = igonnx.Explainer(digits.load())
    array = server.explain(images[:1].tolist(), baseline=images[1:2].tolist()).json
    expected = explainer.integrated_gradients(images[:1], baseline=images[1:2])
    np.testing.assert_allclose(
        array["explanations"][0]["attribution"], expected.values[0], rtol=1e-4, atol=1e-5
    )
    several = server.explain(images[:1].tolist(), baseline=["black", "white"]).json
    expected = explainer.integrated_gradients(images[:1], baseline=["black", "white"])
    np.testing.assert_allclose(
        several["explanations"][0]["attribution"], expected.values[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("form", ["arrays", "png", "both"])
def test_an_image_comes_back_with_an_overlay(
    server: ServingProcess, images: Images, form: str
) -> None:
    answer = server.explain([b64(png_of(images[0])), b64(png_of(images[1]))], format=form)
    assert answer.status == 200, answer.body
    for one in answer.json["explanations"]:
        assert ("attribution" in one) == (form != "png")
        assert ("overlay" in one) == (form != "arrays")
    if form != "arrays":
        data = base64.b64decode(answer.json["explanations"][1]["overlay"]["b64"])
        with PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as overlay:
            assert (overlay.size, overlay.mode) == ((8, 8), "RGB")


def test_images_are_preprocessed_as_arrays_would_be(server: ServingProcess, images: Images) -> None:
    as_files = server.post(
        "/v1/models/digits:predict", {"instances": [{"image": b64(png_of(images[0]))}]}
    )
    rounded = np.rint(images[:1] * 255) / 255
    as_numbers = server.post("/v1/models/digits:predict", {"instances": rounded.tolist()})
    np.testing.assert_allclose(
        as_files.json["predictions"], as_numbers.json["predictions"], atol=1e-4
    )


def test_v1_lists_its_models(server: ServingProcess) -> None:
    names = {"digits", "digits-explain", "second", "second-explain"}
    assert set(server.request("GET", "/v1/models").json["models"]) == names
    assert server.request("GET", "/v1/models/second").json == {"name": "second", "ready": True}
    assert server.request("GET", "/v1/models/third").status == 404


def test_v2_over_http_by_tritonclient(
    server: ServingProcess, images: Images, explained: Any
) -> None:
    import tritonclient.http as triton

    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits-explain")
        metadata = client.get_model_metadata("digits-explain")
        assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
        assert metadata["outputs"][0] == {
            "name": "attribution_image", "datatype": "FP32", "shape": [-1, 1, 8, 8],
        }  # fmt: skip
        for binary in (True, False):
            given = triton.InferInput("image", [4, 1, 8, 8], "FP32")
            given.set_data_from_numpy(images[:4], binary_data=binary)
            wanted = [
                triton.InferRequestedOutput(name, binary_data=binary)
                for name in ("attribution_image", "score", "target", "steps")
            ]
            result = client.infer("digits-explain", [given], outputs=wanted, request_id="seven")
            assert result.get_response()["id"] == "seven"
            np.testing.assert_allclose(
                result.as_numpy("attribution_image"), explained.values, rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(result.as_numpy("score"), explained.scores, rtol=1e-5)
            assert result.as_numpy("target").tolist() == [
                list(target) for target in explained.target
            ]
            predicted = client.infer("digits", [given])
            assert predicted.as_numpy("logits").shape == (4, 10)


def test_v2_over_grpc_by_tritonclient(
    server: ServingProcess, images: Images, explained: Any
) -> None:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.get_model_metadata("digits").inputs[0].shape == [-1, 1, 8, 8]
        given = triton.InferInput("image", [4, 1, 8, 8], "FP32")
        given.set_data_from_numpy(images[:4])
        result = client.infer("digits-explain", [given])
        np.testing.assert_allclose(
            result.as_numpy("attribution_image"), explained.values, rtol=1e-4, atol=1e-5
        )
        assert client.infer("digits", [given]).as_numpy("logits").shape == (4, 10)
        asked = client.infer("digits-explain", [given], parameters={"target": "three", "steps": 10})
        assert asked.as_numpy("target").tolist() == [[3]] * 4
        assert asked.as_numpy("steps").tolist() == [10] * 4


def test_v2_images_are_a_bytes_tensor(server: ServingProcess, images: Images) -> None:
    import tritonclient.grpc as grpc_client
    import tritonclient.http as http_client

    files = np.array([png_of(images[0]), png_of(images[1])], dtype=object)
    for triton, port in ((http_client, server.port), (grpc_client, server.grpc_port)):
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            given = triton.InferInput("image", [2], "BYTES")
            given.set_data_from_numpy(files)
            result = client.infer(
                "digits-explain", [given], parameters={"format": "png", "steps": 20}
            )
            overlays = result.as_numpy("overlay")
            assert [data[:8] for data in overlays] == [b"\x89PNG\r\n\x1a\n"] * 2
            assert result.as_numpy("attribution_image") is None


def test_v2_targets_and_baselines_may_be_tensors(server: ServingProcess, images: Images) -> None:
    import tritonclient.http as triton

    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        given = triton.InferInput("image", [2, 1, 8, 8], "FP32")
        given.set_data_from_numpy(images[:2])
        target = triton.InferInput("target", [2], "INT64")
        target.set_data_from_numpy(np.array([1, 7]))
        baseline = triton.InferInput("baseline_image", [1, 1, 8, 8], "FP32")
        baseline.set_data_from_numpy(images[2:3])
        result = client.infer("digits-explain", [given, target, baseline])
    expected = igonnx.Explainer(digits.load()).integrated_gradients(
        images[:2], target=[1, 7], baseline=images[2:3]
    )
    np.testing.assert_allclose(
        result.as_numpy("attribution_image"), expected.values, rtol=1e-4, atol=1e-5
    )


def test_health_and_metrics(server: ServingProcess, images: Images) -> None:
    assert server.request("GET", "/").json == {"status": "alive"}
    assert server.request("GET", "/v2/health/live").json == {"live": True}
    assert server.request("GET", "/v2/health/ready").json == {"ready": True}
    before = server.metric('igonnx_requests_total{model="second",status="200",verb="explain"}')
    server.explain(images[:1].tolist(), name="second", steps=16)
    assert (
        server.metric('igonnx_requests_total{model="second",status="200",verb="explain"}')
        == before + 1
    )
    assert server.metric('igonnx_queue_length{model="second"}') == 0
    for name in (
        "steps_used",
        "completeness_error",
        "request_seconds",
        "queue_seconds",
        "batch_requests",
        "batch_rows",
    ):
        assert server.metric(f"igonnx_{name}_count") > 0, name
    assert server.metric("igonnx_model_info{") == 2


def test_the_log_is_one_json_object_a_line(server: ServingProcess, images: Images) -> None:
    server.explain(images[:1].tolist(), steps=12)
    line = server.lines()[-1]
    assert {"time", "level", "model", "verb", "status", "seconds", "waited", "together"} <= set(
        line
    )
    assert (line["status"], line["steps"]) == (200, [12])

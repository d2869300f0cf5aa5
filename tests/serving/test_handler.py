"""The handler without a server: how questions are joined, and models that are not the usual ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.cli.inputs import ImageOptions
from igonnx.errors import InputError
from igonnx.model import Model
from igonnx.models import digits
from igonnx.serving.handler import Handler, Serving
from igonnx.serving.limits import Limits
from igonnx.serving.refusals import RequestError
from igonnx.serving.running import find_models
from igonnx.serving.served import Served

Images = NDArray[np.float32]
MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture
def handler_of() -> Iterator[Callable[..., Handler]]:
    made = []

    def make(model: onnx.ModelProto, **options: Any) -> Handler:
        told = options.pop("told", None)
        handler = Handler(Model.load(model), Serving(**options), told=told)
        made.append(handler)
        return handler

    yield make
    for handler in made:
        handler.close(30)


def test_requests_at_the_same_time_are_explained_together_and_as_if_alone(
    handler_of: Callable[..., Handler], images: Images
) -> None:
    told: list[Served] = []
    handler = handler_of(digits.load(), workers=1, told=told.append)
    explainer = igonnx.Explainer(digits.load())

    async def ask() -> list[Any]:
        bodies: list[dict[str, Any]] = [
            {
                "instances": images[i : i + 1 + i % 3].tolist(),
                "parameters": {"target": i % 10, "baseline": baseline},
            }
            for i in range(12)
            for baseline in (None, 0.25, images[i + 20].tolist())
        ]
        answers = await asyncio.gather(*map(handler.explain_json, bodies))
        return list(zip(bodies, answers, strict=True))

    for body, answer in asyncio.run(ask()):
        given = body["parameters"]
        baseline = given["baseline"]
        expected = explainer.integrated_gradients(
            np.array(body["instances"], np.float32),
            target=given["target"],
            baseline=np.array(baseline, np.float32) if isinstance(baseline, list) else baseline,
        )
        found = np.stack([one["attribution"] for one in answer["explanations"]])
        np.testing.assert_allclose(found, expected.values, rtol=1e-4, atol=1e-5)
    assert max(served.together for served in told) > 3
    assert {served.status for served in told} == {200}


def test_different_questions_are_not_mixed(
    handler_of: Callable[..., Handler], images: Images
) -> None:
    handler = handler_of(digits.load(), workers=1)
    explainer = igonnx.Explainer(digits.load())
    asked = [
        ({"steps": 10}, explainer.integrated_gradients(images[:1], steps=10)),
        ({"steps": 20}, explainer.integrated_gradients(images[:1], steps=20)),
        ({"method": "saliency"}, explainer.saliency(images[:1])),
        ({"method": "saliency", "target": 3}, explainer.saliency(images[:1], target=3)),
        ({"baseline": "white"}, explainer.integrated_gradients(images[:1], baseline="white")),
        (
            {"baseline": ["black", "white"]},
            explainer.integrated_gradients(images[:1], baseline=["black", "white"]),
        ),
        (
            {"method": "gradient-shap", "samples": 5, "seed": 3},
            explainer.gradient_shap(images[:1], samples=5, seed=3),
        ),
    ]

    async def ask() -> list[Any]:
        bodies = [
            {"instances": images[:1].tolist(), "parameters": parameters} for parameters, _ in asked
        ]
        return await asyncio.gather(*map(handler.explain_json, bodies * 2))

    answers = asyncio.run(ask())
    for answer, (_, expected) in zip(answers, asked * 2, strict=True):
        np.testing.assert_allclose(
            answer["explanations"][0]["attribution"], expected.values[0], rtol=1e-4, atol=1e-5
        )


def test_inputs_that_count_no_examples_are_not_joined(
    handler_of: Callable[..., Handler], model: MakeModel
) -> None:
    made = model("(float[N, 3] x, float scale) => (float[N, 3] y) { y = Mul(x, scale) }")
    handler = handler_of(made, workers=1)

    async def ask() -> list[dict[str, NDArray[Any]]]:
        return await asyncio.gather(
            *[
                handler.explain_tensors(
                    {"x": np.ones((2, 3), np.float32), "scale": np.array(scale, np.float32)},
                    {"target": 1},
                )
                for scale in (1.0, 2.0, 3.0)
            ]
        )

    for scale, answer in zip((1.0, 2.0, 3.0), asyncio.run(ask()), strict=True):
        np.testing.assert_allclose(answer["attribution_x"], [[0, scale, 0]] * 2, atol=1e-6)


def test_several_inputs_have_several_attributions(
    handler_of: Callable[..., Handler], model: MakeModel
) -> None:
    made = model("(float[N, 2] a, float[N, 2] b) => (float[N, 2] y) { y = Mul(a, b) }")
    handler = handler_of(made)
    body = {
        "instances": [{"a": [1.0, 2.0], "b": [3.0, 4.0]}],
        "parameters": {"target": 1, "baseline": {"a": 1.0}},
    }
    (one,) = asyncio.run(handler.explain_json(body))["explanations"]
    assert set(one["attribution"]) == {"a", "b"}
    total = sum(float(values.sum()) for values in one["attribution"].values())
    assert total == pytest.approx(one["score"] - one["baseline_score"], rel=1e-5)
    with pytest.raises(RequestError, match="give each instance as an object"):
        asyncio.run(handler.explain_json({"instances": [[1.0, 2.0]]}))


@pytest.mark.parametrize(
    ("limits", "parameters", "instances", "status"),
    [
        ({"examples": 2}, {}, 3, 413),
        ({"steps": 20}, {"steps": 21}, 1, 400),
        ({"samples": 5}, {"noise": "smoothgrad", "noise_samples": 6}, 1, 400),
        ({"gradients": 99}, {}, 2, 413),
        ({"values": 63}, {}, 1, 413),
    ],
)
def test_limits(
    handler_of: Callable[..., Handler],
    images: Images,
    limits: Mapping[str, int],
    parameters: Mapping[str, Any],
    instances: int,
    status: int,
) -> None:
    handler = handler_of(digits.load(), limits=Limits(**limits))
    body = {"instances": images[:instances].tolist(), "parameters": parameters}
    with pytest.raises(RequestError) as refused:
        asyncio.run(handler.explain_json(body))
    assert refused.value.status == status


@pytest.mark.parametrize(
    "limits", [{"body": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"waiting": -1}]
)
def test_limits_that_are_none_are_refused(limits: Mapping[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(limits))):
        Limits(**limits)


def test_a_cancelled_task_stops_its_work(
    handler_of: Callable[..., Handler], images: Images
) -> None:
    told: list[Served] = []
    handler = handler_of(
        digits.load(), workers=1, limits=Limits(samples=10**6, gradients=10**9), told=told.append
    )
    endless = {"steps": 1000, "noise": "smoothgrad", "noise_samples": 100_000}

    async def ask() -> Any:
        leaving = asyncio.create_task(
            handler.explain_json({"instances": images[:1].tolist(), "parameters": endless})
        )
        await asyncio.sleep(0.3)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await handler.explain_json({"instances": images[:1].tolist()})

    assert len(asyncio.run(ask())["explanations"]) == 1
    assert [served.status for served in told] == [499, 200]


def test_a_closed_handler_refuses(handler_of: Callable[..., Handler], images: Images) -> None:
    handler = handler_of(digits.load())
    handler.close()
    with pytest.raises(RequestError) as refused:
        asyncio.run(handler.predict_json({"instances": images[:1].tolist()}))
    assert (refused.value.status, refused.value.retry_after) == (503, 1)


def test_colour_images_need_leave_to_become_grey(handler_of: Callable[..., Handler]) -> None:
    import base64
    import io

    import PIL.Image

    file = io.BytesIO()
    PIL.Image.new("RGB", (20, 20), (255, 0, 0)).save(file, "PNG")
    body = {"instances": [{"b64": base64.b64encode(file.getvalue()).decode()}]}
    with pytest.raises(RequestError, match="colour image"):
        asyncio.run(handler_of(digits.load()).predict_json(body))
    grey = handler_of(digits.load(), images=ImageOptions(grey=True))
    assert len(asyncio.run(grey.predict_json(body))["predictions"]) == 1


def test_models_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_models(tmp_path / "nothing", None)
    with pytest.raises(InputError, match="no ONNX files"):
        find_models(tmp_path, None)
    (tmp_path / "a.onnx").touch()
    assert find_models(tmp_path, "other") == {"other": tmp_path / "a.onnx"}
    assert find_models(tmp_path / "a.onnx", None) == {"a": tmp_path / "a.onnx"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx").touch()
    assert set(find_models(tmp_path, None)) == {"a", "b"}
    with pytest.raises(InputError, match="--name"):
        find_models(tmp_path, "other")
    (tmp_path / "b.onnx").touch()
    with pytest.raises(InputError, match="two models"):
        find_models(tmp_path, None)
    for name in ("x-explain", "a/b", "", "ä b"):
        with pytest.raises(InputError, match=r"cannot be served|does not exist"):
            find_models(tmp_path / "a.onnx", name or "/")

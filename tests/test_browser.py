"""The page of examples/browser in headless Chromium: what it computes and draws is what Python does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import javascript_tools
import numpy as np
import pytest
from skimage.io import imread

import igonnx
from igonnx.images import Preprocessing, read_image
from igonnx.models import digits, efficientnet_lite0
from igonnx.visual import render

# Rounding decides which way a ReLU near its kink goes, at single points of the path: at 50 steps the same file differs
# by 1e-3 to 2e-3 from itself between optimisation levels of one runtime. More points even that out.
STEPS = {"digits": 20, "photos": 200}
LARGE = Preprocessing((672, 672))  # at which the page shows photos


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module", params=["digits", pytest.param("photos", marks=pytest.mark.slow)])
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def page(name, tmp_path_factory) -> Path:
    """A folder with the page as it is built."""
    folder = tmp_path_factory.mktemp("page")
    build = javascript_tools.page_builder().build
    javascript_tools.installing(lambda: build(folder, [name], STEPS[name]))
    return folder


@pytest.fixture(scope="module")
def about(page):
    return json.loads((page / "models" / "models.json").read_text())["models"][0]


@pytest.fixture(scope="module")
def address(page) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(page))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def seen(name, address, tmp_path_factory) -> Path:
    """A folder with what drive_page.mjs has written down."""
    folder = tmp_path_factory.mktemp("seen")
    arguments = (address, folder, name, javascript_tools.chromium())
    javascript_tools.node("drive_page.mjs", *arguments, timeout=600)
    return folder


@pytest.fixture(scope="module")
def told(seen):
    return json.loads((seen / "report.json").read_text())


@pytest.fixture(scope="module")
def preprocessing(about) -> Preprocessing:
    _, channels, height, width = about["shape"]
    numbers = {"mean": tuple(about["mean"]), "std": tuple(about["std"])}
    return Preprocessing((height, width), channels=channels, **numbers)


@pytest.fixture(scope="module")
def explainer(name):
    model = digits.load() if name == "digits" else efficientnet_lite0.build()
    return igonnx.Explainer(model, apply="softmax")


# What is explained in each step of drive_page.mjs: a sample, and the shade of the baseline.
EXPLAINED = {
    "digits": {
        "first": ("digit_0", 0.0),
        "another_picture": ("digit_3", 0.0),
        "another_baseline": ("digit_3", 1.0),
        "another_class": ("digit_3", 1.0),
        "dropped": ("digit_7", 1.0),
    },
    "photos": {"strength": ("chelsea", 0.0)},
}


def test_explanations_are_pythons(name, page, seen, told, about, explainer, preprocessing):
    assert [step["name"] for step in told["steps"]] == list(EXPLAINED[name])
    for step in told["steps"]:
        sample, shade = EXPLAINED[name][step["name"]]
        x = preprocessing.apply(read_image(page / "samples" / f"{sample}.png"))
        target = int(step["target"])
        expected = explainer.integrated_gradients(
            x, baseline=preprocessing.constant(shade), target=target, steps=STEPS[name]
        )
        values = np.load(seen / f"{step['name']}.npy")
        assert values.shape == x.shape
        difference = np.linalg.norm(values - expected.values)
        assert difference <= 1e-3 * np.linalg.norm(expected.values), step["name"]
        assert float(step["delta"]) == pytest.approx(expected.delta[0], abs=2e-4)
        scores = explainer.predict(x)[about["output"]][0]
        assert step["classes"][0] == about["classes"][int(scores.argmax())]
        assert step["answer"].startswith(step["classes"][0])
        assert target == int(scores.argmax()) or step["name"] == "another_class"


def test_pictures_are_pythons(name, page, seen, told, preprocessing):
    shown = {step["name"]: ("absolute", 1.0, 0.85, step["name"]) for step in told["steps"]}
    if name == "photos":
        shown |= {
            "threshold": ("absolute", 0.6, 0.7, "strength"),
            "signs": ("all", 1.0, 0.7, "strength"),
        }
    for picture, (sign, share, opacity, step) in shown.items():
        values = np.load(seen / f"{step}.npy")
        sample = read_image(page / "samples" / f"{EXPLAINED[name][step][0]}.png")
        fitted = (LARGE if name == "photos" else preprocessing).fit(sample)
        expected = render(values, fitted, sign=sign, share=share, opacity=opacity)
        drawn = imread(seen / f"{picture}.png")[..., :3]
        assert drawn.shape == expected.shape
        differences = np.abs(drawn.astype(int) - expected.astype(int))
        # A pixel on the edge of the threshold may fall on either side of it.
        assert np.quantile(differences, 0.999) <= 3, picture


def test_nothing_goes_wrong_and_nothing_leaves_the_page(name, told):
    assert told["errors"] == []
    assert all(step["isolated"] for step in told["steps"])  # so that threads can be used
    if name == "digits":
        assert told["failure"].endswith("this file is not a picture that the browser can read")
    else:
        assert told["widest"] <= 390  # pixels of a phone: nothing to scroll sideways

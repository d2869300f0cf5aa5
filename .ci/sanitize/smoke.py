"""What the sanitizers watch: several threads explain at once on shared explainers, with errors in between.

Small models, few rows: a sanitizer makes everything ten times slower. Results are compared with those of a lone call.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

import igonnx
from igonnx import _core

CALLERS = 4
ROUNDS = 6


def network(*, fails_late: bool = False) -> onnx.ModelProto:
    """Convolutions with activations in between, as plugin operators like them; x [N, 3, 16, 16] -> y [N, 5].

    `fails_late`: an index that is within bounds only while x is below 100 everywhere.
    """
    rng = np.random.default_rng(0)
    tail = "y = MatMul(f, w)"
    if fails_late:
        tail = """scores = MatMul(f, w)
            top = ReduceMax<keepdims = 0>(x)
            whole = Cast<to = 7>(top)
            index = Div(whole, hundred)
            nothing = Gather(zero, index)
            y = Add(scores, nothing)"""
    text = f"""<ir_version: 8, opset_import: ["": 17]> network (float[N, 3, 16, 16] x) => (float[N, 5] y) {{
        a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, k1)
        b = Relu(a)
        c = Conv<pads = [1, 1, 1, 1]>(b, k2)
        d = Clip(c, low, high)
        m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
        f = Flatten(m)
        {tail}
    }}"""
    weights = {
        "k1": rng.normal(size=(8, 3, 3, 3)),
        "k2": rng.normal(size=(8, 8, 3, 3)) / 4,
        "w": rng.normal(size=(128, 5)) / 8,
        "low": np.array(0.0),
        "high": np.array(6.0),
        "zero": np.zeros(1),
    }
    model = onnx.parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array(100), "hundred"))
    return model


def images(count: int, seed: int) -> np.ndarray:
    """`count` random inputs of the network."""
    return np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(np.float32)


def explain_together(explainer: igonnx.Explainer) -> None:
    """Callers with requests of several sizes and batches; each gets what it gets alone."""
    cases = [(images(1 + seed % 3, seed), 5 + 4 * seed) for seed in range(CALLERS)]

    def explain(case: tuple[np.ndarray, int]) -> np.ndarray:
        x, steps = case
        return np.asarray(explainer.integrated_gradients(x, target=1, steps=steps).values)

    alone = [explain(case) for case in cases]
    with ThreadPoolExecutor(CALLERS) as pool:
        together = list(pool.map(explain, cases * ROUNDS))
    for got, want in zip(together, itertools.cycle(alone), strict=False):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def mask_together(explainer: igonnx.Explainer) -> None:
    """Callers whose masked inputs share batches; features are common to all examples, or each has its own."""
    own = np.random.default_rng(0).integers(0, 5, size=(2, 1, 16, 16))
    cases = [
        lambda: explainer.occlusion(images(1, 0), target=1, window=(3, 5, 4), strides=(3, 3, 4)),
        lambda: explainer.feature_ablation(images(2, 1), target=1, feature_mask=own),
        lambda: explainer.feature_permutation(images(2, 1), target=1, feature_mask=own[:1]),
    ]
    alone = [np.asarray(case().values) for case in cases]
    with ThreadPoolExecutor(CALLERS) as pool:
        together = list(pool.map(lambda case: np.asarray(case().values), cases * ROUNDS))
    for got, want in zip(together, itertools.cycle(alone), strict=False):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def fail_in_between(explainer: igonnx.Explainer) -> None:
    """Some callers' models fail while they run, some callers stop their run, the others are not disturbed."""
    x = images(1, 0)
    want = np.asarray(explainer.integrated_gradients(x, target=0, steps=12).values)

    def stop(done: int, _total: int) -> None:
        raise InterruptedError(done)

    def call(number: int) -> None:
        if number % 3 == 0:
            got = explainer.integrated_gradients(x, target=0, steps=12).values
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
        elif number % 3 == 1:
            # the forward pass at x is fine; the path begins where the model fails
            expect(
                igonnx.EngineError,
                lambda: explainer.integrated_gradients(x, baseline=150.0, target=0, steps=12),
            )
        else:
            expect(
                InterruptedError,
                lambda: explainer.integrated_gradients(x, target=0, steps=12, progress=stop),
            )

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(call, range(9 * CALLERS)))


def expect(error: type[BaseException], body: object) -> None:
    """Call `body`, which must raise `error`."""
    try:
        body()  # type: ignore[operator]
    except error:
        return
    raise SystemExit(f"{error.__name__} was expected")


def load_together() -> None:
    """Sessions are made in several threads at once."""

    def explain(seed: int) -> None:
        igonnx.Explainer(network(), threads=1).integrated_gradients(images(1, seed), steps=3)

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(explain, range(2 * CALLERS)))


def refuse_bad_arrays() -> None:
    """Models and arrays that the engine refuses."""
    expect(igonnx.EngineError, lambda: _core.Session(b"no model", None, 1, [], "bytes"))
    explainer = igonnx.Explainer(network(), threads=1)
    expect(
        igonnx.InputError, lambda: explainer.integrated_gradients(np.zeros((1, 3, 16), np.float32))
    )


def main(thread_counts: list[int]) -> None:
    """Run everything, for each number of threads per operator."""
    for threads in thread_counts:
        explain_together(igonnx.Explainer(network(), threads=threads, batch_size=3))
        explain_together(igonnx.Explainer(network(), threads=threads))
        mask_together(igonnx.Explainer(network(), threads=threads, batch_size=3))
        fail_in_between(igonnx.Explainer(network(fails_late=True), threads=threads, batch_size=4))
    load_together()
    refuse_bad_arrays()
    print(
        f"smoke test passed on onnxruntime {_core.runtime_version()}, Python {sys.version.split()[0]}"
    )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1, 2])

"""Beyond images: what the tutorials say of tables, text and series, done.

Integrated Gradients ask for a differentiable model and a baseline, not for pixels. Three models small enough to read:
the stopping distance of a car (a table; physics is the model), the mood of a review (text, explained at the embedding
of its words), and an alarm that a pulse sets off (a series).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import photos
from numpy.typing import NDArray
from onnx import numpy_helper, parser

import igonnx

STOPPING = """
stopping (float[n, 4] car) => (float[n, 1] metres)
<float kmh_per_ms = {3.6}, float twice_g = {19.62}>
{
    kmh, reaction, grip, slope = Split <axis = 1, num_outputs = 4> (car)
    speed = Div (kmh, kmh_per_ms)
    thinking = Mul (speed, reaction)
    squared = Mul (speed, speed)
    friction = Add (grip, slope)
    slowing = Mul (friction, twice_g)
    braking = Div (squared, slowing)
    metres = Add (thinking, braking)
}"""

# A word has a mood, and does something to that of the next word: "very" doubles it, "not" turns it around.
WORDS = {
    "great": (2, 0),
    "wonderful": (3, 0),
    "good": (1.5, 0),
    "slow": (-1, 0),
    "very": (0, 1),
    "not": (0, -2),
}
REVIEW = "a great cast and wonderful music , but the plot is not good and the end is very slow"
MOOD = """
mood (int64[n, t] words) => (float[n, 1] mood)
<int64[1] time = {1}, int64[1] minus_one = {-1}, int64[6] first = {0, 1, 0, 0, 0, 0}, int64[1] zero = {0},
 float one = {1}>
{
    embedded = Gather (embedding, words)
    own, on_next = Split <axis = 2, num_outputs = 2> (embedded)
    cut = Slice (on_next, zero, minus_one, time)
    from_before = Pad (cut, first)
    factor = Add (from_before, one)
    moods = Mul (own, factor)
    mood = ReduceSum <keepdims = 0> (moods, time)
}"""

ALARM = """
alarm (float[n, 1, t] signal) => (float[n, 1] alarm)
<int64[1] time = {2}>
{
    likeness = Conv <pads = [12, 12]> (signal, pulse)
    above = Relu (likeness)
    alarm = ReduceMax <keepdims = 0> (above, time)
}"""


def model(text: str, **weights: NDArray[np.float32]) -> onnx.ModelProto:
    """A model written down in ONNX's own notation, with these weights."""
    made = parser.parse_model('<ir_version: 9, opset_import: ["": 18]>' + text)
    made.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    return made


def explain_table(folder: Path, steps: int) -> None:
    """Why one car needs more than a hundred metres to stop, and another one less than thirty."""
    usual = np.array([[50, 1.0, 0.7, 0.0]], np.float32)
    car = np.array([[100, 1.5, 0.5, -0.05]], np.float32)
    result = igonnx.Explainer(model(STOPPING)).integrated_gradients(
        car, baseline=usual, steps=steps
    )
    figure = result.plot_waterfall(
        names=["speed, km/h", "reaction, s", "grip", "slope"],
        data=car[0],
        title="Why it takes so long to stop",
        subtitle="metres, from 50 km/h on a dry level road, with one second to react",
    )
    photos.save(figure, folder / "table.png")


def explain_text(folder: Path, steps: int) -> None:
    """Which words make the mood of a review: "not" does, and turns what follows around."""
    tokens = REVIEW.split()
    vocabulary = sorted(set(tokens))
    embedding = np.array([WORDS.get(word, (0, 0)) for word in vocabulary], np.float32)
    words = np.array([[vocabulary.index(token) for token in tokens]])
    result = igonnx.Explainer(model(MOOD, embedding=embedding)).integrated_gradients(
        words, steps=steps
    )
    print(result.text_terminal(tokens))
    page = folder / "text.html"
    page.write_text(
        f"<!doctype html><meta charset='utf-8'>{result.text_html(tokens)}", encoding="utf-8"
    )
    print(f"wrote {page}")


def explain_series(folder: Path, steps: int) -> None:
    """Which moments set off an alarm that knows the shape of a pulse."""
    shape = np.sin(np.linspace(0, 2 * np.pi, 25, dtype=np.float32))
    signal = 0.6 * np.sin(np.arange(240) / 30) + np.random.default_rng(4).normal(0, 0.15, 240)
    signal[150:175] += 1.5 * shape
    inputs = signal.astype(np.float32)[None, None]
    explainer = igonnx.Explainer(model(ALARM, pulse=shape[None, None]))
    result = explainer.integrated_gradients(inputs, steps=steps)
    figure = result.plot_time_series(
        inputs[0], title="What set off the alarm", time_label="seconds"
    )
    photos.save(figure, folder / "series.png")


def main(argv: Sequence[str] | None = None) -> None:
    """Explain a table, a text and a series."""
    options = photos.command_line(__file__, __doc__, argv, photo=None, steps=100)
    explain_table(options.output, options.steps)
    explain_text(options.output, options.steps)
    explain_series(options.output, options.steps)


if __name__ == "__main__":
    main()

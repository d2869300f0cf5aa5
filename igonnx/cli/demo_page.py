"""The page that `igonnx demo` writes: one file of HTML beside its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from igonnx.cli.report import Row, percent

if TYPE_CHECKING:
    from igonnx.attribution import Path

__all__ = ["page"]


def page(rows: Sequence[Row], paths: Sequence[Path]) -> str:
    """Write the page for these examples; each has its picture `<example>.png` in the same folder."""
    cards = "\n".join(_card(row, path) for row, path in zip(rows, paths, strict=True))
    gradients = sum(row.steps for row in rows)
    worst = percent(max(row.relative_error for row in rows))
    return f"{_HEAD}{_INTRODUCTION}{cards}\n{_ending(gradients, worst)}"


def _card(row: Row, path: Path) -> str:
    """Write one example: its picture, its numbers in a sentence, its curve."""
    name = escape(row.example)
    before = percent(row.baseline_score)
    sentence = (
        f"The photo <b>{name}</b> is <b>{escape(row.label)}</b> to the model, with a probability of "
        f"{percent(row.score)}; it is {before} for a black image. {row.steps} gradients along the "
        f"way explain the difference, but for a completeness error of {percent(row.relative_error)}."
    )
    return f"""<article id="{name}">
<img src="{name}.png" alt="{name}: photo, where the score comes from, each pixel's contribution">
<div class="facts"><p>{sentence}</p>{_curve(path)}</div>
</article>"""


def _curve(path: Path) -> str:
    """Draw the score along the path from black to the photo, as an SVG."""
    width, height, pad = 220, 64, 4
    highest = max(float(np.max(path.score)), 1e-12)
    points = " ".join(
        f"{pad + alpha * (width - 2 * pad):.1f},"
        f"{height - pad - max(score, 0.0) / highest * (height - 2 * pad):.1f}"
        for alpha, score in zip(path.alpha, path.score, strict=True)
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="probability from the black image to the photo"><polyline points="{points}" '
        'fill="none" stroke="#d6381e" stroke-width="2" stroke-linejoin="round"/></svg>'
        "<figcaption>probability, from black to the photo</figcaption></figure>"
    )


def _ending(gradients: int, worst: str) -> str:
    return f"""<section>
<h2>What was computed</h2>
<p>Integrated Gradients (Sundararajan, Taly and Yan, 2017) on EfficientNet-Lite0, a classifier of 1000
ImageNet classes, inside ONNX Runtime. The path starts at a black image. Steps were added where the gradient
changes until each explanation added up within 1 %: {gradients} gradients for the four photos, the largest error
{escape(worst)}.</p>
<p>Your own model and photo:</p>
<pre>igonnx explain model.onnx photo.jpg -o photo_explained.png --apply softmax --tolerance 0.01</pre>
</section>
</main>
</body>
</html>
"""


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>igonnx: four photos explained</title>
<style>
:root { color-scheme: light; --ink: #1d2129; --quiet: #6b7280; --line: #e5e7eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: var(--ink); font: 16px/1.6 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 20px 72px; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 12px; letter-spacing: -0.02em; }
h2 { font-size: 1.25rem; margin: 0 0 12px; }
p { max-width: 70ch; margin: 0 0 14px; }
ul { max-width: 70ch; padding-left: 20px; margin: 0 0 36px; }
li { margin-bottom: 6px; }
article, section { background: #fff; border: 1px solid var(--line); border-radius: 14px;
  padding: 24px 28px; margin-bottom: 28px; }
article img { width: 100%; height: auto; display: block; margin-bottom: 12px; }
.facts p { margin: 0; flex: 1 1 24rem; }
.facts { display: flex; flex-wrap: wrap; gap: 16px 40px; align-items: center;
  justify-content: space-between; border-top: 1px solid var(--line); padding-top: 16px; }
figure { margin: 0; }
figcaption { color: var(--quiet); font-size: 0.78rem; text-align: right; }
svg { display: block; border-bottom: 1px solid var(--line); }
pre { background: #f6f7f9; border-radius: 8px; padding: 12px 16px; overflow-x: auto; margin: 0; }
</style>
</head>
"""

_INTRODUCTION = """<body>
<main>
<h1>Why does the model say so?</h1>
<p>Four photos were shown to an image classifier. For the class that it finds most likely, Integrated
Gradients tells how much every pixel contributed to its probability, compared with a black image. The class
is the model's own answer, right or wrong: nothing in the astronaut's portrait is a bobsled.</p>
<ul>
<li><b>Left:</b> the photo, cropped and scaled as the model sees it.</li>
<li><b>Middle:</b> where the probability comes from. Bright regions contribute most, for the class or
against it.</li>
<li><b>Right:</b> the contribution of each pixel, red for the class and blue against it. They add up to the
change of the probability from black to the photo; how exactly is the <b>completeness error</b>.</li>
</ul>
"""

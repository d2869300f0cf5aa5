"""The page of a run: one file of HTML, its pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from igonnx.scale.job import Job
from igonnx.scale.pictures import png, thumbnail
from igonnx.scale.summary import DECADES, ClassSum, Shown, Summary
from igonnx.visual.colours import diverging

__all__ = ["page"]

CLASSES = 24  # whose mean attribution is shown


def page(summary: Summary, job: Job) -> str:
    """Write the page."""
    sections = [
        _counts(summary, job),
        _grid(summary.samples),
        _convergence(summary),
        _classes(list(summary.classes.values()), summary.rows),
        _errors(summary),
    ]
    return _HEAD + "\n".join(section for section in sections if section) + _END


def _counts(summary: Summary, job: Job) -> str:
    seconds = summary.seconds.get("explain", 0.0)
    options = ", ".join(f"{name} {value}" for name, value in job.options.items())
    facts = {
        "rows explained": f"{summary.rows:,}",
        "errors": f"{summary.failed:,}",
        "gradients": f"{summary.steps:,}",
        "beyond the tolerance": f"{summary.unconverged:,}" if "tolerance" in job.options else "",
        "rows per second and actor": f"{summary.rows / seconds:,.3g}" if seconds else "",
    }
    cards = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for name, value in facts.items()
        if value
    )
    return f"""<h1>{escape(job.model.name)}: a data set explained</h1>
<p>{escape(job.method.replace("_", " "))}{escape(f" ({options})" if options else "")}. Model
<code>{escape(job.model_sha256[:16])}</code>. What is told here is in <code>parts/</code> and <code>errors/</code>, row
by row.</p>
<div class="facts">{cards}</div>"""


def _convergence(summary: Summary) -> str:
    """How far explanations are from adding up: all as a histogram, the worst one by one."""
    if not summary.worst:
        return ""
    most = max(summary.histogram) or 1
    edges = ["below", *(f"{edge:.0e}" for edge in DECADES)]
    bars = "".join(
        f'<tr><td>{edge}</td><td><i style="width:{220 * count / most:.0f}px"></i>'
        f"</td><td>{count:,}</td></tr>"
        for edge, count in zip(edges, summary.histogram, strict=True)
    )
    rows = "".join(
        f"<tr><td>{_images(one.pictures)}</td><td>{escape(one.id)}</td><td>{escape(one.class_name)}"
        f"</td><td>{one.score:.4g}</td><td>{one.relative_error:.2e}</td><td>{one.steps:,}</td></tr>"
        for one in summary.worst[:12]
    )
    return f"""<section><h2>How exactly explanations add up</h2>
<p>The completeness error is what the contributions of a row miss of the change of its score, as a share of that.</p>
<table class="bars"><tr><th>from</th><th></th><th>rows</th></tr>{bars}</table>
<h3>The worst</h3>
<table class="worst"><tr><th></th><th>row</th><th>class</th><th>score</th><th>error</th><th>gradients</th></tr>
{rows}</table></section>"""


def _grid(samples: Sequence[Shown]) -> str:
    shown = [one for one in samples if one.pictures][:24]
    if not shown:
        return ""
    figures = "".join(
        f"<figure>{_images(one.pictures)}<figcaption>{escape(one.class_name)}<br>{escape(one.id)}"
        "</figcaption></figure>"
        for one in shown
    )
    return f"""<section><h2>Some of the rows</h2>
<p>The input, and where its score comes from.</p><div class="grid">{figures}</div></section>"""


def _classes(classes: Sequence[ClassSum], rows: int) -> str:
    """The classes by how often they were explained, with the mean of their attributions."""
    if not classes:
        return ""
    chosen = sorted(classes, key=lambda one: (-one.count, one.name))[:CLASSES]
    figures = "".join(
        f"<figure>{_mean_map(one)}<figcaption>{escape(one.name)}<br>{one.count:,} rows, "
        f"{one.count / rows:.0%}, mean score {one.score / one.count:.3g}</figcaption></figure>"
        for one in chosen
    )
    more = f" The {CLASSES} most frequent of {len(classes):,}." if len(classes) > CLASSES else ""
    return f"""<section><h2>Classes</h2>
<p>The mean attribution of each: red speaks for the class, blue against it.{more}</p>
<div class="grid">{figures}</div></section>"""


def _mean_map(one: ClassSum) -> str:
    if one.heat is None:
        return ""
    mean = one.heat / one.count
    scale = float(np.abs(mean).max()) or 1.0
    colours = np.rint(255 * diverging(np.asarray(mean / scale, dtype=np.float64)))
    return _images([png(thumbnail(np.asarray(colours, dtype=np.uint8)))])


def _errors(summary: Summary) -> str:
    if not summary.failed:
        return ""
    counts = ", ".join(f"{count:,} to {stage}" for stage, count in summary.reasons.items())
    rows = "".join(
        f"<tr><td>{escape(known)}</td><td>{escape(stage)}</td><td>{escape(reason)}</td></tr>"
        for known, stage, reason in summary.errors
    )
    return f"""<section><h2>Errors</h2>
<p>{summary.failed:,} rows could not be explained: {escape(counts)}.</p>
<table><tr><th>row</th><th>at</th><th>why</th></tr>{rows}</table></section>"""


def _images(pictures: Iterable[bytes]) -> str:
    return "".join(
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" alt="">'
        for data in pictures
    )


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>igonnx: a data set explained</title>
<style>
:root { color-scheme: light; --ink: #1d2129; --quiet: #6b7280; --line: #e5e7eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 20px 72px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 10px; letter-spacing: -0.02em; }
h2 { font-size: 1.2rem; margin: 0 0 8px; }
h3 { font-size: 1rem; margin: 22px 0 6px; }
p { max-width: 76ch; margin: 0 0 14px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 14px; padding: 22px 26px;
  margin-top: 24px; overflow-x: auto; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; }
.facts div { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: 12px 18px; }
.facts b { display: block; font-size: 1.35rem; }
.facts span, figcaption { color: var(--quiet); font-size: 0.78rem; }
.grid { display: flex; flex-wrap: wrap; gap: 18px; }
figure { margin: 0; max-width: 300px; }
figcaption { overflow-wrap: anywhere; }
img { border-radius: 4px; margin-right: 4px; vertical-align: middle; image-rendering: pixelated; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 600; }
th, td { padding: 4px 14px 4px 0; vertical-align: middle; overflow-wrap: anywhere; }
.bars td { padding: 1px 12px 1px 0; font-size: 0.85rem; }
.bars i { display: block; height: 11px; background: #64748b; border-radius: 2px; }
.worst img { height: 52px; }
</style>
</head>
<body>
<main>
"""

_END = """
</main>
</body>
</html>
"""

"""What docs/scale.md computes from what was measured."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.scale import FILES, Run, needed, written

PHOTO = Run(
    name="EfficientNet-Lite0",
    actors=1,
    threads=1,
    steps=50,
    rows=32,
    errors=0,
    killed=0,
    seconds=90.0,
    steady=0.5,
    read=0.02,
    explain=2.0,
    write=0.01,
    size=600_000.0,
)


def test_what_many_images_take():
    need = needed(PHOTO, 1000, images=10_000_000, gpus=100, steps=50)
    rate = 100 / (50 / 1000 + 0.01)  # rows a second: explained, then written
    assert need.rows_per_second == pytest.approx(rate)
    assert need.hours == pytest.approx(10_000_000 / rate / 3600)
    assert need.reading_cores == pytest.approx(rate * 0.02)
    assert need.writing == pytest.approx(rate * 600_000 / 1e9)


def test_the_page_says_what_was_not_measured():
    two = dataclasses.replace(PHOTO, actors=2, steady=0.9)
    files = dataclasses.replace(PHOTO, name=FILES, steps=1)
    text = written([PHOTO, two, files], {"machine": "a machine", "versions": "ray 2"})
    assert "EfficientNet-Lite0: **1.80 times** the rows per second" in text
    assert "No GPU was measured" in text
    assert "25 gradients of EfficientNet-Lite0 a second" in text
    assert "5,556 core hours" in text

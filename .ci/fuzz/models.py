"""Fuzz `igonnx.Explainer`: whatever the bytes, it is made, or there is an `igonnx.Error` of one line."""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["igonnx"]):
    from igonnx.errors import Error
    from igonnx.explainer import Explainer

from mutation import mutated


def _model(data: bytes, most: int, seed: int) -> bytes:
    """Another model; now and then, other bytes."""
    if seed % 8 == 0:
        return bytes(atheris.Mutate(data, most))
    return mutated(data, most, seed)


def _explainer(data: bytes) -> None:
    try:
        Explainer(data)
    except Error as error:
        if "\n" in str(error):
            raise RuntimeError("a message of several lines") from error


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, _explainer, custom_mutator=_model)
    atheris.Fuzz()

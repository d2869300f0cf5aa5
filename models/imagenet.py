"""The names of the 1000 ImageNet (ILSVRC 2012) classes, in the order every ImageNet model uses."""

from __future__ import annotations

from importlib import resources

__all__ = ["class_names"]


def class_names() -> list[str]:
    """Return 1000 distinct names; element i names class i.

    A name is the first WordNet lemma of the class's synset; where two classes share it, a second
    lemma or, where there is none, what the thing is tells them apart.
    """
    text = resources.files("igonnx.models").joinpath("imagenet_classes.txt").read_text("utf-8")
    return text.splitlines()

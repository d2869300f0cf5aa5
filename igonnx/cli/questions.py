"""From what is written on the command line to what is asked: targets and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igonnx.cli.inputs import Given, read_baseline
from igonnx.cli.labels import parse_target
from igonnx.errors import InputError

__all__ = ["baselines_of", "targets_of"]


def targets_of(texts: Sequence[str], count: int, labels: Sequence[str]) -> Any:
    """Read the targets: none means the argmax, one is for all examples, else one per example."""
    targets = [parse_target(text, labels) for text in texts]
    if len(targets) < 2:
        return targets[0] if targets else None
    if len(targets) != count:
        raise InputError(
            f"{len(targets)} targets for {count} examples: give one for all, or one for each"
        )
    return targets


def baselines_of(
    given_texts: Sequence[str],
    explained: Sequence[str],
    given: Given,
    *,
    usual: Sequence[str] = ("black",),
) -> Any:
    """Read the baselines: as asked, else the `usual` for images and 0 for others.

    A text is a value for all explained tensors, or NAME=VALUE for one of them. Several for one tensor are several
    baselines; a tensor that has fewer keeps its last.
    """
    asked: dict[str, list[str]] = {name: [] for name in explained}
    common: list[str] = []
    for text in given_texts:
        name, equals, value = text.partition("=")
        if not text or (equals and not value):
            raise InputError(
                f"--baseline is '{text}', expected a number, a name such as 'black', or a file"
            )
        if equals and name in explained:
            asked[name].append(value)
        elif equals and not Path(text).exists():
            known = ", ".join(f"'{one}'" for one in explained)
            raise InputError(f"baseline '{text}': '{name}' is not explained, only {known}")
        else:
            common.append(text)
    for name, texts in asked.items():
        texts += [] if texts else common or (list(usual) if name in given.preprocessing else ["0"])
    count = max(map(len, asked.values()))
    several = [
        {
            name: read_baseline(
                texts[min(index, len(texts) - 1)], name, given.preprocessing.get(name)
            )
            for name, texts in asked.items()
        }
        for index in range(count)
    ]
    return several[0] if count == 1 else several

"""From what is written on the command line to the inputs of a model.

INPUT is a file for the model's one input, an .npz of several named inputs, or NAME=FILE. A file is
an image or a NumPy array; the files of one input are examples of one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.baselines import NAMED
from igonnx.cli.arrays import is_array_file, load_arrays, shaped_for
from igonnx.errors import InputError
from igonnx.images import (
    DEFAULT_SIZE,
    PRESETS,
    Preprocessing,
    Preset,
    format_shape,
    image_shape,
    read_image,
)
from igonnx.model import Model, TensorInfo

__all__ = ["Given", "ImageOptions", "preprocessing_for", "read_baseline", "read_inputs"]


@dataclass(frozen=True)
class ImageOptions:
    """How images are to be preprocessed; None where the model or a default decides."""

    preset: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    size: tuple[int, int] | None = None
    layout: str | None = None
    grey: bool = False

    @property
    def chosen(self) -> bool:
        """Whether the user said anything about the normalisation."""
        return any(x is not None for x in (self.preset, self.mean, self.std, self.scale))


@dataclass
class Given:
    """The inputs of a model, ready to be explained.

    arrays: per input, with batch axis. names: one per example, distinct, fit for file names.
    preprocessing: of each input that was given images. notes: what was decided silently and the
    user should know. files: the paths that were read.
    """

    arrays: dict[str, NDArray[Any]]
    names: list[str]
    preprocessing: dict[str, Preprocessing] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def read_inputs(model: Model, specifications: Sequence[str], options: ImageOptions) -> Given:
    """Read all files; raises `InputError` for what is missing, unreadable or does not fit the model."""
    given = Given({}, [])
    infos = {info.name: info for info in model.inputs}
    per_input: dict[str, list[tuple[str, NDArray[Any]]]] = {}
    for name, path in _bind(specifications, infos):
        given.files.append(path)
        if is_array_file(path):
            for key, array in _match(load_arrays(path), name, infos, path).items():
                example = (path, shaped_for(array, infos[key], path))
                per_input.setdefault(key, []).append(example)
            continue
        image = read_image(path)
        if name not in given.preprocessing:
            given.preprocessing[name] = preprocessing_for(model, infos[name], options, given.notes)
        array = given.preprocessing[name].apply(image, name=path)
        per_input.setdefault(name, []).append((path, array))
    missing = [name for name in infos if name not in per_input]
    if missing:
        raise InputError(
            f"no file for input {_listed(missing)} of the model: give NAME=FILE for each, "
            "or an .npz file with all"
        )
    given.arrays = {name: _batch(name, examples) for name, examples in per_input.items()}
    given.names = _example_names(next(iter(per_input.values())))
    return given


def preprocessing_for(
    model: Model, info: TensorInfo, options: ImageOptions, notes: list[str]
) -> Preprocessing:
    """Decide how images become this input: by the options, then the model's own preset, then [0, 1]."""
    shape = image_shape(info.shape, name=info.name, layout=options.layout)
    name = options.preset
    if name is None and not options.chosen:
        name = model.metadata.get("igonnx.preset")
        if name is not None and name not in PRESETS:
            raise InputError(
                f"the model names the preset '{name}', which is unknown; pass --preset "
                f"({', '.join(PRESETS)}) or --mean, --std and --scale"
            )
        if name is None:
            notes.append(
                f"images are scaled to 0..1 for input '{info.name}'; if the model was trained "
                "otherwise, pass --preset, or --mean and --std"
            )
    if name is not None and name not in PRESETS:
        raise InputError(f"unknown preset '{name}', expected one of {', '.join(PRESETS)}")
    preset = PRESETS[name] if name else Preset()
    return Preprocessing(
        size=_size(shape.size, options.size, info, notes),
        channels=shape.channels,
        layout=shape.layout,
        mean=preset.mean if options.mean is None else options.mean,
        std=preset.std if options.std is None else options.std,
        scale=preset.scale if options.scale is None else options.scale,
        dtype=info.dtype,
        grey=options.grey,
    )


def read_baseline(
    text: str, name: str, preprocessing: Preprocessing | None
) -> float | str | NDArray[Any]:
    """Read the baseline of one tensor: a number, a name such as 'black' or 'blurred', an image or a NumPy file."""
    if text in ("black", "white"):
        if preprocessing is None:
            raise InputError(
                f"baseline '{text}' is for images, but '{name}' is not given one: "
                "give a number or a NumPy file"
            )
        return preprocessing.constant(0.0 if text == "black" else 1.0)
    if text in NAMED:
        return text
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not np.isfinite(number):
            raise InputError(f"the baseline is {number}; expected a finite number")
        return number
    if is_array_file(text):
        arrays = load_arrays(text)
        if len(arrays) > 1:
            raise InputError(f"baseline '{text}' holds {len(arrays)} arrays, expected one")
        return next(iter(arrays.values()))
    if preprocessing is None or not Path(text).exists():
        raise InputError(
            f"baseline '{text}' of '{name}' is no number, none of {', '.join(NAMED)}, and no file that fits"
        )
    return preprocessing.apply(read_image(text), name=text)


def _bind(specifications: Sequence[str], infos: Mapping[str, TensorInfo]) -> list[tuple[str, str]]:
    """Give each file the name of its input; '' for an .npz that holds several."""
    bound: list[tuple[str, str]] = []
    named = {text.partition("=")[0] for text in specifications if _is_binding(text, infos)}
    free = [name for name in infos if name not in named]
    for text in specifications:
        if _is_binding(text, infos):
            name, _, path = text.partition("=")
            bound.append((name, path))
        elif "=" in text and not Path(text).exists():
            name = text.partition("=")[0]
            raise InputError(f"'{text}': the model has no input '{name}', only {_listed(infos)}")
        elif Path(text).suffix.lower() == ".npz":
            bound.append((free[0] if len(free) == 1 else "", text))
        elif len(free) == 1:
            bound.append((free[0], text))
        else:
            raise InputError(
                f"'{text}': the model has the inputs {_listed(infos)}: write NAME={text} to say "
                "which it is for"
            )
    return bound


def _is_binding(text: str, infos: Mapping[str, TensorInfo]) -> bool:
    name, equals, path = text.partition("=")
    return bool(equals and path) and name in infos


def _match(
    arrays: dict[str, NDArray[Any]], name: str, infos: Mapping[str, TensorInfo], path: str
) -> dict[str, NDArray[Any]]:
    """Say which input each array of a file is for."""
    if len(arrays) == 1 and name:
        return {name: next(iter(arrays.values()))}
    unknown = [key for key in arrays if key not in infos]
    if unknown:
        raise InputError(
            f"'{path}' holds an array {_listed(unknown)}, but the model has the inputs "
            f"{_listed(infos)}"
        )
    return arrays


def _batch(name: str, examples: Sequence[tuple[str, NDArray[Any]]]) -> NDArray[Any]:
    """Join the examples of one input along the batch axis."""
    first_path, first = examples[0]
    for path, array in examples[1:]:
        if array.shape[1:] != first.shape[1:]:
            raise InputError(
                f"input '{name}' is given shape {format_shape(first.shape)} by '{first_path}' and "
                f"{format_shape(array.shape)} by '{path}': explain different shapes one at a time"
            )
    return first if len(examples) == 1 else np.concatenate([array for _, array in examples])


def _example_names(examples: Sequence[tuple[str, NDArray[Any]]]) -> list[str]:
    """Name each example by its file, with numbers where a file holds several or names repeat."""
    names: list[str] = []
    for path, array in examples:
        stem, count = Path(path).stem, array.shape[0] if array.ndim else 1
        names += [stem] if count == 1 else [f"{stem}-{index}" for index in range(count)]
    seen: set[str] = set()
    for index, name in enumerate(names):
        number = 2
        while names[index] in seen:
            names[index] = f"{name}-{number}"
            number += 1
        seen.add(names[index])
    return names


def _size(
    fixed: tuple[int | None, int | None],
    asked: tuple[int, int] | None,
    info: TensorInfo,
    notes: list[str],
) -> tuple[int, int]:
    """Settle height and width between what the model fixes and what --size asks for."""
    if asked is None:
        if None in fixed:
            notes.append(
                f"input '{info.name}' takes images of any size: {DEFAULT_SIZE} is used where it is "
                "free; --size chooses another"
            )
        return fixed[0] or DEFAULT_SIZE, fixed[1] or DEFAULT_SIZE
    if any(length not in (None, wanted) for length, wanted in zip(fixed, asked, strict=True)):
        raise InputError(
            f"--size asks for {asked[0]}x{asked[1]}, but input '{info.name}' has shape "
            f"{format_shape(info.shape)}"
        )
    return asked


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names)

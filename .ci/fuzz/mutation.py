"""Changes to a model that leave it a protobuf, and to JSON that leave it JSON: what changes of bytes seldom do."""

from __future__ import annotations

import json
import random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

_NUMBERS = [0, 1, -1, 2, 17, 255, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63)]
_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
_WHOLE = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """The model in `data` with one to four fields changed, at most `most` bytes long; `data` where it is no model."""
    chance = random.Random(seed)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return data
    try:
        for _ in range(chance.randint(1, 4)):
            _change(_chosen(model, chance), model, chance)
    except ValueError:  # a name that is not UTF-8 can be parsed, not copied
        return data
    changed = model.SerializeToString()
    return changed if len(changed) <= most else data


def _chosen(model: Message, chance: random.Random) -> Message:
    """A message in the model, each as likely as any."""
    found, waiting = [], [model]
    while waiting:
        message = waiting.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += list(value) if field.is_repeated else [value]
    return chance.choice(found)


def _change(message: Message, model: Message, chance: random.Random) -> None:
    present = [field for field, _ in message.ListFields()]
    field = chance.choice(
        present if present and chance.random() < 0.8 else list(message.DESCRIPTOR.fields)
    )
    if chance.random() < 0.1:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_list(getattr(message, field.name), field, model, chance)
    elif field.message_type is None:
        setattr(message, field.name, _value(field, getattr(message, field.name), model, chance))
    else:
        getattr(message, field.name).SetInParent()


def _change_list(items: Any, field: Any, model: Message, chance: random.Random) -> None:
    length, kind = len(items), chance.random()
    if length and kind < 0.25:
        del items[chance.randrange(length)]
    elif length and kind < 0.5:
        if field.message_type is not None:
            items.add().CopyFrom(items[chance.randrange(length)])
        else:
            items.append(items[chance.randrange(length)])
    elif field.message_type is not None:
        items.add()
    elif length and kind < 0.9:
        place = chance.randrange(length)
        items[place] = _value(field, items[place], model, chance)
    else:
        items.append(_value(field, None, model, chance))


def _value(field: Any, old: Any, model: Message, chance: random.Random) -> Any:
    """Another value for a field that is no message."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice(field.enum_type.values).number
    if field.type in _WHOLE:
        low, high = _WHOLE[field.type]
        number = chance.choice([*_NUMBERS, chance.randint(0, 30), (old or 0) + 1])
        return min(max(number, low), high)
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice([0.0, -1.0, 1e30, float("nan"), float("inf")])
    names = [name for node in model.graph.node for name in [*node.input, *node.output]]
    text = chance.choice([*names, "", "x", "\0", "n" * 300, "../secret", chance.choice(_OPERATORS)])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice(
            [text.encode(), chance.randbytes(chance.randint(0, 40)), (old or b"")[:-1]]
        )
    return text


_WORDS = [
    *("method", "target", "baseline", "format", "timeout", "steps", "tolerance", "max_steps", "samples", "noise"),
    *("noise_samples", "noise_std", "seed", "rule", "b64", "png", "both", "black", "blur,white", "FP32", "BYTES"),
    *("INT64", "BOOL", "smoothgrad", "xrai", "blur-ig", "occlusion", "nan", "1e999", "9" * 5000, "\0", "\ud7ff"),
]  # fmt: skip


def mutated_json(data: bytes, most: int, seed: int) -> bytes:
    """The JSON in `data` with one to four values changed, at most `most` bytes long; `data` where it is none."""
    chance = random.Random(seed)
    try:
        holder = [json.loads(data)]
    except (ValueError, RecursionError):
        return data
    for _ in range(chance.randint(1, 4)):
        places = _places(holder)
        inside, key = chance.choice(places)
        kind = chance.random()
        if kind < 0.15 and inside is not holder:
            del inside[key]
        elif kind < 0.3:
            other, there = chance.choice(places)
            inside[key] = json.loads(json.dumps(other[there]))
        elif kind < 0.5 and isinstance(inside[key], dict):
            inside[key][chance.choice(_WORDS)] = _json_value(chance)
        elif kind < 0.6:
            inside[key] = [inside[key]] * chance.randint(0, 3)
        else:
            inside[key] = _json_value(chance)
    changed = json.dumps(holder[0]).encode()
    return changed if len(changed) <= most else data


def _places(holder: list[Any]) -> list[tuple[Any, Any]]:
    """Every list and object in JSON with each of its indices and keys."""
    found, waiting = [], [holder]
    while waiting:
        one = waiting.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)):
            found.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    return found


def _json_value(chance: random.Random) -> Any:
    return chance.choice(
        [
            *(None, True, False, [], {}, "", 0.5, -0.0, 1e308, 1e-320, float("1e300")),
            *(
                chance.choice(_NUMBERS),
                chance.choice(_WORDS),
                chance.choice(_WORDS),
                {"b64": "R0lGODlh"},
            ),
            *(chance.randint(-2, 70), [[1, 2], [3]], [chance.choice(_WORDS)], 2**64, 10**40),
        ]
    )

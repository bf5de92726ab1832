"""Damaged files, made of good ones: cut short, with flipped bytes, or with a wrong value in their JSON or YAML."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

WRONG_VALUES: list[Any] = [None, True, -1, 0, 1e400, float("nan"), 10**400, "x", "", [], {}, [[[]]], {"a": {}}, 0.5]
"""What stands in the place of something else in JSON; json writes what is no number as Infinity and NaN."""


def damaged(content: bytes, number: int) -> bytes:
    """Return what is left of a file after an accident or an attack; the number says which one."""
    draw, kind = random.Random(number), number % 4
    if kind == 0:
        return content[: draw.randrange(len(content) + 1)]
    if kind == 1:
        return content + draw.randbytes(draw.choice((1, 100)))
    if kind == 2 or not (parsed := _parsed(content)):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 3, 100))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)
    places = list(_places(parsed))
    holder, key = draw.choice(places)
    if draw.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = draw.choice(WRONG_VALUES)
    return json.dumps(parsed).encode()


def _parsed(content: bytes) -> Any:
    """Return the content of JSON or YAML, or nothing if it is of another kind."""
    try:
        text = content.decode()
        found = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in nested mappings and lists: what holds it, and its key or position."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])

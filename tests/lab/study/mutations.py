"""Files changed at random, as disks, copies and hands do, always in the same way."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ODD = [None, True, -1, 0, 10**30, 1.5, "x", "", [], {}, [None], {"a": 1}, [[]], float("nan")]
"""Values of every type, in place of others."""


def mutate(rng: random.Random, paths: list[Path]) -> Path:
    """Changes, removes or replaces one of some files; gives its path."""
    path = rng.choice(paths)
    content = bytearray(path.read_bytes())
    place, length = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
    kind = rng.choice(["bit", "bytes", "cut", "zeros", "garbage", "insert", "remove", "another", "value"])
    if kind == "bit" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "bytes" and content:
        for _ in range(rng.randrange(2, 40)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == "cut":
        del content[place:]
    elif kind == "zeros":
        content[place : place + length] = bytes(len(content[place : place + length]))
    elif kind == "garbage":
        content = bytearray(rng.randbytes(rng.randrange(3000)))
    elif kind == "insert":
        content[place:place] = rng.randbytes(rng.randrange(1, 50))
    elif kind == "another":
        content = bytearray(rng.choice(paths).read_bytes())
    elif kind == "value" and path.suffix == ".json":
        content = bytearray(json.dumps(mutate_value(rng, json.loads(content))).encode())
    if kind == "remove":
        path.unlink()
    else:
        path.write_bytes(content)
    return path


def mutate_value(rng: random.Random, content: Any) -> Any:
    """Puts an odd value somewhere into nested dicts and lists."""
    *path, last = rng.choice([path for path in _paths(content) if path])
    target = content
    for key in path:
        target = target[key]
    target[last] = rng.choice(ODD)
    return content


def _paths(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield from _paths(value, (*path, key))

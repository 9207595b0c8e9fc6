"""Damage valid files in ways that keep most of their structure: bytes, tokens, and values."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

#: Words in place of a token: ends of number ranges, other types, openings, aliases, tags.
WORDS = (
    *("0", "-1", "1e400", "NaN", "-Infinity", ".nan", "1_0", "010", "1:30", "0x" + "f" * 200),
    *("9" * 99, "9" * 400, "9" * 5000, "null", "true", "~", '""', "''", "[]", "{}", "[[", "{{"),
    *("]", "}", "[" * 2000, '{"a":' * 2000, "&a [*a]", "*a", "<<", "!!int x", "!!binary x", "? "),
    *("\\ud800", "\x00", "\x1b[31m", "\u2028", "\x85", "../..", "/etc/passwd", "e\u0301" * 50),
)
#: Values in place of one of a document.
VALUES = (
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**64), 10**300, float("nan"), float("inf")),
    *("", "x", "\ud800", "\x00", "../x", "a" * 3000, [], {}, [[]], {"": None}, [None] * 50),
)
#: Integers in place of bytes, in either order.
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TOKEN = re.compile(rb"[\w.+-]+|[^\w\s]|\s+")


def damaged_bytes(content: bytes, source: random.Random) -> bytes:
    """Return the bytes with one to four places changed, removed, repeated, moved or cut off."""
    data = bytearray(content)
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(data) + 1)
        stop = min(len(data), start + source.choice((1, 2, 4, 8, 64, 512)))
        kind = source.randrange(7)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << source.randrange(8)
        elif kind == 1:
            size, order = source.choice((1, 2, 4)), source.choice(("little", "big"))
            data[start : start + size] = (source.choice(NUMBERS) % 256**size).to_bytes(size, order)
        elif kind == 2:
            del data[start:stop]
        elif kind == 3:
            data[start:start] = data[start:stop] * source.choice((1, 2, 100))
        elif kind == 4:
            data[start:start] = source.randbytes(source.choice((1, 4, 32)))
        elif kind == 5:
            other = source.randrange(len(data) + 1)
            data[start:stop] = data[other : other + stop - start]
        elif source.random() < 0.3:
            del data[start:]
    return bytes(data)


def damaged_tokens(content: bytes, source: random.Random) -> bytes:
    """Return the text with one to four tokens replaced, removed, repeated or exchanged."""
    tokens = TOKEN.findall(content)
    for _ in range(source.randint(1, 4)):
        if not tokens:
            break
        number, kind = source.randrange(len(tokens)), source.randrange(5)
        if kind <= 1:
            tokens[number] = source.choice(WORDS).encode("utf-8", "surrogatepass")
        elif kind == 2:
            tokens[number : number + source.choice((1, 3))] = []
        elif kind == 3:
            tokens[number:number] = tokens[number : number + 5] * source.choice((1, 50))
        else:
            other = source.randrange(len(tokens))
            tokens[number], tokens[other] = tokens[other], tokens[number]
    return b"".join(tokens)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key or index) of each value in a document."""
    out: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            out += [(value, key), *places(value[key])]
    return out


def damaged_values(document: Any, source: random.Random) -> Any:
    """Return a copy of a document with one to three values replaced, removed, or put elsewhere."""
    document = copy.deepcopy(document)
    for _ in range(source.randint(1, 3)):
        options = places(document)
        if not options:
            return source.choice(VALUES)
        container, key = source.choice(options)
        kind = source.randrange(4)
        if kind <= 1:
            container[key] = copy.deepcopy(source.choice(VALUES))
        elif kind == 2:
            del container[key]
        else:
            other, name = source.choice(options)
            container[key] = copy.deepcopy(other[name])
    return document


def damaged_json(content: bytes, source: random.Random) -> bytes:
    """Return the JSON with values, tokens or bytes damaged."""
    kind = source.randrange(4)
    if kind == 0:
        return damaged_bytes(content, source)
    if kind == 1:
        return damaged_tokens(content, source)
    return json.dumps(damaged_values(json.loads(content), source)).encode()

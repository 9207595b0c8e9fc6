"""Parse JSON of others: with few levels and short numbers, so that later code can rely on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

#: Nested lists and objects. Python's parser reads nearly 1,000, but copying, printing and encoding
#: them can need more of the call stack than is left. chexseg itself writes about ten.
MOST_LEVELS = 100
#: Digits of a whole number. A float overflows beyond them.
MOST_DIGITS = 308
_TOO_DEEP = f"lists or objects nested more than {MOST_LEVELS} deep"

Pairs = Callable[[list[tuple[str, Any]]], dict[str, Any]]


def loads(content: str | bytes, pairs: Pairs | None = None) -> Any:
    """Return the value of a JSON text. pairs: makes each object from its keys and values.

    Numbers such as 1e400 become infinite, and NaN is read, as chexseg writes it. Raises ValueError
    for anything but JSON, for more than `MOST_LEVELS` levels or `MOST_DIGITS` digits, and for text
    that isn't Unicode.
    """
    try:
        value = json.loads(content, object_pairs_hook=pairs, parse_int=integer)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_levels(value)
    return value


def integer(digits: str) -> int:
    """Return a whole number. Raises ValueError if it has more than `MOST_DIGITS` digits."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; expected at most {MOST_DIGITS}")
    return int(digits)


def check_levels(value: Any) -> None:
    """Raise ValueError for lists and dictionaries nested more than `MOST_LEVELS` deep."""
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [
            part
            for whole in level
            if isinstance(whole, dict | list)
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)

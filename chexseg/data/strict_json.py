"""JSON files of other tools, read without losing what Python's parser passes over in silence."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from typing import Any

from chexseg.data.remote_path import Readable


def read(path: Readable) -> tuple[Any, list[str]]:
    """Return the content of a file, and every key that appears twice in one of its objects.

    Raises `OSError` if the file can't be read, and `ValueError` if it isn't JSON or nests too deep.
    """
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        return json.loads(path.read_bytes(), object_pairs_hook=unique), repeated
    except RecursionError:
        raise ValueError("it nests too deep") from None


def is_one_line(key: str) -> bool:
    """Return False for a key with control characters, line breaks or halves of characters, which can't be printed as is."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in key)

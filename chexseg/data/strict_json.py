"""Reading JSON files of other tools, with a report of what Python's parser silently ignores."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any

from chexseg.data.remote_path import Readable, read_bytes
from chexseg.untrusted import bounded_json

#: Characters of an image id or another key: it is in messages.
LONGEST_KEY = 1000


def read(path: Readable) -> tuple[Any, list[str]]:
    """Return the content of a file, and each key that appears twice in one of its objects.

    Raises `OSError` if the file can't be read, and ValueError as
    `bounded_json.loads`, and for a key of more than `LONGEST_KEY` characters.
    """
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if (length := max((len(key) for key, _ in pairs), default=0)) > LONGEST_KEY:
            raise ValueError(f"a key of {length:,} characters; expected at most {LONGEST_KEY:,}")
        repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    return bounded_json.loads(read_bytes(path), unique), repeated


def is_one_line(key: str) -> bool:
    """Return False for text with control characters, line breaks or lone surrogates."""
    return key.isprintable() or not any(  # the first is much faster, and enough for nearly all
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in key
    )

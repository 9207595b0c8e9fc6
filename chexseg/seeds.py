"""One integer seed per cell; every random generator is derived from it by name."""

from __future__ import annotations

import hashlib
import json


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the generator called `names`, independent of every other name's."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

"""The file that marks a directory or a prefix as a store: `store gc` deletes nothing where it is missing."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from chexseg.errors import UserError
from chexseg.store.backend import encode
from chexseg.store.store import Store

MARKER = "chexseg-store.json"
#: Raised when a chexseg of before could no longer read, or would damage, a store of now.
LAYOUT = 1
CONTENT = encode({"layout": LAYOUT})


def mark(store: Store) -> None:
    """Mark a store that isn't marked. One that can only be read stays as it is: its results can still be used."""
    with suppress(UserError, OSError):
        if store.backend.sha256(MARKER) is None:
            store.backend.write(MARKER, CONTENT)


def check_marked(store: Store) -> None:
    """Raise `UserError` for a place without a marker, or with one of another layout."""
    sha256 = store.backend.sha256(MARKER)
    if sha256 is None:
        raise UserError(
            f"--store {store}: found no {MARKER}; expected: a store of chexseg;"
            " hint: `chexseg study run` with this store marks it, even if all its results are cached"
        )
    if sha256 != hashlib.sha256(CONTENT).hexdigest():
        raise UserError(
            f"{store}/{MARKER}: found another layout; expected: layout {LAYOUT}; hint: use a newer chexseg"
        )

"""The file that marks a directory or prefix as a store; `store gc` refuses to run without it."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from chexseg.errors import UserError
from chexseg.store.backend import encode
from chexseg.store.store import Store

MARKER = "chexseg-store.json"
#: Increased when an earlier chexseg could no longer read, or would damage, a store of this one.
LAYOUT = 1
CONTENT = encode({"layout": LAYOUT})


def mark(store: Store) -> None:
    """Mark a store unless it's marked. A read-only store stays unmarked: its results are usable."""
    with suppress(UserError, OSError):
        if store.backend.sha256(MARKER) is None:
            store.backend.write(MARKER, CONTENT)


def check_exists(store: Store) -> None:
    """Raise `UserError` if the directory of a store is missing. An object store has none."""
    if store.backend.shared and not store.backend.local.is_dir():
        raise UserError(
            f"--store {store}: no such directory; expected: a store;"
            " hint: `chexseg study run` with this store creates it"
        )


def check_marked(store: Store) -> None:
    """Raise `UserError` if the marker is missing or names another layout."""
    sha256 = store.backend.sha256(MARKER)
    if sha256 is None:
        raise UserError(
            f"--store {store}: found no {MARKER}; expected: a store of chexseg;"
            " hint: `chexseg study run` with this store creates it, even if all results are cached"
        )
    if sha256 != hashlib.sha256(CONTENT).hexdigest():
        raise UserError(
            f"{store}/{MARKER}: found another layout; expected: layout {LAYOUT};"
            " hint: use a newer chexseg"
        )

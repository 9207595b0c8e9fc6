"""The list of files that a report wrote, so that the next report can delete outdated ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chexseg.store.manifest import sha256_of

NAME = "report.json"


def replace(out: Path, files: Sequence[Path]) -> None:
    """Write the list of these files with their SHA-256, and delete files of the previous list.

    A file is deleted only if its SHA-256 is still the listed one, and only below `out`: anyone
    can edit the list.
    """
    root = out.resolve()
    current = {path.resolve().relative_to(root).as_posix(): sha256_of(path) for path in files}
    for name, sha256 in _listed(out / NAME).items():
        path = (out / name).resolve()
        if (
            name not in current
            and path.is_relative_to(root)
            and path.is_file()
            and sha256_of(path) == sha256
        ):
            path.unlink()
    (out / NAME).write_text(json.dumps({"files": current}, indent=1) + "\n", encoding="utf-8")


def _listed(path: Path) -> dict[str, str]:
    """Return the listed file names with their SHA-256; empty if there is no readable list."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return dict(json.loads(path.read_text(encoding="utf-8"))["files"])
    return {}

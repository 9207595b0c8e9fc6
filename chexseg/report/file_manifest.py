"""What a report has written into its folder, so that the next one there leaves nothing old beside what is new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

NAME = "report.json"


def replace(out: Path, files: Sequence[Path]) -> None:
    """List these files of `out` with their sha256, and delete those that only the former list has.

    A file is deleted only while it has the sha256 that the list says, and never one outside `out`: a list is but a file.
    """
    root = out.resolve()
    now = {path.resolve().relative_to(root).as_posix(): _sha256(path) for path in files}
    for name, sha256 in _listed(out / NAME).items():
        path = (out / name).resolve()
        if (
            name not in now
            and path.is_relative_to(root)
            and path.is_file()
            and _sha256(path) == sha256
        ):
            path.unlink()
    (out / NAME).write_text(json.dumps({"files": now}, indent=1) + "\n", encoding="utf-8")


def _listed(path: Path) -> dict[str, str]:
    """The files of a list; none where there is no list that can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return dict(json.loads(path.read_text(encoding="utf-8"))["files"])
    return {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

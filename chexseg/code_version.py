"""The version of chexseg that a process runs, and a digest of its sources."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from chexseg.errors import UserError


@dataclass(frozen=True)
class CodeVersion:
    """Two are the same code if version and digest agree; the directory differs between hosts, and is for people."""

    version: str
    digest: str
    directory: str

    def same_code(self, other: CodeVersion) -> bool:
        return (self.version, self.digest) == (other.version, other.digest)

    def __str__(self) -> str:
        return f"chexseg {self.version} of {self.directory} (sources {self.digest[:12]})"


def describe() -> tuple[str, str, str]:
    """Return version, digest and directory of the chexseg that is imported in this process.

    It uses no global name, because it is also sent to workers as code, which must not be that of their own chexseg.
    """
    import hashlib
    from pathlib import Path

    import chexseg

    root = Path(chexseg.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return chexseg.__version__, digest.hexdigest(), str(root)


@functools.cache
def running() -> CodeVersion:
    """Return what this process runs, as its files were at the first call."""
    return CodeVersion(*describe())


def require(expected: CodeVersion) -> None:
    """Raise `UserError` unless this process runs the expected code."""
    if not running().same_code(expected):
        raise UserError(mismatch("a worker", running(), expected))


def mismatch(place: str, found: object, expected: CodeVersion) -> str:
    """Return the line for workers that run other code than the driver."""
    return (
        f"{place} imports other code than the driver: found {found}; expected {expected}"
        " (hint: the same checkout on every node, or `ray job submit --working-dir .`; files must not change during a run)"
    )

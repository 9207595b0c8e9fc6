"""The version of chexseg that a process runs, and a digest of its sources."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from chexseg.errors import UserError


@dataclass(frozen=True)
class CodeVersion:
    """A version of chexseg. The directory differs between hosts and isn't compared."""

    version: str
    digest: str
    directory: str

    def same_code(self, other: CodeVersion) -> bool:
        return (self.version, self.digest) == (other.version, other.digest)

    def __str__(self) -> str:
        return f"chexseg {self.version} of {self.directory} (sources {self.digest[:12]})"


def describe() -> tuple[str, str, str]:
    """Return version, digest and directory of the chexseg that this process imports.

    The digest is of every file that can be imported: a library would be, before a source file of
    the same name. It leaves out compiled files in `__pycache__`, which Python makes of the sources.
    The function uses no global names, because it is also sent to workers as code, independent of
    the chexseg installed there.
    """
    import hashlib
    import os
    from importlib.machinery import all_suffixes

    import chexseg

    # Without pathlib, which takes twice as long: each stage run does this two or three times.
    root = os.path.dirname(os.path.realpath(chexseg.__file__))
    digest, suffixes = hashlib.sha256(), tuple(all_suffixes())
    paths, entered = [], set()
    for parent, folders, files in os.walk(root, followlinks=True):
        status = os.stat(parent)
        identity = status.st_dev, status.st_ino
        if identity in entered or os.path.basename(parent) == "__pycache__":
            folders.clear()
            continue
        entered.add(identity)
        # Editors place hidden links that point nowhere beside a file.
        names = (name for name in files if not name.startswith("."))
        paths += [os.path.join(parent, name) for name in names if name.endswith(suffixes)]
    for path in sorted(paths):
        with open(path, "rb") as file:
            content = file.read()
        name = path[len(root) + 1 :].replace(os.sep, "/")
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return chexseg.__version__, digest.hexdigest(), root


def loaded() -> frozenset[str]:
    """Return the names of chexseg's modules that this process has imported."""
    return frozenset(name for name in sys.modules if name.startswith("chexseg."))


#: What `running` returns, once it is known.
_required: list[CodeVersion] = []


def running() -> CodeVersion:
    """Return the version that every process of a run must import: the driver's.

    Of a driver it is that of the first call, of a worker the last that it was required to run.
    """
    if not _required:
        _required.append(CodeVersion(*describe()))
    return _required[-1]


def require(expected: CodeVersion) -> None:
    """Raise `UserError` unless this process imports the expected code.

    Compares the sources as they are now: a worker serves many stages, and imports each of them when
    it is first needed. Processes that the worker starts are required to run the same.
    """
    current = CodeVersion(*describe())
    if not current.same_code(expected):
        raise UserError(mismatch("a worker", current, expected))
    _required[:] = [expected]


def mismatch(place: str, imported: object, expected: CodeVersion) -> str:
    """Return the error line for workers that run other code than the driver."""
    return (
        f"{place} imports other code than the driver: found {imported}; expected {expected}"
        "; hint: use the same checkout on every node, or `ray job submit --working-dir .`,"
        " and change no files during a run"
    )

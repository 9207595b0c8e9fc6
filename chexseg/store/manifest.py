"""The manifest of a result: what it may say, and whether the files beside it are what it says.

``manifest.json`` lies in the result's directory and names each of its files with size and SHA-256. Whoever reads such a
file calls `verify` first: a file is hashed when a process first reads it, and again after it has changed.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from chexseg.errors import DamagedArtifactError, UserError

MANIFEST = "manifest.json"
#: Errors of the system that say that a file is damaged, and not that somebody may not read it, or not now.
DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO})
#: Bytes that are read at once.
CHUNK = 2**22
#: Parts of a manifest and their types.
_PARTS: Mapping[str, type | tuple[type, ...]] = {
    "key": str,
    "stage": str,
    "version": int,
    "config": dict,
    "inputs": dict,
    "data": (str, type(None)),
    "files": dict,
    "facts": dict,
    "seconds": (int, float),
    "finished": str,
    "host": str,
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


class UnreadableManifestError(UserError):
    """A manifest that can't be one of ours. Its result may be whole, so it doesn't count as missing."""

    def __init__(self, place: str, fault: str):
        super().__init__(
            f"{place}: {fault}; expected: a manifest of chexseg (hint: restore it, or delete its directory to have the"
            " result computed anew)"
        )


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the SHA-256 of all its other parts as ``sha256``."""
    return {**document, "sha256": _digest(document)}


def is_sealed(document: Mapping[str, Any]) -> bool:
    """Return whether a document is what it was when `seal` got it."""
    return document.get("sha256") == _digest(document)


def parse(content: bytes, place: str) -> dict[str, Any]:
    """Return the manifest that a file holds. Manifests of earlier versions have no ``sha256``.

    Raises `UnreadableManifestError`, which begins with `place`, if it isn't JSON, lacks a part, names a file outside its
    directory, or isn't what its own ``sha256`` says.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableManifestError(place, f"not JSON ({error})") from None
    fault = _fault(document)
    if fault:
        raise UnreadableManifestError(place, fault)
    return document


def _fault(document: Any) -> str | None:
    if not isinstance(document, dict):
        return f"found a {type(document).__name__}"
    for part, types in _PARTS.items():
        if part not in document:
            return f"{part} is missing"
        if not isinstance(document[part], types):
            return f"{part}: found {document[part]!r:.60}"
    for name, entry in document["files"].items():
        if not is_inside(name) or name == MANIFEST:
            return f"files: found {name!r:.60}, which is no path inside the result"
        if (
            not isinstance(entry, dict)
            or type(entry.get("size")) is not int
            or not _is_sha256(entry.get("sha256"))
        ):
            return f"files: {name}: found {entry!r:.60}"
    if not _SHA256.fullmatch(document["key"]):
        return f"key: found {document['key']!r:.60}"
    if not all(_is_sha256(key) for key in document["inputs"].values()):
        return "inputs: found what is no key"
    if "sha256" in document and not is_sealed(document):
        return "not what it was when it was written (its sha256 differs)"
    return None


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _digest(document: Mapping[str, Any]) -> str:
    parts = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_inside(name: str) -> bool:
    """Return whether a name is a relative, normal path that stays below the directory it is joined to."""
    if not name or "\\" in name or not name.isprintable():
        return False
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and path.as_posix() == name
        and ".." not in path.parts
    )


# ---- files against their manifest ------------------------------------------------------------------------------------------


def sha256(file: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of a file."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def verify(path: str | Path) -> None:
    """Raise `DamagedArtifactError` unless a file of a result is what the result's manifest says.

    Files of directories without a manifest, such as those of a stage that still runs, pass. A process hashes a file once;
    it does so again where size, time or inode are no longer the same. Raises `UnreadableManifestError`.
    """
    path = Path(path)
    directory = result_directory(path)
    if directory is None:
        return
    name = path.relative_to(directory).as_posix()
    entry = load(directory)["files"].get(name)
    if entry is None:
        raise DamagedArtifactError(f"{path}: not in its manifest")
    try:
        state = _state(path)
        if (str(path), state) in _VERIFIED:
            return
        with path.open("rb") as file:
            digest = sha256(file)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        if error.errno in DAMAGE:
            raise DamagedArtifactError(message) from None
        raise UserError(
            f"{message}; expected: a readable file"
        ) from None  # it may be whole for another user, or later
    if digest != entry["sha256"]:
        raise DamagedArtifactError(f"{path}: not what its manifest says (its SHA-256 differs)")
    with _LOCK:
        if len(_VERIFIED) >= _MOST_VERIFIED:
            _VERIFIED.clear()
        _VERIFIED.add((str(path), state))


def verify_all(directory: Path) -> None:
    """`verify` each file of a result that has a manifest."""
    for name in load(directory)["files"]:
        verify(directory / name)


def read_bytes(path: Path) -> bytes:
    """Return the content of a small file of a result, after `verify`."""
    verify(path)
    return path.read_bytes()


def result_directory(path: Path) -> Path | None:
    """Return the directory whose manifest is about a file, its own or the one above; None where there is no manifest."""
    folder, parent = path.parent, path.parent.parent
    if (folder / MANIFEST).is_file():
        return folder
    above = parent / MANIFEST
    return parent if above.is_file() and not _is_foreign(above, _state(above)) else None


@functools.lru_cache(maxsize=64)
def _is_foreign(path: Path, state: tuple[int, ...]) -> bool:
    """Return True for another program's file of that name: web applications have manifests too."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # it may be ours, and damaged
    return not isinstance(document, dict) or not {"key", "stage", "files"}.intersection(document)


# ---- files of a stage that still runs ----------------------------------------------------------------------------------------


def note_digest(path: Path, digest: str | None = None) -> None:
    """Write the SHA-256 of an unfinished result's file beside it, so that a later process can take it for finished.

    `Store.commit` deletes these notes, as all hidden files.
    """
    if digest is None:
        with path.open("rb") as file:
            digest = sha256(file)
    _digest_note(path).write_text(digest)


def is_noted(path: Path) -> bool:
    """Return whether a file is there and what it was when its digest was noted."""
    try:
        with path.open("rb") as file:
            return _digest_note(path).read_text() == sha256(file)
    except (OSError, ValueError):
        return False


def _digest_note(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def load(directory: Path) -> dict[str, Any]:
    """Return the manifest of a result's directory. Raises `UnreadableManifestError`."""
    path = directory / MANIFEST
    try:
        return _load(path, _state(path))
    except OSError as error:
        raise UnreadableManifestError(str(path), f"cannot be read ({error.strerror})") from None


@functools.lru_cache(maxsize=64)
def _load(path: Path, state: tuple[int, ...]) -> dict[str, Any]:
    return parse(path.read_bytes(), str(path))


def _state(path: Path) -> tuple[int, ...]:
    """Return what the file system says of a file that changes if its content does."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


#: (path, `_state`) of the files that this process has hashed.
_VERIFIED: set[tuple[str, tuple[int, ...]]] = set()
_MOST_VERIFIED = 100_000
_LOCK = threading.Lock()

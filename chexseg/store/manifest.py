"""Manifests: what they may contain, and checks of a result's files against them.

``manifest.json`` is in the directory of a result and names each of its files with size and SHA-256.
Readers of such a file call `verify` first. It hashes a file on the first read in a process, and
again after the file has changed.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from chexseg.errors import DamagedArtifactError, UserError
from chexseg.store import facts
from chexseg.store.links import open_regular, read_regular, remove
from chexseg.untrusted import bounded_json

MANIFEST = "manifest.json"
#: In a partial directory: the key of its stage run, and the digests of the inputs it was made from.
INPUTS = ".inputs.json"
#: Error numbers that mean damage; others mean that the file can't be read by this user, or now.
DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ENXIO})
#: Bytes per read.
CHUNK = 2**22
#: Required fields of a manifest and their types.
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
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
#: Optional fields, which earlier versions didn't write.
_OPTIONAL: Mapping[str, type | tuple[type, ...]] = {
    "packages": dict,
    "device": str,
    "gpu": (str, type(None)),
    "cpu": (str, type(None)),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Name of a result's directory in a store: the first digits of its key.
_KEY = re.compile(r"[0-9a-f]{20}")
#: Largest `seconds` (317 years), and size of a file in bytes.
_MOST_SECONDS, _MOST_BYTES = 1e10, 2**63
#: Bytes of a path and of one of its components; S3 and most file systems allow no more.
_LONGEST_PATH, _LONGEST_COMPONENT = 1024, 255


class UnreadableManifestError(UserError):
    """An invalid manifest. It isn't taken for missing, because its result may be intact."""

    def __init__(self, location: str, fault: str):
        super().__init__(
            f"{location}: {fault}; expected: a manifest of chexseg (hint: restore it, or delete its"
            " directory to have the result computed anew)"
        )


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the SHA-256 of all its other fields as ``sha256``."""
    return {**document, "sha256": _digest(document)}


def is_sealed(document: Mapping[str, Any]) -> bool:
    """Return whether a document is unchanged since `seal`."""
    return document.get("sha256") == _digest(document)


def parse(content: bytes, location: str) -> dict[str, Any]:
    """Return the manifest in a file's content. Manifests of earlier versions have no ``sha256``.

    Raises `UnreadableManifestError`, which begins with `location`, if the content isn't JSON, lacks
    a field, has an impossible value or a path outside its directory, or doesn't match ``sha256``.
    """
    try:
        document: dict[str, Any] = bounded_json.loads(content)
    except ValueError as error:
        raise UnreadableManifestError(location, f"not JSON ({error})") from None
    if fault := _fault(document):
        raise UnreadableManifestError(location, fault)
    return document


def _fault(document: Any) -> str | None:
    if not isinstance(document, dict):
        return f"found a {type(document).__name__}"
    for field, types in _FIELDS.items():
        if field not in document:
            return f"{field} is missing"
        if not isinstance(document[field], types):
            return f"{field}: found {document[field]!r:.60}"
    for name, entry in document["files"].items():
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not is_inside(name) or name == MANIFEST or hidden:
            return f"files: found {name!r:.60}, which is no path inside the result"
        if (
            not isinstance(entry, dict)
            or type(entry.get("size")) is not int
            or not 0 <= entry["size"] < _MOST_BYTES
            or not _is_sha256(entry.get("sha256"))
        ):
            return f"files: {name}: found {entry!r:.60}"
    if not _is_sha256(document["key"]):
        return f"key: found {document['key']!r:.60}"
    if not 0 <= document["seconds"] <= _MOST_SECONDS:
        return f"seconds: found {document['seconds']!r:.60}"
    if not all(_is_sha256(key) for key in document["inputs"].values()):
        return "inputs: found a value that is no key"
    for field, types in _OPTIONAL.items():
        if field in document and not isinstance(document[field], types):
            return f"{field}: found {document[field]!r:.60}"
    if fault := facts.fault(document["facts"]):
        return f"facts: {fault}"
    if "sha256" in document and not is_sealed(document):
        return "changed since it was written (its sha256 differs)"
    return None


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _digest(document: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def is_inside(name: str) -> bool:
    """Return whether a name is a relative, normal, printable path of a length that can be written.

    Joined to a directory, it stays below that directory.
    """
    path = PurePosixPath(name)
    return (
        "\\" not in name
        and name.isprintable()
        and bool(path.parts)
        and not path.is_absolute()
        and path.as_posix() == name
        and ".." not in path.parts
        and len(name.encode()) <= _LONGEST_PATH
        and all(len(part.encode()) <= _LONGEST_COMPONENT for part in path.parts)
    )


# ---- files and their manifest --------------------------------------------------------------------


def sha256(file: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of a file."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file at a path."""
    with path.open("rb") as file:
        return sha256(file)


def verify(path: str | Path) -> None:
    """Raise `DamagedArtifactError` if a file of a result differs from the result's manifest.

    Files in directories without a manifest, such as those of a running stage, pass. A process
    hashes a file once, and again if size, time or inode change. Raises `UnreadableManifestError`.
    """
    path = Path(path)
    directory = result_directory(path)
    if directory is None:
        return
    entry = load(directory)["files"].get(path.relative_to(directory).as_posix())
    if entry is None:
        raise DamagedArtifactError(f"{path}: not in its manifest")
    try:
        _check_digest(path, _state(path), entry["sha256"])
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        if error.errno in DAMAGE:
            raise DamagedArtifactError(message) from None
        # It may be intact: readable by another user, or later.
        raise UserError(f"{message}; expected: a readable file") from None


@functools.lru_cache(maxsize=100_000)  # a failed check is not cached
def _check_digest(path: Path, state: tuple[int, ...], digest: str) -> None:
    with open_regular(path) as file:
        if sha256(file) != digest:
            raise DamagedArtifactError(f"{path}: not what its manifest says (its SHA-256 differs)")


def read_bytes(path: Path) -> bytes:
    """Return the content of a small file of a result, after `verify`."""
    verify(path)
    return read_regular(path)


def result_directory(path: Path) -> Path | None:
    """Return the directory of the manifest that covers a file: the file's own, or its parent.

    In a store, the result's directory has the key as its name, and no other manifest counts there.
    Returns None if there is no manifest.
    """
    folder, parent = path.parent, path.parent.parent
    if (folder / MANIFEST).is_file() and not _KEY.fullmatch(parent.name):
        return folder
    above = parent / MANIFEST
    return parent if above.is_file() and not _is_foreign(above, _state(above)) else None


@functools.lru_cache(maxsize=64)
def _is_foreign(path: Path, state: tuple[int, ...]) -> bool:
    """Return whether a manifest is another program's; web applications have them too."""
    try:
        document = bounded_json.loads(read_regular(path))
    except (OSError, ValueError):
        return False  # it may be a damaged one of chexseg
    return not isinstance(document, dict) or not {"key", "stage", "files"}.intersection(document)


def version(directory: Path) -> tuple[int, ...]:
    """Return a value that changes when the result in a directory is computed again.

    directory: a result's, or one below it. The value is empty without a manifest, as for a partial
    directory.
    """
    result = result_directory(directory / MANIFEST)
    return () if result is None else _state(result / MANIFEST)


def load(directory: Path) -> dict[str, Any]:
    """Return the manifest in a result's directory.

    Raises `UnreadableManifestError`, and `OSError` if this user can't read it now.
    """
    path = directory / MANIFEST
    try:
        return _load(path, _state(path))
    except OSError as error:
        if error.errno not in DAMAGE:  # it may be intact: its file may belong to another user
            raise
        raise UnreadableManifestError(str(path), f"cannot be read ({error.strerror})") from None


@functools.lru_cache(maxsize=64)
def _load(path: Path, state: tuple[int, ...]) -> dict[str, Any]:
    return parse(read_regular(path), str(path))


def _state(path: Path) -> tuple[int, ...]:
    """Return the metadata of a file that changes whenever its content does."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


# ---- files of an unfinished result ---------------------------------------------------------------


def identity(path: Path) -> bytes:
    """Return what a file of a partial directory belongs to: its stage run, and its name there.

    The stage run is described by `INPUTS` in the file's directory or in that one's parent. Tests
    call stages in directories without it.
    """
    for directory in path.parents[:2]:
        if (directory / INPUTS).is_file():
            name = path.relative_to(directory).as_posix()
            return f"{name}\n".encode() + (directory / INPUTS).read_bytes()
    return f"{path.parent.name}/{path.name}".encode()


def read_unfinished(path: Path) -> bytes | None:
    """Return the content of a file of a partial directory; None if it's missing or damaged.

    Raises `UserError` for one that can't be read, or not now: it may stand for hours of work.
    """
    try:
        return read_regular(path)
    except OSError as error:
        if error.errno in DAMAGE:
            return None
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected: a readable file;"
            " hint: delete its folder to start this stage anew"
        ) from None


def note_digest(path: Path, digest: str | None = None) -> None:
    """Write a digest of a finished file beside it, so that a later process can reuse the file.

    It covers the file's SHA-256 and its `identity`: in the directory of another stage run, or under
    another name, the file isn't reused. `Store.commit` deletes these notes, as all hidden files.
    """
    note = _digest_note(path)
    remove(note)  # a folder, or another user's
    note.write_text(_bound(path, digest or sha256_of(path)))


def is_noted(path: Path) -> bool:
    """Return whether a file exists and matches its noted digest."""
    try:
        with open_regular(path) as file:
            return _digest_note(path).read_text() == _bound(path, sha256(file))
    except (OSError, ValueError):
        return False


def _bound(path: Path, digest: str) -> str:
    return hashlib.sha256(digest.encode() + identity(path)).hexdigest()


def _digest_note(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")

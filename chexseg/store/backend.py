"""The interface between a store and the storage that holds its files."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from chexseg.store.manifest import INPUTS

FAILED = ".failed"
#: Contains folders named by time (`now`), each with the layout of the store.
TRASH = ".trash"
#: Returned instead of a SHA-256 for a file that exists and can't be read.
UNREADABLE = "unreadable"
#: The folders of a store, one for each stage (stages.registry).
STAGE_FOLDERS = (
    "ingest",
    "classify",
    "pretrain",
    "moco",
    "imported",
    "saliency",
    "irnet",
    "fit",
    "distil",
    "score",
)
_ARTIFACT = re.compile(rf"({'|'.join(STAGE_FOLDERS)})/[0-9a-f]{{20}}")


class Entry(NamedTuple):
    """One file. size: bytes. modified_ns: last write, by the clock of the storage."""

    size: int
    modified_ns: int


class Backend(Protocol):
    """A directory or an object store.

    Names are relative to the store; an artifact's name is ``<stage>/<first 20 digits of the key>``.
    Nothing outside the store is read, written or deleted, whatever names and links it contains.

    uri: address of the store on this host; may contain credentials. title: the same without them.
    local: a directory of this host for data that must be files.
    shared: every node of a cluster sees artifacts and partial directories under the same paths;
    otherwise they belong to this host.
    """

    uri: str
    title: str
    local: Path
    shared: bool

    def tree(self, name: str) -> dict[str, Entry]:
        """Return all files below a name, by relative path; empty if there are none."""

    def list_many(self, names: Iterable[str]) -> dict[str, dict[str, Entry]]:
        """Return the `tree` of each artifact."""

    def read(self, files: Mapping[str, Entry]) -> dict[str, bytes]:
        """Return the content of small files by name, without those deleted in the meantime."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a log that this process alone writes."""

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of a file: None if it's missing, `UNREADABLE` if it's damaged."""

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """Return a directory of this host with an artifact's files.

        Raises `DamagedArtifactError` if a file that has to be copied differs from the manifest.
        """

    def evict(self, name: str, manifest: Mapping[str, Any]) -> None:
        """Delete the damaged files of this host's copy of an artifact."""

    def exclusive(self, name: str) -> AbstractContextManager[Path]:
        """Wait for the lock of an artifact, and yield its partial directory on this host."""

    def in_progress(self) -> set[str]:
        """Return what is locked now, by the names that `unfinished` returns."""

    def publish(self, name: str, partial: Path, manifest: Mapping[str, Any]) -> None:
        """Turn a partial directory into an artifact, the manifest last. Needs `exclusive`."""

    def reopen(self, name: str, partial: Path, files: Iterable[str]) -> None:
        """Turn an artifact's files, as far as they exist, into the partial directory.

        The manifest is deleted. Needs `exclusive`.
        """

    def partials(self) -> dict[str, Path]:
        """Return ``<stage>-<short key>`` -> partial directory on this host; links are left out."""

    def retire(self, name: str, files: Sequence[str], trash: str) -> bool:
        """Move files of an artifact, in this order, and its partial directory below `trash`.

        files: paths below the artifact; missing ones are skipped. Copies on this host are deleted.
        Returns False, and moves nothing, if the artifact is locked.
        """

    def delete_all(self, name: str) -> None:
        """Delete everything below a name, this host's copies included."""


def encode(document: Mapping[str, Any]) -> bytes:
    """Return a document as the JSON that all stores contain."""
    return json.dumps(document, indent=1, sort_keys=True).encode()


def is_artifact(name: str) -> bool:
    """Return whether a name can be an artifact's; other folders of a store belong to its users."""
    return _ARTIFACT.fullmatch(name) is not None


def unfinished(name: str) -> str:
    """Return the name of an artifact's partial directory and lock: a single path component."""
    return name.replace("/", "-")


def now() -> str:
    """Return the time (UTC) in the format of the trash's folders."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}"


def new_collection(tree: Callable[[str], Mapping[str, Entry]]) -> str:
    """Return a folder of the trash that has no files yet, so that none is replaced there.

    tree: a backend's. Waits if this second's folder is in use.
    """
    while tree(folder := f"{TRASH}/{now()}"):
        time.sleep(0.1)
    return folder


def rename_partial(partial: Path, path: Path) -> None:
    """Rename a finished partial directory, without its notes and half-written files.

    The note of its inputs goes last: without it a later run couldn't resume after a failure here.
    """
    for hidden in list(partial.rglob(".*")):
        if hidden.is_dir():
            shutil.rmtree(hidden, ignore_errors=True)
        elif hidden != partial / INPUTS:
            hidden.unlink(missing_ok=True)
    partial.rename(path)
    (path / INPUTS).unlink(missing_ok=True)

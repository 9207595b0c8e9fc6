"""What a store needs of the place that its artifacts are in."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

FAILED = ".failed"
#: Holds folders named by their time (`now`), with the layout of the store below each.
TRASH = ".trash"
#: In place of the SHA-256 of what is there and can't be read.
UNREADABLE = "unreadable"


class Entry(NamedTuple):
    """One file: bytes, and when it was last written, in ns (by the clock of whoever keeps it)."""

    size: int
    modified_ns: int


class Backend(Protocol):
    """A directory or an object store. Names are relative to the store; an artifact's is ``<stage>/<short key>``.

    Nothing outside the store is read, written or deleted, whatever names and links are in it.

    uri: finds the store from anywhere on this host, and may hold credentials. title: the same for people, without them.
    local: a directory of this host for what must be a file there. shared: every node of a cluster finds the paths of its
    artifacts and partial directories under the same names; else they are this host's own.
    """

    uri: str
    title: str
    local: Path
    shared: bool

    def tree(self, name: str) -> dict[str, Entry]:
        """Every file below a name, by its path below it; empty where there's nothing."""

    def list_many(self, names: Iterable[str]) -> dict[str, dict[str, Entry]]:
        """`tree` of many artifacts at once."""

    def read(self, files: Mapping[str, Entry]) -> dict[str, bytes]:
        """Small documents by name; without those that have gone."""

    def write(self, name: str, content: bytes) -> None:
        """A small document, whole or not at all."""

    def delete(self, name: str) -> None:
        """A file, if it's there."""

    def sha256(self, name: str) -> str | None:
        """Return that of a file as it is kept: None where it isn't there, `UNREADABLE` for a damaged one."""

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """The directory of this host with an artifact's files. Raises `DamagedArtifactError` where they aren't as they should be."""

    def evict(self, name: str, manifest: Mapping[str, Any]) -> None:
        """Forget what `fetch` has kept of an artifact, if it's damaged."""

    def exclusive(self, name: str) -> AbstractContextManager[Path]:
        """The partial directory of an artifact, on this host, while nobody else works on it. Waits."""

    def in_progress(self) -> set[str]:
        """What is being worked on, as `unfinished` names it."""

    def publish(self, name: str, partial: Path, manifest: Mapping[str, Any]) -> None:
        """Make a partial directory an artifact, the manifest last. To be called within `exclusive`."""

    def reopen(self, name: str, partial: Path, files: Iterable[str]) -> None:
        """The reverse: those of an artifact's files that are there become the partial directory; its manifest is deleted."""

    def partials(self) -> dict[str, Path]:
        """``<stage>-<short key>`` -> directory of whatever is unfinished on this host."""

    def retire(self, name: str, files: Sequence[str], trash: str) -> bool:
        """Move files of an artifact below the name `trash`, the last of them last, and what is unfinished of it on this host.

        files: paths below the artifact; those that are gone are skipped. Copies on this host are deleted. False, and nothing
        moved, while someone works on the artifact.
        """

    def delete_all(self, name: str) -> None:
        """Delete everything below a name, of what is kept for it on this host too."""


def encode(document: Mapping[str, Any]) -> bytes:
    """A document as every store keeps it."""
    return json.dumps(document, indent=1, sort_keys=True).encode()


def unfinished(name: str) -> str:
    """What an artifact is called while it's made: one name, without folders."""
    return name.replace("/", "-")


def now() -> str:
    """Return the time (UTC) as folders of the trash are named."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}"


def remove_hidden(partial: Path) -> None:
    """Delete the hidden files and folders of a result that is about to be published: notes and half-written files."""
    for path in list(partial.rglob(".*")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

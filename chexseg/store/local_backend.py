"""A store in a directory, which hosts can share if their file system locks for all of them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chexseg.errors import UserError, reason
from chexseg.store.backend import (
    UNREADABLE,
    Entry,
    encode,
    new_collection,
    rename_partial,
    unfinished,
)
from chexseg.store.file_lock import is_locked, locked
from chexseg.store.links import (
    open_descriptor,
    open_regular,
    read_regular,
    refuse_links,
    refuse_special_files,
    remove_empty,
    replacing,
    walk,
)
from chexseg.store.manifest import DAMAGE, MANIFEST, is_inside, sha256

PARTIAL = ".partial"


class LocalBackend:
    """Artifacts as directories below `root`, published by a rename (`store.backend.Backend`)."""

    shared = True

    def __init__(self, root: Path):
        self.root = self.local = root
        self.uri, self.title = str(root.absolute()), str(root)
        try:
            is_file = not stat.S_ISDIR(root.stat().st_mode)
        except FileNotFoundError:
            is_file = False
        if is_file:
            raise UserError(f"--store {root}: found a file; expected: a directory")

    def tree(self, name: str) -> dict[str, Entry]:
        top, tree = str(self._path(name)), {}
        for folder, _, files in walk(top, onerror=_raise_unless_gone):
            for file in files:
                path = os.path.join(folder, file)
                below = path[len(top) + 1 :]
                with suppress(OSError):  # deleted in the meantime
                    status = os.lstat(path)
                    # Links may lead out of the store, and reading a pipe would wait.
                    if stat.S_ISREG(status.st_mode) and below.isprintable():
                        tree[below] = Entry(status.st_size, status.st_mtime_ns)
        return tree

    def list_many(self, names: Iterable[str]) -> dict[str, dict[str, Entry]]:
        return {name: self.tree(name) for name in names}

    def read(self, files: Mapping[str, Entry]) -> dict[str, bytes]:
        contents = {}
        for name in files:
            try:
                with suppress(FileNotFoundError):
                    contents[name] = read_regular(self._path(name))
            except OSError as error:  # taken for missing, it would be computed anew
                raise self._unreadable(name, error) from None
        return contents

    def write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)

    def append(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
            file.write(content)

    def delete(self, name: str) -> None:
        path = self._path(name)
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be deleted ({reason(error)}); expected: a writable store"
            ) from None

    def sha256(self, name: str) -> str | None:
        try:
            with open_regular(self._path(name)) as file:
                return sha256(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in DAMAGE:
                return UNREADABLE
            raise self._unreadable(name, error) from None

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        return self._path(name)

    def evict(self, name: str, manifest: Mapping[str, Any]) -> None:
        """Do nothing: there are no copies."""

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Path]:
        self._path(name)
        refuse_links(self.root, self._lock(name))
        with locked(self._lock(name)):
            partial = self._path(f"{PARTIAL}/{unfinished(name)}")
            # Whoever held the lock may have changed it.
            refuse_special_files(self.root, partial)
            yield partial

    def in_progress(self) -> set[str]:
        return {path.stem for path in self._path(PARTIAL).glob("*.lock") if is_locked(path)}

    def publish(self, name: str, partial: Path, manifest: Mapping[str, Any]) -> None:
        refuse_special_files(self.root, partial)
        self.write(str((partial / MANIFEST).relative_to(self.root)), encode(manifest))
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # incomplete: a complete one is never computed again
            remove_empty(path)
        if path.exists():  # the rest may include files of the user
            aside = self._path(f"{new_collection(self.tree)}/{name}")
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
        rename_partial(partial, path)

    def reopen(self, name: str, partial: Path, files: Iterable[str]) -> None:
        self._path(f"{name}/{MANIFEST}").unlink()
        for file in files:
            source = self._path(f"{name}/{file}")
            if source.is_file():
                (partial / file).parent.mkdir(parents=True, exist_ok=True)
                source.rename(partial / file)
        refuse_special_files(self.root, partial)

    def partials(self) -> dict[str, Path]:
        paths = sorted(self._path(PARTIAL).glob("*"))
        return {path.name: path for path in paths if path.is_dir() and not path.is_symlink()}

    def retire(self, name: str, files: Sequence[str], trash: str) -> bool:
        refuse_links(self.root, self._lock(name))
        with locked(self._lock(name), wait=False) as acquired:
            if acquired:
                present = self.tree(name)  # another process may have moved some
                moves = {
                    f"{name}/{file}": f"{trash}/{name}/{file}" for file in files if file in present
                }
                partial = f"{PARTIAL}/{unfinished(name)}"
                if (self.root / partial).is_dir():
                    moves[partial] = f"{trash}/{partial}"
                for path in (*moves, *moves.values()):
                    refuse_links(self.root, (self.root / path).parent)
                for source, target in moves.items():
                    (self.root / target).parent.mkdir(parents=True, exist_ok=True)
                    (self.root / source).rename(self.root / target)  # a link itself, not its target
                remove_empty(self.root / name)
        return acquired

    def delete_all(self, name: str) -> None:
        path = self._path(name)
        if path.is_dir():
            shutil.rmtree(path)

    def _path(self, name: str) -> Path:
        """Return the path of a name.

        Raises `UserError` for a name that leads out of the store, and `LinkError` for a link.
        """
        if name and not is_inside(name):
            raise UserError(
                f"--store {self.root}: found the name {name!r}; expected: a path inside the store"
            )
        path = self.root / name
        refuse_links(self.root, path)
        return path

    def _unreadable(self, name: str, error: OSError) -> UserError:
        return UserError(
            f"{self.root / name}: cannot be read ({reason(error)}); expected: a readable file"
        )

    def _lock(self, name: str) -> Path:
        return self.root / PARTIAL / f"{unfinished(name)}.lock"


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise UserError(
            f"{error.filename}: cannot be listed ({reason(error)}); expected: a readable folder"
        ) from None

"""A store in a directory, which may be shared by hosts whose file system locks for all of them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chexseg.errors import UserError
from chexseg.manifest import MANIFEST, is_inside, sha256
from chexseg.study.backend import Entry, encode, unfinished
from chexseg.study.locks import is_locked, locked

PARTIAL = ".partial"


class Directory:
    """An artifact is a directory below `root`, and appears there by a rename (`study.backend.Backend`)."""

    shared = True

    def __init__(self, root: Path):
        self.root = self.local = root
        self.uri, self.title = str(root.absolute()), str(root)
        if root.exists() and not root.is_dir():
            raise UserError(f"--store {root}: is a file; allowed: a directory")

    def tree(self, name: str) -> dict[str, Entry]:
        top, out = str(self._path(name)), {}
        for folder, _, files in os.walk(top):
            for file in files:
                path = os.path.join(folder, file)
                try:
                    status = os.lstat(path)
                except OSError:  # gone since
                    continue
                if stat.S_ISREG(status.st_mode):  # links lead elsewhere, pipes would be waited for
                    out[path[len(top) + 1 :]] = Entry(status.st_size, status.st_mtime_ns)
        return out

    def trees(self, names: Iterable[str]) -> dict[str, dict[str, Entry]]:
        return {name: self.tree(name) for name in names}

    def read(self, files: Mapping[str, Entry]) -> dict[str, bytes]:
        out = {}
        for name in files:
            try:
                out[name] = self._path(name).read_bytes()
            except OSError:
                continue
        return out

    def write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # x: through no link that someone has put there
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def sha256(self, name: str) -> str | None:
        try:
            with self._path(name).open("rb") as file:
                return sha256(file)
        except FileNotFoundError:
            return None

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        return self._path(name)

    def drop_copies(self, name: str, manifest: Mapping[str, Any]) -> None:
        """There are none."""

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Path]:
        partial = self._path(f"{PARTIAL}/{unfinished(name)}")
        with locked(self._lock(name)):
            _unlink_links(partial)
            yield partial

    def busy(self) -> set[str]:
        return {path.stem for path in (self.root / PARTIAL).glob("*.lock") if is_locked(path)}

    def publish(self, name: str, partial: Path, manifest: Mapping[str, Any]) -> None:
        self.write(str((partial / MANIFEST).relative_to(self.root)), encode(manifest))
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # incomplete, or it would have been found
            shutil.rmtree(path)
        partial.rename(path)

    def reclaim(self, name: str, partial: Path) -> None:
        self._path(f"{name}/{MANIFEST}").unlink()
        self._path(name).rename(partial)

    def partials(self) -> dict[str, Path]:
        return {path.name: path for path in sorted((self.root / PARTIAL).glob("*")) if path.is_dir()}

    def remove(self, name: str) -> bool:
        with locked(self._lock(name), wait=False) as mine:
            if mine:
                (self.root / name / MANIFEST).unlink(missing_ok=True)  # first: half an artifact must not look whole
                for path in (self.root / name, self._partial(name)):
                    shutil.rmtree(path, ignore_errors=True)
        return mine

    def _path(self, name: str) -> Path:
        """The path of a name. Raises `UserError` where a link would lead out of the store."""
        if name and not is_inside(name):
            raise UserError(f"--store {self.root}: found the name {name!r}; expected: a path inside the store")
        path = str(self.root)
        for part in name.split("/") if name else ():
            path = f"{path}/{part}"
            if os.path.islink(path):
                raise UserError(
                    f"{path}: is a link; expected: a file or folder of the store itself (hint: move the whole store,"
                    " or mount the other disk there)"
                )
        return self.root / name

    def _partial(self, name: str) -> Path:
        return self.root / PARTIAL / unfinished(name)

    def _lock(self, name: str) -> Path:
        return self.root / PARTIAL / f"{unfinished(name)}.lock"


def _unlink_links(directory: Path) -> None:
    """Delete what an unfinished result has of links: no stage of ours makes any, and writing would follow them."""
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                os.unlink(path)

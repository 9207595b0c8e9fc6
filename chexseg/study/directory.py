"""A store in a directory, which may be shared by hosts whose file system locks for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chexseg.errors import UserError
from chexseg.study.backend import MANIFEST, Entry, digest, encode, unfinished
from chexseg.study.links import refuse_links, refuse_links_below, remove_empty, replacing
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
        top, out = self.root / name, {}
        for folder, _, files in os.walk(top, followlinks=True):
            for file in files:
                path = Path(folder, file)
                try:
                    about = path.stat()
                except OSError:  # gone since, or a link to nothing
                    continue
                out[path.relative_to(top).as_posix()] = Entry(about.st_size, about.st_mtime_ns)
        return out

    def trees(self, names: Iterable[str]) -> dict[str, dict[str, Entry]]:
        return {name: self.tree(name) for name in names}

    def read(self, files: Mapping[str, Entry]) -> dict[str, bytes]:
        out = {}
        for name in files:
            try:
                out[name] = (self.root / name).read_bytes()
            except OSError:
                continue
        return out

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        refuse_links(self.root, path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)

    def delete(self, name: str) -> None:
        refuse_links(self.root, (self.root / name).parent)
        (self.root / name).unlink(missing_ok=True)

    def sha256(self, name: str) -> str | None:
        try:
            with (self.root / name).open("rb") as file:
                return digest(file)
        except FileNotFoundError:
            return None

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        return self.root / name

    def drop_copies(self, name: str, manifest: Mapping[str, Any]) -> None:
        """There are none."""

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Path]:
        refuse_links(self.root, self.root / name)
        refuse_links_below(self.root, self._partial(name))
        with locked(self._lock(name)):
            yield self._partial(name)

    def busy(self) -> set[str]:
        return {path.stem for path in (self.root / PARTIAL).glob("*.lock") if is_locked(path)}

    def publish(self, name: str, partial: Path, manifest: Mapping[str, Any]) -> None:
        self.write(str((partial / MANIFEST).relative_to(self.root)), encode(manifest))
        path = self.root / name
        refuse_links(self.root, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # incomplete, or it would have been found
            shutil.rmtree(path)
        partial.rename(path)

    def reclaim(self, name: str, partial: Path) -> None:
        (self.root / name / MANIFEST).unlink()
        (self.root / name).rename(partial)

    def partials(self) -> dict[str, Path]:
        return {path.name: path for path in sorted((self.root / PARTIAL).glob("*")) if path.is_dir()}

    def retire(self, name: str, files: Sequence[str], trash: str) -> bool:
        refuse_links(self.root, self._lock(name))
        with locked(self._lock(name), wait=False) as acquired:
            if acquired:
                present = self.tree(name)  # another process may have moved some
                moves = {f"{name}/{file}": f"{trash}/{name}/{file}" for file in files if file in present}
                if self._partial(name).is_dir():
                    moves[f"{PARTIAL}/{unfinished(name)}"] = f"{trash}/{PARTIAL}/{unfinished(name)}"
                for place in (*moves, *moves.values()):
                    refuse_links(self.root, (self.root / place).parent)
                for source, target in moves.items():
                    (self.root / target).parent.mkdir(parents=True, exist_ok=True)
                    (self.root / source).rename(self.root / target)  # of a link, itself
                remove_empty(self.root / name)
        return acquired

    def delete_all(self, name: str) -> None:
        refuse_links(self.root, self.root / name)
        if (self.root / name).is_dir():
            shutil.rmtree(self.root / name)

    def _partial(self, name: str) -> Path:
        return self.root / PARTIAL / unfinished(name)

    def _lock(self, name: str) -> Path:
        return self.root / PARTIAL / f"{unfinished(name)}.lock"

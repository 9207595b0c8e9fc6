"""Where a data set lies, a directory or a prefix of an object store, and its files: read, measured, read ahead."""

from __future__ import annotations

import errno
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import pyarrow as pa
from pyarrow import fs

from chexseg.errors import UserError, reason
from chexseg.store.uris import Place, connect, parse

#: Files of an object store that a process reads at once; pyarrow's client keeps 25 connections.
AT_ONCE = 24
T = TypeVar("T")


class Readable(Protocol):
    """A file that can be read as a whole; ``str`` names it for people."""

    def read_bytes(self) -> bytes: ...


class ReadOnce:
    """A file that is read at most once, so that whoever uses it sees the same bytes; ``str`` names it for people."""

    def __init__(self, path: Readable):
        self.path = path
        self._content: bytes | None = None

    def __str__(self) -> str:
        return str(self.path)

    def read_bytes(self) -> bytes:
        if self._content is None:
            self._content = self.path.read_bytes()
        return self._content


@dataclass(frozen=True)
class RemotePath:
    """A file or folder of an object store, with those members of `pathlib.Path` that readers of a data set need.

    uri: of the data root; it may hold credentials. below: the path below that. ``str`` and ``repr`` hold no credentials. What
    a request fails of is an `OSError` with one line in ``strerror``, for a missing file a `FileNotFoundError`.
    """

    uri: str = field(repr=False)
    below: str = ""

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return RemotePath(self.uri, f"{self.below}/{name}".strip("/"))

    def __str__(self) -> str:
        return f"{_connected(self.uri).title}/{self.below}".rstrip("/")

    @property
    def name(self) -> str:
        return PurePosixPath(self.below).name

    def absolute(self) -> RemotePath:
        return self

    def is_dir(self) -> bool:
        return self._type() == fs.FileType.Directory

    def is_file(self) -> bool:
        return self._type() == fs.FileType.File

    def read_bytes(self) -> bytes:
        def read(files: fs.FileSystem, path: str) -> bytes:
            with files.open_input_stream(path, compression=None) as stream:
                return stream.read()

        return self._asked(read)

    def sizes(self) -> dict[str, int]:
        """Bytes of every file below this folder, by its ``str``. One listing: a request for each 1,000 files."""

        def list_all(files: fs.FileSystem, path: str) -> dict[str, int]:
            found = files.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
            single_node = str(self)
            return {
                single_node + info.path.removeprefix(path): info.size
                for info in found
                if info.type == fs.FileType.File
            }

        return self._asked(list_all)

    def _type(self) -> fs.FileType:
        return self._asked(lambda files, path: files.get_file_info(path)).type

    def _asked(self, request: Callable[[fs.FileSystem, str], T]) -> T:
        place = _connected(self.uri)
        try:
            return request(place.files, f"{place.path}/{self.below}".rstrip("/"))
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
        except (pa.ArrowException, OSError) as error:
            raise OSError(errno.EIO, reason(error), str(self)) from None


#: Of a data set, or of a folder or file in it.
Location = Path | RemotePath


def at(place: str | Path) -> Location:
    """The directory, or the prefix that a URI names. Raises `UserError` for a URI of nothing that pyarrow knows."""
    given = parse(place)
    if isinstance(given, Path):
        return given
    _connected(given)
    return RemotePath(given)


def check(root: Location) -> None:
    """Raises `UserError` where there is no such directory or prefix, or it can't be asked for."""
    with wrap_io_errors(root):
        if root.is_dir():
            return
    found = "no such directory" if isinstance(root, Path) else "no such bucket or prefix"
    raise UserError(
        f"data root {root}: {found}; allowed: a directory or prefix with CheXpert and CheXlocalize below it"
    )


@contextmanager
def wrap_io_errors(root: Location) -> Iterator[None]:
    """A place that doesn't answer as it should is a user's mistake: the `UserError` names what was asked for."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or root}: cannot be read ({reason(error)}); allowed: what this user may list and read"
        ) from None


def files(root: Location, paths: Iterable[str]) -> Iterator[Location]:
    """The files of the paths of a table (`chexpert.read`), which say where each lies below `root`."""
    start = f"{root}/"
    return (root / path.removeprefix(start) for path in paths)


def sizes(folder: Location, paths: Iterable[str]) -> list[int]:
    """Bytes of each of the paths, which lie in `folder`; -1 for a file that isn't there. Raises `UserError` as `wrap_io_errors`."""
    if isinstance(folder, Path):
        return [_size(path) for path in paths]
    with wrap_io_errors(folder):
        there = folder.sizes()
    return [there.get(path, -1) for path in paths]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def at_once(files: Sequence[Location]) -> int:
    """Threads to decode files: as many as there are cores, or as there are connections to where they lie."""
    return AT_ONCE if files and isinstance(files[0], RemotePath) else os.cpu_count() or 1


def prefetch(paths: Iterable[Location]) -> Iterator[Path | Readable]:
    """The files in their order. Those of an object store are read by threads, so many at once and no more ahead."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        coming: deque[Path | Readable] = deque()
        for path in paths:
            coming.append(
                path if isinstance(path, Path) else _Coming(path, pool.submit(path.read_bytes))
            )
            if isinstance(path, Path) or len(coming) > AT_ONCE:
                yield coming.popleft()
        yield from coming


@dataclass(frozen=True)
class _Coming:
    """A file that is being read."""

    path: RemotePath
    content: Future[bytes]

    def __str__(self) -> str:
        return str(self.path)

    def read_bytes(self) -> bytes:
        return self.content.result()


@functools.lru_cache(maxsize=8)
def _connected(uri: str) -> Place:
    return connect(uri, "data root")

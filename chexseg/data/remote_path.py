"""The location of a data set, a directory or an object store prefix, and access to its files."""

from __future__ import annotations

import errno
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import pyarrow as pa
from pyarrow import fs

from chexseg.errors import UserError, reason
from chexseg.store import links
from chexseg.store.uris import Place, connect, parse, read_whole

#: Concurrent reads of an object store per process; pyarrow's client has 25 connections.
CONCURRENT_READS = 24
T = TypeVar("T")


class Readable(Protocol):
    """A file that can be read as a whole; ``str`` gives its name for messages."""

    def read_bytes(self) -> bytes: ...


class ReadOnce:
    """A file that is read at most once, so that all uses see the same bytes.

    read: how to read `path`; by default `read_bytes`.
    """

    def __init__(self, path: Readable, read: Callable[[], bytes] | None = None):
        self.path = path
        self.read_bytes = functools.cache(read or functools.partial(read_bytes, path))

    def __str__(self) -> str:
        return str(self.path)


def read_bytes(file: Readable) -> bytes:
    """Return a file's content. Raises `OSError` for a pipe or device at once, as for any fault."""
    return links.read_regular(file) if isinstance(file, Path) else file.read_bytes()


@dataclass(frozen=True)
class RemotePath:
    """A file or folder of an object store, with the members of `pathlib.Path` that readers need.

    uri: the data root's, perhaps with credentials; ``str`` and ``repr`` leave those out. below: the
    path relative to it. A failed request raises `OSError` with one line in ``strerror``, or
    `FileNotFoundError`.
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
        return bool(self._type() == fs.FileType.Directory)

    def is_file(self) -> bool:
        return bool(self._type() == fs.FileType.File)

    def read_bytes(self) -> bytes:
        return self._request(read_whole)

    def sizes(self) -> dict[str, int]:
        """Return ``str`` -> bytes of the files below this folder: a request per 1,000 files."""

        def list_all(files: fs.FileSystem, path: str) -> dict[str, int]:
            selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
            return {
                str(self) + info.path.removeprefix(path): info.size
                for info in files.get_file_info(selector)
                if info.type == fs.FileType.File
            }

        return self._request(list_all)

    def _type(self) -> fs.FileType:
        return self._request(lambda files, path: files.get_file_info(path)).type

    def _request(self, request: Callable[[fs.FileSystem, str], T]) -> T:
        place = _connected(self.uri)
        try:
            return request(place.files, f"{place.path}/{self.below}".rstrip("/"))
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
        except (pa.ArrowException, OSError) as error:
            raise OSError(errno.EIO, reason(error), str(self)) from None


#: The location of a data set, or of a folder or file in it.
Location = Path | RemotePath


def at(place: str | Path) -> Location:
    """Return a directory, or the prefix of a URI. Raises `UserError` for an unsupported URI."""
    given = parse(place)
    if isinstance(given, Path):
        return given
    _connected(given)
    return RemotePath(given)


def check(root: Location) -> None:
    """Raise `UserError` unless the directory or prefix exists and can be accessed."""
    with wrap_io_errors(root):
        if root.is_dir():
            return
    fault = "no such directory" if isinstance(root, Path) else "no such bucket or prefix"
    raise UserError(
        f"data root {root}: {fault};"
        " expected a directory or prefix that contains CheXpert and CheXlocalize"
    )


@contextmanager
def wrap_io_errors(root: Location) -> Iterator[None]:
    """Convert `OSError` to `UserError`, with the file or folder that could not be accessed."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or root}: cannot be read ({reason(error)});"
            " expected files that this user may list and read"
        ) from None


def files(root: Location, paths: Iterable[str]) -> Iterator[Location]:
    """Return the locations of the paths in a table of `chexpert.read`, which begin with `root`."""
    start = f"{root}/"
    return (root / path.removeprefix(start) for path in paths)


def sizes(folders: Sequence[Location], paths: Iterable[str]) -> list[int]:
    """Return the bytes of each path inside one of the folders; -1 for a missing file.

    Raises `UserError` as `wrap_io_errors` does.
    """
    listed: dict[str, int] = {}
    for folder in folders:
        if isinstance(folder, Path):
            return [_size(path) for path in paths]
        with wrap_io_errors(folder):
            listed |= folder.sizes()
    return [listed.get(path, -1) for path in paths]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def reader_threads(files: Sequence[Location]) -> int:
    """Return how many threads to decode files with: cores, or connections to the object store."""
    return CONCURRENT_READS if files and isinstance(files[0], RemotePath) else os.cpu_count() or 1


def prefetch(paths: Iterable[Location]) -> Iterator[Path | Readable]:
    """Yield the files in order; threads read up to `CONCURRENT_READS` of an object store ahead."""
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        upcoming: deque[Path | Readable] = deque()
        for path in paths:
            upcoming.append(
                path
                if isinstance(path, Path)
                else ReadOnce(path, pool.submit(path.read_bytes).result)
            )
            if isinstance(path, Path) or len(upcoming) > CONCURRENT_READS:
                yield upcoming.popleft()
        yield from upcoming


@functools.lru_cache(maxsize=8)
def _connected(uri: str) -> Place:
    return connect(uri, "data root")

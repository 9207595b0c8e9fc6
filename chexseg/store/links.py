"""Access to files that waits for no named pipe, and in a store follows no symbolic link.

These checks find what is in the store already. Whoever can replace a folder by a link at the very
moment of a write could lead it elsewhere (docs/explanation/trust.md).
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from chexseg.errors import UserError, naming

#: Bytes of the largest file that is read as a whole. A hole makes a file of any size from nothing.
MOST_BYTES = 2**31
#: Folders within folders below a result; those of chexseg have one.
MOST_LEVELS = 100


class LinkError(UserError):
    """A symbolic link at a path that a store would read or write."""


def link_error(path: Path) -> LinkError:
    return LinkError(
        f"{path}: found a symbolic link; expected: a plain file or folder; hint: remove the link"
    )


def refuse_links(root: Path, path: Path) -> None:
    """Raise `LinkError` if `path` or a folder between it and `root` is a symbolic link.

    `root` itself may be one.
    """
    step = str(root)
    for part in path.relative_to(root).parts:  # strings: `study status` checks 10,000 results
        step = os.path.join(step, part)
        if os.path.islink(step):
            raise link_error(Path(step))


def refuse_special_files(root: Path, folder: Path) -> None:
    """Raise `UserError` for anything in `folder` that is neither a regular file nor a folder.

    A file with a second name (hard link) is refused too: a write would change what has that name.
    Raises `LinkError` if `folder`, or a folder between it and `root`, is a symbolic link.
    """
    refuse_links(root, folder)
    for parent, folders, files in walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            mode = status.st_mode
            if stat.S_ISLNK(mode):
                raise link_error(path)
            if stat.S_ISREG(mode) and status.st_nlink > 1:
                raise UserError(
                    f"{path}: found a file with a second name (hard link), which a write would"
                    " change too; expected: a file of its own; hint: remove it"
                )
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise UserError(
                    f"{path}: found a pipe, socket or device; expected: a plain file or folder;"
                    " hint: remove it"
                )


def walk(
    top: str | Path, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, its folders, its files) as `os.walk` does; links aren't followed.

    Raises `UserError` for folders nested more than `MOST_LEVELS` deep: `os.walk` itself, and what
    deletes folders, would end in a RecursionError.
    """
    for folder, folders, files in os.walk(top, onerror=onerror):
        if folders and folder.count(os.sep, len(str(top))) >= MOST_LEVELS:
            raise UserError(
                f"{top}: found folders nested more than {MOST_LEVELS} deep;"
                " expected: those of a result; hint: remove them"
            )
        yield str(folder), folders, files


def open_descriptor(path: Path, flags: int) -> int:
    """Open a regular file. Raises `OSError` (EIO) for a pipe or device at once.

    To be written, it may have no second name outside the store (EMLINK).
    """
    # Without O_NONBLOCK, opening a named pipe waits until another process opens it too.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EIO, "not a regular file", str(path))
    if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EMLINK, "the file has a second name (hard link)", str(path))
    return descriptor


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; otherwise as `open_descriptor`."""
    return os.fdopen(open_descriptor(path, os.O_RDONLY), "rb")


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file; otherwise as `open_descriptor`.

    Raises `OSError` (EFBIG) for a file of more than `most` bytes, before memory is allocated.
    """
    with open_regular(path) as file:
        check_size(file.fileno(), path, most)
        return file.read()


def check_size(descriptor: int, path: Path, most: int = MOST_BYTES) -> None:
    """Raise `OSError` (EFBIG) for an open file of more than `most` bytes; holes count too."""
    size = os.fstat(descriptor).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {most:,}", str(path))


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a file in UTF-8, with lines that end in \\n; else as `read_regular`."""
    with io.TextIOWrapper(io.BytesIO(read_regular(path, most)), encoding="utf-8") as file:
        return file.read()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that replaces `path` when the context ends, as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with naming(path):
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with all that it contains, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Remove a folder and its subfolders, except those that contain a file."""
    for parent, _, _ in reversed(list(walk(folder))):
        with suppress(OSError):  # not empty
            Path(parent).rmdir()

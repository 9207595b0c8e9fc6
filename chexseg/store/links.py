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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from chexseg.errors import UserError


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
    for parent, folders, files in os.walk(folder):
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


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file; otherwise as `open_descriptor`."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the text of a regular file in UTF-8, with lines that end in \\n."""
    with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
        return file.read()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that replaces `path` when the context ends, as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
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
    for parent, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            Path(parent).rmdir()

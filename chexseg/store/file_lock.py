"""Locks between the processes of this host, by flock: a process that dies leaves no lock behind."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chexseg.errors import UserError, naming, reason
from chexseg.store.links import link_error

#: Error numbers of `flock` on a file system without locks.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, which is deleted when the context ends.

    Yields False, without the lock, if another process has it and `wait` is off. A file that exists
    already keeps its content. Raises `UserError` for a symbolic link, and for what is no file that
    this user can write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with _opened(path, os.O_RDWR | os.O_CREAT) as lock:
            try:
                with naming(path):
                    fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            # The previous holder may have deleted the file: then this lock protects nothing.
            try:
                current = os.fstat(lock).st_ino == path.lstat().st_ino
            except FileNotFoundError:
                current = False
            if current:
                try:
                    yield True
                finally:
                    with suppress(PermissionError):  # another user's, left by a killed process
                        path.unlink(missing_ok=True)
                return


def is_locked(path: Path) -> bool:
    """Return whether a process of this host holds the lock, without disturbing it.

    A file of another user that this one may not open counts as locked. On a file system without
    locks there are none.
    """
    try:
        with _opened(path, os.O_RDONLY) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except (BlockingIOError, PermissionError):
        return True
    except OSError as error:
        if error.errno == errno.ENOENT or error.errno in NO_LOCKS:
            return False
        raise


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Yield a descriptor of a file, which is never emptied.

    Raises `UserError` for a link, and for what this user can't open for writing.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits until another process writes to it.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise link_error(path) from None
        if flags & os.O_RDWR and error.errno in (errno.EACCES, errno.EISDIR):
            raise UserError(
                f"{path}: cannot be locked ({reason(error)});"
                " expected: a file that this user can write"
            ) from None
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)

"""One process of this host at a time, by flock: a process that dies leaves no lock."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chexseg.store.links import link_error


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, which is there only as long. Yields False, without it, if another has it and `wait` is off.

    A file that is there already keeps its content. Raises `UserError` for a symbolic link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with _opened(path, os.O_RDWR | os.O_CREAT) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            # Whoever had the lock before took the file away; then this is a lock on nothing.
            try:
                current = os.fstat(lock).st_ino == path.lstat().st_ino
            except FileNotFoundError:
                current = False
            if current:
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return


def is_locked(path: Path) -> bool:
    """Whether a process of this host holds the lock; asking takes nothing from anyone."""
    try:
        with _opened(path, os.O_RDONLY) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of a file, which is never emptied. Raises `UserError` for a symbolic link."""
    try:
        # Without O_NONBLOCK, a named pipe would keep whoever only asks waiting for ever.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise link_error(path) from None
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)

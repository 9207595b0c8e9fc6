"""One process of this host at a time, by flock: a process that dies leaves no lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, which is there only as long. Yields False, without it, if another has it and `wait` is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            # Whoever had the lock before took the file away; then this is a lock on nothing.
            try:
                current = os.fstat(lock.fileno()).st_ino == path.stat().st_ino
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
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False

"""Writes that stay inside the store: a symbolic link below its root is never followed.

The checks are for links that are in the store already; whoever can swap a folder for a link at the very moment of a write
can write to the store anyway.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from chexseg.errors import UserError


class LinkError(UserError):
    """A symbolic link where a store would read or write."""


def link_error(path: Path) -> LinkError:
    return LinkError(
        f"{path}: found a symbolic link; expected: a plain file or folder; hint: remove the link"
    )


def refuse_links(root: Path, path: Path) -> None:
    """Raise `LinkError` if `path` or a folder between it and `root` is a symbolic link. `root` itself may be one."""
    place = str(root)
    for part in path.relative_to(root).parts:  # by names, because a status looks at 10,000 results
        place = os.path.join(place, part)
        if os.path.islink(place):
            raise link_error(Path(place))


def refuse_links_below(root: Path, folder: Path) -> None:
    """Raise `LinkError` if `folder`, a folder on the way to it from `root`, or anything below it is a symbolic link."""
    refuse_links(root, folder)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if Path(place, name).is_symlink():
                raise link_error(Path(place, name))


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file to write, which becomes `path` when the context ends: whole, on disk, or not at all."""
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


def remove_empty(folder: Path) -> None:
    """Remove a folder and the folders below it, but for those that hold a file."""
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it isn't empty
            Path(place).rmdir()

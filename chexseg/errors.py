"""Exceptions of chexseg, and helpers for its messages."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: A sequence that sets colours or moves the cursor of a terminal.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
#: Error numbers of calls that get an open file, so that Python doesn't know its name.
_OF_DESCRIPTORS = frozenset(
    {
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.ENOLCK,
        errno.ENOSPC,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
    }
)


class ChexsegError(Exception):
    """Base of the exceptions that chexseg raises on purpose.

    The message is one line; that of `Mistakes` has one for each.
    """


class UserError(ChexsegError, ValueError):
    """Bad input. The message names the file and field, the value and what is expected instead.

    It is a ValueError too, because pydantic accepts only those from validators.
    """


class Mistakes(UserError):
    """Several mistakes of one kind of input, each in a line as that of a `UserError`."""

    def __init__(self, lines: Iterable[str]):
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class DamagedArtifactError(ChexsegError):
    """A file of a store differs from its manifest. Only what needs the file fails."""


class RayLostError(ChexsegError):
    """Ray didn't start, or it, or a part of it that the driver needs, has ended during a run."""


class LeaseLostError(ChexsegError):
    """Another process considered this one dead and has taken over its work."""


def reason(error: BaseException) -> str:
    """Return the first line of an error's text, without the file name that an OSError adds.

    Control characters, which the text may have from a file, are question marks.
    """
    text = getattr(error, "strerror", None) or str(error)
    return printable((text.splitlines() or [type(error).__name__])[0])


def printable(text: str, keep: str = "") -> str:
    """Return a foreign text without escape sequences and control characters, but for `keep`."""
    text = _ESCAPE.sub("", text)
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)


def counted(number: int, noun: str) -> str:
    """Return "1 cell", "2 cells" and so on."""
    return f"{number} {noun}{'s' * (number != 1)}"


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed name, or "" if none is close."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an OSError that names no file, as those of writes and locks don't."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_DESCRIPTORS and error.filename is None:
            error.filename = str(path)
        raise

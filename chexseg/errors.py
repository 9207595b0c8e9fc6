"""Exceptions of chexseg."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line: the file and field, what was found, what is allowed."""


class DamagedError(UserError):
    """A file of the store that isn't what its manifest says: nobody's mistake, and only what needs the file fails."""


def reason(error: BaseException) -> str:
    """What went wrong, in one line and without the file's name, which the message has already."""
    told = getattr(error, "strerror", None) or str(error)
    return (told.splitlines() or [type(error).__name__])[0]


def nearest(name: object, allowed: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the allowed name closest to `name`, or an empty string where none is close."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""

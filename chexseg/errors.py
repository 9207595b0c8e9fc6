"""Exceptions of chexseg."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ChexsegError(Exception):
    """Base of the exceptions that chexseg raises on purpose. The message is one line."""


class UserError(ChexsegError, ValueError):
    """Bad input: the message names the file and field, what was found and what was expected.

    A ValueError too, so that pydantic takes it from a validator.
    """


class DamagedArtifactError(ChexsegError):
    """A file of a store differs from its manifest. Only what needs the file fails."""


class LeaseLostError(ChexsegError):
    """Another process took this one for dead and has taken over its work."""


def reason(error: BaseException) -> str:
    """What went wrong, in one line and without the file's name, which the message has already."""
    told = getattr(error, "strerror", None) or str(error)
    return (told.splitlines() or [type(error).__name__])[0]


def nearest(name: object, allowed: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the allowed name closest to `name`, or an empty string where none is close."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""

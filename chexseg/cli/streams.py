"""Standard output and error: what is shown there, and what happens if they can't be written."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from chexseg.errors import printable

#: The file name of an OSError that writing to standard output raises.
STDOUT = "standard output"


def echo(message: object, err: bool = False) -> None:
    """Print text, without the control characters that names, files and stores may contain."""
    stream = sys.stderr if err else sys.stdout
    stream.write(printable(str(message), "\n\t") + "\n")
    stream.flush()


class Stream:
    """A standard stream whose later writes and flushes go to /dev/null once one has failed.

    required: the first failure raises an `OSError` whose file name is `STDOUT`. Otherwise it is
    ignored: hours of work don't end because a log's disk is full or its reader has gone.
    """

    def __init__(self, stream: TextIO, required: bool):
        self._stream, self._required = stream, required

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text and return its length."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._discard(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        # Python flushes what is left once more at its end, and would fail again.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        if self._required:
            error.filename = STDOUT
            raise error


def prepare() -> None:
    """Make the standard streams usable and robust, before anything is opened or printed.

    A stream that the parent process has closed becomes /dev/null. Otherwise the next file that is
    opened would get its number, and warnings of libraries would be written into a store's files.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if isinstance(sys.stdout, io.TextIOWrapper):  # stderr does so by default
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (
        Stream(stream or os.fdopen(number, "w"), required=number == 1)
        for number, stream in ((1, sys.stdout), (2, sys.stderr))
    )

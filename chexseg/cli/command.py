"""The class of all commands: checks the paths of a command line, and explains errors of files.

An `OSError` that ends a command becomes one line: the file, the fault, and the option to change.
"""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import typer
from typer.core import TyperCommand

from chexseg.cli.streams import STDOUT
from chexseg.errors import UserError, reason

#: What a place must offer, by the error number of what failed there. Other errors are not the
#: place's fault and keep their traceback.
_EXPECTED = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space in this user's quota",
    errno.EFBIG: "a file system and a limit (ulimit -f) that allow larger files",
    errno.EROFS: "a writable file system",
    errno.EACCES: "a file or directory that this user may access",
    errno.EPERM: "a file or directory that this user may access",
    errno.ENAMETOOLONG: "a shorter path",
    errno.ELOOP: "a path without a loop of links",
    errno.ENOLCK: "a file system with locks (flock)",
    errno.EOPNOTSUPP: "a file system with locks (flock)",
    errno.ENOSYS: "a file system with locks (flock)",
    errno.EIO: "an undamaged disk",
    errno.ESTALE: "a network file system that answers",
    errno.ETIMEDOUT: "a network file system that answers",
    errno.ENODEV: "a device that is mounted",
    errno.ENXIO: "a regular file",
    errno.EMLINK: "a file of its own",
    errno.EBUSY: "a file or directory that nothing else uses",
    errno.EMFILE: "a higher limit of open files (ulimit -n)",
    errno.ENFILE: "fewer open files on this machine",
}
#: The same for errors that a mistake in the code causes too: they must concern a path of the user.
_EXPECTED_OF_USERS = {
    errno.ENOENT: "an existing file or directory",
    errno.ENOTDIR: "a directory in place of each folder of the path",
    errno.EISDIR: "a file",
    errno.EEXIST: "a new file, or a directory",
    errno.ENOTEMPTY: "an empty directory",
}
#: Environment variables whose values are directories.
_VARIABLES = ("CHEXSEG_CACHE", "RAY_TMPDIR", "XDG_CACHE_HOME", "TMPDIR", "HOME")


class Command(TyperCommand):
    """A command whose paths are checked, and whose OSErrors are one line with exit code 2."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:  # typer draws a box around its message of several lines
            cast(Any, parameter).type_descriptor.parameter_info.readable = False

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises `UserError`; an OSError that is no file's keeps its traceback."""
        _check_current_directory()
        for name, value in ctx.params.items():
            option = self._option(name)
            if isinstance(value, (str, Path)):
                ctx.params[name] = _usable(value, option)
            elif isinstance(value, list):
                ctx.params[name] = [_usable(item, option) for item in value]
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE and error.filename == STDOUT:
                raise typer.Exit(128 + signal.SIGPIPE) from None  # as `head` ends other programs
            if message := explain(error, self._places(ctx.params)):
                raise UserError(message) from None
            raise

    def _option(self, name: str) -> str:
        """Return how a command line names a parameter: --store, or STUDY.yaml."""
        parameter = next(parameter for parameter in self.params if parameter.name == name)
        if parameter.param_type_name == "argument":
            return str(getattr(parameter, "metavar", None) or name.upper())
        return parameter.opts[0]

    def _places(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (option, path) for the text and path values of a command."""
        for name, value in values.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, (str, Path)) and "://" not in str(item):
                    yield self._option(name), str(item)


def _check_current_directory() -> None:
    """Raise `UserError` if relative paths can't be resolved, or not in UTF-8."""
    try:
        directory = os.getcwd()
    except OSError as error:
        raise UserError(
            f"the current directory: can't be used ({reason(error)}); expected: an existing one;"
            " hint: cd to another"
        ) from None
    if not _is_utf8(directory):
        raise UserError(
            f"the current directory: found {directory!r}, which isn't UTF-8; expected: UTF-8;"
            " hint: rename it, or cd to another"
        )


def _usable(value: Any, option: str) -> Any:
    """Return a value with ``~`` replaced by the home directory.

    Shells don't replace it in ``--store=~/x``. Raises `UserError` if there is no home directory,
    and for text that isn't UTF-8: Ray, Parquet and JSON can't hold such a path.
    """
    if not isinstance(value, (str, Path)):
        return value
    text = str(value)
    if not _is_utf8(text):
        raise UserError(
            f"{option}: found {text!r}, which isn't UTF-8; expected: UTF-8;"
            " hint: rename the file or folder, or name a link to it"
        )
    if text.split("/")[0] != "~":
        return value
    expanded = os.path.expanduser(text)
    if expanded == text:
        raise UserError(
            f"{option}: found {text}, and this user has no home directory;"
            " expected: a path; hint: set HOME"
        )
    return type(value)(expanded)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def explain(error: OSError, places: Iterable[tuple[str, str]]) -> str | None:
    """Return a line with the file, the fault and the option to change; None for other errors.

    places: options of the command and their paths.
    """
    path = None if error.filename is None else os.fsdecode(error.filename)
    if path is None and str(error.strerror).startswith("No usable temporary directory"):
        return (
            f"TMPDIR: found no directory that this user may write to ({error.strerror});"
            " expected: one; hint: set TMPDIR"
        )
    option = None if path is None or path == STDOUT else _option_of(path, places)
    expected = _EXPECTED.get(error.errno or 0)
    if expected is None and option:
        expected = _EXPECTED_OF_USERS.get(error.errno or 0)
    if expected is None:
        return None
    hint = f"; hint: choose another {option}" if option else ""
    return f"{path or 'a file'}: can't be used ({reason(error)}); expected: {expected}{hint}"


def _option_of(path: str, places: Iterable[tuple[str, str]]) -> str | None:
    """Return the option or environment variable to change so that `path` is another one.

    It is the option whose own path is the longest that is `path` or above it. Otherwise an option
    with a path below, because a folder on the way there may be what failed. Otherwise a variable.
    """
    named = [(option, os.path.abspath(place)) for option, place in places]
    variables = [("TMPDIR", tempfile.gettempdir())]
    variables += [(name, os.environ[name]) for name in _VARIABLES if os.environ.get(name)]
    path = os.path.abspath(path)
    below = [option for option, place in named if place.startswith(f"{path}/")]
    return _longest_above(path, named) or next(iter(below), None) or _longest_above(path, variables)


def _longest_above(path: str, places: Iterable[tuple[str, str]]) -> str | None:
    above = [(len(place), name) for name, place in places if f"{path}/".startswith(f"{place}/")]
    return max(above)[1] if above else None

"""URIs such as s3://bucket/prefix: file system, path, and title without credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs

from chexseg.errors import UserError, reason

_EXPECTED = "expected: a directory, or a URI such as s3://bucket/prefix"


@dataclass(frozen=True)
class Place:
    """A prefix of an object store.

    path: bucket and prefix, as `files` expects them. title: the URI without credentials and query.
    options: the query.
    """

    files: fs.FileSystem
    path: str
    title: str
    options: Mapping[str, str]


def parse(location: str | Path) -> str | Path:
    """Return a URI as text, and anything else, ``file://`` included, as a path of this machine.

    Raises `UserError` for a ``file://`` without a path, or of another host.
    """
    text = str(location)
    if text.startswith("file:/"):
        return _local(text)
    # `Path` has turned the two slashes of a URI into one.
    uri = re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", text)
    return uri if "://" in uri else Path(location)


def _local(uri: str) -> Path:
    """Return the path of ``file:///path``, ``file://localhost/path`` or ``file:/path``."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UserError(f"{uri}: {reason(error)}; expected: file:///directory") from None
    if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
        raise UserError(f"{uri}: found no path of this machine; expected: file:///directory")
    return Path(unquote(parts.path))


def connect(uri: str, option: str) -> Place:
    """Return the file system and path of a URI. Nothing is read, except a bucket's region.

    Raises `UserError` for an invalid URI; the message begins with `option` and the title.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:  # of brackets, which are for addresses of IPv6
        scheme, _, rest = uri.partition("://")
        title = f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
        raise UserError(f"{option} {title}: {reason(error)}; {_EXPECTED}") from None
    title = f"{parts.scheme}://" + f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
    options = dict(parse_qsl(parts.query))
    if parts.scheme == "s3":  # otherwise pyarrow needs three requests to put a small object
        options["allow_delayed_open"] = "true"
    try:
        files, path = fs.FileSystem.from_uri(parts._replace(query=urlencode(options)).geturl())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{option} {title}: {_public_reason(error, uri)}; {_EXPECTED}") from None
    if not path.strip("/"):
        raise UserError(
            f"{option} {title}: found no bucket; expected: a URI such as s3://bucket/prefix"
        )
    return Place(files, path.strip("/"), title, options)


class WholeAnswers:
    """Reads an open object, and raises `OSError` for an answer that is shorter than announced.

    pyarrow returns such an answer of S3 as if it were whole; the missing bytes are whatever this
    process had in memory. So the buffer's last byte gets a value beforehand, and if it still has
    it, the bytes are asked for again with another one.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        self.file, self.size = file, file.size()

    def read(self, most: int | None = None) -> bytes:
        """Return the next bytes, at most so many; all by default."""
        start = self.file.tell()
        left = self.size - start
        count = left if most is None else min(most, left)
        if not count:
            return b""
        content = bytearray(count)
        for mark in b"\x55\xaa":
            content[-1] = mark
            self.file.seek(start)
            if self.file.readinto(content) == count and content[-1] != mark:
                return bytes(content)
        raise OSError(f"an answer ends before the {count} bytes that it announced")


def read_whole(files: fs.FileSystem, path: str) -> bytes:
    """Return an object's content. Raises `OSError` as `WholeAnswers`."""
    with files.open_input_file(path) as file:
        return WholeAnswers(file).read()


def _public_reason(error: Exception, uri: str) -> str:
    """Return the error's text without credentials: pyarrow's may repeat the URI."""
    text = reason(error)
    rest = uri.partition("://")[2]
    secrets = (*rest.rpartition("@")[0].split(":"), rest.partition("?")[2])
    return "not a valid URI" if any(part and part in text for part in secrets) else text

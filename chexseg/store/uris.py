"""A URI such as s3://bucket/prefix: its file system, the path there, and its name without credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs

from chexseg.errors import UserError, reason


@dataclass(frozen=True)
class Place:
    """path: in the file system, from the bucket on. title: the URI without credentials and query. options: of the query."""

    files: fs.FileSystem
    path: str
    title: str
    options: Mapping[str, str]


def parse(place: str | Path) -> str | Path:
    """What a user names: a URI as text, or a directory of this machine, as ``file://`` is."""
    # A `Path` has made one slash of the two.
    uri = re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", str(place))
    if "://" not in uri:
        return Path(place)
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else uri


def connect(uri: str, option: str) -> Place:
    """Where a URI leads. Raises `UserError`, which begins with `option` and the title, for one that leads nowhere.

    Whether anything is there isn't asked, but for a bucket whose region has to be looked up.
    """
    parts = urlsplit(uri)
    title = f"{parts.scheme}://" + f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
    options = dict(parse_qsl(parts.query))
    if parts.scheme == "s3":  # without it, pyarrow puts the smallest object in three requests
        options["allow_delayed_open"] = "true"
    try:
        files, path = fs.FileSystem.from_uri(parts._replace(query=urlencode(options)).geturl())
    except (pa.ArrowException, OSError, ValueError) as error:
        allowed = "a directory, or a URI such as s3://bucket/prefix"
        raise UserError(f"{option} {title}: {reason(error)}; allowed: {allowed}") from None
    if not path.strip("/"):
        raise UserError(f"{option} {title}: names no bucket; allowed: such as s3://bucket/prefix")
    return Place(files, path.strip("/"), title, options)

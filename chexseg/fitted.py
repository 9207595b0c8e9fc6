"""Find a fitted segmenter by its cell's name, its directory or its URI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from chexseg import resolve
from chexseg.data import remote_path
from chexseg.data.raw_split import RawData
from chexseg.errors import UserError
from chexseg.plan import selection
from chexseg.store import marker
from chexseg.store.store import Store


def find(name: str, data: str | Path | None, store: str, overrides: Sequence[str] = ()) -> Path:
    """Return this host's directory of a segmenter, or the path as it is; a URI is downloaded.

    name: ``STUDY.yaml#CELL``, of which `data`, `store` and `overrides` are those of ``study run``;
    the directory of a fit; its weights file; or the URI of a fit. Raises `UserError` if the store
    has no such fit, or several.
    """
    if "://" in name:  # first: the current directory may have a folder called "s3:"
        parts = urlsplit(name)
        root, _, key = parts.path.rpartition("/fit/")
        return _finished(Store(parts._replace(path=root).geturl()), key.strip("/"), name)
    file, cell = selection.study_and_cell(name)
    if not cell or (Path(name).exists() and not Path(file).is_file()):
        return Path(name)
    if data is None:
        raise UserError(f"{name}: found a cell of a study without --data; expected: --data ROOT")
    opened = Store(store)
    marker.check_exists(opened)
    (read,) = resolve.read([Path(file)], RawData(remote_path.at(data)), opened, overrides)
    named = selection.cells_named(resolve.planned(read, opened).cells, cell, file)
    fits = {one.fit for one in named}
    if len(fits) > 1:
        names = ", ".join(one.name for one in named[:4])
        raise UserError(f"{name}: found {len(fits)} fits; expected: one cell, such as {names}")
    return _finished(opened, fits.pop(), name)


def _finished(store: Store, key: str, name: str) -> Path:
    artifact = store.find("fit", key)
    if artifact is None:
        raise UserError(
            f"{name}: {store} has no finished fit {key[:20]!r};"
            " expected: a cell that has run, or a URI such as s3://bucket/prefix/fit/KEY"
        )
    return artifact.path

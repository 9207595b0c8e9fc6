"""The raw files of one split, and their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd

from chexseg.data import chexlocalize, chexpert, remote_path
from chexseg.data.remote_path import Location, ReadOnce
from chexseg.errors import UserError


class RawSplit:
    """The CSV and mask file of a split, each read once: what is made of them and their fingerprint are of the same bytes."""

    def __init__(self, root: Location, split: str):
        csv, self.folder = chexpert.locate(root, split)
        self.csv = ReadOnce(csv)
        self.mask_file = (
            ReadOnce(root / chexlocalize.FILES[split]) if split in chexlocalize.FILES else None
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table of `chexpert.read_csv`."""
        with remote_path.wrap_io_errors(self.csv.path):
            return chexpert.read_csv(self.csv, self.folder)

    def masks(self) -> chexlocalize.MaskFile:
        """Return the expert masks; none for a split that has no mask file."""
        if self.mask_file is None:
            return chexlocalize.MaskFile(Path(), {})
        return chexlocalize.MaskFile(self.mask_file.path, dict(chexlocalize.read(self.mask_file)))

    def fingerprint(self, sizes: Mapping[str, int] | None = None) -> str:
        """Return the SHA-256 of the contents of the CSV and mask file, and of the names and sizes of the images.

        The same files have the same fingerprint wherever they lie. sizes: path -> bytes of the images that have been read;
        those of all others are looked up. -1 stands for a missing image: ingest names it, planning goes on.
        """
        with remote_path.wrap_io_errors(self.csv.path):
            digest = hashlib.sha256(self.csv.read_bytes())
        if self.mask_file is not None:
            try:
                digest.update(self.mask_file.read_bytes())
            except OSError as error:
                raise UserError(
                    f"{self.mask_file}: cannot be read ({error.strerror}); allowed: a CheXlocalize mask file"
                ) from None
        known = dict(sizes or {})
        unread = [path for path in self.table["path"] if path not in known]
        known.update(
            zip(unread, remote_path.sizes(self.folder, unread) if unread else (), strict=True)
        )
        for path in self.table["path"]:
            digest.update(f"{path.rpartition('/')[2]} {known[path]}\n".encode())
        return digest.hexdigest()


def fingerprint(root: Location, split: str) -> str:
    """Return `RawSplit.fingerprint` of a split as it is now. Raises `UserError` for what can't be read."""
    return RawSplit(root, split).fingerprint()

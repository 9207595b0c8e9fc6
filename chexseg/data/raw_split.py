"""The raw files of a data set by split, and their fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import combinations
from pathlib import Path

import pandas as pd

from chexseg.data import chexlocalize, chexpert, remote_path
from chexseg.errors import UserError, counted


class RawSplit:
    """The raw files of one split.

    The CSV and the mask file are read once, so that the parsed data and the fingerprint come from
    the same bytes. The images' sizes are looked up once too.
    """

    def __init__(self, root: remote_path.Location, split: str):
        self.csv_location, self.folder = chexpert.locate(root, split)
        self.folders = chexpert.image_folders(root, self.folder)
        self.csv = remote_path.ReadOnce(self.csv_location)
        self.mask_file = (
            remote_path.ReadOnce(root / chexlocalize.FILES[split])
            if split in chexlocalize.FILES
            else None
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """Return the table of `chexpert.read_csv`."""
        with remote_path.wrap_io_errors(self.csv_location):
            return chexpert.read_csv(self.csv, self.folder)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Return path -> bytes of each image; -1 if it is missing."""
        paths = self.table["path"].tolist()
        return dict(zip(paths, remote_path.sizes(self.folders, paths), strict=True))

    def masks(self) -> chexlocalize.MaskFile:
        """Return the expert masks; empty for a split without a mask file.

        Raises `UserError` for the first fault of the file.
        """
        if self.mask_file is None:
            return chexlocalize.MaskFile(Path(), {})
        return chexlocalize.MaskFile(self.mask_file.path, dict(chexlocalize.read(self.mask_file)))

    def scan_masks(self) -> tuple[chexlocalize.MaskFile, list[tuple[str, str]]]:
        """Return the usable masks and the faults of the mask file, as `chexlocalize.scan`."""
        if self.mask_file is None:
            return chexlocalize.MaskFile(Path(), {}), []
        masks, faults = chexlocalize.scan(self.mask_file)
        return chexlocalize.MaskFile(self.mask_file.path, dict(masks)), faults

    def fingerprint(self, sizes: Mapping[str, int] | None = None) -> str:
        """Return the SHA-256 of the CSV, the mask file, and the names and sizes of the images.

        It doesn't depend on the files' location. sizes: path -> bytes of images whose size the
        caller has; others are looked up. A missing image counts as -1 bytes: the stage ``ingest``
        reports it, planning continues.
        """
        with remote_path.wrap_io_errors(self.csv_location):
            digest = hashlib.sha256(self.csv.read_bytes())
        if self.mask_file is not None:
            try:
                digest.update(self.mask_file.read_bytes())
            except OSError as error:
                raise UserError(
                    f"{self.mask_file}: cannot be read ({error.strerror});"
                    " expected a CheXlocalize mask file"
                ) from None
        all_sizes = sizes or {}
        if not all_sizes.keys() >= set(self.table["path"]):
            all_sizes = {**self.sizes, **all_sizes}
        for path in self.table["path"]:
            digest.update(f"{path.rpartition('/')[2]} {all_sizes[path]}\n".encode())
        return digest.hexdigest()


class RawData:
    """The raw files of all splits, read once for planning and for what is checked before a run."""

    def __init__(self, root: remote_path.Location):
        self.root = root

    @cached_property
    def splits(self) -> dict[str, RawSplit]:
        """Return split -> its files. Raises `UserError` for a missing root or CSV file."""
        return {split: RawSplit(self.root, split) for split in chexpert.SPLITS}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Return split -> `RawSplit.fingerprint`. Raises `UserError` if a file can't be read."""
        return {name: split.fingerprint() for name, split in self.splits.items()}

    def forget(self) -> None:
        """Free the memory of what was read; the fingerprints stay."""
        self.__dict__.pop("splits", None)


def shared_patients(tables: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], list[str]]:
    """Return (split, split) -> sorted patients of both tables; pairs without any are left out."""
    patients = {split: set(table["patient"]) for split, table in tables.items()}
    shared = {
        (first, second): sorted(patients[first] & patients[second])
        for first, second in combinations(tables, 2)
    }
    return {pair: names for pair, names in shared.items() if names}


def shared_patient_warnings(splits: Mapping[str, RawSplit]) -> Iterator[str]:
    """Yield a line for each two splits that share patients."""
    for (first, second), patients in shared_patients(
        {split: raw.table for split, raw in splits.items()}
    ).items():
        more = ", ..." if len(patients) > 1 else ""
        yield (
            f"{splits[first].csv_location} and {splits[second].csv_location.name}: found"
            f" {counted(len(patients), 'patient')} in both ({patients[0]}{more}), so scores may be"
            " too high; expected each patient in one split; hint: chexseg data check"
        )

"""CheXpert's CSV files and image paths as one table, and the policies for its uncertain labels.

Labels are 1 (positive), 0 (negative), -1 (uncertain) or blank (not mentioned in the report), see Irvin et al. 2019,
section 2. Three layouts are read: the two distributions of CheXpert and the one in which CheXlocalize ships the
validation and test sets.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chexseg.data import remote_path
from chexseg.data.remote_path import Location, Readable
from chexseg.errors import UserError, nearest, reason
from chexseg.pathologies import OBSERVATIONS

SPLITS = ("train", "valid", "test")

#: split -> places below a data root: (CSV file, folder of the images). The first whose CSV file exists is read. For
#: training the small images do; the published masks fit only the full-size images of the other two splits.
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("CheXpert-v1.0-small/train.csv", "CheXpert-v1.0-small/train"),
        ("CheXpert-v1.0/train.csv", "CheXpert-v1.0/train"),
        ("CheXpert/train_labels.csv", "CheXpert/train"),
    ),
    "valid": (
        ("CheXpert/val_labels.csv", "CheXpert/val"),
        ("CheXpert-v1.0/valid.csv", "CheXpert-v1.0/valid"),
        ("CheXpert-v1.0-small/valid.csv", "CheXpert-v1.0-small/valid"),
    ),
    "test": (
        ("CheXpert/test_labels.csv", "CheXpert/test"),
        ("CheXpert-v1.0/test.csv", "CheXpert-v1.0/test"),
        ("CheXpert-v1.0-small/test.csv", "CheXpert-v1.0-small/test"),
    ),
}

_FORMAT = "comma-separated text, a header and one row an image"
#: Parts that no normal relative path has; an absolute one begins with an empty part.
_ABNORMAL = frozenset(("", ".", ".."))
POLICIES = ("ignore", "zeros", "ones")


def locate(root: Location, split: str) -> tuple[Location, Location]:
    """(CSV file, image folder) of a split. Raises `UserError` if the root or every known CSV file is missing."""
    remote_path.check(root)
    with remote_path.wrap_io_errors(root):
        for csv, images in LAYOUTS[split]:
            if (root / csv).is_file():
                return root / csv, root / images
    raise UserError(
        f"{root}: no CSV file of {split}; allowed: {', '.join(csv for csv, _ in LAYOUTS[split])}"
    )


def read(root: Location, split: str) -> pd.DataFrame:
    """The table of a split; see `read_csv`."""
    return read_csv(*locate(root, split))


def count(root: Location, split: str) -> int:
    """Rows of a split's CSV file; of one without faults, its images."""
    csv, _ = locate(root, split)
    with remote_path.wrap_io_errors(csv):
        return len(pd.read_csv(io.BytesIO(csv.read_bytes()), usecols=["Path"]))


def read_csv(csv: Readable, images: Location) -> pd.DataFrame:
    """One row an image, sorted by id: image_id, patient, path, frontal, and the 14 observations (NaN where blank).

    The ``Path`` column is read from below the split's name on, so that it fits whatever folder the set was unpacked to. It
    must be relative and normal as text; links in the data root are followed.
    Columns on age, sex and projection may be absent; without ``Frontal/Lateral`` the image's name decides. Whether the
    images exist is not asked here: that is `audit`'s and `ingest`'s matter. Raises `UserError` for the first fault that
    `scan` finds.
    """
    table, faults = scan(csv, images)
    if faults:
        raise UserError(faults[0][1])
    return table


def scan(csv: Readable, images: Location) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The table of `read_csv` as far as it can be read, and every fault of the file as (kind, message).

    Rows without a usable path and all but the first of an image's rows are left out; a label that is none is NaN, as a
    missing column is throughout. The table has no rows where the file is no CSV file or has no ``Path``.
    """
    try:
        raw = pd.read_csv(io.BytesIO(csv.read_bytes()), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        return _table([]), [
            (
                "unreadable CSV file",
                f"{csv}: cannot be read as CSV ({reason(error)}); allowed: {_FORMAT}",
            )
        ]
    if not isinstance(
        raw.index, pd.RangeIndex
    ):  # pandas takes surplus fields for row names and shifts the columns
        return _table([]), [
            (
                "unreadable CSV file",
                f"{csv}: rows have more fields than the header; allowed: {_FORMAT}",
            )
        ]
    faults = [
        (
            "missing column",
            f"{csv}: column {column!r} is missing{nearest(column, raw.columns)}; found: {', '.join(raw.columns)};"
            " allowed: Path and the 14 observations, others as you like",
        )
        for column in ("Path", *OBSERVATIONS)
        if column not in raw
    ]
    if raw.empty:
        faults.append(("no rows", f"{csv}: no rows; allowed: one row an image"))
    if raw.empty or "Path" not in raw:
        return _table([]), faults
    kept, parts = [], []
    for row, path in enumerate(raw["Path"]):
        part = _below_split(path)
        if part is None:
            allowed = ".../<train, valid, val or test>/<patient>/.../<image>, relative and without '.' and '..'"
            faults.append(
                ("unusable path", f"{csv}: row {row + 2}: Path: found {path!r}; allowed: {allowed}")
            )
        else:
            kept.append(row)
            parts.append(part)
    out = _table([os.path.splitext("_".join(part))[0] for part in parts])
    out["patient"] = [part[0] for part in parts]
    start = f"{images}/"
    out["path"] = [start + "/".join(part) for part in parts]
    if "Frontal/Lateral" in raw:
        view = raw["Frontal/Lateral"].str.strip()
        faults += _wrong(
            csv,
            raw["Frontal/Lateral"],
            ~view.isin(("Frontal", "Lateral")),
            "Frontal, Lateral",
            "unknown view",
        )
        out["frontal"] = view.eq("Frontal").to_numpy()[kept]
    else:
        out["frontal"] = ["lateral" not in part[-1].lower() for part in parts]
    for name in OBSERVATIONS:
        if name in raw:
            values, wrong = _labels(raw[name])
            faults += _wrong(csv, raw[name], wrong, "1, 0, -1 or blank", "bad label")
            out[name] = values[kept]
    twice = out["image_id"].duplicated()
    faults += [
        (
            "image named twice",
            f"{csv}: row {kept[row] + 2}: Path: {out['image_id'].iloc[row]} stands there twice; allowed: once",
        )
        for row in np.flatnonzero(twice)
    ]
    return out[~twice].sort_values("image_id", ignore_index=True), faults


def _table(image_ids: Sequence[str]) -> pd.DataFrame:
    """The table of `read_csv` with nothing filled in but the ids."""
    columns = {
        "image_id": pd.Series(image_ids, dtype=str),
        "patient": "",
        "path": "",
        "frontal": False,
    }
    return pd.DataFrame(columns | {name: np.float32("nan") for name in OBSERVATIONS})


def _below_split(path: str) -> list[str] | None:
    """Return the parts of a path below the last folder that has a split's name: patient, study, image.

    None if there are none, and for a path that isn't relative and normal: `..` would lead out of the data root.
    """
    # By hand, for pathlib takes several times as long, and CheXpert has 223,414 rows that every command reads.
    parts = path.strip().split("/")
    if not (_ABNORMAL.isdisjoint(parts) and path.isprintable()):
        return None
    for position in range(len(parts) - 3, -1, -1):
        if parts[position] in ("train", "valid", "val", "test"):
            return parts[position + 1 :]
    return None


def _labels(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """(labels, NaN where blank or wrong; whether each is wrong)."""
    text = column.str.strip()
    values = pd.to_numeric(text.mask(text == "", "nan"), errors="coerce").to_numpy(
        dtype=np.float32, copy=True
    )
    wrong = ~np.isin(values, (-1, 0, 1)) & (text != "").to_numpy()
    values[wrong] = np.nan
    return values, wrong


def _wrong(
    csv: Readable, column: pd.Series, wrong: np.ndarray, allowed: str, kind: str
) -> list[tuple[str, str]]:
    return [
        (
            kind,
            f"{csv}: row {row + 2}: {column.name}: found {column.iloc[row]!r}; allowed: {allowed}",
        )
        for row in np.flatnonzero(wrong)
    ]


def targets(labels_NL: np.ndarray, policy: str | Mapping[str, str] = "zeros") -> np.ndarray:
    """Training targets_NL in {0, 1, NaN}: blank is 0; an uncertain label becomes NaN (``ignore``), 0 or 1.

    `policy` is one of `POLICIES`, or a mapping from observation to one of them (``zeros`` where it names none).
    """
    policies = {name: policy for name in OBSERVATIONS} if isinstance(policy, str) else dict(policy)
    value = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
    uncertain_L = np.array(
        [value[policies.get(name, "zeros")] for name in OBSERVATIONS], dtype=np.float32
    )
    out_NL = np.where(np.isnan(labels_NL), np.float32(0), labels_NL)
    return np.where(out_NL == -1, uncertain_L, out_NL).astype(np.float32)

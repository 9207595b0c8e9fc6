"""CheXpert's CSV files and image paths as one table, and the policies for its uncertain labels.

Labels are 1 (positive), 0 (negative), -1 (uncertain) or blank (not mentioned in the report), see Irvin et al. 2019,
section 2. Three layouts are read: the two distributions of CheXpert and the one in which CheXlocalize ships the
validation and test sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from chexseg.errors import UserError, nearest
from chexseg.pathologies import OBSERVATIONS

SPLITS = ("train", "valid", "test")

#: split -> places below a data root: (CSV file, folder of the images). The first whose CSV file exists is read.
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    split: tuple(
        [(f"CheXpert-v1.0{small}/{split}.csv", f"CheXpert-v1.0{small}/{split}") for small in ("-small", "")]
        + [(f"CheXpert/{own}_labels.csv", f"CheXpert/{own}")]
    )
    for split, own in (("train", "train"), ("valid", "val"), ("test", "test"))
}

POLICIES = ("ignore", "zeros", "ones")


def locate(root: Path, split: str) -> tuple[Path, Path]:
    """(CSV file, image folder) of a split. Raises `UserError` if the root or every known CSV file is missing."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(
            f"--data {root}: no such directory; allowed: a directory with CheXpert and CheXlocalize below it"
        )
    for csv, images in LAYOUTS[split]:
        if (root / csv).is_file():
            return root / csv, root / images
    raise UserError(f"{root}: no {split}.csv; looked for {', '.join(csv for csv, _ in LAYOUTS[split])}")


def read(root: Path, split: str) -> pd.DataFrame:
    """The table of a split; see `read_csv`."""
    return read_csv(*locate(root, split))


def read_csv(csv: Path, images: Path) -> pd.DataFrame:
    """One row an image, sorted by id: image_id, patient, path, frontal, and the 14 observations (NaN where blank).

    The ``Path`` column is read from below the split's name on, so that it fits whatever folder the set was unpacked to.
    Columns on age, sex and projection may be absent, as in CheXlocalize's own CSV files. Whether the images exist is not
    asked here: that is `audit`'s and `ingest`'s matter. Raises `UserError` for a missing column, a label that is none,
    and an image named twice.
    """
    try:
        table = pd.read_csv(csv, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{csv}: cannot be read as CSV ({str(error).splitlines()[0]})") from None
    for column in ("Path", *OBSERVATIONS):
        if column not in table:
            raise UserError(
                f"{csv}: column {column!r} is missing{nearest(column, table.columns)}; found: {', '.join(table.columns)}"
            )
    if table.empty:
        raise UserError(f"{csv}: no rows")
    parts = [_below_split(csv, row, path) for row, path in enumerate(table["Path"])]
    frontal = (
        table["Frontal/Lateral"].eq("Frontal")
        if "Frontal/Lateral" in table
        else ~table["Path"].str.contains("lateral", case=False)
    )
    out = pd.DataFrame(
        {
            "image_id": ["_".join(part.with_suffix("").parts) for part in parts],
            "patient": [part.parts[0] for part in parts],
            "path": [str(images / part) for part in parts],
            "frontal": frontal.to_numpy(),
        }
    )
    for name in OBSERVATIONS:
        out[name] = _labels(csv, table[name])
    twice = out["image_id"][out["image_id"].duplicated()]
    if len(twice):
        raise UserError(f"{csv}: Path: {twice.iloc[0]} stands there twice ({len(twice)} such images)")
    return out.sort_values("image_id", ignore_index=True)


def _below_split(csv: Path, row: int, path: str) -> PurePosixPath:
    parts = PurePosixPath(path).parts
    for position, part in enumerate(parts[:-1]):
        if part in ("train", "valid", "val", "test"):
            return PurePosixPath(*parts[position + 1 :])
    raise UserError(
        f"{csv}: row {row + 2}: Path: found {path!r}; allowed: .../<train, valid, val or test>/<patient>/..."
    )


def _labels(csv: Path, column: pd.Series) -> np.ndarray:
    values = pd.to_numeric(column.replace("", "nan"), errors="coerce").to_numpy(dtype=np.float32)
    wrong = (np.isnan(values) & (column.str.strip() != "").to_numpy()) | ~(
        np.isnan(values) | np.isin(values, (-1, 0, 1))
    )
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(f"{csv}: row {row + 2}: {column.name}: found {column.iloc[row]!r}; allowed: 1, 0, -1 or blank")
    return values


def targets(labels_NL: np.ndarray, policy: str | Mapping[str, str] = "zeros") -> np.ndarray:
    """Training targets_NL in {0, 1, NaN}: blank is 0; an uncertain label becomes NaN (``ignore``), 0 or 1.

    `policy` is one of `POLICIES`, or a mapping from observation to one of them (``zeros`` where it names none).
    """
    policies = {name: policy for name in OBSERVATIONS} if isinstance(policy, str) else dict(policy)
    value = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
    uncertain_L = np.array([value[policies.get(name, "zeros")] for name in OBSERVATIONS], dtype=np.float32)
    out_NL = np.where(np.isnan(labels_NL), np.float32(0), labels_NL)
    return np.where(out_NL == -1, uncertain_L, out_NL).astype(np.float32)

"""CheXpert's CSV files and image paths as one table, and the policies for its uncertain labels.

Labels are 1 (positive), 0 (negative), -1 (uncertain) or blank (not mentioned in the report); see
Irvin et al. 2019, section 2. Four layouts are supported: the two distributions of CheXpert, the
larger one also as its four archives unpack, and the one in which CheXlocalize ships the validation
and test sets.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from chexseg.data import remote_path, strict_json
from chexseg.data.remote_path import Location, Readable
from chexseg.errors import UserError, nearest, reason
from chexseg.pathologies import OBSERVATIONS

SPLITS = ("train", "valid", "test")

#: The archive of the CSV files and validation images, and those of the training images, each with
#: the number of its first patient.
_BATCH_1 = "CheXpert-v1.0 batch 1 (validate & csv)"
_BATCHES = (
    ("CheXpert-v1.0 batch 2 (train 1)", 1),
    ("CheXpert-v1.0 batch 3 (train 2)", 21514),
    ("CheXpert-v1.0 batch 4 (train 3)", 43018),
)
#: split -> (CSV file, image folder) candidates relative to the data root; the first CSV file that
#: exists is used. The first of `_BATCHES` stands for all. Training prefers the small images. The
#: published masks of the other two splits fit only the full-size images.
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("CheXpert-v1.0-small/train.csv", "CheXpert-v1.0-small/train"),
        ("CheXpert-v1.0/train.csv", "CheXpert-v1.0/train"),
        ("CheXpert/train_labels.csv", "CheXpert/train"),
        (f"{_BATCH_1}/train.csv", _BATCHES[0][0]),
    ),
    "valid": (
        ("CheXpert/val_labels.csv", "CheXpert/val"),
        ("CheXpert-v1.0/valid.csv", "CheXpert-v1.0/valid"),
        (f"{_BATCH_1}/valid.csv", f"{_BATCH_1}/valid"),
        ("CheXpert-v1.0-small/valid.csv", "CheXpert-v1.0-small/valid"),
    ),
    "test": (
        ("CheXpert/test_labels.csv", "CheXpert/test"),
        ("CheXpert-v1.0/test.csv", "CheXpert-v1.0/test"),
        ("CheXpert-v1.0-small/test.csv", "CheXpert-v1.0-small/test"),
    ),
}

_FORMAT = "comma-separated text, a header and one row per image"
_PATH = ".../<train, valid, val or test>/<patient>/.../<image>"
#: Parts that a normalized relative path doesn't have. An absolute path begins with an empty part.
_ABNORMAL = frozenset(("", ".", ".."))
#: Bytes of a row; those of CheXpert have 150.
LONGEST_LINE = 100_000
POLICIES = ("ignore", "zeros", "ones")
_PATIENT = re.compile(r"patient(\d{1,9})")
_STUDY = re.compile(r"(.+?_study\d+)_")


def locate(root: Location, split: str) -> tuple[Location, Location]:
    """Return (CSV file, image folder) of a split.

    Raises `UserError` if the root or all candidates of `LAYOUTS` are missing.
    """
    remote_path.check(root)
    with remote_path.wrap_io_errors(root):
        for csv, images in LAYOUTS[split]:
            if (root / csv).is_file():
                return root / csv, root / images
    raise UserError(
        f"{root}: found no CSV file of {split};"
        f" allowed: {', '.join(csv for csv, _ in LAYOUTS[split])}"
    )


def image_folders(root: Location, images: Location) -> list[Location]:
    """Return the folders with the images of a split: `images` of `locate`, or all of `_BATCHES`."""
    if images.name == _BATCHES[0][0]:
        return [root / folder for folder, _ in _BATCHES]
    return [images]


def read(root: Location, split: str) -> pd.DataFrame:
    """Return the table of a split; see `read_csv`."""
    return read_csv(*locate(root, split))


def read_csv(csv: Readable, images: Location) -> pd.DataFrame:
    """Return a table with one row per image, sorted by id.

    Columns: image_id, patient, path, frontal, projection ("" where not given), and the 14
    observations (NaN where blank).
    The part of ``Path`` up to and including the split's name is ignored, so the data set may be
    unpacked to any folder. The rest must be a normalized relative path; links are followed.
    Columns for age, sex and projection are optional; without ``Frontal/Lateral`` the file name
    gives the view. Images need not exist: `validation` and the stage ``ingest`` check that.
    Raises `UserError` for the first fault of `scan`.
    """
    table, faults = scan(csv, images)
    if faults:
        raise UserError(faults[0][1])
    return table


def scan(csv: Readable, images: Location) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return the usable part of `read_csv`'s table, and each fault of the file as (kind, message).

    Rows without a usable path are left out, as are repeated rows of an image. Invalid labels and
    missing columns become NaN. The table is empty if the file isn't CSV or has no ``Path``.
    """
    try:
        raw = _parse(remote_path.read_bytes(csv))
    except (OSError, ValueError) as error:
        fault = f"{csv}: cannot be read as CSV ({reason(error)}); expected {_FORMAT}"
        return _table([]), [("unreadable CSV file", fault)]
    faults = [
        (
            "missing column",
            f"{csv}: column {column!r} is missing{nearest(column, raw.columns)};"
            f" found {', '.join(raw.columns)}; expected Path and the 14 observations",
        )
        for column in ("Path", *OBSERVATIONS)
        if column not in raw
    ]
    if raw.empty:
        faults.append(("no rows", f"{csv}: found no rows; expected one row per image"))
    if raw.empty or "Path" not in raw:
        return _table([]), faults
    kept, parts = [], []
    for row, path in enumerate(raw["Path"]):
        below, fault = _below_split(path)
        if fault:
            faults.append(
                (
                    "unusable path",
                    f"{csv}: row {row + 2}: Path: found {path!r}, {fault}; expected {_PATH}",
                )
            )
        else:
            kept.append(row)
            parts.append(below)
    out = _table([os.path.splitext("_".join(below))[0] for below in parts])
    out["patient"] = [below[0] for below in parts]
    start = f"{images}/"
    if images.name == _BATCHES[0][0]:
        start = start.removesuffix(f"{images.name}/")
        parts = [[_batch(below[0]), *below] for below in parts]
    out["path"] = [start + "/".join(below) for below in parts]
    if "Frontal/Lateral" in raw:
        view = raw["Frontal/Lateral"].str.strip()
        wrong = ~view.isin(("Frontal", "Lateral"))
        faults += _wrong(
            csv, raw["Frontal/Lateral"], wrong, "allowed: Frontal, Lateral", "unknown view"
        )
        out["frontal"] = view.eq("Frontal").to_numpy()[kept]
    else:
        out["frontal"] = ["lateral" not in below[-1].lower() for below in parts]
    if "AP/PA" in raw:
        out["projection"] = raw["AP/PA"].str.strip().to_numpy()[kept]
    given = [name for name in OBSERVATIONS if name in raw]
    labels_NL, wrong_NL = _labels(raw[given])
    for name, wrong in zip(given, wrong_NL.T, strict=True):
        faults += _wrong(csv, raw[name], wrong, "allowed: 1, 0, -1 or blank", "bad label")
    out[given] = labels_NL[kept]
    repeated = out["image_id"].duplicated()
    faults += [
        (
            "image named twice",
            f"{csv}: row {kept[row] + 2}: Path: found {out['image_id'].iloc[row]} again;"
            " expected one row per image",
        )
        for row in np.flatnonzero(repeated)
    ]
    return out[~repeated].sort_values("image_id", ignore_index=True), faults


def _parse(data: bytes) -> pd.DataFrame:
    """Return the fields of a CSV file as text; raise ValueError unless it is a full rectangle.

    pandas would fill short rows with blanks, rename repeated columns, and let a stray quotation
    mark join rows.
    """
    lines = [line for line in data.splitlines() if line]
    longest = max(range(len(lines)), key=lambda row: len(lines[row]), default=0)
    if lines and len(lines[longest]) > LONGEST_LINE:
        raise ValueError(
            f"row {longest + 1}: found {len(lines[longest]):,} bytes; at most {LONGEST_LINE:,}"
        )
    try:
        data.decode()
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"row {row}: found bytes that aren't UTF-8; expected UTF-8") from None
    names = arrow_csv.read_csv(io.BytesIO(b"".join(lines[:1]) + b"\n")).column_names
    if repeated := [name for name, number in Counter(names).items() if number > 1]:
        raise ValueError(f"found the column {repeated[0]!r} twice; expected once")
    uneven = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        uneven.append(f"row {row.number}: found {row.actual_columns} fields;")
        return "skip"

    table = arrow_csv.read_csv(
        io.BytesIO(data),
        arrow_csv.ReadOptions(use_threads=False),  # or rows wouldn't be numbered
        arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    if uneven:
        raise ValueError(f"{uneven[0]} expected {len(names)}, as in the header")
    if table.num_rows + 1 != len(lines):
        raise ValueError(f"found {table.num_rows + 1} rows in {len(lines)} lines; expected as many")
    if data.endswith((b",", b',"')):
        raise ValueError(
            f"row {len(lines)}: found a comma at the end; expected a label, line break"
        )
    return table.to_pandas()


def _table(image_ids: Sequence[str]) -> pd.DataFrame:
    """Return the table of `read_csv` with the ids filled in and defaults elsewhere."""
    return pd.DataFrame(
        {
            "image_id": pd.Series(image_ids, dtype=str),
            "patient": "",
            "path": "",
            "frontal": False,
            "projection": "",
            **dict.fromkeys(OBSERVATIONS, np.float32("nan")),
        }
    )


def _below_split(path: str) -> tuple[list[str], str]:
    """Return (parts of a path below the last folder named after a split, why it can't be used).

    The parts are patient, study and image. One of the two is empty. A path that isn't relative and
    normalized is refused: ``..`` would lead out of the data root.
    """
    # Not by pathlib: it takes several times as long, and every command reads 223,414 rows.
    text = path.strip()
    parts = text.split("/")
    if not strict_json.is_one_line(text):
        return [], "with control characters"
    if text.startswith("/"):
        return [], "an absolute path"
    if not _ABNORMAL.isdisjoint(parts):
        return [], "with an empty, '.' or '..' part"
    for position in range(len(parts) - 3, -1, -1):
        if parts[position] in ("train", "valid", "val", "test"):
            return parts[position + 1 :], ""
    return [], "without a split's folder or too short below it"


def _batch(patient: str) -> str:
    """Return the folder of `_BATCHES` with a patient's images."""
    match = _PATIENT.fullmatch(patient)
    number = int(match[1]) if match else 1
    return next((name for name, first in reversed(_BATCHES) if first <= number), _BATCHES[0][0])


def _labels(columns: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return (labels_NL, NaN where blank or wrong; a boolean for each, True where wrong)."""
    # Each different text is read once: there are few, and CheXpert has 3 million fields.
    codes, texts = pd.factorize(columns.to_numpy(dtype=object).ravel())
    text = pd.Series(texts, dtype=str).str.strip()
    values = pd.to_numeric(text.mask(text == "", "nan"), errors="coerce").to_numpy(
        dtype=np.float64, copy=True
    )
    wrong = ~np.isin(values, (-1, 0, 1)) & (text != "").to_numpy()
    values[wrong] = np.nan
    labels_NL = values.astype(np.float32)[codes].reshape(columns.shape)
    return labels_NL, wrong[codes].reshape(columns.shape)


def _wrong(
    csv: Readable, column: pd.Series, wrong: np.ndarray, allowed: str, kind: str
) -> list[tuple[str, str]]:
    return [
        (
            kind,
            f"{csv}: row {row + 2}: {column.name}: found {column.iloc[row]!r}; {allowed}",
        )
        for row in np.flatnonzero(wrong)
    ]


def study(image_id: str) -> str:
    """Return the study of an image, such as patient64541_study1.

    CheXpert's folders name it. An image outside of such a folder is a study alone.
    """
    named = _STUDY.match(image_id)
    return named[1] if named else image_id


def targets(labels_NL: np.ndarray, policy: str | Mapping[str, str] = "zeros") -> np.ndarray:
    """Return training targets_NL in {0, 1, NaN}: a blank label becomes 0.

    policy: one of `POLICIES`, or observation -> one of them (``zeros`` for those not named). An
    uncertain label becomes NaN (``ignore``), 0 (``zeros``) or 1 (``ones``).
    """
    policies = {name: policy for name in OBSERVATIONS} if isinstance(policy, str) else dict(policy)
    value = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
    uncertain_L = np.array(
        [value[policies.get(name, "zeros")] for name in OBSERVATIONS], dtype=np.float32
    )
    out_NL = np.where(np.isnan(labels_NL), np.float32(0), labels_NL)
    return np.where(out_NL == -1, uncertain_L, out_NL).astype(np.float32)

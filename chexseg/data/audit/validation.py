"""A report of all faults of a data set; the readers stop at the first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from chexseg.data import chexlocalize, chexpert, remote_path
from chexseg.data.audit import acquisition, image_validation
from chexseg.data.masks.areas import areas as areas_of
from chexseg.data.raw_split import shared_patients
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES, observation

#: Messages per kind in `Audit.text`; `Audit.as_dict` has all.
EXAMPLES = 3


@dataclass(frozen=True)
class Audit:
    """The faults and the contents of a data set.

    faults: kind -> messages; a study would fail on these or have meaningless results. notes: kind
    -> messages of possible mistakes. splits: split -> ``csv``, ``images``, ``patients``,
    ``frontal``, ``lateral`` and ``labels`` (observation -> counts of positive, negative, uncertain
    and blank); for valid and test also ``with_masks`` (images in the mask file) and ``masks``
    (pathology -> images with at least one pixel of it); for train and valid also ``acquisition``
    (`acquisition.scores`).
    """

    root: Location
    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def fatal(self) -> bool:
        """Return True if a study of this data set would fail or have meaningless results."""
        return bool(self.faults)

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report as JSON values."""
        return {
            "root": str(self.root),
            "fatal": self.fatal,
            "faults": [_group(kind, messages) for kind, messages in self.faults.items()],
            "notes": [_group(kind, messages) for kind, messages in self.notes.items()],
            "splits": {split: dict(summary) for split, summary in self.splits.items()},
        }

    def text(self) -> str:
        """Return a report for terminals: splits, labels, shortcuts, faults, notes with examples."""
        count = sum(map(len, self.faults.values()))
        verdict = (
            f"{count} {'fault' if count == 1 else 'faults'};"
            " a study would fail or have meaningless results"
            if count
            else "no fault"
        )
        blocks = [_splits_text(self.splits), _labels_text(self.splits)] if self.splits else []
        if any("acquisition" in summary for summary in self.splits.values()):
            blocks.append(acquisition.text(self.splits))
        blocks += [_kind_text("fault", kind, messages) for kind, messages in self.faults.items()]
        blocks += [_kind_text("note", kind, messages) for kind, messages in self.notes.items()]
        return "\n\n".join([*blocks, f"{self.root}: {verdict}"])


def check(root: Location, progress: Callable[[int, int], None] = lambda done, total: None) -> Audit:
    """Read a whole data set, decode all images, and return all faults.

    Progress counts images. Raises `UserError` only if the directory or prefix doesn't exist.
    """
    remote_path.check(root)
    faults: dict[str, list[str]] = defaultdict(list)
    notes: dict[str, list[str]] = defaultdict(list)
    csvs, tables = _read_tables(root, faults)
    mask_files = _read_mask_files(root, faults)
    areas = {}
    for name, mask_file in mask_files.items():
        areas[name], damaged = areas_of(mask_file)
        _add(faults, (("malformed runs", message) for message in damaged))
    decoded = _check_images(root, tables, mask_files.get("test"), faults, notes, progress)
    for name, mask_file in mask_files.items():
        split = "test" if name == "radiologists" else name
        if split in tables:
            _check_sizes(mask_file, csvs[split], tables[split], decoded, faults)
    messages = (
        f"{csvs[first]} and {csvs[second].name}: Path: found {patient} in both;"
        " expected each patient in one split"
        for (first, second), patients in shared_patients(tables).items()
        for patient in patients
    )
    _add(faults, (("patient in two splits", message) for message in messages))
    splits = {split: _summary(csvs[split], table) for split, table in tables.items()}
    for split in acquisition.SPLITS:
        if split in tables:
            scored = acquisition.scores(tables[split], decoded)
            splits[split]["acquisition"] = scored
            warnings = (f"{csvs[split]}: {line}" for line in acquisition.warnings(scored))
            _add(notes, (("acquisition predicts a label", line) for line in warnings))
    for split in ("valid", "test"):
        if split in tables and split in mask_files:
            splits[split] |= _compare_labels(
                mask_files[split], areas[split], csvs[split], tables[split], notes
            )
    return Audit(root, dict(faults), dict(notes), splits)


def _read_tables(
    root: Location, faults: dict[str, list[str]]
) -> tuple[dict[str, Location], dict[str, pd.DataFrame]]:
    csvs, tables = {}, {}
    for split in chexpert.SPLITS:
        try:
            csv, folder = chexpert.locate(root, split)
        except UserError as error:
            faults["missing file"].append(str(error))
            continue
        table, csv_faults = chexpert.scan(csv, folder)
        _add(faults, csv_faults)
        if len(table):
            csvs[split], tables[split] = csv, table
    return csvs, tables


def _read_mask_files(
    root: Location, faults: dict[str, list[str]]
) -> dict[str, chexlocalize.MaskFile]:
    """Return the mask files with at least one image; only the radiologists' may be missing."""
    mask_files = {}
    for name, file in chexlocalize.FILES.items():
        with remote_path.wrap_io_errors(root):
            if name == "radiologists" and not (root / file).is_file():
                continue
        mask_file, file_faults = chexlocalize.scan(root / file)
        _add(faults, file_faults)
        if mask_file:
            mask_files[name] = mask_file
        elif not file_faults:
            faults["no masks"].append(f"{root / file}: found no image; expected at least one")
    return mask_files


def _check_images(
    root: Location,
    tables: Mapping[str, pd.DataFrame],
    test_masks: chexlocalize.MaskFile | None,
    faults: dict[str, list[str]],
    notes: dict[str, list[str]],
    progress: Callable[[int, int], None],
) -> dict[str, image_validation.CheckedImage]:
    """Return path -> image for all that can be decoded. No study uses test images without masks."""
    decoded = {}
    files = [file for table in tables.values() for file in remote_path.files(root, table["path"])]
    unused: set[str] = set()
    if test_masks is not None and "test" in tables:
        unused = set(tables["test"]["path"][~tables["test"]["image_id"].isin(set(test_masks))])
    with closing(image_validation.decode(files)) as images:
        for done, image in enumerate(images, start=1):
            if image.fault is None:
                decoded[image.path] = image
                if image.path not in unused:
                    _add(notes, image.notes)
            elif image.path in unused:
                _add(notes, [(f"{image.fault[0]} that no study uses", image.fault[1])])
            else:
                _add(faults, [image.fault])
            if done % image_validation.CHUNK == 0 or done == len(files):
                progress(done, len(files))
    return decoded


def _check_sizes(
    mask_file: chexlocalize.MaskFile,
    csv: Location,
    table: pd.DataFrame,
    decoded: Mapping[str, image_validation.CheckedImage],
    faults: dict[str, list[str]],
) -> None:
    paths = dict(zip(table["image_id"], table["path"], strict=True))
    for image_id in mask_file:
        kind = "masks of different sizes"
        try:
            mask_file.size(image_id)
            kind = "mask size unlike image"
            image = decoded.get(paths.get(image_id, ""))
            if image:
                mask_file.check_size(image_id, image.path, image.shape, image.stored_shape)
        except UserError as error:
            faults[kind].append(str(error))
        if image_id not in paths:
            faults["masks of unknown image"].append(
                f"{mask_file.path}: found {image_id}; expected an image of {csv}"
            )


def _summary(csv: Location, table: pd.DataFrame) -> dict[str, Any]:
    labels = {}
    for name in OBSERVATIONS:
        values = table[name].to_numpy()
        labels[name] = {
            "positive": int((values == 1).sum()),
            "negative": int((values == 0).sum()),
            "uncertain": int((values == -1).sum()),
            "blank": int(np.isnan(values).sum()),
        }
    return {
        "csv": str(csv),
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "frontal": int(table["frontal"].sum()),
        "lateral": int((~table["frontal"]).sum()),
        "labels": labels,
    }


def _compare_labels(
    mask_file: chexlocalize.MaskFile,
    areas: Mapping[tuple[str, str], int],
    csv: Location,
    table: pd.DataFrame,
    notes: dict[str, list[str]],
) -> dict[str, Any]:
    """Return how many images have masks, by pathology; add notes if labels and masks disagree."""
    image_ids = table["image_id"].tolist()
    _add(
        notes,
        (
            ("image without masks", f"{mask_file.path}: {image_id} of {csv.name} is missing")
            for image_id in image_ids
            if image_id not in mask_file
        ),
    )
    with_pixels = {}
    for name in PATHOLOGIES:
        with_pixels[name] = sum(areas.get((image_id, name), 0) > 0 for image_id in image_ids)
        for image_id, label in zip(image_ids, table[observation(name)], strict=True):
            damaged = name in mask_file.get(image_id, {}) and (image_id, name) not in areas
            area = areas.get((image_id, name), 0)
            where = f"{mask_file.path}: {image_id}: {name}"
            if label == 1 and not area and not damaged:
                notes["positive label without mask"].append(
                    f"{where}: no pixels, but {csv.name} has label 1"
                )
            if label == 0 and area:
                notes["mask with negative label"].append(
                    f"{where}: {area} pixels, but {csv.name} has label 0"
                )
    return {
        "with_masks": sum(image_id in mask_file for image_id in image_ids),
        "masks": with_pixels,
    }


def _add(messages: dict[str, list[str]], additions: Iterable[tuple[str, str]]) -> None:
    for kind, message in additions:
        messages[kind].append(message)


def _group(kind: str, messages: Sequence[str]) -> dict[str, Any]:
    return {"kind": kind, "count": len(messages), "messages": list(messages)}


def _kind_text(word: str, kind: str, messages: Sequence[str]) -> str:
    more = [f"  and {len(messages) - EXAMPLES} more"] if len(messages) > EXAMPLES else []
    return "\n".join(
        [
            f"{word}: {kind}: {len(messages)}",
            *(f"  {message}" for message in messages[:EXAMPLES]),
            *more,
        ]
    )


def _splits_text(splits: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("images", "patients", "frontal", "lateral", "with_masks")
    lines = [f"{'split':<8}" + "".join(f"{name.replace('_', ' '):>12}" for name in columns)]
    for split, summary in splits.items():
        lines.append(f"{split:<8}" + "".join(f"{summary.get(name, '-'):>12}" for name in columns))
    return "\n".join(lines)


def _labels_text(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the share of positive labels, and of uncertain ones if there are any."""
    lines = [
        f"{'labelled positive (+ uncertain)':<32}" + "".join(f"{split:>16}" for split in splits)
    ]
    for name in OBSERVATIONS:
        cells = []
        for summary in splits.values():
            counts = summary["labels"][name]
            cell = f"{counts['positive'] / summary['images']:.1%}"
            if counts["uncertain"]:
                cell += f" (+{counts['uncertain'] / summary['images']:.1%})"
            cells.append(cell)
        lines.append(f"{name:<32}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)

"""Ingest: one split of CheXpert and its CheXlocalize masks -> parquet shards of square images and masks.

Writes ``images/part-*.parquet`` (pixels, labels, patient) and, for the images that the mask file names,
``masks/part-*.parquet`` (bits). Of ``test`` only the images with masks are kept: nothing else of it is ever used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from chexseg.data import chexlocalize, chexpert, images, location, shards
from chexseg.data.location import Location, Readable
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages.base import Execution, StageConfig

VERSION = 1


class Config(StageConfig):
    split: Literal["train", "valid", "test"]
    #: Pixels of the square's side; the networks need a multiple of 32. The paper: 320.
    size: int = Field(default=320, ge=32, le=2048, multiple_of=32)


def fingerprint(root: Location, split: str) -> str:
    """What the raw data of a split is: the contents of its CSV and mask files, the names and sizes of its images.

    The same files have the same fingerprint wherever they lie.
    """
    csv, folder = chexpert.locate(root, split)
    with location.reached(csv):
        digest = hashlib.sha256(csv.read_bytes())
    mask_path = root / chexlocalize.FILES[split] if split in chexlocalize.FILES else None
    if mask_path is not None:
        try:
            digest.update(mask_path.read_bytes())
        except OSError as error:
            raise UserError(f"{mask_path}: cannot be read ({error.strerror}); allowed: a CheXlocalize mask file") from None
    paths = chexpert.read_csv(csv, folder)["path"].tolist()
    for path, size in zip(paths, location.sizes(folder, paths), strict=True):  # ingest names a missing file; planning goes on
        digest.update(f"{path.rpartition('/')[2]} {size}\n".encode())
    return digest.hexdigest()


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs["data"]` is the data root. Raises `UserError` naming the first file or field that is wrong."""
    from chexseg.data import streams

    root = inputs["data"]
    table = chexpert.read(root, config.split)
    mask_file = chexlocalize.MaskFile(Path(), {})
    if config.split in chexlocalize.FILES:
        mask_file = chexlocalize.read(root / chexlocalize.FILES[config.split])
        if not mask_file:
            raise UserError(f"{mask_file.path}: found no image; allowed: at least one")
        unknown = sorted(set(mask_file) - set(table["image_id"]))
        if unknown:
            raise UserError(f"{mask_file.path}: {unknown[0]} is not in {config.split}.csv ({len(unknown)} such images)")
    if config.split == "test":
        table = table[table["image_id"].isin(set(mask_file))].reset_index(drop=True)
    rows_a_file = max(64, min(1024, math.ceil(len(table) / 16)))
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    parts = [str(number) for number in range(math.ceil(len(table) / rows_a_file))]
    answers = streams.map_files(
        parts,
        _Decoder,
        {
            "table": table,
            "root": root,
            "masks": mask_file,
            "rows_a_file": rows_a_file,
            "size": config.size,
            "out": str(out),
        },
        workers=execution.decode_workers,
        here=execution.here,
        progress=lambda done, total: execution.progress(min(done * rows_a_file, len(table)), len(table), "images"),
    )
    for answer in answers:
        if "error" in answer:
            raise UserError(answer["error"])
    return {
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "with_masks": sum(answer["with_masks"] for answer in answers),
    }


class _Decoder:
    """Decodes the images of one file's worth of rows and writes both of its shards."""

    def __init__(
        self, table: pd.DataFrame, root: Location, masks: chexlocalize.MaskFile, rows_a_file: int, size: int, out: str
    ):
        self.table, self.root, self.masks = table, root, masks
        self.rows_a_file, self.size, self.out = rows_a_file, size, Path(out)

    def __call__(self, part: str) -> dict[str, Any]:
        number = int(part)
        rows = self.table.iloc[number * self.rows_a_file : (number + 1) * self.rows_a_file]
        try:
            return self.write(number, rows)
        except UserError as error:  # an exception would reach the driver wrapped in Ray's traceback
            return {"error": str(error)}

    def write(self, number: int, rows: pd.DataFrame) -> dict[str, Any]:
        part, masks = shards.part_name(number), {}
        files = location.ahead(location.files(self.root, rows["path"]))
        pieces = (rows[start : start + shards.ROW_GROUP] for start in range(0, len(rows), shards.ROW_GROUP))
        shards.write(self.out / "images" / part, (self.decoded(piece, files, masks) for piece in pieces))
        if masks:
            table = shards.table(
                {"image_id": list(masks), "patient": [patient for patient, _ in masks.values()]},
                {"masks": np.stack([squares for _, squares in masks.values()])},
                kind="masks",
                pathologies=PATHOLOGIES,
            )
            shards.write(self.out / "masks" / part, table)
        return {"with_masks": len(masks)}

    def decoded(
        self, rows: pd.DataFrame, files: Iterator[Path | Readable], masks: dict[str, tuple[str, np.ndarray]]
    ) -> pa.Table:
        """The next rows with their pixels: as many as are in memory at once. Their masks go to `masks`, by image id."""
        pixels_NHW = np.empty((len(rows), self.size, self.size), dtype=np.uint8)
        sizes_N2 = np.empty((len(rows), 2), dtype=np.int32)
        named = zip(rows["image_id"], rows["patient"], islice(files, len(rows)), strict=True)
        for position, (image_id, patient, path) in enumerate(named):
            image = images.read(path)
            pixels_HW = image.pixels_HW
            frame = images.Frame(*pixels_HW.shape, self.size)
            pixels_NHW[position], sizes_N2[position] = frame.image(pixels_HW), pixels_HW.shape
            if image_id in self.masks:
                self.masks.check_size(image_id, path, pixels_HW.shape, image.stored_shape)
                masks[image_id] = patient, frame.masks(self.masks.masks(image_id))
        scalars: dict[str, Any] = {name: rows[name].to_numpy() for name in ("image_id", "patient", "frontal")}
        scalars |= {"height": sizes_N2[:, 0], "width": sizes_N2[:, 1]}
        scalars |= {name: rows[name].to_numpy(dtype=np.float32) for name in OBSERVATIONS}
        return shards.table(scalars, {"pixels": pixels_NHW}, kind="images")

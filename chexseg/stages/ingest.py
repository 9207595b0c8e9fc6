"""Ingest: convert one split of CheXpert and its CheXlocalize masks to parquet shards.

Writes square images as ``images/part-*.parquet`` (pixels, labels, patient) and, for the images in
the mask file, ``masks/part-*.parquet`` (bits), resized as the config says (`data.resampling`). The
shards of images name their method, because new images must be resized alike. The split ``test``
keeps only images with masks, because no other image of it is used.

With the geometry short-side it writes strips for a classifier's crops (`data.images.Strip`), and no
masks.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from chexseg.data import chexlocalize, images, ray_data, remote_path, shards
from chexseg.data.raw_split import RawSplit
from chexseg.data.remote_path import Location, Readable, ReadOnce
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages import api, configs


def run(
    config: configs.IngestConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``data``, the root of the raw data.

    The fact ``data`` is the fingerprint of the files read. Of strips, ``longer_than_strip`` counts
    images longer than 2:1, which lose their ends. Raises `UserError` for the first file or
    field that is wrong.
    """
    root = inputs["data"]
    raw = RawSplit(root, config.split)
    table, mask_file = raw.table, raw.masks()
    if raw.mask_file is not None:
        if not mask_file:
            raise UserError(f"{mask_file.path}: found no image; expected at least one")
        unknown = sorted(set(mask_file) - set(table["image_id"]))
        if unknown:
            raise UserError(
                f"{mask_file.path}: found {unknown[0]}; expected images of {config.split}.csv"
                f" ({len(unknown)} are not in it)"
            )
    if config.split == "test":
        table = table[table["image_id"].isin(set(mask_file))].reset_index(drop=True)
    rows_a_file = max(64, min(1024, math.ceil(len(table) / 16)))
    for folder in ("images", "masks"):
        # A killed process may have left shards of other raw data.
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    answers = ray_data.map_files(
        [str(number) for number in range(math.ceil(len(table) / rows_a_file))],
        _Decoder,
        {
            "table": table,
            "root": root,
            "masks": mask_file,
            "rows_a_file": rows_a_file,
            "config": config,
            "out": str(out),
        },
        workers=context.decode_workers,
        single_node=context.single_node,
        progress=lambda done, total: context.progress(
            min(done * rows_a_file, len(table)), len(table), "images"
        ),
    )
    for answer in answers:
        if "error" in answer:
            raise UserError(answer["error"])
    sizes = {path: size for answer in answers for path, size in answer["sizes"].items()}
    cut = {}
    if config.geometry == "short-side":
        files = shards.files(out / "images")
        stored = pd.concat(shards.read(path, ["height", "width"]).to_pandas() for path in files)
        cut["longer_than_strip"] = int((stored.max(axis=1) > 2 * stored.min(axis=1)).sum())
    return {
        "data": raw.fingerprint(sizes),
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "with_masks": sum(answer["with_masks"] for answer in answers),
        **cut,
    }


class _Decoder:
    """Decodes the images of one shard and writes the shard and its masks."""

    def __init__(
        self,
        table: pd.DataFrame,
        root: Location,
        masks: chexlocalize.MaskFile,
        rows_a_file: int,
        config: configs.IngestConfig,
        out: str,
    ):
        self.table, self.root, self.masks = table, root, masks
        self.rows_a_file, self.config, self.out = rows_a_file, config, Path(out)
        self.padded = config.geometry == "pad"

    def __call__(self, part: str) -> dict[str, Any]:
        number = int(part)
        rows = self.table.iloc[number * self.rows_a_file : (number + 1) * self.rows_a_file]
        try:
            return self.write(number, rows)
        except UserError as error:  # Ray would wrap an exception in its traceback
            return {"error": str(error)}

    def write(self, number: int, rows: pd.DataFrame) -> dict[str, Any]:
        """Write the shard of these rows and the shard of their masks; return facts about both."""
        part = shards.part_name(number)
        masks: dict[str, tuple[str, np.ndarray]] = {}
        sizes: dict[str, int] = {}
        files = remote_path.prefetch(remote_path.files(self.root, rows["path"]))
        pieces = (
            rows[start : start + shards.ROW_GROUP]
            for start in range(0, len(rows), shards.ROW_GROUP)
        )
        shards.write(
            self.out / "images" / part,
            (self.decode(piece, files, masks, sizes) for piece in pieces),
        )
        if masks:
            table = shards.table(
                {"image_id": list(masks), "patient": [patient for patient, _ in masks.values()]},
                {"masks": np.stack([squares for _, squares in masks.values()])},
                kind="masks",
                pathologies=PATHOLOGIES,
            )
            shards.write(self.out / "masks" / part, table)
        return {"with_masks": len(masks), "sizes": sizes}

    def decode(
        self,
        rows: pd.DataFrame,
        files: Iterator[Path | Readable],
        masks: dict[str, tuple[str, np.ndarray]],
        sizes: dict[str, int],
    ) -> pa.Table:
        """Return a table of the next rows with their pixels, all of them in memory.

        Adds image id -> (patient, masks) to `masks` and path -> bytes of the file to `sizes`.
        """
        size, image_resize = self.config.size, self.config.image_resize
        shape = (len(rows), size, size if self.padded else 2 * size)
        pixels_NHW = np.empty(shape, dtype=np.uint8)
        sizes_N2 = np.empty((len(rows), 2), dtype=np.int32)
        entries = zip(
            rows["image_id"], rows["patient"], rows["path"], islice(files, len(rows)), strict=True
        )
        for position, (image_id, patient, name, path) in enumerate(entries):
            file = ReadOnce(path)
            image = images.read(file)
            pixels_HW, sizes[name] = image.pixels_HW, len(file.read_bytes())
            height, width = sizes_N2[position] = pixels_HW.shape
            frame = images.Frame(height, width, size)
            strip = images.Strip(height, width, size)
            pixels_NHW[position] = (frame if self.padded else strip).image(pixels_HW, image_resize)
            if self.padded and image_id in self.masks:
                self.masks.check_size(image_id, path, pixels_HW.shape, image.stored_shape)
                # One at a time: ten masks of a large image take more memory than the image.
                squares = [
                    frame.masks(self.masks.masks(image_id, [name]), self.config.mask_resize)
                    for name in PATHOLOGIES
                ]
                masks[image_id] = patient, np.concatenate(squares)
        scalars = {
            **{name: rows[name].to_numpy() for name in ("image_id", "patient", "frontal")},
            "height": sizes_N2[:, 0],
            "width": sizes_N2[:, 1],
            **{name: rows[name].to_numpy(dtype=np.float32) for name in OBSERVATIONS},
        }
        # Left out where it is the default, so that these shards keep their bytes.
        default = configs.IngestConfig.model_fields["image_resize"].default
        resized = {} if image_resize == default else {"image_resize": image_resize}
        return shards.table(scalars, {"pixels": pixels_NHW}, kind="images", **resized)

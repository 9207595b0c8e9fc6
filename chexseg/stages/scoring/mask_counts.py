"""Pixel counts of predicted and expert masks, from which all scores are computed later.

``counts.parquet``: image_id, pathology, intersection, predicted, true; images sorted by id. Pixels
are counted at the training size, or at each image's original size if the stage says so.
``predictions.parquet``: the predicted masks at the training size as COCO run-length encodings, for
overlays and comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chexseg.data import chexlocalize, shards
from chexseg.stages.artifacts import COUNTS, PREDICTIONS


def count_pixels(masks_NKHW: Tensor) -> Tensor:
    """Return int64 counts_NK of the true pixels of bool masks, on their device."""
    if masks_NKHW.device.type != "cpu":
        return masks_NKHW.sum(dim=(2, 3))
    # On a CPU torch.sum converts every bool to int64, which takes 30 times as long.
    counts = [np.count_nonzero(mask_HW) for mask_HW in masks_NKHW.flatten(0, 1).numpy()]
    return torch.tensor(counts, dtype=torch.int64).view(masks_NKHW.shape[:2])


class MaskCounter:
    """Accumulates the counts of batches, in the order of `image_ids`, and writes both files."""

    def __init__(self, image_ids: Sequence[str], pathologies: Sequence[str], size: int):
        self.image_ids, self.pathologies, self.size = list(image_ids), list(pathologies), size
        self._counts: list[np.ndarray] = []
        self._runs: list[str] = []

    @property
    def images(self) -> int:
        """Return the number of images counted so far."""
        return sum(map(len, self._counts))

    def add(self, predicted_NKHW: Tensor, true_NKHW: Tensor) -> None:
        """Count the next N images and keep their predicted masks; bool, on one device."""
        self.count(predicted_NKHW, true_NKHW)
        self.keep(predicted_NKHW)

    def count(self, predicted_NKHW: Tensor, true_NKHW: Tensor) -> None:
        """Count the next N images, of any size."""
        parts = (predicted_NKHW & true_NKHW, predicted_NKHW, true_NKHW)
        counts_NK3 = torch.stack([count_pixels(part) for part in parts], dim=2)
        self._counts.append(counts_NK3.cpu().numpy())

    def keep(self, predicted_NKHW: Tensor) -> None:
        """Keep the predicted masks of the next N images, at the training size."""
        # Run lengths go down the columns. A GPU transposes masks sooner than numpy does.
        columns_NKWH = predicted_NKHW.transpose(2, 3)
        if predicted_NKHW.is_cuda:
            columns_NKWH = columns_NKWH.contiguous()
        self._runs += [
            chexlocalize.encode(mask)["counts"]
            for masks in columns_NKWH.cpu().transpose(2, 3).numpy()
            for mask in masks
        ]

    def counts_IK3(self) -> np.ndarray:
        """Return int64 counts of intersection, predicted and true pixels."""
        return np.concatenate(self._counts)

    def iou(self) -> dict[str, float | None]:
        """Return pathology -> IoU pooled over all images; None without true or predicted pixels."""
        intersection, predicted, true = self.counts_IK3().sum(axis=0).T
        union = predicted + true - intersection
        values = [float(i / u) if u else None for i, u in zip(intersection, union, strict=True)]
        return dict(zip(self.pathologies, values, strict=True))

    def write(self, out: Path, kind: str, columns: Mapping[str, np.ndarray] | None = None) -> None:
        """Write both files into `out`, with `kind` in their metadata.

        `columns` adds columns to the counts, with one row per image and pathology.
        """
        names = self.pathologies
        rows = {
            "image_id": np.repeat(self.image_ids, len(names)),
            "pathology": np.tile(names, len(self.image_ids)),
        }
        intersection, predicted, true = self.counts_IK3().reshape(-1, 3).T
        counts = {"intersection": intersection, "predicted": predicted, "true": true}
        metadata = {"pathologies": names, "size": self.size}
        table = shards.table({**rows, **counts, **(columns or {})}, {}, kind=kind, **metadata)
        # One row group: a report reads thousands of these files, each as a whole.
        shards.write(out / COUNTS, table, row_group=max(1, len(table)))
        shards.write(
            out / PREDICTIONS,
            shards.table({**rows, "counts": self._runs}, {}, kind="predictions", **metadata),
        )

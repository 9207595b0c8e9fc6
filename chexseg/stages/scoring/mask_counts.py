"""Predicted masks beside true ones: counts of pixels, from which every figure is computed later, and the masks themselves.

``counts.parquet``: image_id, pathology, intersection, predicted, true; pixels at the training size, or each image's at its own
where a stage says so; images sorted by id.
``predictions.parquet``: the predicted masks at the training size as COCO run lengths, for overlays and comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chexseg.data import chexlocalize, shards
from chexseg.stages.artifacts import COUNTS, PREDICTIONS


def pixels(masks_NKHW: Any) -> Any:
    """int64 counts_NK of the pixels of bool masks, on their device."""
    if masks_NKHW.device.type != "cpu":
        return masks_NKHW.sum(dim=(2, 3))
    # torch.sum widens every bool on a CPU, which takes 30 times as long.
    counts = [np.count_nonzero(mask_HW) for mask_HW in masks_NKHW.flatten(0, 1).numpy()]
    return torch.tensor(counts, dtype=torch.int64).view(masks_NKHW.shape[:2])


class Counting:
    """Takes batches of masks in the order of the images; `write` makes both files."""

    def __init__(self, image_ids: Sequence[str], pathologies: Sequence[str], size: int):
        self.image_ids, self.pathologies, self.size = list(image_ids), list(pathologies), size
        self._counts: list[np.ndarray] = []
        self._runs: list[str] = []

    @property
    def images(self) -> int:
        """Images counted so far."""
        return sum(map(len, self._counts))

    def add(self, predicted_NKHW: Any, true_NKHW: Any) -> None:
        """Count the next N images and keep their predicted masks. Both are bool and on one device."""
        self.count(predicted_NKHW, true_NKHW)
        self.keep(predicted_NKHW)

    def count(self, predicted_NKHW: Any, true_NKHW: Any) -> None:
        """Count the next N images, whatever their size."""
        parts = (predicted_NKHW & true_NKHW, predicted_NKHW, true_NKHW)
        self._counts.append(torch.stack([pixels(part) for part in parts], dim=2).cpu().numpy())

    def keep(self, predicted_NKHW: Any) -> None:
        """Keep the predicted masks of the next N images, at the training size."""
        self._runs += [
            chexlocalize.encode(mask)["counts"]
            for masks in predicted_NKHW.cpu().numpy()
            for mask in masks
        ]

    def counts_IK3(self) -> np.ndarray:
        """Intersection, predicted and true pixels, int64."""
        return np.concatenate(self._counts)

    def iou(self) -> dict[str, float | None]:
        """Per pathology the IoU pooled over all images; None where nothing is true or predicted."""
        intersection, predicted, true = self.counts_IK3().sum(axis=0).T
        union = predicted + true - intersection
        values = [float(i / u) if u else None for i, u in zip(intersection, union, strict=True)]
        return dict(zip(self.pathologies, values, strict=True))

    def write(self, out: Path, kind: str, columns: Mapping[str, np.ndarray] | None = None) -> None:
        """Write both files into `out`. `kind` stands in their metadata; further `columns` have a row an image and pathology."""
        names = self.pathologies
        rows = {
            "image_id": np.repeat(self.image_ids, len(names)),
            "pathology": np.tile(names, len(self.image_ids)),
        }
        counted = dict(
            zip(
                ("intersection", "predicted", "true"),
                self.counts_IK3().reshape(-1, 3).T,
                strict=True,
            )
        )
        about = {"pathologies": names, "size": self.size}
        counts = shards.table({**rows, **counted, **(columns or {})}, {}, kind=kind, **about)
        shards.write(
            out / COUNTS, counts, row_group=max(1, len(counts))
        )  # a report reads thousands of these, whole
        shards.write(
            out / PREDICTIONS,
            shards.table({**rows, "counts": self._runs}, {}, kind="predictions", **about),
        )

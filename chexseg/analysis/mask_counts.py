"""Pixels that two mask files share, from run lengths alone: at the images' own sizes, or at the size of a study's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from chexseg.data.chexlocalize import MaskFile
from chexseg.data.images import Frame
from chexseg.pathologies import PATHOLOGIES


@dataclass(frozen=True)
class MaskCounts:
    """counts_IK3: int64: intersection, predicted and true pixels of each image and pathology."""

    image_ids: tuple[str, ...]
    pathologies: tuple[str, ...]
    counts_IK3: np.ndarray


def count(
    truth: MaskFile,
    predicted: MaskFile,
    image_ids: Sequence[str],
    pathologies: Sequence[str] = PATHOLOGIES,
    size: int = 0,
) -> MaskCounts:
    """Counts of the named images; what a file doesn't name is empty.

    size: pixels of the square in which is counted, 0 for each image's own size. Into a square both files' masks are put as
    ingest puts the experts' (`Frame.masks`: nearest neighbour). Raises `UserError` for damaged runs, and for an image whose
    masks aren't of one size in both files.
    """
    counts_IK3 = np.zeros((len(image_ids), len(pathologies), 3), dtype=np.int64)
    for i, image_id in enumerate(image_ids):
        files = [one for one in (predicted, truth) if image_id in one]
        if len(files) == 2:
            predicted.check_size(image_id, f"its masks in {truth.path}", truth.size(image_id))
        elif files:
            files[0].size(image_id)
        runs = [_runs(one, image_id, pathologies, size) for one in (predicted, truth)]
        for k, name in enumerate(pathologies):
            there = [one.get(name) for one in runs]
            pixels = [0 if rle is None else int(coco.area(rle)) for rle in there]
            shared = int(coco.area(coco.merge(there, intersect=True))) if all(pixels) else 0
            counts_IK3[i, k] = shared, *pixels
    return MaskCounts(tuple(image_ids), tuple(pathologies), counts_IK3)


def _runs(
    masks: MaskFile, image_id: str, pathologies: Sequence[str], size: int
) -> Mapping[str, Any]:
    """Pathology -> run lengths, as pycocotools takes them, of what the file names."""
    if image_id not in masks:
        return {}
    names = [name for name in pathologies if name in masks[image_id]]
    if not size:
        return {name: masks.runs(image_id, name) for name in names}
    squares_KSS = Frame(*masks.size(image_id), size).masks(masks.masks(image_id, names))
    return {
        name: coco.encode(np.asfortranarray(square, dtype=np.uint8))
        for name, square in zip(names, squares_KSS, strict=True)
    }

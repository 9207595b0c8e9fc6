"""Count the pixels that two mask files share, from run lengths alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from chexseg.data.chexlocalize import MaskFile
from chexseg.data.images import Frame
from chexseg.data.resampling import MaskResize
from chexseg.pathologies import PATHOLOGIES


def count(
    truth: MaskFile,
    predicted: MaskFile,
    image_ids: Sequence[str],
    pathologies: Sequence[str] = PATHOLOGIES,
    size: int = 0,
    resize: MaskResize = "nearest",
) -> np.ndarray:
    """Return counts_IK3 (int64): intersection, predicted and true pixels; absent masks are empty.

    size: side in pixels of the square in which pixels are counted, 0 for each image's native size.
    resize: how the masks of both files are resized to the square, as by ingest. Raises
    `UserError` for damaged runs, and for an image whose masks differ in size between the files.
    """
    counts_IK3 = np.zeros((len(image_ids), len(pathologies), 3), dtype=np.int64)
    for i, image_id in enumerate(image_ids):
        files = [masks for masks in (predicted, truth) if image_id in masks]
        if len(files) == 2:
            predicted.check_size(image_id, f"its masks in {truth.path}", truth.size(image_id))
        elif files:
            files[0].size(image_id)
        runs = [_runs(masks, image_id, pathologies, size, resize) for masks in (predicted, truth)]
        for k, name in enumerate(pathologies):
            pair = [masks.get(name) for masks in runs]
            pixels = [0 if rle is None else int(coco.area(rle)) for rle in pair]
            shared = int(coco.area(coco.merge(pair, intersect=True))) if all(pixels) else 0
            counts_IK3[i, k] = shared, *pixels
    return counts_IK3


def _runs(
    masks: MaskFile, image_id: str, pathologies: Sequence[str], size: int, resize: MaskResize
) -> Mapping[str, Any]:
    """Return pathology -> run lengths in pycocotools' form, for the pathologies in the file."""
    if image_id not in masks:
        return {}
    names = [name for name in pathologies if name in masks[image_id]]
    if not size:
        return {name: masks.runs(image_id, name) for name in names}
    frame, squares = Frame(*masks.size(image_id), size), {}
    for name in names:  # one at a time, because small runs can make large masks
        (square,) = frame.masks(masks.masks(image_id, [name]), resize)
        squares[name] = coco.encode(np.asfortranarray(square, dtype=np.uint8))
    return squares

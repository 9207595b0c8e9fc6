"""The human benchmark: other radiologists' masks against the ground truth, counted as a segmenter's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as coco

from chexseg.data import chexlocalize, location
from chexseg.data.images import Frame
from chexseg.data.location import Location


def counts(data: Location, image_ids: Sequence[str], pathologies: Sequence[str], size: int | None) -> np.ndarray | None:
    """counts_IK3 of `image_ids`: intersection, predicted (the radiologists') and true pixels; None without their file.

    size: of the squares on which both are laid before pixels are counted, as a segmenter's are at training size; None
    counts at each image's own size. An image that the radiologists' file doesn't name has none of their masks. Raises
    `UserError` for a damaged file and for masks of different sizes.
    """
    path = data / chexlocalize.FILES["radiologists"]
    with location.reached(path):
        if not path.is_file():
            return None
    readers, truth = chexlocalize.read(path), chexlocalize.read(data / chexlocalize.FILES["test"])
    out_IK3 = np.zeros((len(image_ids), len(pathologies), 3), dtype=np.int64)
    for i, image_id in enumerate(image_ids):
        own = truth.size(image_id)
        if image_id in readers:
            readers.check_size(image_id, f"its masks in {truth.path}", own)
        frame = None if size is None else Frame(*own, size)
        for k, name in enumerate(pathologies):
            runs = [mask_file.runs(image_id, name) if image_id in mask_file else None for mask_file in (readers, truth)]
            out_IK3[i, k] = _counts(runs, frame)
    return out_IK3


def _counts(runs: Sequence[Mapping | None], frame: Frame | None) -> tuple[int, int, int]:
    """Intersection and areas of two run-length masks, in run-length space where nothing is resized."""
    there = [rle for rle in runs if rle is not None and coco.area(rle)]
    if frame is None:
        both = coco.area(coco.merge(list(runs), intersect=True)) if len(there) == 2 else 0
        return (int(both), *(0 if rle is None else int(coco.area(rle)) for rle in runs))
    masks = [None if rle is None or not coco.area(rle) else frame.masks(coco.decode(rle)[None].astype(bool))[0] for rle in runs]
    both = int((masks[0] & masks[1]).sum()) if len(there) == 2 else 0
    return (both, *(0 if mask is None else int(mask.sum()) for mask in masks))

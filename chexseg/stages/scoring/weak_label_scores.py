"""Quality of weak masks: pixel counts against the expert masks of `valid` and a chance baseline.

Writes `stages.scoring.mask_counts` with two additional columns. ``box`` is the expected number of
expert pixels in a square of the same area placed at random. ``chosen_on`` says whether the image is
an expert training image, on which the thresholds of CAMs are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chexseg.data import radiographs
from chexseg.pathologies import PATHOLOGIES
from chexseg.saliency.chance_baseline import expected_intersection
from chexseg.saliency.weak_masks import possibly_present, weak_masks
from chexseg.stages.scoring.mask_counts import MaskCounter, count_pixels


def present(split: Path, image_ids: Sequence[str], negatives_empty: bool) -> Tensor:
    """Return present_NK, bool: False if the image-level label rules the pathology out.

    All True unless `negatives_empty`.
    """
    table = radiographs.index(split, set(image_ids)).set_index("image_id").loc[list(image_ids)]
    present_NK = possibly_present(torch.from_numpy(radiographs.labels(table, PATHOLOGIES)))
    return present_NK if negatives_empty else torch.ones_like(present_NK)


def write(
    valid: Path,
    out: Path,
    thresholds: Mapping[str, float],
    chosen_on: Sequence[str],
    negatives_empty: bool,
) -> dict[str, float | None]:
    """Count the weak masks of ``out/valid`` and return their pooled IoU per pathology."""
    size = radiographs.image_size(valid)
    ids = [image_id for image_id, _ in radiographs.mask_index(valid)]
    thresholds_K = torch.tensor([thresholds[name] for name in PATHOLOGIES])
    counter = MaskCounter(ids, PATHOLOGIES, size)
    boxes = []
    parts = (
        radiographs.arrays(out / "valid", "scores", ids),
        present(valid, ids, negatives_empty),
        radiographs.expert_masks(valid, ids, PATHOLOGIES, size),
    )
    for scores, present_NK, packed in zip(*(part.split(16) for part in parts), strict=True):
        weak_NKHW = weak_masks(scores, thresholds_K, present_NK, size)
        true_NKHW = radiographs.unpack_bits(packed, weak_NKHW.shape[1:])
        counter.add(weak_NKHW, true_NKHW)
        boxes.append(expected_intersection(true_NKHW, count_pixels(weak_NKHW)))
    chosen = set(chosen_on)
    columns = {
        "box": torch.cat(boxes).numpy().reshape(-1),
        "chosen_on": np.repeat([image_id in chosen for image_id in ids], len(PATHOLOGIES)),
    }
    counter.write(out, "weak counts", columns)
    return counter.iou()

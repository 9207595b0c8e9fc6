"""What weak masks are worth: their pixels beside the experts' on `valid`, and beside a random square of the same area.

``counts.parquet`` of `stages.scoring.mask_counts` with two columns more: ``box``, the pixels that a square of as many pixels, placed
at random, shares with the expert mask (the mean over all places), and ``chosen_on``, whether the image is one of the expert
training images, on which the thresholds of CAMs are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chexseg.data import radiographs
from chexseg.pathologies import PATHOLOGIES
from chexseg.saliency.chance_baseline import expected_intersection
from chexseg.saliency.weak_masks import possible, weak_masks
from chexseg.stages.scoring.mask_counts import Counting, pixels


def present(split: Path, image_ids: Sequence[str], negatives_empty: bool) -> Any:
    """present_NK, bool: where the image-level labels allow a pathology; everywhere unless negatives are to be empty."""
    table = radiographs.index(split, set(image_ids)).set_index("image_id").loc[list(image_ids)]
    present_NK = possible(torch.from_numpy(radiographs.labels(table, PATHOLOGIES)))
    return present_NK if negatives_empty else torch.ones_like(present_NK)


def write(
    valid: Path,
    out: Path,
    thresholds: Mapping[str, float],
    chosen_on: Sequence[str],
    negatives_empty: bool,
) -> dict[str, float | None]:
    """Count the weak masks of ``out/valid`` against the expert masks of `valid`; their pooled IoU per pathology."""
    size = radiographs.image_size(valid)
    ids = [image_id for image_id, _ in radiographs.mask_index(valid)]
    thresholds_K = torch.tensor([thresholds[name] for name in PATHOLOGIES])
    counting = Counting(ids, PATHOLOGIES, size)
    boxes = []
    parts = (
        radiographs.arrays(out / "valid", "scores", ids),
        present(valid, ids, negatives_empty),
        radiographs.expert_masks(valid, ids, PATHOLOGIES, size),
    )
    for scores, present_NK, packed in zip(*(part.split(16) for part in parts), strict=True):
        weak_NKHW = weak_masks(scores, thresholds_K, present_NK, size)
        true_NKHW = radiographs.unpack_bits(packed, weak_NKHW.shape[1:])
        counting.add(weak_NKHW, true_NKHW)
        boxes.append(expected_intersection(true_NKHW, pixels(weak_NKHW)))
    known = set(chosen_on)
    columns = {
        "box": torch.cat(boxes).numpy().reshape(-1),
        "chosen_on": np.repeat([image_id in known for image_id in ids], len(PATHOLOGIES)),
    }
    counting.write(out, "weak counts", columns)
    return counting.iou()

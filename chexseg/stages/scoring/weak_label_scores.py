"""Quality of weak masks: pixel counts against the expert masks of `valid` and a chance baseline.

Writes `stages.scoring.mask_counts` with two additional columns. ``box`` is the expected number of
expert pixels in a square of the same area placed at random. ``chosen_on`` says whether the image is
an expert training image, on which the thresholds of CAMs are chosen if that is their rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from chexseg.data import radiographs
from chexseg.data.masks.random_square import expected_intersection
from chexseg.pathologies import PATHOLOGIES
from chexseg.stages.scoring.mask_counts import MaskCounter, count_pixels
from chexseg.stages.scoring.weak_label_masks import MaskRule


def write(
    valid: Path,
    out: Path,
    thresholds: Mapping[str, float | None],
    chosen_on: Sequence[str],
    negatives_empty: bool,
) -> dict[str, float | None]:
    """Count the weak masks of ``out/valid`` and return their pooled IoU per pathology.

    thresholds: pathology -> threshold, or None if only each image has one (`MaskRule`).
    """
    ids = [image_id for image_id, _ in radiographs.mask_index(valid)]
    rule = MaskRule.of(out / "valid", valid, ids, negatives_empty, thresholds)
    counter = MaskCounter(ids, PATHOLOGIES, rule.size)
    boxes = []
    parts = (
        torch.arange(len(ids)),
        radiographs.arrays(out / "valid", "scores", ids),
        radiographs.expert_masks(valid, ids, PATHOLOGIES, rule.size),
    )
    for rows, scores, packed in zip(*(part.split(16) for part in parts), strict=True):
        weak_NKHW = rule.masks(rows.numpy(), scores)
        true_NKHW = radiographs.unpack_bits(packed, weak_NKHW.shape[1:])
        counter.add(weak_NKHW, true_NKHW)
        boxes.append(expected_intersection(true_NKHW.numpy(), count_pixels(weak_NKHW).numpy()))
    chosen = set(chosen_on)
    columns = {
        "box": np.concatenate(boxes).reshape(-1),
        "chosen_on": np.repeat([image_id in chosen for image_id in ids], len(PATHOLOGIES)),
    }
    counter.write(out, "weak counts", columns)
    return counter.iou()

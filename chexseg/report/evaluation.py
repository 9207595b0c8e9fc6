"""IoU of one mask file against another at the images' own sizes, from run lengths alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pycocotools import mask as coco

from chexseg.data import chexlocalize
from chexseg.data.location import Location
from chexseg.errors import UserError, nearest
from chexseg.pathologies import PATHOLOGIES
from chexseg.report.statistics import miou, per_image_iou, pooled_iou

METRICS = ("pooled", "per-image")


def evaluate(gt: Location, pred: Location, metric: str = "pooled") -> pd.DataFrame:
    """IoU of each pathology and their mean, for the images that the mask file `gt` names: pathology, n_images, iou.

    ``pooled`` is the paper's: intersections and unions summed over images, then divided; `n_images` counts the images in
    which `gt` has pixels of the pathology. ``per-image`` is CheXlocalize's: the mean of the images' own IoU over its true
    positive slice, the `n_images` in which both files have pixels of the pathology (Saporta et al. 2022, Methods; the
    default of their ``eval.py``). IoU is NaN, and left out of the mean, where `n_images` is 0; the row ``mean`` has the
    number of images in `gt`.

    An image that `pred` doesn't name is an empty prediction; one that only `pred` names is ignored. Such things are told
    in ``attrs["notes"]``. Raises `UserError` for an unknown metric, a damaged file, or masks of different sizes.
    """
    if metric not in METRICS:
        raise UserError(f"--metric: found {metric!r}{nearest(metric, METRICS)}; allowed: {', '.join(METRICS)}")
    truth, predicted = chexlocalize.read(gt), chexlocalize.read(pred)
    if not truth:
        raise UserError(f"{gt}: names no image; allowed: at least one")
    counts_IK3 = np.array([_counts(truth, predicted, image_id) for image_id in sorted(truth)], dtype=np.int64)
    _, predicted_IK, true_IK = np.moveaxis(counts_IK3, -1, 0)
    notes = _file_notes(truth, predicted)
    if metric == "pooled":
        iou_K = pooled_iou(counts_IK3, require_expert=True)
        counted_IK = true_IK > 0
    else:
        iou_K = per_image_iou(counts_IK3)
        counted_IK = (predicted_IK > 0) & (true_IK > 0)
        missed, invented = ((true_IK > 0) & (predicted_IK == 0)).sum(), ((true_IK == 0) & (predicted_IK > 0)).sum()
        notes.append(f"per-image: left out {missed} masks without a prediction and {invented} predictions without a mask")
    undefined = [name for name, iou in zip(PATHOLOGIES, iou_K, strict=True) if np.isnan(iou)]
    if undefined:
        notes.append(f"not defined, and left out of the mean: {', '.join(undefined)}")
    table = pd.DataFrame({"pathology": PATHOLOGIES, "n_images": counted_IK.sum(axis=0), "iou": iou_K})
    table.loc[len(table)] = ["mean", len(truth), float(miou(iou_K)[0])]
    table.attrs["notes"] = notes
    return table


def _counts(truth: chexlocalize.MaskFile, predicted: chexlocalize.MaskFile, image_id: str) -> list[list[int]]:
    """counts_K3 of one image: intersection, predicted and true pixels."""
    size = truth.size(image_id)
    if image_id in predicted:
        predicted.check_size(image_id, f"its masks in {truth.path}", size)
    counts = []
    for name in PATHOLOGIES:
        expert = truth.runs(image_id, name)
        guess = predicted.runs(image_id, name) if image_id in predicted else None
        both = coco.merge([expert, guess], intersect=True) if expert and guess else None
        counts.append([0 if rle is None else int(coco.area(rle)) for rle in (both, guess, expert)])
    return counts


def _file_notes(truth: chexlocalize.MaskFile, predicted: chexlocalize.MaskFile) -> list[str]:
    missing, surplus = sorted(set(truth) - set(predicted)), sorted(set(predicted) - set(truth))
    notes = []
    if missing:
        notes.append(
            f"{predicted.path}: doesn't name {len(missing)} of {len(truth)} images ({missing[0]}, ...): taken as empty"
        )
    if surplus:
        notes.append(f"{predicted.path}: names {len(surplus)} images that {truth.path} doesn't ({surplus[0]}, ...): ignored")
    return notes

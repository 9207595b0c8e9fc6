"""Evaluate one CheXlocalize file against another, by the paper's metric or the benchmark's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.statistics.scores import miou, per_image_iou, pooled_iou
from chexseg.data import chexlocalize
from chexseg.data.masks.counts import count
from chexseg.data.masks.image_ids import match_files
from chexseg.data.remote_path import Location
from chexseg.errors import UserError, nearest
from chexseg.evaluation import hit_rate, protocol
from chexseg.evaluation.left_out import LeftOut, scored
from chexseg.pathologies import PATHOLOGIES

METRICS = ("pooled", "per-image", "hit-rate")


@dataclass(frozen=True)
class Evaluation:
    """Scores of predictions against a mask file.

    table: columns pathology, n_images, the metric (``iou`` or ``hit_rate``) and, except for pooled,
    ``lower`` and ``upper``. Its last row is the mean of the pathologies that have a value.
    published: file name -> table of the benchmark. notes: everything left out, with the reason.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]
    left_out: LeftOut
    published: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all but the published tables as plain JSON; undefined values are None."""
        rows = json.loads(self.table.to_json(orient="records", double_precision=15))
        return {"rows": rows, "left_out": self.left_out.as_dict(), "notes": list(self.notes)}


def evaluate(
    gt: Location, pred: Path, metric: str = "pooled", true_pos_only: bool = True, seed: int = 0
) -> Evaluation:
    """Evaluate predictions against the mask file `gt`.

    ``pooled`` is the paper's IoU: intersections and unions are summed over images, then divided.
    `n_images` counts the images in which `gt` has pixels of the pathology.

    The other metrics are the CheXlocalize benchmark's (Saporta et al. 2022, Methods, and
    ``eval.py`` of the published code). They are means over `n_images` images with a 95% interval
    over 1,000 bootstrap samples of images:

    - ``per-image``: the IoU of each image in which both files have pixels of the pathology (true
      positives). With `true_pos_only` off, one file suffices, and images missing from `gt` count.
    - ``hit-rate``: the share of masks that contain the most representative point. `pred` is a
      directory of heat maps or a JSON file of points (`hit_rate.hits`).

    Image ids may differ by the suffix of an image file. A pathology that only one of the files
    names is left out. An image missing from `pred` counts as empty, as in the published code, or as
    a miss in a file of points; one without a heat map is left out.

    A value is NaN, and left out of the mean, if `n_images` is 0; the row ``mean`` has the number of
    images. Raises `UserError` for an unknown metric, a damaged file, files without a common image
    or pathology, masks of different sizes, or a point outside its image.
    """
    if metric not in METRICS:
        raise UserError(
            f"--metric: found {metric!r}{nearest(metric, METRICS)}; allowed: {', '.join(METRICS)}"
        )
    truth = chexlocalize.read(gt)
    if not truth:
        raise UserError(f"{gt}: names no image; expected: at least one")
    if metric == "hit-rate":
        return _benchmark("hit_rate", *hit_rate.hits(truth, pred), seed)
    predicted, matched = match_files(truth, chexlocalize.read(pred))
    names, left_out, notes = scored(
        truth.pathologies, predicted.pathologies, truth.path, predicted.path, matched
    )
    all_images = metric == "per-image" and not true_pos_only
    image_ids = sorted(set(truth) | set(predicted)) if all_images else sorted(truth)
    counts_IK3 = count(truth, predicted, image_ids)
    counts_IK3[:, [name not in names for name in PATHOLOGIES]] = 0
    notes += left_out.note_unknown_images(pred, gt, "counted" if all_images else "ignored")
    if metric == "pooled":
        iou_K = pooled_iou(counts_IK3, require_expert=True)
        named_K = pooled_iou(
            counts_IK3[[image_id in predicted for image_id in image_ids]], require_expert=True
        )
        table = _table("iou", iou_K, (counts_IK3[..., 2] > 0).sum(axis=0), len(truth))
        notes += _missing_images(pred, left_out, len(truth), named_K)
        return Evaluation(table, (*notes, *_undefined(iou_K, left_out)), left_out)
    # An added axis makes every image a set of one image.
    iou_IK = per_image_iou(counts_IK3[:, None], "true-positives" if true_pos_only else "all")
    named_K = protocol.means(iou_IK[[image_id in predicted for image_id in image_ids]])
    notes += _missing_images(pred, left_out, len(truth), named_K)
    if true_pos_only:
        predicted_IK, true_IK = counts_IK3[..., 1] > 0, counts_IK3[..., 2] > 0
        missed, extra = (true_IK & ~predicted_IK).sum(), (predicted_IK & ~true_IK).sum()
        notes.append(
            f"per-image: left out {missed} masks without a prediction"
            f" and {extra} predictions without a mask"
        )
    return _benchmark("iou", tuple(image_ids), iou_IK, notes, left_out, seed)


def _benchmark(
    name: str,
    image_ids: tuple[str, ...],
    values_IK: np.ndarray,
    notes: list[str],
    left_out: LeftOut,
    seed: int,
) -> Evaluation:
    replicates_BK = protocol.bootstrap(values_IK, seed=seed)
    value_K, n_K = protocol.means(values_IK), (~np.isnan(values_IK)).sum(axis=0)
    lower, upper = protocol.interval(
        np.concatenate([replicates_BK, miou(replicates_BK)[0][:, None]], axis=1)
    )
    table = _table(name, value_K, n_K, len(image_ids)).assign(lower=lower, upper=upper)
    published = protocol.tables(
        {"iou": "iou", "hit_rate": "hitmiss"}[name], image_ids, values_IK, replicates_BK
    )
    return Evaluation(table, (*notes, *_undefined(value_K, left_out)), left_out, published)


def _table(name: str, value_K: np.ndarray, n_K: np.ndarray, images: int) -> pd.DataFrame:
    table = pd.DataFrame({"pathology": PATHOLOGIES, "n_images": n_K, name: value_K})
    table.loc[len(table)] = ["mean", images, float(miou(value_K)[0])]
    return table


def _undefined(value_K: np.ndarray, left_out: LeftOut) -> list[str]:
    """Return a note on pathologies without a value, except those already noted as left out."""
    noted = {*left_out.not_predicted, *left_out.not_in_truth}
    names = [
        name
        for name, value in zip(PATHOLOGIES, value_K, strict=True)
        if np.isnan(value) and name not in noted
    ]
    return [f"not defined, and left out of the mean: {', '.join(names)}"] if names else []


def _missing_images(pred: Path, left_out: LeftOut, images: int, named_K: np.ndarray) -> list[str]:
    """Return a note on images without predictions and the mean without them.

    named_K: values on the images that have predictions.
    """
    missing = left_out.missing_images
    if not missing:
        return []
    return [
        f"{pred}: doesn't name {len(missing)} of {images} images ({missing[0]}, ...):"
        " counted as empty, as in CheXlocalize's evaluation;"
        f" without them the mean is {miou(named_K)[0]:.3f}"
    ]

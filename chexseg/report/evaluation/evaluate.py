"""`chexseg evaluate`: one CheXlocalize file against another, by the paper's measure or that benchmark's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from chexseg.data import chexlocalize
from chexseg.data.location import Location
from chexseg.errors import UserError, nearest
from chexseg.pathologies import PATHOLOGIES
from chexseg.report.evaluation import hit_rate, protocol
from chexseg.report.mask_counts import count
from chexseg.report.statistics.scores import miou, per_image_iou, pooled_iou

METRICS = ("pooled", "per-image", "hit-rate")


@dataclass(frozen=True)
class Evaluation:
    """table: pathology, n_images, the metric (``iou`` or ``hit_rate``) and, but for pooled, ``lower`` and ``upper``; its last
    row is the mean of the pathologies that have a value. published: file name -> the benchmark's own tables. notes: what was
    left out, and why.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]
    published: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def evaluate(gt: Location, pred: Path, metric: str = "pooled", true_pos_only: bool = True, seed: int = 0) -> Evaluation:
    """Predictions against the mask file `gt`.

    ``pooled`` is the paper's IoU: intersections and unions summed over images, then divided; `n_images` counts the images in
    which `gt` has pixels of the pathology. The others are the CheXlocalize benchmark's (Saporta et al. 2022, Methods, and
    ``eval.py`` of the published code), the mean over `n_images` with a 95% interval over 1,000 bootstrap samples of images:

    - ``per-image``: each image's own IoU, on the true positive slice, where both files have pixels of the pathology, or
      else, with `true_pos_only` off, where either has; then images that `gt` doesn't name count too.
    - ``hit-rate``: whether the most representative point lies in the mask, where `gt` has pixels. `pred` is a directory of
      heat maps or a JSON file of points (`report.hit_rate`).

    An image that the predictions don't name is an empty one, and a miss of a file of points; one without a heat map is left
    out. A value is NaN, and left out of the mean, where `n_images` is 0; the row ``mean`` has the number of images. Raises
    `UserError` for an unknown metric, a damaged file, masks of different sizes or a point outside its image.
    """
    if metric not in METRICS:
        raise UserError(f"--metric: found {metric!r}{nearest(metric, METRICS)}; allowed: {', '.join(METRICS)}")
    truth = chexlocalize.read(gt)
    if not truth:
        raise UserError(f"{gt}: names no image; allowed: at least one")
    if metric == "hit-rate":
        hits = hit_rate.hits(truth, pred)
        return _benchmark("hit_rate", hits.image_ids, hits.hits_IK, list(hits.notes), seed)
    predicted = chexlocalize.read(pred)
    everything = metric == "per-image" and not true_pos_only
    counted = count(truth, predicted, sorted(set(truth) | set(predicted)) if everything else sorted(truth))
    notes = _file_notes(truth, predicted, "counted" if everything else "ignored")
    if metric == "pooled":
        iou_K = pooled_iou(counted.counts_IK3, require_expert=True)
        table = _table("iou", iou_K, (counted.counts_IK3[..., 2] > 0).sum(axis=0), len(truth))
        return Evaluation(table, (*notes, *_undefined(iou_K)))
    # Each image alone: the mean over one.
    iou_IK = per_image_iou(counted.counts_IK3[:, None], "true-positives" if true_pos_only else "all")
    if true_pos_only:
        predicted_IK, true_IK = counted.counts_IK3[..., 1] > 0, counted.counts_IK3[..., 2] > 0
        missed, invented = (true_IK & ~predicted_IK).sum(), (predicted_IK & ~true_IK).sum()
        notes.append(f"per-image: left out {missed} masks without a prediction and {invented} predictions without a mask")
    return _benchmark("iou", counted.image_ids, iou_IK, notes, seed)


def _benchmark(name: str, image_ids: tuple[str, ...], values_IK: np.ndarray, notes: list[str], seed: int) -> Evaluation:
    replicates_BK = protocol.bootstrap(values_IK, seed=seed)
    value_K, n_K = protocol.means(values_IK), (~np.isnan(values_IK)).sum(axis=0)
    lower, upper = protocol.interval(np.concatenate([replicates_BK, miou(replicates_BK)[0][:, None]], axis=1))
    table = _table(name, value_K, n_K, len(image_ids)).assign(lower=lower, upper=upper)
    published = protocol.tables({"iou": "iou", "hit_rate": "hitmiss"}[name], image_ids, values_IK, replicates_BK)
    return Evaluation(table, (*notes, *_undefined(value_K)), published)


def _table(name: str, value_K: np.ndarray, n_K: np.ndarray, images: int) -> pd.DataFrame:
    table = pd.DataFrame({"pathology": PATHOLOGIES, "n_images": n_K, name: value_K})
    table.loc[len(table)] = ["mean", images, float(miou(value_K)[0])]
    return table


def _undefined(value_K: np.ndarray) -> list[str]:
    names = [name for name, value in zip(PATHOLOGIES, value_K, strict=True) if np.isnan(value)]
    return [f"not defined, and left out of the mean: {', '.join(names)}"] if names else []


def _file_notes(truth: chexlocalize.MaskFile, predicted: chexlocalize.MaskFile, surplus_are: str) -> list[str]:
    missing, surplus = sorted(set(truth) - set(predicted)), sorted(set(predicted) - set(truth))
    notes = []
    if missing:
        notes.append(
            f"{predicted.path}: doesn't name {len(missing)} of {len(truth)} images ({missing[0]}, ...): taken as empty"
        )
    if surplus:
        told = f"names {len(surplus)} images that {truth.path} doesn't ({surplus[0]}, ...): {surplus_are}"
        notes.append(f"{predicted.path}: {told}")
    return notes

"""Compute CheXlocalize's published protocol: means, bootstrap samples of images, three CSV files.

The published code (github.com/rajpurkarlab/cheXlocalize, ``eval.py``) draws rows of its table with
NumPy's legacy generator, one sample after another. With images sorted by id, the same seed gives
the same samples here, so that the files of both agree to the last rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chexseg.pathologies import PATHOLOGIES

REPLICATES = 1000
CONFIDENCE = 0.95


def means(values_IK: np.ndarray) -> np.ndarray:
    """Return value_K, the mean over images that have a value; NaN if none has."""
    (mean_K,) = _means(np.ones((1, len(values_IK))), values_IK)
    return np.asarray(mean_K)


def bootstrap(values_IK: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Return value_BK, means of bootstrap samples of images; the benchmark ignores patients."""
    number = len(values_IK)
    drawn_BI = np.random.RandomState(seed).choice(number, size=(replicates, number))
    # One histogram for all samples: the counts of sample b begin at b * number.
    flat = (drawn_BI + number * np.arange(replicates)[:, None]).ravel()
    times_BI = np.bincount(flat, minlength=replicates * number).reshape(replicates, number)
    return _means(times_BI, values_IK)


def _means(times_BI: np.ndarray, values_IK: np.ndarray) -> np.ndarray:
    defined_IK = ~np.isnan(values_IK)
    times_BI = times_BI.astype(np.float64)
    total_BK = times_BI @ np.where(defined_IK, values_IK, 0.0)
    number_BK = times_BI @ defined_IK.astype(np.float64)
    mean_BK = np.full(total_BK.shape, np.nan)
    np.divide(total_BK, number_BK, out=mean_BK, where=number_BK > 0)
    return mean_BK


def interval(values_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (lower_K, upper_K): the sorted values at the positions 0.025 B and 0.975 B, from 1.

    NaN sorts last, as in the published code, so an upper bound may be NaN.
    """
    ordered_BK, number = np.sort(values_BK, axis=0), len(values_BK)
    outside = (1 - CONFIDENCE) / 2
    # 0.025 isn't exact in binary: without rounding, the position could be off by one.
    low, high = (int(round(share * number, 6)) - 1 for share in (outside, 1 - outside))
    return ordered_BK[max(low, 0)], ordered_BK[high]


def tables(
    name: str, image_ids: Sequence[str], values_IK: np.ndarray, replicates_BK: np.ndarray
) -> Mapping[str, pd.DataFrame]:
    """Return file name -> published table of the metric `name`, ``iou`` or ``hitmiss``.

    - ``NAME_results_per_cxr.csv``: one column per pathology and ``img_id``, one row per image in
      the given order; an empty field is not counted.
    - ``NAME_bootstrap_results_per_cxr.csv``: one column per pathology, one row per sample.
    - ``NAME_summary_results.csv``: ``name`` (pathology), ``lower``, ``mean`` (of the samples) and
      ``upper``, to three decimals.
    """
    results = pd.DataFrame(values_IK, columns=PATHOLOGIES).assign(img_id=image_ids)
    samples = pd.DataFrame(replicates_BK, columns=PATHOLOGIES)
    lower_K, upper_K = interval(replicates_BK)
    summary = pd.DataFrame(
        {"name": PATHOLOGIES, "lower": lower_K, "mean": samples.mean().to_numpy(), "upper": upper_K}
    )
    return {
        f"{name}_results_per_cxr.csv": results,
        f"{name}_bootstrap_results_per_cxr.csv": samples,
        f"{name}_summary_results.csv": summary.sort_values("name").round(3),
    }

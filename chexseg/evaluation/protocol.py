"""CheXlocalize's published protocol: means over images, 1,000 bootstrap samples of images, and its three CSV files.

The published code (github.com/rajpurkarlab/cheXlocalize, ``eval.py``) draws rows of its table with NumPy's legacy generator,
one sample after another. The same seed gives the same samples here of images that
are sorted by id, so files made by both agree to the last rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chexseg.pathologies import PATHOLOGIES

REPLICATES = 1000
CONFIDENCE = 0.95


def means(values_IK: np.ndarray) -> np.ndarray:
    """The mean over images that have a value, value_K; NaN where none has."""
    return _means(np.ones((1, len(values_IK))), values_IK)[0]


def bootstrap(values_IK: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Means of bootstrap samples of images, value_BK. Images, not patients: it is the benchmark's choice."""
    number = len(values_IK)
    drawn_BI = np.random.RandomState(seed).choice(number, size=(replicates, number))
    # Rows of one histogram: sample b's counts stand from b * number on.
    flat = (drawn_BI + number * np.arange(replicates)[:, None]).ravel()
    times_BI = np.bincount(flat, minlength=replicates * number).reshape(replicates, number)
    return _means(times_BI, values_IK)


def _means(times_BI: np.ndarray, values_IK: np.ndarray) -> np.ndarray:
    there_IK = ~np.isnan(values_IK)
    times_BI = times_BI.astype(np.float64)
    total_BK, number_BK = (
        times_BI @ np.where(there_IK, values_IK, 0.0),
        times_BI @ there_IK.astype(np.float64),
    )
    return np.divide(total_BK, number_BK, out=np.full(total_BK.shape, np.nan), where=number_BK > 0)


def interval(values_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lower_K, upper_K): of B sorted values the one numbered 0.025 B and the one numbered 0.975 B, counted from 1.

    NaN stand last, as in the published code, so an upper end may be NaN.
    """
    ordered_BK, number = np.sort(values_BK, axis=0), len(values_BK)
    outside = (1 - CONFIDENCE) / 2
    # Rounded first: 0.025 isn't exact in binary, and a sample too few would be another interval.
    low, high = (int(round(share * number, 6)) - 1 for share in (outside, 1 - outside))
    return ordered_BK[max(low, 0)], ordered_BK[high]


def tables(
    name: str, image_ids: Sequence[str], values_IK: np.ndarray, replicates_BK: np.ndarray
) -> Mapping[str, pd.DataFrame]:
    """File name -> the published tables of a metric, ``iou`` or ``hitmiss``.

    - ``NAME_results_per_cxr.csv``: a column a pathology and ``img_id``; a row an image, as given; empty: not counted.
    - ``NAME_bootstrap_results_per_cxr.csv``: a column a pathology, a row a sample.
    - ``NAME_summary_results.csv``: ``name`` (pathology), ``lower``, ``mean`` (of the samples), ``upper``, to three decimals.
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

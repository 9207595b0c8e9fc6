"""Scores of acquisition alone against each label: shortcuts that a classifier may take.

Each property of an acquisition is scored alone against each observation, without any training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from chexseg.data.audit.image_validation import CheckedImage
from chexseg.pathologies import OBSERVATIONS

#: Properties: share of the training square that is black padding; width / height; number of pixels;
#: 1 for a lateral view, 0 for a frontal one; 1 for AP, 0 for PA (missing for other projections).
PROPERTIES = ("padding", "aspect ratio", "pixels", "lateral", "AP")
#: Splits whose labels are learned from or chosen on. Nothing is looked at on the test set.
SPLITS = ("train", "valid")
#: An AUROC above this, or below 1 minus this, deserves a warning.
LIMIT = 0.8
#: Largest P-value (two-sided, Mann-Whitney U) of an AUROC that deserves a warning. A split has 70
#: pairs of property and label, so of a split without any shortcut one in 14 gets a warning.
LARGEST_P = 0.001


def properties(table: pd.DataFrame, decoded: Mapping[str, CheckedImage]) -> dict[str, np.ndarray]:
    """Return property -> values_N of a table's images; NaN where missing.

    table: that of `chexpert.read_csv`. decoded: path -> image, of those that can be decoded.
    """
    shapes = [decoded[path].shape if path in decoded else (np.nan,) * 2 for path in table["path"]]
    height_N, width_N = np.array(shapes, dtype=np.float64).reshape(-1, 2).T
    projection = table["projection"].to_numpy()
    return {
        "padding": 1 - np.minimum(height_N, width_N) / np.maximum(height_N, width_N),
        "aspect ratio": width_N / height_N,
        "pixels": height_N * width_N,
        "lateral": (~table["frontal"].to_numpy(dtype=bool)).astype(np.float64),
        "AP": np.select([projection == "AP", projection == "PA"], [1.0, 0.0], np.nan),
    }


def auroc(values_N: np.ndarray, labels_N: np.ndarray) -> dict[str, float] | None:
    """Return ``auroc`` and ``p`` of a property for one label; None without both classes.

    Label 1 is positive, 0 and blank are negative; uncertain labels and missing values are left out.
    Ties count one half, so a property that is the same for all images has 0.5.
    """
    measured_N = np.isfinite(values_N)
    positive = values_N[measured_N & (labels_N == 1)]
    negative = values_N[measured_N & ((labels_N == 0) | np.isnan(labels_N))]
    if not len(positive) or not len(negative):
        return None
    if min(positive.min(), negative.min()) == max(positive.max(), negative.max()):
        return {"auroc": 0.5, "p": 1.0}
    test = mannwhitneyu(positive, negative)
    return {
        "auroc": float(test.statistic) / (len(positive) * len(negative)),
        "p": float(test.pvalue),
    }


def scores(
    table: pd.DataFrame, decoded: Mapping[str, CheckedImage]
) -> dict[str, dict[str, dict[str, float] | None]]:
    """Return property -> observation -> `auroc`."""
    return {
        name: {label: auroc(values_N, table[label].to_numpy()) for label in OBSERVATIONS}
        for name, values_N in properties(table, decoded).items()
    }


def warnings(scored: Mapping[str, Mapping[str, Mapping[str, float] | None]]) -> Iterator[str]:
    """Yield a sentence for each AUROC beyond `LIMIT` that chance doesn't explain, best first."""
    beyond = [
        (max(score["auroc"], 1 - score["auroc"]), name, label, score)
        for name, labels in scored.items()
        for label, score in labels.items()
        if score is not None and score["p"] <= LARGEST_P
    ]
    for distance, name, label, score in sorted(beyond, key=lambda entry: -entry[0]):
        if distance > LIMIT:
            yield (
                f"{name} alone predicts {label} with an AUROC of {score['auroc']:.2f}"
                f" (expected: {1 - LIMIT:.1f} to {LIMIT})"
            )


def text(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of AUROCs: observations x properties, "train/valid" in a cell."""
    scored = [splits[split]["acquisition"] for split in SPLITS if split in splits]
    names = "/".join(split for split in SPLITS if split in splits)
    heading = f"AUROC of acquisition, {names}"
    lines = [f"{heading:<34}" + "".join(f"{name:>14}" for name in PROPERTIES)]
    for label in OBSERVATIONS:
        cells = [
            "/".join("-" if (score := one[name][label]) is None else f"{score['auroc']:.2f}"
                     for one in scored)
            for name in PROPERTIES
        ]  # fmt: skip
        lines.append(f"{label:<34}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)

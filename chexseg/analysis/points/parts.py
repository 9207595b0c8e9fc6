"""The rows that all figures share: means and single trials, and published values."""

from __future__ import annotations

from typing import Any

import numpy as np

from chexseg.analysis.arms import Arm
from chexseg.analysis.published import HEADLINES
from chexseg.analysis.statistics.scores import t_interval
from chexseg.analysis.study_scores import StudyScores

#: Columns of points. kind: "mean" (with the 95% t-interval over n trials), "trial", "paper" or
#: "poster". cells: keys of the scores behind the value (`StudyScores.cell_keys`).
POINT_COLUMNS = ("kind", "value", "low", "high", "n", "trial", "cells")


def points_of(
    scores: StudyScores, values_C: np.ndarray, arm: Arm, fields: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return rows of an arm's mean and of its trials, each with `fields`, without NaN values."""
    values = values_C[list(arm.indices)].tolist()
    interval = t_interval(values)
    bounds = {"low": interval.low, "high": interval.high, "n": interval.n, "trial": None}
    mean = fields | {"kind": "mean", "value": interval.mean, **bounds}
    rows = [mean | {"cells": scores.cell_keys(arm.indices)}] if interval.n else []
    unbounded = {"kind": "trial", "low": np.nan, "high": np.nan, "n": 1}
    return rows + [
        fields | unbounded | {"value": value, "trial": trial, "cells": scores.cell_keys([index])}
        for trial, value, index in zip(arm.trials, values, arm.indices, strict=True)
        if not np.isnan(value)
    ]


def published_point(
    kind: str, value: float, fields: dict[str, Any], half_width: float = np.nan
) -> dict[str, Any]:
    """Return a row of the paper's or the poster's. half_width: of its interval."""
    return fields | {
        "kind": kind,
        "value": value,
        "low": value - half_width,
        "high": value + half_width,
        "n": 3,
        "trial": None,
        "cells": "",
    }


def published_full(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the paper's and the poster's mIoU of full supervision with CheXpert's encoder."""
    return [
        published_point("paper", HEADLINES["full"], fields),
        published_point("poster", HEADLINES["poster full"], fields),
    ]

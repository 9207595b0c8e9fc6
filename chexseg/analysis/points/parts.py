"""The rows that all figures share: means and single trials, and published values."""

from __future__ import annotations

from typing import Any

import numpy as np

from chexseg.analysis.arms import Arm
from chexseg.analysis.published import HEADLINES
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.study_scores import StudyScores

#: Columns of points. kind: "mean" (with the 95% t-interval over n trials), "trial", "paper" or
#: "poster". cells: keys of the scores behind the value (`StudyScores.cell_keys`).
POINT_COLUMNS = ("kind", "value", "low", "high", "n", "trial", "cells")


def point(
    kind: str,
    interval: Interval,
    fields: dict[str, Any],
    trial: int | None = None,
    cells: str = "",
) -> dict[str, Any]:
    """Return a row with `POINT_COLUMNS` and `fields`."""
    return fields | {"kind": kind, "trial": trial, "cells": cells} | interval.columns


def points_of(
    scores: StudyScores, values_C: np.ndarray, arm: Arm, fields: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return rows of an arm's mean and of its trials, each with `fields`, without NaN values."""
    values = values_C[list(arm.indices)].tolist()
    interval = arm.over_trials(values_C)
    mean = point("mean", interval, fields, cells=scores.cell_keys(arm.indices))
    return [mean] * bool(interval.n) + [
        point("trial", Interval(value, np.nan, np.nan, 1), fields, trial, scores.cell_keys([index]))
        for (_, trial), value, index in zip(arm.trials, values, arm.indices, strict=True)
        if not np.isnan(value)
    ]


def published_point(
    kind: str, value: float, fields: dict[str, Any], half_width: float = np.nan
) -> dict[str, Any]:
    """Return a row of the paper's or the poster's. half_width: of its interval."""
    return point(kind, Interval(value, value - half_width, value + half_width, 3), fields)


def published_full(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the paper's and the poster's mIoU of full supervision with CheXpert's encoder."""
    return [
        published_point("paper", HEADLINES["full"], fields),
        published_point("poster", HEADLINES["poster full"], fields),
    ]

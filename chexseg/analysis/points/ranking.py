"""The ranking of a study's arms as points: the figure that answers its question."""

from __future__ import annotations

from typing import Any

import pandas as pd

from chexseg.analysis.axis_effects import Answer
from chexseg.analysis.points.parts import POINT_COLUMNS, points_of
from chexseg.analysis.study_scores import StudyScores

COLUMNS = ("arm", "method", *POINT_COLUMNS)
NO_POINTS = pd.DataFrame(columns=list(COLUMNS))
#: The figure is read at a glance; the table has all arms.
MOST_ARMS = 8


def points(scores: StudyScores, answer: Answer) -> pd.DataFrame:
    """Return mIoU of the arms with the highest ones, one row per point, the best arm first.

    Columns: `COLUMNS`. arm is its settings without those that all arms share; method is its kind of
    weak labels, or what else it is.
    """
    parts = {str(arm): str(arm).split(", ") for arm in scores.arms}
    shared = set.intersection(*map(set, parts.values()))
    arms = {str(arm): arm for arm in scores.arms}
    rows: list[dict[str, Any]] = []
    for text in answer.ranking["arm"].head(MOST_ARMS):
        apart = [part for part in parts[text] if part not in shared]
        fields = {"arm": ", ".join(apart) or text, "method": arms[text].weak or arms[text].method}
        rows += points_of(scores, scores.miou_C, arms[text], fields)
    return pd.DataFrame(rows, columns=list(COLUMNS))

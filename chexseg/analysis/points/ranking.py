"""The ranking of a study's arms as points: the figure that answers its question."""

from __future__ import annotations

from collections.abc import Iterable
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

    Columns: `COLUMNS`. arm is its name from `names_apart`; method is its kind of weak labels, or
    what else it is.
    """
    apart = names_apart(map(str, scores.arms))
    arms = {str(arm): arm for arm in scores.arms}
    rows: list[dict[str, Any]] = []
    for text in answer.ranking["arm"].head(MOST_ARMS):
        fields = {"arm": apart[text], "method": arms[text].weak or arms[text].method}
        rows += points_of(scores, scores.miou_C, arms[text], fields)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def names_apart(names: Iterable[str]) -> dict[str, str]:
    """Return name of an arm (``str(arm)``) -> the name without the settings that all arms share."""
    parts = {name: name.split(", ") for name in names}
    shared = set.intersection(*map(set, parts.values()))
    return {
        name: ", ".join(part for part in of_arm if part not in shared) or name
        for name, of_arm in parts.items()
    }

"""Figure 3: students by fraction of training images, beside their teachers, by encoder init."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.arms import by_init, teachers
from chexseg.analysis.points.parts import POINT_COLUMNS, points_of, published_full
from chexseg.analysis.study_scores import StudyScores

MOST_SETTINGS = 12


def points(scores: StudyScores) -> pd.DataFrame:
    """Return mIoU of students and teachers, one row per point.

    Columns: init, method ("student" or "full"), settings (the others that the study varies),
    fraction, then `parts.POINT_COLUMNS`. The paper prints one teacher's mIoU, with CheXpert's
    encoder.
    """
    students = sorted(scores.of("student"), key=by_init)
    rows: list[dict[str, Any]] = []
    taught = set(itertools.chain(*teachers(students, scores.of("full")).values()))
    full = [arm for arm in scores.of("full") if arm in taught]
    for arm in [*sorted(students, key=lambda arm: arm.fraction), *full]:
        fields = {"init": arm.init, "method": arm.method, "settings": " ".join(arm.further)}
        rows += points_of(scores, scores.miou_C, arm, fields | {"fraction": arm.fraction})
    if scores.all_ten and any(arm.init == "chexpert" for arm in students):
        fields = {"init": "chexpert", "method": "full", "settings": ""}
        rows += published_full(fields | {"fraction": np.nan})
    table = pd.DataFrame(rows, columns=["init", "method", "settings", "fraction", *POINT_COLUMNS])
    inits = list(dict.fromkeys(arm.init for arm in students))
    return table.sort_values(
        "init", key=lambda column: column.map(inits.index), kind="stable", ignore_index=True
    )


def panels(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the encoder inits, one panel each; none if students vary in too many settings."""
    students = rows.loc[rows["method"] == "student", "settings"]
    return tuple(dict.fromkeys(rows["init"])) if students.nunique() <= MOST_SETTINGS else ()

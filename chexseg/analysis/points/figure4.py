"""Figure 4: full (a) and weak supervision (b), by encoder initialization."""

from __future__ import annotations

from typing import Any

import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.arms import by_init, encoder_texts
from chexseg.analysis.points.parts import (
    POINT_COLUMNS,
    points_of,
    published_full,
    published_point,
)
from chexseg.analysis.study_scores import StudyScores

MOST_ENCODERS = 24


def points(scores: StudyScores) -> pd.DataFrame:
    """Return mIoU of fully and weakly supervised arms, one row per point.

    Columns: encoder, method ("full" or a kind of weak labels), images (the number of weak images;
    0 for "full"), then `parts.POINT_COLUMNS`. Published values are means over all ten pathologies,
    so they are added only to studies of all ten.
    """
    full, weak = scores.of("full"), scores.of("weak")
    texts = encoder_texts(full) | encoder_texts(weak)
    rows: list[dict[str, Any]] = []
    for arm in sorted([*full, *weak], key=by_init):
        images = 0 if arm.method == "full" else int(arm.weak_images)
        fields = {"encoder": texts[arm], "method": arm.weak or "full", "images": images}
        rows += points_of(scores, scores.miou_C, arm, fields)
        if not scores.all_ten:
            continue
        if arm.weak and (entry := published.table2(arm.weak, arm.init, images)):
            rows.append(published_point("paper", entry[0], fields, entry[1]))
        if arm.method == "full" and arm.init == "chexpert":
            rows += published_full(fields)
    return pd.DataFrame(rows, columns=["encoder", "method", "images", *POINT_COLUMNS])


def panels(rows: pd.DataFrame) -> tuple[int, ...]:
    """Return the numbers of weak images, one panel each; 0 is full supervision.

    Only those with 2 to `MOST_ENCODERS` encoders.
    """
    number = rows[rows["kind"] == "mean"].groupby("images")["encoder"].nunique()
    return tuple(number[number.between(2, MOST_ENCODERS)].index.astype(int))

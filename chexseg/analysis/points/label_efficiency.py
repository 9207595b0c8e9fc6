"""Label efficiency: full supervision, mixtures, and their difference over the number of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from chexseg.analysis.arms import Arm
from chexseg.analysis.points.parts import POINT_COLUMNS, point, points_of
from chexseg.analysis.statistics.inference import Measured, difference
from chexseg.analysis.study_scores import StudyScores

#: The setting on the horizontal axis: expert images to train on.
EXPERTS = "labels.expert_split.train"
#: The panels: mIoU, and each mixture's mIoU minus that of full supervision.
MIOU, GAIN = "mIoU", "gain"
COLUMNS = ("panel", "experts", "method", "series", *POINT_COLUMNS)
NO_POINTS = pd.DataFrame(columns=list(COLUMNS))


def points(scores: StudyScores, measured: Mapping[Arm | str, Measured]) -> pd.DataFrame:
    """Return mIoU and gain by the number of expert images, one row per point.

    A gain is paired, with its interval over draws, trials and patients. Empty unless a study varies
    the number of expert images, with fully supervised arms and mixtures that differ in nothing
    else but p and the weak labels. measured: of all arms.
    """
    axes = scores.results.axes
    if axes is None or EXPERTS not in axes:
        return NO_POINTS
    rows: list[dict[str, Any]] = []
    experts = {arm: int(axes.loc[arm.indices[0], EXPERTS]) for arm in scores.arms}
    full = {number: arm for arm, number in experts.items() if arm.method == "full"}
    # Several arms of one number differ in another setting, which this figure has no place for.
    if len(full) < 2 or len(full) < len(scores.of("full")):
        return NO_POINTS
    for number, arm in sorted(full.items()):
        fields = {"panel": MIOU, "experts": number, "method": "full", "series": "full"}
        rows += points_of(scores, scores.miou_C, arm, fields)
    for arm in sorted(scores.of("mixed"), key=lambda arm: (arm.name, experts[arm])):
        others = [word for word in arm.further if not EXPERTS.endswith(word.partition("=")[0])]
        series = ", ".join([arm.name, *others])
        fields = {"experts": experts[arm], "method": str(arm.weak), "series": series}
        rows += points_of(scores, scores.miou_C, arm, fields | {"panel": MIOU})
        if experts[arm] in full:
            gain = difference(measured[arm], measured[full[experts[arm]]]).together
            keys = scores.cell_keys((*arm.indices, *full[experts[arm]].indices))
            rows.append(point("mean", gain, fields | {"panel": GAIN}, cells=keys))
    return pd.DataFrame(rows, columns=list(COLUMNS))

"""Figure 5 and its table: weak and full supervision, CheXseg and radiologists, by pathology."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.arms import Arm
from chexseg.analysis.points.parts import point
from chexseg.analysis.published import AVERAGE, HEADLINES
from chexseg.analysis.statistics.inference import Measured, difference, over_patients
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.study_scores import RADIOLOGISTS, StudyScores

COLUMNS = (
    "task",
    "role",
    "name",
    "method",
    "kind",
    "value",
    "low",
    "high",
    "n",
    "description",
    "cells",
)
#: Roles in drawing order. Each arm has its method's highest mIoU on the selection images.
ROLES = ("weak", "full", "chexseg", "radiologists")


def points(
    scores: StudyScores, roles: Mapping[str, Arm], measured: Mapping[Arm | str, Measured]
) -> pd.DataFrame:
    """Return IoU by task and role, "Avg. IoU" first; empty with fewer than two roles to compare.

    Columns: `COLUMNS`. name is the role's; method is an arm's kind of weak labels, else its role;
    kind is "mean", "paper" or "poster"; n is the number of patients with an expert pixel;
    description is the arm's settings, or how a published value is derived. Intervals are over
    patients (`inference.over_patients`) with trials averaged; radiologists have no trials. The role
    "gap" is the best mixture minus radiologists, its interval paired by patient.
    """
    arms: dict[str, Arm | str] = {role: arm for role, arm in roles.items() if role in ROLES}
    arms |= {RADIOLOGISTS: RADIOLOGISTS} if RADIOLOGISTS in measured else {}
    if len(arms) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = []
    # The mean over pathologies is the last column of the measured values.
    for k, task in [(-1, AVERAGE), *enumerate(scores.results.pathologies)]:
        for role, arm in arms.items():
            text, method, keys = "against the ground truth", RADIOLOGISTS, ""
            if isinstance(arm, Arm):
                text, keys = str(arm), scores.cell_keys(arm.indices)
                method = arm.weak or arm.method
            fields = {"task": task, "role": role, "method": method, "description": text}
            rows.append(point("mean", over_patients(measured[arm], k), fields, cells=keys))
        if {"chexseg", RADIOLOGISTS} <= arms.keys():
            gap = difference(measured[arms["chexseg"]], measured[RADIOLOGISTS], k).patients
            rows.append(point("mean", gap, {"task": task, "role": "gap", "description": ""}))
        rows += _published(task, scores)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.assign(name=table["role"].replace({"chexseg": scores.mixture}))


def _published(task: str, scores: StudyScores) -> list[dict[str, Any]]:
    """Return the published values of a task.

    The paper prints no value of Figure 5. These are Table 1's; the radiologists' are derived from
    its text. Its weak method has 20,000 images and no published IoU of single pathologies.
    """
    if not scores.beside_paper or (task == AVERAGE and not scores.all_ten):
        return []
    table1 = published.table1(task, "cam", 0.9)
    values = [
        ("chexseg", "paper", table1, "Table 1, CAM, p = 0.9"),
        ("full", "paper", published.table1(task, "cam", 1), "Table 1, p = 1"),
    ]
    if task == AVERAGE:
        for source, prefix in (("paper", ""), ("poster", "poster ")):
            weak = HEADLINES[f"{prefix}weak"]
            values.append(("weak", source, weak, "IRNet, 20,000 images"))
            closed = HEADLINES[f"{prefix}gap to radiologists closed"]
            text = f"derived from the gap closed, {closed:g}%"
            values.append(("radiologists", source, published.implied_radiologists(prefix), text))
        values += [
            ("chexseg", "poster", HEADLINES["poster chexseg"], "p = 0.9"),
            ("full", "poster", HEADLINES["poster full"], "p = 1"),
        ]
    above = HEADLINES.get(f"chexseg over radiologists, {task}")
    if above is not None and table1 is not None:
        text = f"derived from CheXseg {above:g}% higher"
        values.append(("radiologists", "paper", table1 / (1 + above / 100), text))
    return [
        point(
            kind,
            Interval(value, np.nan, np.nan, 0),
            {"task": task, "role": role, "description": text},
        )
        for role, kind, value, text in values
        if value is not None
    ]

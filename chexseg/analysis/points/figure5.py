"""Figure 5 and its table: weak and full supervision, CheXseg and radiologists, by pathology."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.claims.headline import arm_text
from chexseg.analysis.published import AVERAGE, HEADLINES
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.inference import difference, over_patients
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.statistics.study_arms import RADIOLOGISTS, study_arms
from chexseg.analysis.tables.study_tables import cell_keys
from chexseg.analysis.tables.table2 import all_ten

#: Roles in drawing order. Each is its method's arm with the highest mIoU on the selection images.
ROLES = ("weak", "full", "chexseg")
NAMES = {"weak": "weak", "full": "full", "chexseg": "CheXseg", "radiologists": "radiologists"}


def figure5_rows(results: StudyResults) -> pd.DataFrame:
    """Return IoU by task and role, "Avg. IoU" first.

    Columns: task, role, kind ("mean", "paper" or "poster"), value, low, high, n (patients with an
    expert pixel), description (the arm's settings, or how a published value is derived), cells.
    Intervals are over patients (`inference.over_patients`) with trials averaged; radiologists have
    no trials. The role "gap" is CheXseg minus radiologists, its interval paired by patient.
    """
    study = study_arms(results)
    arms = {role: arm for role in ROLES if (arm := study.role(role)) is not None}
    descriptions = {role: arm_text(arm) for role, arm in arms.items()}
    keys = {role: cell_keys(results, arm.indices) for role, arm in arms.items()}
    measured = {role: study.measured(arm) for role, arm in arms.items()}
    if results.radiologists_IK3 is not None:
        descriptions["radiologists"] = "against the ground truth"
        measured["radiologists"] = study.measured(RADIOLOGISTS)
    rows = []
    # The mean over pathologies is the last column of the measured values.
    for k, task in [(-1, AVERAGE), *enumerate(results.pathologies)]:
        for role, text in descriptions.items():
            interval = over_patients(measured[role], k)
            rows.append(_row(task, role, "mean", interval, text, keys.get(role, "")))
        if "chexseg" in measured and "radiologists" in measured:
            gap = difference(measured["chexseg"], measured["radiologists"], k).patients
            rows.append(_row(task, "gap", "mean", gap, ""))
        rows += _published(task, results)
    return pd.DataFrame(
        rows, columns=["task", "role", "kind", "value", "low", "high", "n", "description", "cells"]
    )


def has_figure5(rows: pd.DataFrame) -> bool:
    """Return whether there are at least two roles to compare."""
    return bool(rows.loc[rows["kind"] == "mean", "role"].nunique() > 1)


def _row(
    task: str, role: str, kind: str, interval: Interval, description: str, cells: str = ""
) -> dict[str, Any]:
    return {
        "task": task,
        "role": role,
        "kind": kind,
        "value": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "description": description,
        "cells": cells,
    }


def _published(task: str, results: StudyResults) -> list[dict[str, Any]]:
    """Return the published values of a task.

    The paper prints no value of Figure 5. These are Table 1's; the radiologists' are derived from
    its text. Its weak method has 20,000 images and no published IoU of single pathologies.
    """
    if task == AVERAGE and not all_ten(results):
        return []
    table1 = published.table1(task, "cam", 0.9)
    values = [
        ("chexseg", "paper", table1, "Table 1, CAM, p = 0.9"),
        ("full", "paper", published.table1(task, "cam", 1), "Table 1, p = 1"),
    ]
    if task == AVERAGE:
        for source, prefix in (("paper", ""), ("poster", "poster ")):
            weak, chexseg = (HEADLINES[prefix + role].value for role in ("weak", "chexseg"))
            values.append(("weak", source, weak, "IRNet, 20,000 images"))
            closed = HEADLINES[f"{prefix}gap to radiologists closed"].value
            text = f"derived from the gap closed, {closed:g}%"
            values.append(("radiologists", source, weak + (chexseg - weak) / (closed / 100), text))
        values += [
            ("chexseg", "poster", HEADLINES["poster chexseg"].value, "p = 0.9"),
            ("full", "poster", HEADLINES["poster full"].value, "p = 1"),
        ]
    above = HEADLINES.get(f"chexseg over radiologists, {task}")
    if above is not None and table1 is not None:
        text = f"derived from CheXseg {above.value:g}% higher"
        values.append(("radiologists", "paper", table1 / (1 + above.value / 100), text))
    return [
        _row(task, role, kind, Interval(value, np.nan, np.nan, 0), text)
        for role, kind, value, text in values
        if value is not None
    ]


def radiologists_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `figure5_rows` as a table, one row per task.

    Columns: weak, full, CheXseg and radiologists with their intervals; gap, CheXseg minus
    radiologists; relative %, the gap relative to the radiologists.
    """
    table = []
    ours = rows[rows["kind"] == "mean"]
    for task in dict.fromkeys(rows["task"]):
        row: dict[str, Any] = {"task": task}
        for one in ours[ours["task"] == task].itertuples():
            name = NAMES.get(one.role, one.role)
            row |= {name: one.value, f"{name} low": one.low, f"{name} high": one.high}
        if "gap" in row and row["radiologists"] > 0:
            row["relative %"] = 100 * row["gap"] / row["radiologists"]
        table.append(row)
    return pd.DataFrame(table)

"""Figure 5 and its table: weak and full supervision, CheXseg and radiologists, by pathology."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import published
from chexseg.analysis.claims.headline import arm_text
from chexseg.analysis.published import AVERAGE, HEADLINES, METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.inference import difference, over_patients
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.statistics.study_arms import RADIOLOGISTS, study_arms
from chexseg.analysis.tables.study_tables import cell_keys
from chexseg.analysis.tables.table2 import all_ten
from chexseg.report.figures.parts import GRID, Canvas, half_widths
from chexseg.report.palette import COLOURS, SYMBOLS

#: Roles in drawing order. Each is its method's arm with the highest mIoU on the selection images.
ROLES = ("weak", "full", "chexseg")
NAMES = {"weak": "weak", "full": "full", "chexseg": "CheXseg", "radiologists": "radiologists"}
#: Height of a row, pixels.
ROW = 44


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


def figure5(rows: pd.DataFrame, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw `figure5_rows`: one line per task, IoU on the x axis."""
    tasks = list(dict.fromkeys(rows["task"]))
    roles = [role for role in NAMES if ((rows["role"] == role) & (rows["kind"] == "mean")).any()]
    canvas = Canvas(legend)
    for number, role in enumerate(roles):
        method, role_rows = _method(rows, role), rows[rows["role"] == role]
        shift = 0.19 * (number - (len(roles) - 1) / 2)
        ours = role_rows[(role_rows["kind"] == "mean") & role_rows["value"].notna()]
        ends = [
            "" if np.isnan(row.low) else f" [{row.low:.3f}, {row.high:.3f}]"
            for row in ours.itertuples()
        ]
        canvas.add(
            role,
            NAMES[role],
            method,
            x=ours["value"].tolist(),
            y=[tasks.index(task) + shift for task in ours["task"]],
            mode="markers",
            marker={
                "symbol": SYMBOLS[method] + ("-open" if role == "weak" else ""),
                "size": 9,
                "color": COLOURS[method],
                "line": {"width": 2 if role == "weak" else 0},
            },
            error_x={"type": "data", "thickness": 1.2, "width": 3, "symmetric": False}
            | {
                "array": half_widths(ours),
                "arrayminus": (ours["value"] - ours["low"]).fillna(0).tolist(),
            },
            customdata=[
                list(texts)
                for texts in zip(
                    ours["task"], ends, ours["description"], ours["cells"], strict=True
                )
            ],
            hovertemplate=f"%{{customdata[0]}}, {NAMES[role]}: %{{x:.3f}}%{{customdata[1]}}<br>"
            "%{customdata[2]}<extra></extra>",
        )
        for kind, mark in (("paper", "diamond-tall-open"), ("poster", "x-thin-open")):
            theirs = role_rows[role_rows["kind"] == kind]
            if len(theirs):
                canvas.add(
                    "paper",
                    kind,
                    method,
                    x=theirs["value"].tolist(),
                    y=[tasks.index(task) + shift for task in theirs["task"]],
                    mode="markers",
                    opacity=0.55,
                    marker={
                        "symbol": mark,
                        "size": 8,
                        "color": COLOURS[method],
                        "line": {"width": 1.2},
                    },
                    customdata=theirs[["task", "description"]].to_numpy().tolist(),
                    hovertemplate=f"%{{customdata[0]}}, {kind}, {NAMES[role]}: %{{x:.3f}}<br>"
                    "%{customdata[1]}<extra></extra>",
                )
    shown = rows[rows["role"].isin(roles)]
    highest = float(np.nanmax(shown[["value", "high"]].to_numpy(dtype=float), initial=0.05))
    # Lines between tasks replace the grid, whose lines would pass through the points.
    lines = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": number - 0.5,
            "y1": number - 0.5,
            "layer": "below",
        }
        | {"line": {"color": "rgba(128,128,128,0.3)", "width": 1}}
        for number in range(1, len(tasks))
    ]
    return canvas.framed(
        "",
        letter,
        ROW * len(tasks) + 70,
        margin={"l": 8, "r": 16, "t": 12, "b": 58},
        shapes=lines,
        xaxis={
            "title": {
                "text": "IoU, pooled over the test images",
                "standoff": 10,
                "font": {"size": 12},
            },
            "range": [-0.02 * highest, 1.04 * highest],
            "zeroline": False,
            "showline": True,
            "ticks": "outside",
            "nticks": 6,
            "gridcolor": GRID,
        },
        yaxis={
            "tickvals": list(range(len(tasks))),
            "ticktext": [task.replace("Enlarged Cardio", "Enlarged<br>Cardio") for task in tasks],
            "range": [len(tasks) - 0.5, -0.5],
            "zeroline": False,
            "showgrid": False,
            "automargin": True,
        },
    )


def _method(rows: pd.DataFrame, role: str) -> str:
    """Return the method whose colour a role has, for example its kind of weak labels."""
    if role in ("full", "radiologists"):
        return role
    arm = rows.loc[(rows["role"] == role) & (rows["kind"] == "mean"), "description"].iloc[0]
    return next(kind for kind, text in METHODS.items() if arm.startswith(f"{text},"))

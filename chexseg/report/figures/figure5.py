"""Figure 5: weak supervision, full supervision, CheXseg and radiologists, for each pathology; and the table of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import published
from chexseg.analysis.claims.headline import arm_text
from chexseg.analysis.published import AVERAGE, HEADLINES, METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.inference import difference, over_patients
from chexseg.analysis.statistics.scores import Arm, Interval
from chexseg.analysis.statistics.study_arms import RADIOLOGISTS, study_arms
from chexseg.analysis.tables.study_tables import cell_keys
from chexseg.analysis.tables.table2 import all_ten
from chexseg.report.figures.parts import GRID, Canvas, half_widths
from chexseg.report.palette import COLOURS, SYMBOLS

#: From below upwards in each row; each is its method's arm with the highest mIoU on the selection images.
ROLES = ("weak", "full", "chexseg")
NAMES = {"weak": "weak", "full": "full", "chexseg": "CheXseg", "radiologists": "radiologists"}
#: Pixels a row of the figure takes.
ROW = 44


def figure5_rows(results: StudyResults, replicates: int = 1000, seed: int = 0) -> pd.DataFrame:
    """IoU of each role and task, "Avg. IoU" first: task, role, kind ("mean", "paper" or "poster"), value, low, high, n, told,
    cells.

    Intervals are over patients (`inference.over_patients`), trials averaged, for models as for radiologists, who have no
    trials. n: patients with an expert pixel. told: the arm in words or, of a published value that isn't printed, what it
    follows from. The role "gap" is CheXseg minus radiologists, its interval paired by patient.
    """
    study = study_arms(results, replicates, seed)
    roles: dict[str, Arm | str] = {
        role: arm for role in ROLES if (arm := study.role(role)) is not None
    }
    told = {role: arm_text(arm) for role, arm in roles.items()}
    keys = {role: cell_keys(results, arm.indices) for role, arm in roles.items()}
    if results.radiologists_IK3 is not None:
        roles["radiologists"], told["radiologists"] = RADIOLOGISTS, "against the ground truth"
    known = {role: study.measured(arm) for role, arm in roles.items()}
    rows = []
    # The mean over pathologies stands last in what is measured.
    for k, task in [(-1, AVERAGE), *enumerate(results.pathologies)]:
        for role, arm in known.items():
            rows.append(
                _row(task, role, "mean", over_patients(arm, k), told[role], keys.get(role, ""))
            )
        if "chexseg" in known and "radiologists" in known:
            rows.append(
                _row(
                    task,
                    "gap",
                    "mean",
                    difference(known["chexseg"], known["radiologists"], k).patients,
                    "",
                )
            )
        rows += _published(task, results)
    return pd.DataFrame(
        rows, columns=["task", "role", "kind", "value", "low", "high", "n", "told", "cells"]
    )


def has_figure5(rows: pd.DataFrame) -> bool:
    """Whether there are at least two to compare."""
    return rows.loc[rows["kind"] == "mean", "role"].nunique() > 1


def _row(task: str, role: str, kind: str, interval: Interval, told: str, cells: str = "") -> dict:
    ends = {"value": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    return {"task": task, "role": role, "kind": kind, **ends, "told": told, "cells": cells}


def _published(task: str, results: StudyResults) -> list[dict]:
    """The paper's values of Figure 5, which prints none: Table 1's, and the radiologists' from what it says of them.

    The weak method there has 20,000 images; its IoU of single pathologies stands nowhere.
    """
    if task == AVERAGE and not all_ten(results):
        return []
    found = [("chexseg", "paper", published.table1(task, "cam", 0.9), "Table 1, CAM, p = 0.9")]
    found.append(("full", "paper", published.table1(task, "cam", 1), "Table 1, p = 1"))
    if task == AVERAGE:
        for source, before in (("paper", ""), ("poster", "poster ")):
            weak, chexseg = (HEADLINES[before + role].value for role in ("weak", "chexseg"))
            found.append(("weak", source, weak, "IRNet, 20,000 images"))
            closed = HEADLINES[f"{before}gap to radiologists closed"].value
            text = f"follows from the gap closed, {closed:g}%"
            found.append(("radiologists", source, weak + (chexseg - weak) / (closed / 100), text))
        found.append(("chexseg", "poster", HEADLINES["poster chexseg"].value, "p = 0.9"))
        found.append(("full", "poster", HEADLINES["poster full"].value, "p = 1"))
    above = HEADLINES.get(f"chexseg over radiologists, {task}")
    if above is not None:
        value = published.table1(task, "cam", 0.9) / (1 + above.value / 100)
        found.append(
            ("radiologists", "paper", value, f"follows from CheXseg {above.value:g}% higher")
        )
    return [
        _row(task, role, kind, Interval(value, np.nan, np.nan, 0), text)
        for role, kind, value, text in found
        if value is not None
    ]


def radiologists_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """`figure5_rows` as a table: a row a task; weak, full, CheXseg and radiologists with their intervals, the gap (CheXseg
    minus radiologists), and CheXseg relative to the radiologists in per cent."""
    table = []
    ours = rows[rows["kind"] == "mean"]
    for task in dict.fromkeys(rows["task"]):
        row: dict[str, object] = {"task": task}
        for one in ours[ours["task"] == task].itertuples():
            name = NAMES.get(one.role, one.role)
            row |= {name: one.value, f"{name} low": one.low, f"{name} high": one.high}
        if "gap" in row and row["radiologists"] > 0:
            row["relative %"] = 100 * row["gap"] / row["radiologists"]
        table.append(row)
    return pd.DataFrame(table)


def figure5(rows: pd.DataFrame, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw `figure5_rows`: tasks beneath each other, so that their names have room; IoU from left to right."""
    tasks = list(dict.fromkeys(rows["task"]))
    roles = [role for role in NAMES if ((rows["role"] == role) & (rows["kind"] == "mean")).any()]
    methods = {role: _method(rows, role) for role in roles}
    canvas = Canvas(legend)
    for number, role in enumerate(roles):
        method, mine = methods[role], rows[rows["role"] == role]
        shift = 0.19 * (number - (len(roles) - 1) / 2)
        symbol = SYMBOLS[method] + ("-open" if role == "weak" else "")
        ours = mine[(mine["kind"] == "mean") & mine["value"].notna()]
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
                "symbol": symbol,
                "size": 9,
                "color": COLOURS[method],
                "line": {"width": 2 if role == "weak" else 0},
            },
            error_x={"type": "data", "thickness": 1.2, "width": 3, "symmetric": False}
            | {"array": half_widths(ours), "arrayminus": _below(ours)},
            customdata=[
                list(told)
                for told in zip(ours["task"], ends, ours["told"], ours["cells"], strict=True)
            ],
            hovertemplate=f"%{{customdata[0]}}, {NAMES[role]}: %{{x:.3f}}%{{customdata[1]}}<br>%{{customdata[2]}}"
            "<extra></extra>",
        )
        for kind, mark in (("paper", "diamond-tall-open"), ("poster", "x-thin-open")):
            theirs = mine[mine["kind"] == kind]
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
                    customdata=[
                        list(told) for told in zip(theirs["task"], theirs["told"], strict=True)
                    ],
                    hovertemplate=f"%{{customdata[0]}}, {kind}, {NAMES[role]}: %{{x:.3f}}<br>%{{customdata[1]}}<extra></extra>",
                )
    shown = rows[rows["role"].isin(roles)]
    highest = float(np.nanmax(shown[["value", "high"]].to_numpy(dtype=float), initial=0.05))
    # A line above each task but the first; a grid line through the middle of its points would tell nothing.
    lines = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": at - 0.5,
            "y1": at - 0.5,
            "layer": "below",
        }
        | {"line": {"color": "rgba(128,128,128,0.3)", "width": 1}}
        for at in range(1, len(tasks))
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
    """Whose colour a role has: its weak labels', if it learned from any."""
    if role in ("full", "radiologists"):
        return role
    told = rows.loc[(rows["role"] == role) & (rows["kind"] == "mean"), "told"].iloc[0]
    return next(kind for kind, text in METHODS.items() if told.startswith(f"{text},"))


def _below(rows: pd.DataFrame) -> list[float]:
    return [
        0.0 if np.isnan(low) else value - low
        for low, value in zip(rows["low"], rows["value"], strict=True)
    ]

"""Figure 5: weak and full supervision, CheXseg and radiologists, by pathology."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.points.figure5 import NAMES
from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import GRID, Canvas, half_widths
from chexseg.report.palette import COLOURS, SYMBOLS

#: Height of a row, pixels.
ROW = 44


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

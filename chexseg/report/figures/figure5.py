"""Figure 5: weak and full supervision, CheXseg and radiologists, by pathology."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.points.figure5 import ROLES
from chexseg.drawing.palette import SYMBOLS
from chexseg.report.figures.parts import categories, dodge, hover_texts, traces
from chexseg.report.figures.theme import themed

#: Height of a task, pixels.
ROW = 44
#: Vertical distance between the roles of one task, as a share of its height.
LANE = 0.19


def figure5(rows: pd.DataFrame, legend: bool = True) -> go.Figure:
    """Draw `points.figure5.points`: one line per task, IoU on the x axis."""
    tasks = list(dict.fromkeys(rows["task"]))
    of_role = rows[rows["kind"] == "mean"].groupby("role")["method"].first()
    methods = {role: of_role[role] for role in ROLES if role in of_role}
    # Weak supervision has a symbol of its own: its colour can be the mixture's.
    symbols = {r: SYMBOLS[m] for r, m in methods.items()} | {"weak": "triangle-down"}
    rows = rows[rows["role"].isin(methods) & rows["value"].notna()]
    names = rows["name"]
    hovers = hover_texts(rows, rows["task"] + ", " + names, "patients")
    points = rows.assign(
        x=rows["value"],
        y=rows["task"].map(tasks.index) + dodge(rows, "role", list(methods), LANE),
        series=names,
        group=rows["role"],
        method=rows["role"].map(methods),
        symbol=rows["role"].map(symbols),
        hover=hovers + "<br>" + rows["description"],
    )
    highest = max(0.05, rows[["value", "high"]].max(axis=None))
    labels = [task.replace("Enlarged Cardio", "Enlarged<br>Cardio") for task in tasks]
    # Lines between tasks: those of a grid would pass through the points.
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
    return themed(
        traces(points, value="x"),
        legend=legend,
        height=ROW * len(tasks) + 76,
        margin_t=12,
        legend_xref="container",
        shapes=[line | {"y0": y - 0.5, "y1": y - 0.5} for y in range(1, len(tasks))],
        xaxis={
            "title_text": "IoU, pooled over the test images",
            "range": [-0.02 * highest, 1.04 * highest],
            "showgrid": True,
        },
        yaxis=categories(labels, range=[len(tasks) - 0.5, -0.5], showgrid=False),
    )

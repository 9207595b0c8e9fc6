"""Figure 3: students by fraction of training images, beside their teachers, by encoder init."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.drawing.palette import COLOURS, SYMBOLS
from chexseg.report.figures.parts import KINDS, categories, dodge, hover_texts, iou_axis, traces
from chexseg.report.figures.theme import themed

#: Horizontal distance between students of one fraction that differ in other settings.
LANE = 0.16
STUDENT_SYMBOLS = (SYMBOLS["student"], "triangle-up", "square", "cross", "pentagon")
#: Kind -> settings of a teacher's line.
TEACHERS: dict[str, dict[str, Any]] = {
    "mean": {"legendgroup": "teacher", "legendrank": 1001, "line_dash": "dash"},
    "paper": KINDS["paper"] | {"name": "paper, teacher"},
    "poster": KINDS["poster"] | {"name": "poster, teacher", "line_dash": "dashdot"},
}


def figure3(rows: pd.DataFrame, init: str, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw one panel of `points.figure3.points`.

    All panels have equal axes, symbols and offsets, so they can be compared.
    """
    students = rows[rows["method"] == "student"]
    fractions = sorted(students["fraction"].unique())
    shares = [f"{100 * fraction:g}%" for fraction in fractions]
    settings = list(dict.fromkeys(students["settings"]))
    symbols = {s: STUDENT_SYMBOLS[n % len(STUDENT_SYMBOLS)] for n, s in enumerate(settings)}
    series = ("student " + students["settings"]).str.strip()
    at = students["fraction"].map(fractions.index)
    points = students.assign(
        x=at + dodge(students, "settings", settings, LANE),
        y=students["value"],
        series=series,
        group=series,
        mode=np.where(students["kind"] == "mean", "lines+markers", "markers"),
        symbol=students["settings"].map(symbols),
        hover=hover_texts(students, series + ", " + at.map(shares.__getitem__) + " of train"),
    )
    axis = categories(shares, title_text="fraction of the training images")
    of_iou = iou_axis("mIoU", rows)
    teachers = rows[
        (rows["init"] == init) & rows["kind"].isin(TEACHERS) & ~rows.index.isin(at.index)
    ]
    return themed(
        _teachers(teachers, axis["range"])
        + traces(points[points["init"] == init], ends=of_iou["range"]),
        f"encoder {init}",
        letter,
        legend=legend,
        xaxis=axis,
        yaxis=of_iou,
    )


def _teachers(rows: pd.DataFrame, ends: list[float]) -> list[dict[str, Any]]:
    """Return each teacher as a line across the panel, and its interval as a band."""
    labels = ("teacher " + rows["settings"]).str.strip()
    bands, lines = [], []
    for label, hover, row in zip(labels, hover_texts(rows, labels), rows.itertuples(), strict=True):
        line = {"name": label, "meta": "full", "mode": "lines", "line_color": COLOURS["full"]}
        line |= {"x": ends, "y": [row.value] * 2, "hovertext": hover, "customdata": [row.cells] * 2}
        lines.append(line | TEACHERS[row.kind])
        if row.kind == "mean" and not np.isnan(row.low):
            band = {"name": "teacher, 95%", "mode": "lines", "line_width": 0, "hoverinfo": "skip"}
            band |= {"fill": "toself", "fillcolor": "rgba(0, 158, 115, 0.13)"}
            band |= {"x": [*ends, *ends[::-1]], "y": [row.low, row.low, row.high, row.high]}
            bands.append(TEACHERS["mean"] | band)
    return lines + bands

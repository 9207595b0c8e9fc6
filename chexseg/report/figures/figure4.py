"""Figure 4: full (a) and weak supervision (b), by encoder initialization."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import (
    LETTER,
    NARROWEST,
    categories,
    dodge,
    hover_texts,
    iou_axis,
    named_rows,
    traces,
)
from chexseg.report.figures.theme import PANEL, themed

#: Distance between the methods of one encoder, beside each other or one below the other.
LANE, ROW_LANE = 0.22, 0.16


def figure4(rows: pd.DataFrame, images: int, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw one panel of `points.figure4.points`: the encoders side by side.

    If their names would overprint, each encoder has a row instead, below its name. images: 0 for
    full supervision. All panels of weak supervision have equal axes.
    """
    rows = rows[(rows["images"] > 0) == (images > 0)]
    encoders = list(dict.fromkeys(rows["encoder"]))
    methods = [method for method in METHODS if (rows["method"] == method).any()]
    series = rows["method"].replace(METHODS)
    words = [word for encoder in encoders for word in encoder.split()]
    upright = max(map(len, words)) * LETTER <= NARROWEST / len(encoders)
    axis = iou_axis("mIoU", rows)
    at = rows["encoder"].map(encoders.index)
    place = at + dodge(rows, "method", methods, LANE if upright else ROW_LANE)
    points = rows.assign(
        x=place if upright else rows["value"],
        y=rows["value"] if upright else place,
        series=series,
        group=rows["method"],
        hover=hover_texts(rows, series + ", encoder " + rows["encoder"]),
    )
    layout: dict[str, Any]
    if upright:
        labels = [encoder.replace(" ", "<br>") for encoder in encoders]
        names = categories(labels, title_text="encoder initialization")
        layout = {"height": PANEL, "xaxis": names, "yaxis": axis}
    else:
        layout = named_rows(encoders) | {"xaxis": axis | {"showgrid": True}}
    return themed(
        traces(points[points["images"] == images], "y" if upright else "x", axis["range"]),
        f"weak supervision, {images:,} images" if images else "full supervision",
        letter,
        legend=legend,
        **layout,
    )

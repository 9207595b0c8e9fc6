"""Figure 4: full (a) and weak supervision (b), by encoder initialization."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import categories, dodge, hover_texts, iou_axis, traces
from chexseg.report.figures.theme import BELOW, PANEL, themed

#: Horizontal distance between the methods of one encoder.
LANE = 0.22
MOST_UPRIGHT = 6


def figure4(rows: pd.DataFrame, images: int, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw one panel of `points.figure4.points`: the encoders side by side.

    images: 0 for full supervision. All panels of weak supervision have equal axes.
    """
    rows = rows[(rows["images"] > 0) == (images > 0)]
    encoders = list(dict.fromkeys(rows["encoder"]))
    methods = [method for method in METHODS if (rows["method"] == method).any()]
    series = rows["method"].replace(METHODS)
    points = rows.assign(
        x=rows["encoder"].map(encoders.index) + dodge(rows, "method", methods, LANE),
        y=rows["value"],
        series=series,
        group=rows["method"],
        hover=hover_texts(rows, series + ", encoder " + rows["encoder"]),
    )
    # Many labels are slanted, and need height.
    slanted = len(encoders) > MOST_UPRIGHT
    room = 5 * max(map(len, encoders)) if slanted else 0
    labels = encoders if slanted else [encoder.replace(" ", "<br>") for encoder in encoders]
    axis = {"title_text": "encoder initialization", "tickangle": -45 if slanted else 0}
    return themed(
        traces(points[points["images"] == images]),
        f"weak supervision, {images:,} images" if images else "full supervision",
        letter,
        legend=legend,
        height=PANEL + room,
        margin_b=BELOW + room,
        xaxis=categories(labels, **axis),
        yaxis=iou_axis("mIoU", rows),
    )

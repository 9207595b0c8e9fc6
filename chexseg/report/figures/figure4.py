"""Figure 4: full (a) and weak supervision (b), by encoder initialization."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import categories, dodge, hover_texts, iou_axis, traces
from chexseg.report.figures.theme import PANEL, themed

#: Distance between the methods of one encoder, beside each other or one below the other.
LANE, ROW_LANE = 0.22, 0.16
#: Width of a panel on a phone and of a letter, pixels.
NARROWEST, LETTER = 300, 7
#: Height of the points of an encoder that has a row, and of a line of its name above, pixels.
ROW, NAME = 30, 16


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
        layout = _in_rows(encoders) | {"xaxis": axis | {"showgrid": True}}
    return themed(
        traces(points[points["images"] == images], "y" if upright else "x", axis["range"]),
        f"weak supervision, {images:,} images" if images else "full supervision",
        letter,
        legend=legend,
        **layout,
    )


def _in_rows(encoders: list[str]) -> dict[str, Any]:
    """Return the layout of one row per encoder, with its name at the upper left."""
    names = [textwrap.wrap(name, NARROWEST // LETTER) for name in encoders]
    height = ROW + NAME * max(map(len, names))
    top = 0.5 + 0.5 * (height - ROW) / height  # of a row, above its points, as a share of it
    left = {"x": 0, "xref": "paper", "xanchor": "left", "yanchor": "top", "align": "left"}
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
    return {
        "height": height * len(encoders) + 116,
        "margin_l": 16,
        "annotations": [left | {"y": n - top, "text": "<br>".join(t)} for n, t in enumerate(names)],
        "shapes": [line | {"y0": n - top, "y1": n - top} for n in range(1, len(names))],
        "yaxis": {"visible": False, "range": [len(names) - top, -top]},
    }

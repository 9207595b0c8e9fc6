"""The figure of label efficiency: mIoU, and the gain by weak labels, over the expert images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.points.label_efficiency import GAIN
from chexseg.report.figures.parts import categories, dodge, hover_texts, iou_axis, traces
from chexseg.report.figures.theme import themed

#: Horizontal distance between the series of one number of expert images.
LANE = 0.2
TITLES = {"mIoU": "mIoU", GAIN: "gain over full supervision"}


def label_efficiency(
    rows: pd.DataFrame, panel: str, letter: str = "", legend: bool = True
) -> go.Figure:
    """Draw one panel of `points.label_efficiency.points`."""
    experts = sorted(rows["experts"].unique())
    series = list(dict.fromkeys(rows["series"]))
    rows = rows[rows["panel"] == panel]
    points = rows.assign(
        x=rows["experts"].map(experts.index) + dodge(rows, "series", series, LANE),
        y=rows["value"],
        group=rows["series"],
        mode=np.where(rows["kind"] == "mean", "lines+markers", "markers"),
        hover=hover_texts(rows, rows["series"] + ", " + rows["experts"].astype(str) + " experts"),
    )
    axis = iou_axis("mIoU", rows)
    if panel == GAIN:
        reach = np.nanmax(np.abs(rows[["value", "low", "high"]].to_numpy(dtype=float)))
        axis = {"title_text": "difference in mIoU", "range": [-1.05 * reach, 1.05 * reach]}
        axis |= {"zeroline": True, "tickformat": "+.2f"}
    return themed(
        traces(points, ends=axis["range"]),
        TITLES[panel],
        letter,
        legend=legend,
        xaxis=categories([str(number) for number in experts], title_text="expert images"),
        yaxis=axis,
    )

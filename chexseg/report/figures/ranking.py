"""The ranking of a study's arms: mIoU with its interval, the best arm at the top."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.arms import UNTRAINED
from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import dodge, hover_texts, iou_axis, named_rows, traces
from chexseg.report.figures.theme import themed


def ranking(rows: pd.DataFrame, legend: bool = True) -> go.Figure:
    """Draw `points.ranking.points`: each arm in a row below its name."""
    arms = list(dict.fromkeys(rows["arm"]))
    series = rows["method"].replace(METHODS)
    points = rows.assign(
        x=rows["value"],
        y=rows["arm"].map(arms.index) + dodge(rows, "arm", [], 0.3),
        method=rows["method"].replace({UNTRAINED: "baseline"}),
        series=series,
        group=rows["method"],
        hover=hover_texts(rows, rows["arm"]),
    )
    axis = iou_axis("mIoU on the test images", rows)
    return themed(
        traces(points, "x", axis["range"]),
        legend=legend,
        margin_t=8,
        xaxis=axis | {"showgrid": True},
        **named_rows(arms),
    )

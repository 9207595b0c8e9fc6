"""Figure 2: IoU as a function of p, the share of expert labels, per pathology and on average."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import dodge, hover_texts, iou_axis, traces
from chexseg.report.figures.theme import themed

#: Width that the methods share at one p; the paper's closest p are 0.05 apart.
WIDTH = 0.056
#: Minimum distance between two labels of the axis.
LABELS = 0.07


def figure2(rows: pd.DataFrame, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw the rows of one task of `points.figure2.points`."""
    methods = [method for method in METHODS if (rows["method"] == method).any()]
    full = rows["method"] == "full"
    series = rows["method"].map(METHODS | {"full": "full"})
    lines = rows["kind"].isin(["mean", "paper"]) & ~full
    points = rows.assign(
        x=rows["p"] + dodge(rows, "method", methods, WIDTH / max(1, len(methods))),
        y=rows["value"],
        series=series.mask(full, "full (p = 1)"),
        group=rows["method"],
        mode=lines.map({True: "lines+markers", False: "markers"}),
        size=full.map({True: 11, False: 9}),
        hover=hover_texts(rows, series + ", p = " + rows["p"].map("{:g}".format)),
    )
    # All methods share the fully supervised point, where their lines end below its mark.
    end = points[full & (rows["kind"] == "mean")].assign(size=0, low=np.nan, high=np.nan)
    of_methods = points[lines & (rows["kind"] == "mean")].drop_duplicates("method")
    same = ["method", "group", "series", "mode"]
    ends = of_methods[same].merge(end.drop(columns=same), how="cross")
    ticks = sorted({0.0, 1.0, *rows.loc[rows["kind"].isin(["mean", "trial"]), "p"]})
    axis = iou_axis("IoU", rows)
    return themed(
        traces(pd.concat([points[~full], ends, points[full]]), ends=axis["range"]),
        rows["task"].iloc[0] if len(rows) else "",
        letter,
        legend=legend,
        xaxis={
            "title_text": "p, share of expert labels in a batch",
            "tickvals": ticks,
            "ticktext": tick_labels(ticks),
            "range": [-0.05, 1.05],
        },
        yaxis=axis,
    )


def tick_labels(ticks: list[float]) -> list[str]:
    """Return labels of p; empty if a label would overlap its right neighbour."""
    labels, last = [], np.inf
    for p in reversed(ticks):
        shown = p == 0 or last - p > LABELS
        last = p if shown else last
        labels.append({0.0: "0<br>weak", 1.0: "1<br>full"}.get(p, f"{p:g}") if shown else "")
    return labels[::-1]

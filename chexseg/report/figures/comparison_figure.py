"""The figure of a comparison: differences between two sides, with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.comparison import Comparison
from chexseg.report.figures.parts import dodge, named_rows, traces
from chexseg.report.figures.theme import themed

#: Interval -> its columns in a comparison, and its method's colour and symbol.
INTERVALS = {
    "over patients": ("from", "to", "cam", "circle"),
    "over trials": ("trials from", "trials to", "irnet", "diamond"),
}


def figure_rows(comparison: Comparison) -> pd.DataFrame:
    """Return one row per line of the figure, from the top, and interval.

    For one pair, the lines are its mIoU and pathologies; for several, the mIoU of each. Columns:
    line, label, interval, value (the difference), low, high. Undefined intervals over trials are
    left out.
    """
    rows = comparison.means
    if len(rows) == 1:
        rows = comparison.rows.assign(label=comparison.rows["pathology"])
    elif rows["A"].nunique() == 1 or rows["B"].nunique() == 1 or (rows["A"] == rows["B"]).all():
        rows = rows.assign(label=rows["A"] if rows["A"].nunique() > 1 else rows["B"])
    else:
        rows = rows.assign(label=rows["A"] + " − " + rows["B"])
    rows = rows.assign(value=rows["difference"]).dropna(subset="value")
    rows = rows.assign(line=range(len(rows)))
    table = pd.concat(
        rows.assign(interval=interval, low=rows[low], high=rows[high])
        for interval, (low, high, *_) in INTERVALS.items()
    )
    kept = (table["interval"] == "over patients") | table["low"].notna()
    return table.loc[kept, ["line", "label", "interval", "value", "low", "high"]]


def figure(rows: pd.DataFrame) -> go.Figure:
    """Draw the rows of `figure_rows`: differences with their intervals, and a line at 0.

    The axis includes all differences and intervals over patients, but cuts intervals over trials,
    with arrowheads: with two trials they are very wide.
    """
    marks = rows["interval"].map(INTERVALS).str
    points = rows.assign(kind="mean", cells="", method=marks[2], symbol=marks[3])
    points = points.assign(
        x=rows["value"],
        y=rows["line"] + dodge(points, "interval", list(INTERVALS), lane=0.16),
        series="A − B, 95% interval " + rows["interval"],
        group=rows["interval"],
        hover=[
            f"{row.label}: {row.value:+.3f}<br>{row.interval}: {row.low:+.3f} to {row.high:+.3f}"
            for row in rows.itertuples()
        ],
    )
    labels = rows.drop_duplicates("line")["label"]
    ends = rows[["value", "low", "high"]].abs().max(axis=1)
    narrow, wide = (ends[rows["interval"] == interval].max() for interval in INTERVALS)
    narrow = np.fmax(narrow, 0.02)
    reach = float(1.08 * np.fmax(narrow, min(wide, 1.6 * narrow)))
    return themed(
        traces(points, value="x", ends=(-reach, reach)),
        margin_t=12,
        legend_xref="container",
        xaxis={
            "title_text": "difference in IoU, A − B",
            "range": [-reach, reach],
            "tickformat": "+.2f",
            "showgrid": True,
            "zeroline": True,
        },
        **named_rows(labels.tolist()),
    )

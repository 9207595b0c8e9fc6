"""The figure of a comparison: differences between two sides, with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.comparison import MEAN, Comparison, one_pair
from chexseg.report.palette import BLUE, FONT, GREY, VERMILLION


def figure_rows(comparison: Comparison) -> pd.DataFrame:
    """Return one row per line of the figure, from the top.

    For one pair, these are its mIoU and pathologies; for several, the mIoU of each. Columns: label,
    difference, from, to, trials from, trials to.
    """
    if one_pair(comparison):
        labels, rows = comparison.rows["pathology"], comparison.rows
    else:
        rows = comparison.rows[comparison.rows["pathology"] == MEAN]
        varied = [name for name in ("A", "B") if rows[name].nunique() > 1]
        both = len(varied) == 2 and (rows["A"] != rows["B"]).any()
        labels = rows["A"] + "<br>− " + rows["B"] if both else rows[varied[0]]
    columns = ["difference", "from", "to", "trials from", "trials to"]
    return (
        rows[columns]
        .assign(label=labels)
        .dropna(subset="difference")[["label", *columns]]
        .reset_index(drop=True)
    )


def figure(rows: pd.DataFrame) -> go.Figure:
    """Draw the rows of `figure_rows`: differences with both intervals, and a line at 0."""
    drawn = go.Figure()
    position = np.arange(len(rows))[::-1]
    parts = (
        ("over patients", "from", "to", "cam", BLUE, "circle", 0.0),
        ("over trials", "trials from", "trials to", "irnet", VERMILLION, "diamond", -0.24),
    )
    for name, low, high, meta, colour, symbol, shift in parts:
        defined = rows[low].notna() if shift else rows["difference"].notna()
        if not defined.any():
            continue
        values = rows[defined]
        drawn.add_trace(
            go.Scatter(
                x=values["difference"].tolist(),
                y=(position[defined] + shift).tolist(),
                mode="markers",
                name=f"A − B, 95% interval {name}",
                meta=meta,
                marker={"symbol": symbol, "size": 8 if not shift else 6, "color": colour},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": (values[high] - values["difference"]).fillna(0).tolist(),
                    "arrayminus": (values["difference"] - values[low]).fillna(0).tolist(),
                    "thickness": 1.6 if not shift else 1.1,
                    "width": 3,
                    "color": colour,
                },
                customdata=[
                    [label, f"{a:+.3f} to {b:+.3f}"]
                    for label, a, b in values[["label", low, high]].to_numpy()
                ],
                hovertemplate="%{customdata[0]}: %{x:+.3f}<br>"
                + name
                + ": %{customdata[1]}<extra></extra>",
            )
        )
    drawn.add_vline(x=0, line={"color": GREY, "width": 1})
    drawn.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 13, "color": "#1b1f24"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 16, "r": 16, "t": 12, "b": 84},
        height=130 + 30 * len(rows),
        showlegend=True,
        legend={
            "orientation": "h",
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 12},
        },
        xaxis={
            "title": {"text": "difference in IoU, A − B", "font": {"size": 12}},
            "range": [-_reach(rows), _reach(rows)],
            "zeroline": False,
            "tickformat": "+.2f",
            "showline": True,
            "ticks": "outside",
            "nticks": 7,
        },
        yaxis={
            "tickvals": position.tolist(),
            "ticktext": rows["label"].tolist(),
            "range": [-0.6, len(rows) - 0.4],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
    )
    return drawn


def _reach(rows: pd.DataFrame) -> float:
    """Return half the length of the axis.

    It includes all differences and intervals over patients, but cuts intervals over trials: with
    two trials they are very wide.
    """
    narrow = np.nanmax(rows[["difference", "from", "to"]].abs().to_numpy(dtype=float), initial=0.02)
    wide = np.nanmax(rows[["trials from", "trials to"]].abs().to_numpy(dtype=float), initial=0.0)
    return float(1.08 * max(narrow, min(wide, 1.6 * narrow)))

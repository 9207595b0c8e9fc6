"""Figure 2: IoU as a function of p, the share of expert labels, per pathology and on average."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import (
    Canvas,
    bars,
    category_axis,
    interval_texts,
    iou_axis,
    top,
)
from chexseg.report.palette import COLOURS, SYMBOLS

#: Horizontal offset of each method, so that intervals at equal p don't overlap.
DODGE = {"cam": -0.006, "cam++": 0.03, "irnet": 0.006, "full": 0.0}
#: Horizontal offset of single trials, which are drawn beside their mean.
TRIAL_DODGE = {"cam": -0.018, "cam++": 0.042, "irnet": 0.018, "full": 0.016}


def figure2(rows: pd.DataFrame, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw the rows of one task of `points.figure2.figure2_points`."""
    canvas = Canvas(legend)
    task = rows["task"].iloc[0] if len(rows) else ""
    full = rows[(rows["kind"] == "mean") & (rows["method"] == "full")]
    for method, text in [*METHODS.items(), ("full", "full")]:
        method_rows = rows[rows["method"] == method]
        mean = method_rows[method_rows["kind"] == "mean"]
        canvas.published(
            method_rows, method_rows["p"].tolist(), method, f"{text}, p = %{{x}}", line=True
        )
        if len(mean) and method != "full":
            # The line ends at the fully supervised point, which all methods share; its marker is
            # drawn once, below.
            line = pd.concat([mean, full]) if len(full) else mean
            canvas.add(
                method,
                text,
                method,
                x=[*(mean["p"] + DODGE[method]), *full["p"]],
                y=line["value"].tolist(),
                mode="lines+markers",
                line={"color": COLOURS[method], "width": 2},
                marker={
                    "symbol": SYMBOLS[method],
                    "size": [8] * len(mean) + [0] * len(full),
                    "opacity": 1,
                    "line": {"width": 0},
                },
                error_y=bars(line, hide=len(full)),
                customdata=_hover_data(line),
                hovertemplate=f"{text}<br>p = %{{customdata[0]}}: %{{y:.3f}} %{{customdata[1]}}"
                "<extra></extra>",
            )
    if len(full):
        canvas.add(
            "full",
            "full (p = 1)",
            "full",
            x=full["p"].tolist(),
            y=full["value"].tolist(),
            mode="markers",
            marker={"symbol": SYMBOLS["full"], "size": 10, "color": COLOURS["full"]},
            error_y=bars(full),
            customdata=_hover_data(full),
            hovertemplate="fully supervised<br>p = 1: %{y:.3f} %{customdata[1]}<extra></extra>",
        )
    for method, group in rows[rows["kind"] == "trial"].groupby("method"):
        canvas.trials(group, [p + TRIAL_DODGE[method] for p in group["p"]], method)
    ticks = sorted(
        {float(p) for p in rows.loc[rows["kind"].isin(["mean", "trial"]), "p"]} | {0.0, 1.0}
    )
    axis = category_axis("p, share of expert labels in a batch", _tick_labels(ticks), ticks) | {
        "range": [-0.05, 1.05]
    }
    return canvas.framed(
        task,
        letter,
        margin={"b": 74},  # room for two lines of labels
        xaxis=axis,
        yaxis=iou_axis("IoU", top(rows)),
    )


def _tick_labels(ticks: list[float]) -> list[str]:
    """Return labels of p; empty if a label would overlap its right neighbour."""
    labels, last = [], np.inf
    for p in reversed(ticks):
        shown = p == 0 or last - p > 0.07
        last = p if shown else last
        labels.append({0.0: "0<br>weak", 1.0: "1<br>full"}.get(p, f"{p:g}") if shown else "")
    return labels[::-1]


def _hover_data(rows: pd.DataFrame) -> list[list[str]]:
    """Return the hover texts of means, and the keys of the runs that a click shows."""
    return [
        [f"{p:g}", text, cells]
        for p, text, cells in zip(rows["p"], interval_texts(rows), rows["cells"], strict=True)
    ]

"""The graph of a study's stages: each run once, to the right of its inputs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.drawing.palette import GREY
from chexseg.progress import duration
from chexseg.report.figures.parts import traces
from chexseg.report.figures.theme import themed

#: State -> (method whose colour it has, symbol, legend text). Symbols distinguish the states
#: without colour.
STATES = {
    "cached": ("full", "circle", "done"),
    "failed": ("irnet", "x", "failed"),
    "new": ("cam", "circle-open", "to run"),
    "unneeded": ("radiologists", "circle-open-dot", "not needed, its results are done"),
}
#: Maximum distance between two runs of a column, and maximum height of a column, pixels.
STEP, HIGHEST = 16, 900


def draw(rows: pd.DataFrame) -> go.Figure:
    """Draw the rows of `points.stage_graph.rows`."""
    state = rows["state"].map(STATES).str
    crowded = rows["column"].value_counts().max()
    seconds = rows["seconds"].map(lambda one: "" if pd.isna(one) else f"<br>{duration(one)}")
    number = rows.groupby("state")["key"].transform("size").astype(str)
    points = rows.assign(
        kind="mean",
        x=rows["column"],
        y=rows["place"],
        low=np.nan,
        series=state[2] + " (" + number + ")",
        group=rows["state"],
        method=state[0],
        symbol=state[1],
        size=9 if crowded < 40 else 6,
        cells=rows["key"].str[:12],
        hover=rows["label"] + "<br>" + rows["key"].str[:12] + seconds + "<br>" + state[2],
    )
    headings = rows.groupby("column")["stage"].agg(
        lambda stages: "<br>".join(
            f"{stage} × {count}" if count > 1 else stage
            for stage, count in stages.value_counts().items()
        )
    )
    above = {"y": 1.02, "yref": "paper", "yanchor": "bottom"}
    return themed(
        [_lines(rows), *traces(points.sort_values("state", kind="stable"))],
        height=int(min(HIGHEST, max(200, STEP * crowded))) + 90,
        margin={"l": 16, "t": 70, "b": 20},
        annotations=[above | {"x": column, "text": text} for column, text in headings.items()],
        xaxis={"visible": False, "range": [-0.5, rows["column"].max() + 0.5]},
        yaxis={"visible": False, "range": [1, 0]},
    )


def _lines(rows: pd.DataFrame) -> go.Scatter:
    """Return the lines between runs and what they read, as one trace with gaps."""
    starts = rows[["key", "column", "place"]].rename(columns={"key": "reads"})
    lines = rows.explode("reads").merge(starts, on="reads", suffixes=("", " of input"))
    lines["gap"] = np.nan
    return go.Scatter(
        x=lines[["column of input", "column", "gap"]].to_numpy().ravel(),
        y=lines[["place of input", "place", "gap"]].to_numpy().ravel(),
        mode="lines",
        line={"color": GREY, "width": 0.6},
        opacity=0.5,
        hoverinfo="skip",
    )

"""The graph of a study's stages: each run once, to the right of its inputs."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from chexseg.progress import duration
from chexseg.report.palette import BLUE, FONT, GREEN, GREY, VERMILLION

#: State -> (colour, symbol, legend text). Symbols distinguish the states without colour.
STATES = {
    "cached": (GREEN, "circle", "done"),
    "failed": (VERMILLION, "x", "failed"),
    "new": (BLUE, "circle-open", "to run"),
    "unneeded": (GREY, "circle-open-dot", "not needed: the results that use it are done"),
}
#: Maximum distance between two runs of a column, and maximum height of a column, pixels.
STEP, HIGHEST = 16, 900


def draw(rows: pd.DataFrame) -> go.Figure:
    """Draw the rows of `rows`."""
    position = {run.key: (run.column, run.place) for run in rows.itertuples()}
    edges: dict[str, list[float | None]] = {"x": [], "y": []}
    for run in rows.itertuples():
        for key in run.reads:
            for axis, start, end in zip(
                edges.values(), position[key], position[run.key], strict=True
            ):
                axis += [start, end, None]
    figure = go.Figure(
        go.Scatter(
            **edges,
            mode="lines",
            line={"color": GREY, "width": 0.6},
            opacity=0.5,
            hoverinfo="skip",
            showlegend=False,
        )
    )
    crowded = rows["column"].value_counts().max() if len(rows) else 1
    for state, (colour, symbol, name) in STATES.items():
        group = rows[rows["state"] == state]
        if len(group):
            texts = [
                f"{run.label}<br>{run.key[:12]}"
                + ("" if pd.isna(run.seconds) else f"<br>{duration(run.seconds)}")
                for run in group.itertuples()
            ]
            figure.add_trace(
                go.Scatter(
                    x=group["column"].tolist(),
                    y=group["place"].tolist(),
                    mode="markers",
                    name=f"{name} ({len(group)})",
                    marker={"color": colour, "symbol": symbol, "size": 9 if crowded < 40 else 6},
                    hovertext=texts,
                    customdata=[key[:12] for key in group["key"]],
                    hovertemplate=f"%{{hovertext}}<br>{name}<extra></extra>",
                )
            )
    for number, group in rows.groupby("column"):
        counts = group["stage"].value_counts()
        text = "<br>".join(
            f"{stage} × {count}" if count > 1 else str(stage) for stage, count in counts.items()
        )
        figure.add_annotation(
            x=number,
            y=1.02,
            yref="paper",
            yanchor="bottom",
            text=text,
            showarrow=False,
            font={"size": 12},
            align="center",
        )
    figure.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 13, "color": "#1b1f24"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=int(min(HIGHEST, max(200, STEP * crowded)) + 120),
        margin={"l": 16, "r": 16, "t": 70, "b": 40},
        legend={"orientation": "h", "y": -0.02, "x": 0, "yanchor": "top", "font": {"size": 12}},
        xaxis={
            "visible": False,
            "range": [-0.5, rows["column"].max() + 0.5] if len(rows) else None,
        },
        yaxis={"visible": False, "range": [1, 0]},
    )
    return figure

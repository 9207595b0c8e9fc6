"""The graph of a study's stages: each run once, to the right of its inputs."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.results import StudyResults
from chexseg.progress import duration
from chexseg.report.palette import BLUE, FONT, GREEN, GREY, VERMILLION

#: State -> (colour, symbol, legend text). Symbols distinguish the states without colour.
STATES = {
    "cached": (GREEN, "circle", "done"),
    "failed": (VERMILLION, "x", "failed"),
    "new": (BLUE, "circle-open", "to run"),
    "unneeded": (GREY, "circle-open-dot", "not needed: the results that use it are done"),
}
#: Columns of stages, from left to right. A student's fit comes after its teacher's masks.
COLUMNS = {
    "ingest": 0, "imported": 0, "classify": 1, "pretrain": 1, "moco": 1, "saliency": 2, "irnet": 3,
    "fit": 4, "distil": 5, "student": 6, "score": 7,
}  # fmt: skip
#: Maximum distance between two runs of a column, and maximum height of a column, pixels.
STEP, HIGHEST = 16, 900


def rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per run, after its inputs.

    Columns: key, stage, label, state, seconds, inputs; then column, place (vertical, 0 to 1) and
    reads, the inputs without those that other inputs depend on (the transitive reduction). Runs of
    a column are sorted by the mean place of their nearest inputs, so that few lines cross (the
    barycentre method of Sugiyama et al., 1981, one pass).
    """
    table = results.graph.copy()
    stage = dict(zip(table["key"], table["stage"], strict=True))
    column: dict[str, int] = {}
    ancestors: dict[str, set[str]] = {}
    reads = []
    for run in table.itertuples():
        student = any(stage[key] == "distil" for key in run.inputs)
        column[run.key] = COLUMNS["student" if student and run.stage == "fit" else run.stage]
        further = set().union(*(ancestors[key] for key in run.inputs))
        ancestors[run.key] = further | set(run.inputs)
        reads.append(tuple(key for key in run.inputs if key not in further))
    used = sorted(set(column.values()))
    table["column"] = [used.index(column[key]) for key in table["key"]]
    table["reads"] = reads
    place: dict[str, float] = {}
    for _, group in table.groupby("column"):
        # Runs without inputs, and equals, keep the plan's order: `sorted` is stable.
        centre = {}
        for run in group.itertuples():
            last = max((column[key] for key in run.inputs), default=0)
            near = [place[key] for key in run.inputs if column[key] == last]
            centre[run.key] = sum(near) / max(1, len(near))
        for rank, key in enumerate(sorted(centre, key=centre.__getitem__)):
            place[key] = (rank + 0.5) / len(centre)
    table["place"] = table["key"].map(place)
    return table


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

"""Figures: for each, one function computes the rows and one draws them. The report's colours stand here, once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io

from chexseg.report import published
from chexseg.report.published import AVERAGE, METHODS, css_name
from chexseg.report.results import StudyResults
from chexseg.report.statistics import t_interval
from chexseg.report.tables import Variant, cell_keys, task_values, variant_arms, variants

# Okabe and Ito (2008), "Color Universal Design": told apart with every common colour vision.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, GREY = "#E69F00", "#56B4E9", "#F0E442", "#767676"

#: One colour for one thing, in every figure, table and overlay.
COLOURS: dict[str, str] = {
    "cam": BLUE,
    "cam++": SKY,
    "irnet": VERMILLION,
    "full": GREEN,
    "student": PURPLE,
    "radiologists": GREY,
    "paper": GREY,
}

#: Ten areas on a grey film. The palette has seven that show there; the last three repeat a hue lighter and are outlined in
#: dashes, so that no two differ by colour alone.
PATHOLOGY_COLOURS: dict[str, str] = {
    "Airspace Opacity": SKY,
    "Atelectasis": ORANGE,
    "Cardiomegaly": VERMILLION,
    "Consolidation": YELLOW,
    "Edema": PURPLE,
    "Enlarged Cardiomediastinum": GREEN,
    "Lung Lesion": "#FF9AA2",
    "Pleural Effusion": "#3D8BFF",
    "Pneumothorax": "#B8F2C8",
    "Support Devices": "#FFD9A0",
}
DASHED: frozenset[str] = frozenset({"Lung Lesion", "Pneumothorax", "Support Devices"})

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SYMBOLS = {"cam": "circle", "cam++": "triangle-up", "irnet": "square"}
#: Points of several methods at one p stand this far apart, so that their intervals don't cover each other.
DODGE = {"cam": -0.006, "cam++": 0.03, "irnet": 0.006}
#: Single trials stand beside their mean.
TRIAL_DODGE = {"cam": -0.018, "cam++": 0.042, "irnet": 0.018, "full": 0.016}
#: Legend groups, in their order.
LEGEND = ("cam", "cam++", "irnet", "full", "trials", "paper")
#: The paper's Figure 2 b to d.
PANELS = ("Pleural Effusion", "Consolidation", "Edema")


def figure2_rows(results: StudyResults, pathology: str | None = None, variant: Variant | None = None) -> pd.DataFrame:
    """IoU over p (Figure 2): of a pathology, or the average. One row a point.

    `kind` is "mean" (with the 95% t-interval over n trials), "trial" or "paper"; `method` is a weak label kind or, at p = 1,
    "full". Undefined points are absent. Raises KeyError for a pathology that the study doesn't have.
    """
    task = pathology or AVERAGE
    values_C = task_values(results)[task]
    variant = variant or next(iter(variants(results)), None)
    rows: list[dict] = []
    chosen = variant_arms(results, variant)
    for arm in sorted(chosen, key=lambda arm: (arm.weak or "~", arm.p)):
        method = arm.weak or "full"
        interval = t_interval(values_C[list(arm.indices)])
        point = {"task": task, "method": method, "p": arm.p, "cells": cell_keys(results, arm.indices)}
        if interval.n:
            bounds = {"low": interval.low, "high": interval.high, "n": interval.n}
            rows.append(point | {"kind": "mean", "value": interval.mean, **bounds, "trial": None})
        for index, trial in zip(arm.indices, arm.trials, strict=True):
            value = values_C[index]
            if not np.isnan(value):
                point["cells"] = cell_keys(results, [index])
                rows.append(point | {"kind": "trial", "value": value, "low": np.nan, "high": np.nan, "n": 1, "trial": trial})
    for method in published.PAPERS_METHODS:
        for p in (*published.TABLE1_P, 1):
            if task == AVERAGE:
                value = published.table1_average(results.pathologies, method, p)
            else:
                value = published.table1(task, method, p)
            if value is not None and any(arm.weak == method for arm in chosen):
                point = {"task": task, "method": method, "p": float(p), "kind": "paper", "value": value}
                rows.append(point | {"low": np.nan, "high": np.nan, "n": 3, "trial": None})
    return pd.DataFrame(rows, columns=["task", "method", "p", "kind", "value", "low", "high", "n", "trial", "cells"])


def figure2_panels(results: StudyResults) -> tuple[str | None, ...]:
    """The average, then the paper's three pathologies where all are studied, otherwise the study's first three."""
    named = PANELS if set(PANELS) <= set(results.pathologies) else results.pathologies[:3]
    return (None, *named)


def figure2(rows: pd.DataFrame, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw the rows of `figure2_rows`. Legend groups are `LEGEND`; a trace's `meta` is its colour's `css_name`."""
    figure = go.Figure()
    task = rows["task"].iloc[0] if len(rows) else ""
    shown: set[str] = set()

    def add(group: str, name: str, **trace) -> None:
        first = legend and group not in shown
        figure.add_trace(go.Scatter(legendgroup=group, legendrank=LEGEND.index(group), name=name, showlegend=first, **trace))
        shown.add(group)

    full = rows[(rows["kind"] == "mean") & (rows["method"] == "full")]
    for method, text in METHODS.items():
        mean = rows[(rows["kind"] == "mean") & (rows["method"] == method)]
        paper = rows[(rows["kind"] == "paper") & (rows["method"] == method)]
        if len(paper):
            add(
                "paper",
                "paper (Table 1)",
                meta=css_name(method),
                x=_list(paper["p"]),
                y=_list(paper["value"]),
                mode="lines+markers",
                opacity=0.4,
                line={"color": COLOURS[method], "width": 1, "dash": "dot"},
                marker={"symbol": f"{SYMBOLS[method]}-open", "size": 6},
                hovertemplate=f"paper, {text}<br>p = %{{x}}: %{{y:.3f}}<extra></extra>",
            )
        if len(mean):
            # The line runs on to the fully supervised end, which both methods share; its marker is drawn once, below.
            line = pd.concat([mean, full]) if len(full) else mean
            x = [p + DODGE[method] for p in mean["p"]]
            add(
                method,
                text,
                meta=css_name(method),
                x=[*x, *_list(full["p"])],
                y=_list(line["value"]),
                mode="lines+markers",
                line={"color": COLOURS[method], "width": 2},
                marker={"symbol": SYMBOLS[method], "size": [8] * len(x) + [0] * len(full), "opacity": 1, "line": {"width": 0}},
                error_y=_bars(line, hide=len(full)),
                customdata=_hover(line),
                hovertemplate=f"{text}<br>p = %{{customdata[0]}}: %{{y:.3f}} %{{customdata[1]}}<extra></extra>",
            )
    if len(full):
        add(
            "full",
            "full (p = 1)",
            meta="full",
            x=_list(full["p"]),
            y=_list(full["value"]),
            mode="markers",
            marker={"symbol": "diamond", "size": 10, "color": COLOURS["full"]},
            error_y=_bars(full),
            customdata=_hover(full),
            hovertemplate="fully supervised<br>p = 1: %{y:.3f} %{customdata[1]}<extra></extra>",
        )
    for method, group in rows[rows["kind"] == "trial"].groupby("method"):
        add(
            "trials",
            "single trials",
            meta=css_name(method),
            x=[p + TRIAL_DODGE[method] for p in group["p"]],
            y=_list(group["value"]),
            mode="markers",
            opacity=0.6,
            marker={"symbol": "circle", "size": 4, "color": COLOURS[method]},
            customdata=group[["trial", "cells"]].to_numpy().tolist(),
            hovertemplate="trial %{customdata[0]}: %{y:.3f}<extra></extra>",
        )
    ticks = sorted({float(p) for p in rows.loc[rows["kind"] != "paper", "p"]} | {0.0, 1.0})
    figure.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 13, "color": "#1b1f24"},
        title={
            "text": f"<b>{letter}</b>  {task}" if letter else task,
            "font": {"size": 15},
            "x": 0,
            "xref": "paper",
            "y": 0.97,
        },
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 54, "r": 16, "t": 44, "b": 64},
        height=330,
        legend={"orientation": "h", "y": -0.3, "x": 0, "font": {"size": 12}},
        xaxis={
            "title": {"text": "p, share of expert labels in a batch", "standoff": 4, "font": {"size": 12}},
            "tickvals": ticks,
            "ticktext": _tick_labels(ticks),
            "tickangle": 0,
            "range": [-0.05, 1.05],
            "zeroline": False,
            "showgrid": False,
            "showline": True,
            "ticks": "outside",
        },
        yaxis={
            "title": {"text": "IoU", "font": {"size": 12}},
            "range": [0, _top(rows)],
            "zeroline": False,
            "tickformat": ".2f",
            "nticks": 6,
        },
    )
    return figure


def _tick_labels(ticks: list[float]) -> list[str]:
    """Labels of p, the ends named; none where it would run into its neighbour's to the right."""
    labels, last = [], np.inf
    for p in reversed(ticks):
        shown = p == 0 or last - p > 0.07
        last = p if shown else last
        labels.append({0.0: "0<br>weak", 1.0: "1<br>full"}.get(p, f"{p:g}") if shown else "")
    return labels[::-1]


def _list(column: pd.Series) -> list:
    return column.tolist()


def _bars(rows: pd.DataFrame, hide: int = 0) -> dict:
    """Error bars of the means; none for the last `hide`, which another trace draws."""
    up = [0 if np.isnan(high) else high - value for high, value in zip(rows["high"], rows["value"], strict=True)]
    up = up[: len(up) - hide] + [0] * hide
    return {"type": "data", "array": up, "symmetric": True, "thickness": 1.2, "width": 3}


def _hover(rows: pd.DataFrame) -> list[list[str]]:
    """p, interval and n, and the keys by which the page's script finds the runs behind the point."""
    intervals = ["" if np.isnan(row.low) else f"[{row.low:.3f}, {row.high:.3f}]" for row in rows.itertuples()]
    told = zip(rows["p"], intervals, rows["n"], rows["cells"], strict=True)
    return [[f"{p:g}", f"{text} n = {n}", cells] for p, text, n, cells in told]


def _top(rows: pd.DataFrame) -> float:
    """The axis holds every value; of intervals only what fits, as two trials' can be wider than any IoU."""
    highest = float(rows["value"].max()) if len(rows) else 1.0
    reach = rows.loc[rows["high"] < 1.4 * highest, "high"].max() if len(rows) else 1.0
    return min(1.0, 1.08 * max(highest, 0.0 if np.isnan(reach) else float(reach)) + 0.01)


def write_html(figure: go.Figure, path: Path) -> None:
    """One figure, on white, for print; plotly.js stands once beside all of them, so that none needs a network."""
    figure = go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white")
    figure.write_html(path, include_plotlyjs="directory", config=CONFIG)


#: Of plotly's buttons only those that serve a reader.
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}


def write_images(figures: Mapping[Path, go.Figure]) -> str | None:
    """Write figures to paths that end in .png or .svg. Returns why it couldn't, or None."""
    try:
        import kaleido  # noqa: F401 - the extra "images"
    except ImportError:
        return "no .png and .svg figures: kaleido isn't installed (extra: images)"
    drawn = [
        go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white", width=640) for figure in figures.values()
    ]
    try:
        plotly.io.write_images(drawn, list(figures), scale=2)
    except Exception as error:  # kaleido's faults are many: no Chrome, one that doesn't start, one that hangs up
        for path in figures:
            path.unlink(missing_ok=True)
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        return f"no .png and .svg figures: {type(error).__name__}: {reason}"
    return None

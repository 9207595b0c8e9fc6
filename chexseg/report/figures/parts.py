"""What figures share: points as rows, traces that can be switched by group, the frame around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import css_name
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import Arm, t_interval
from chexseg.analysis.tables.study_tables import cell_keys
from chexseg.report.palette import COLOURS, FONT, SYMBOLS

#: Legend groups in their order: what can be switched. The poster's values go with the paper's.
GROUPS = (
    "weak",
    "cam",
    "cam++",
    "irnet",
    "full",
    "chexseg",
    "student",
    "teacher",
    "radiologists",
    "trials",
    "paper",
)
#: Pixels that a legend takes beneath a figure.
LEGEND = 52
#: Of white paper; the page has its own.
GRID = "#e6eaee"
#: Columns of points: `kind` is "mean" (with the 95% t-interval over n trials), "trial", "paper" or "poster".
#: cells: keys of what it is made of, as from `tables.cell_keys`.
POINT_COLUMNS = ("kind", "value", "low", "high", "n", "trial", "cells")


def points(
    results: StudyResults, values_C: np.ndarray, arm: Arm, about: dict[str, Any]
) -> list[dict]:
    """The rows of one arm: its mean, then its trials; undefined ones are absent. `about` goes into each."""
    mine = values_C[list(arm.indices)]
    interval = t_interval(mine)
    bounds = {"low": interval.low, "high": interval.high, "n": interval.n, "trial": None}
    bounds["cells"] = cell_keys(results, arm.indices)
    rows = [about | {"kind": "mean", "value": interval.mean, **bounds}] if interval.n else []
    return rows + [
        about
        | {
            "kind": "trial",
            "value": float(value),
            "low": np.nan,
            "high": np.nan,
            "n": 1,
            "trial": trial,
        }
        | {"cells": cell_keys(results, [index])}
        for trial, value, index in zip(arm.trials, mine, arm.indices, strict=True)
        if not np.isnan(value)
    ]


def published_point(kind: str, value: float, about: dict[str, Any], half: float = np.nan) -> dict:
    """A row of the paper's or the poster's. half: of its interval's width."""
    ends = {"low": value - half, "high": value + half}
    return about | {"kind": kind, "value": value, **ends, "n": 3, "trial": None, "cells": ""}


@dataclass
class Canvas:
    """A figure in the making. legend: whether it has one of its own; the page has switches instead."""

    legend: bool = True
    _traces: list[dict] = field(default_factory=list)
    _shown: set[str] = field(default_factory=set)

    def add(self, group: str, name: str, method: str | None = None, **trace: Any) -> None:
        """One trace. group: of `GROUPS`; method: whose colour it has, by which the page finds its own for dark screens.

        Of the traces of one name only the first stands in the legend.
        """
        first = self.legend and name not in self._shown
        about = {
            "legendgroup": group,
            "legendrank": GROUPS.index(group),
            "name": name,
            "showlegend": first,
        }
        about |= {"meta": css_name(method)} if method else {}
        self._traces.append({"type": "scatter", **about, **trace})
        self._shown.add(name)

    def published(
        self, rows: pd.DataFrame, x: Sequence[float], method: str, told: str, line: bool = False
    ) -> None:
        """The paper's and the poster's points among `rows`: faint and open, in their method's colour; with `line`, the
        paper's joined."""
        for kind, symbol in (("paper", f"{SYMBOLS[method]}-open"), ("poster", "x-thin-open")):
            chosen = (rows["kind"] == kind).to_numpy()
            if chosen.any():
                self.add(
                    "paper",
                    kind,
                    method,
                    x=[at for at, mine in zip(x, chosen, strict=True) if mine],
                    y=rows.loc[chosen, "value"].tolist(),
                    mode="lines+markers" if line and kind == "paper" else "markers",
                    opacity=0.5,
                    line={"color": COLOURS[method], "width": 1, "dash": "dot"},
                    marker={
                        "symbol": symbol,
                        "size": 7,
                        "color": COLOURS[method],
                        "line": {"width": 1.2},
                    },
                    error_y=bars(rows[chosen]),
                    hovertemplate=f"{kind}, {told}: %{{y:.3f}}<extra></extra>",
                )

    def trials(self, rows: pd.DataFrame, x: Sequence[float], method: str) -> None:
        """Single trials of a method, small, beside their mean."""
        self.add(
            "trials",
            "single trials",
            method,
            x=list(x),
            y=rows["value"].tolist(),
            mode="markers",
            opacity=0.6,
            marker={"symbol": "circle", "size": 4, "color": COLOURS[method]},
            # For the page's way back the key of its cell.
            customdata=[list(pair) for pair in zip(rows["trial"], rows["cells"], strict=True)],
            hovertemplate="trial %{customdata[0]}: %{y:.3f}<extra></extra>",
        )

    def framed(
        self,
        title: str,
        letter: str = "",
        height: int = 310,
        margin: dict[str, int] | None = None,
        **layout: Any,
    ) -> go.Figure:
        """The figure: its traces, title, type, margins and legend; the axes, in `layout`, are its own.

        height: pixels, without the legend. margin: where it isn't the usual one.
        """
        common: dict[str, Any] = {
            "template": "none",
            "font": {"family": FONT, "size": 13, "color": "#1b1f24"},
            "title": {
                "text": f"<b>{letter}</b>  {title}" if letter else title,
                "font": {"size": 15},
                "x": 0,
                "xref": "paper",
                "y": 0.97,
                "yanchor": "top",
            },
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 54, "r": 16, "t": 44, "b": 58} | (margin or {}),
            "height": height,
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
                "tracegroupgap": 0,
                "font": {"size": 12},
            },
            "showlegend": self.legend,
        }
        if self.legend:
            common["height"] += LEGEND
            common["margin"]["b"] += LEGEND
        # All at once: a figure that is added to piece by piece takes ten times as long to make.
        return go.Figure({"data": self._traces, "layout": common | layout})


def bars(rows: pd.DataFrame, hide: int = 0) -> dict:
    """Error bars of means; none for the last `hide`, which another trace draws."""
    up = half_widths(rows)
    up = up[: len(up) - hide] + [0.0] * hide
    return {"type": "data", "array": up, "symmetric": True, "thickness": 1.2, "width": 3}


def half_widths(rows: pd.DataFrame) -> list[float]:
    return [
        0.0 if np.isnan(high) else high - value
        for high, value in zip(rows["high"], rows["value"], strict=True)
    ]


def interval_texts(rows: pd.DataFrame) -> list[str]:
    """Each mean's interval and number of trials, in words, for whoever points at it."""
    ends = [
        "" if np.isnan(row.low) else f"[{row.low:.3f}, {row.high:.3f}] "
        for row in rows.itertuples()
    ]
    return [f"{text}n = {n}" for text, n in zip(ends, rows["n"], strict=True)]


def top(rows: pd.DataFrame) -> float:
    """The axis holds every value; of intervals only what fits, as two trials' can be wider than any IoU."""
    values = rows["value"].dropna()
    if not len(values):
        return 1.0
    highest = float(values.max())
    reach = rows.loc[rows["high"] < 1.4 * highest, "high"].max()
    return min(1.0, 1.08 * max(highest, 0.0 if np.isnan(reach) else float(reach)) + 0.01)


def iou_axis(title: str, highest: float) -> dict[str, Any]:
    """A y axis of IoU, from 0."""
    return {
        "title": {"text": title, "font": {"size": 12}},
        "range": [0, highest],
        "zeroline": False,
        "tickformat": ".2f",
        "nticks": 6,
        "gridcolor": GRID,
        "ticklen": 0,
    }


def category_axis(
    title: str, ticks: Sequence[str], positions: Sequence[float] | None = None
) -> dict[str, Any]:
    """An x axis whose ticks have words, at 0, 1, 2, ... or at `positions`."""
    at = list(range(len(ticks))) if positions is None else list(positions)
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 12}},
        "tickvals": at,
        "ticktext": list(ticks),
        "tickangle": 0,
        "range": [min(at, default=0) - 0.6, max(at, default=0) + 0.6],
        "zeroline": False,
        "showgrid": False,
        "showline": True,
        "linecolor": "#5a636e",
        "ticks": "outside",
    }

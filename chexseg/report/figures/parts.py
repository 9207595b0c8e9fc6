"""The parts that figures share: traces in switchable groups, axes and layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import css_name
from chexseg.report.palette import COLOURS, FONT, SYMBOLS

#: Legend groups, in order; each can be switched off. The poster's values belong to "paper".
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
#: Height of a legend below a figure, pixels.
LEGEND = 52
#: Colour of grid lines on white; the page replaces it.
GRID = "#e6eaee"


@dataclass
class Canvas:
    """A figure under construction. legend: draw one; figures on the page have switches instead."""

    legend: bool = True
    _traces: list[dict[str, Any]] = field(default_factory=list)
    _shown: set[str] = field(default_factory=set)

    def add(self, group: str, name: str, method: str | None = None, **trace: Any) -> None:
        """Add a trace. Of traces with equal names only the first gets a legend entry.

        group: one of `GROUPS`. method: selects the trace's colour when the page is dark.
        """
        common: dict[str, Any] = {
            "legendgroup": group,
            "legendrank": GROUPS.index(group),
            "name": name,
            "showlegend": self.legend and name not in self._shown,
        }
        common |= {"meta": css_name(method)} if method else {}
        self._traces.append({"type": "scatter", **common, **trace})
        self._shown.add(name)

    def published(
        self, rows: pd.DataFrame, x: Sequence[float], method: str, label: str, line: bool = False
    ) -> None:
        """Add the published points of `rows` as faint open symbols in their method's colour.

        line: connect the paper's points.
        """
        for kind, symbol in (("paper", f"{SYMBOLS[method]}-open"), ("poster", "x-thin-open")):
            chosen = (rows["kind"] == kind).to_numpy()
            if chosen.any():
                self.add(
                    "paper",
                    kind,
                    method,
                    x=[position for position, kept in zip(x, chosen, strict=True) if kept],
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
                    hovertemplate=f"{kind}, {label}: %{{y:.3f}}<extra></extra>",
                )

    def trials(self, rows: pd.DataFrame, x: Sequence[float], method: str) -> None:
        """Add a method's single trials as small points beside their mean."""
        self.add(
            "trials",
            "single trials",
            method,
            x=list(x),
            y=rows["value"].tolist(),
            mode="markers",
            opacity=0.6,
            marker={"symbol": "circle", "size": 4, "color": COLOURS[method]},
            # The page links the point to the run with this key.
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
        """Return the figure with title, font, margins and legend.

        height: pixels, without the legend. margin: overrides of the default. layout: the axes.
        """
        below = LEGEND if self.legend else 0
        margins = {"l": 54, "r": 16, "t": 44, "b": 58} | (margin or {})
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
            "margin": margins | {"b": margins["b"] + below},
            "height": height + below,
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
        # Built in one call: adding traces one by one takes ten times as long.
        return go.Figure({"data": self._traces, "layout": common | layout})


def bars(rows: pd.DataFrame, hide: int = 0) -> dict[str, Any]:
    """Return the error bars of means; zero for the last `hide`, which another trace draws."""
    up = half_widths(rows)
    up = up[: len(up) - hide] + [0.0] * hide
    return {"type": "data", "array": up, "symmetric": True, "thickness": 1.2, "width": 3}


def half_widths(rows: pd.DataFrame) -> list[float]:
    return [
        0.0 if np.isnan(high) else high - value
        for high, value in zip(rows["high"], rows["value"], strict=True)
    ]


def interval_texts(rows: pd.DataFrame) -> list[str]:
    """Return the hover text of each mean: its interval and its number of trials."""
    return [
        ("" if np.isnan(row.low) else f"[{row.low:.3f}, {row.high:.3f}] ") + f"n = {row.n}"
        for row in rows.itertuples()
    ]


def top(rows: pd.DataFrame) -> float:
    """Return the upper end of an IoU axis.

    It includes all values, but cuts wide intervals: with two trials they can exceed any IoU.
    """
    values = rows["value"].dropna()
    if not len(values):
        return 1.0
    highest = float(values.max())
    reach = rows.loc[rows["high"] < 1.4 * highest, "high"].max()
    return min(1.0, 1.08 * max(highest, 0.0 if np.isnan(reach) else float(reach)) + 0.01)


def iou_axis(title: str, highest: float) -> dict[str, Any]:
    """Return a y axis of IoU that starts at 0."""
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
    """Return an x axis with text ticks at 0, 1, 2, ... or at `positions`."""
    values = list(range(len(ticks)) if positions is None else positions)
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 12}},
        "tickvals": values,
        "ticktext": list(ticks),
        "tickangle": 0,
        "range": [min(values, default=0) - 0.6, max(values, default=0) + 0.6],
        "zeroline": False,
        "showgrid": False,
        "showline": True,
        "linecolor": "#5a636e",
        "ticks": "outside",
    }

"""The theme of all figures: fonts, colours, margins, axes, legend and default marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

#: Grid lines; visible on white and on black paper.
GRID = "rgba(128, 128, 128, 0.25)"
#: Height of a panel, and of the legend below a figure, pixels.
PANEL, LEGEND = 300, 40

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_AXIS = {
    "zeroline": False,
    "zerolinecolor": "#767676",
    "gridcolor": GRID,
    "nticks": 6,
    "title": {"standoff": 8, "font": {"size": 12}},
}
_BARS = {"thickness": 1.2, "width": 3}
_LEGEND = {"x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "font": {"size": 12}}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": _FONT, "size": 13, "color": "#1b1f24"},
        "title": {"font": {"size": 15}, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top"},
        # The page's colour shows through: it changes with the reader's choice of light or dark.
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "margin": {"l": 54, "r": 16, "t": 44, "b": 64},
        "hoverlabel": {"align": "left"},
        # With another order of traces, each group would be a column.
        "legend": _LEGEND | {"orientation": "h", "traceorder": "normal"},
        "xaxis": _AXIS
        | {"showgrid": False, "showline": True, "linecolor": "#5a636e", "ticks": "outside"}
        | {"tickcolor": "#5a636e", "tickangle": 0},
        "yaxis": _AXIS | {"automargin": True},
        "shapedefaults": {"layer": "below", "line": {"color": GRID, "width": 1}},
        "annotationdefaults": {"showarrow": False, "font": {"size": 12}},
    },
    data={
        "scatter": [
            {
                "hoverinfo": "text",
                "marker": {"size": 9, "opacity": 1, "line": {"width": 0}},
                "line": {"width": 2},
                "error_x": _BARS,
                "error_y": _BARS,
            }
        ]
    },
)


def themed(
    traces: Sequence[go.Scatter],
    title: str = "",
    letter: str = "",
    *,
    legend: bool = True,
    height: int = PANEL,
    **layout: Any,
) -> go.Figure:
    """Return a figure of the traces. Of traces with equal names, the first is in the legend.

    letter: of the panel. height: pixels, without the legend. layout: further settings of plotly's.
    """
    shown: set[str | None] = {None}
    for trace in traces:
        trace.showlegend = trace.name not in shown
        shown.add(trace.name)
    text = f"<b>{letter}</b>  {title}" if letter else title
    common = {"template": TEMPLATE, "title_text": text, "showlegend": legend}
    figure = go.Figure(traces, common | layout)
    below = LEGEND if legend else 0
    bottom = figure.layout.margin.b or TEMPLATE.layout.margin.b
    return figure.update_layout(height=height + below, margin_b=bottom + below)

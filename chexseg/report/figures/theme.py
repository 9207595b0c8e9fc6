"""The theme of all figures: fonts, colours, margins, axes, legend and default marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

#: Grid lines; visible on white and on black paper.
GRID = "rgba(128, 128, 128, 0.25)"
#: Height of a panel, its lower margin with the axis, and a row of the legend below, pixels.
PANEL, BELOW, LEGEND_ROW = 300, 64, 19

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
        "margin": {"l": 54, "r": 16, "t": 44, "b": BELOW},
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
    traces: Sequence[dict[str, Any]],
    title: str = "",
    letter: str = "",
    *,
    legend: bool = True,
    height: int = PANEL,
    **layout: Any,
) -> go.Figure:
    """Return a figure of the traces. Of traces with equal names, the first is in the legend.

    traces: settings of scatter traces. letter: of the panel. height: pixels, without the legend.
    layout: further settings of plotly's layout; margin_b too is without the legend.
    """
    # Dictionaries, because plotly validates and copies its trace objects a second time.
    first = {trace["name"]: number for number, trace in reversed(list(enumerate(traces)))}
    first.pop(None, None)
    data = [
        {"type": "scatter", "showlegend": first.get(trace["name"]) == number, **trace}
        for number, trace in enumerate(traces)
    ]
    # The columns of a legend have equal widths; images are 640 pixels wide, with margins.
    columns = max(1, 520 // (50 + 7 * max(map(len, first), default=0)))
    below = LEGEND_ROW * -(-len(first) // columns) if legend else 0
    common = {
        "template": TEMPLATE,
        "title_text": f"<b>{letter}</b>  {title}" if letter else title,
        "showlegend": legend,
        "height": height + below,
        "margin_b": layout.pop("margin_b", BELOW) + below,
    }
    return go.Figure({"data": data, "layout": common | layout})

"""The parts that figures share: tidy points as traces, their hover texts, and axes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from chexseg.drawing.palette import COLOURS, SYMBOLS, css_name

_PUBLISHED = {"name": "paper", "legendgroup": "paper", "legendrank": 1002, "opacity": 0.7}
_PUBLISHED |= {"marker_size": 7, "marker_line_width": 1.2, "line_width": 1, "line_dash": "dot"}
_TRIAL = {"name": "single trials", "legendgroup": "trials", "legendrank": 1001, "opacity": 0.6}
#: Kind of point -> settings of its traces, in drawing order. The page's switches of published
#: values and of single trials hide the groups "paper" and "trials".
KINDS: dict[str, dict[str, Any]] = {
    "paper": _PUBLISHED,
    "poster": _PUBLISHED | {"name": "poster", "legendrank": 1003, "marker_symbol": "x-thin-open"},
    "mean": {},
    "trial": _TRIAL | {"marker_size": 4, "marker_symbol": "circle"},
}
#: Width of a panel on a phone and of a letter, pixels.
NARROWEST, LETTER = 300, 7
#: Height of a row of `named_rows` without its name, and of a line of the name, pixels.
ROW, NAME = 30, 16
#: Kind of point -> distance from the mean, as a share of the lane of its series.
BESIDE = {"paper": -0.35, "poster": -0.35, "mean": 0.0, "trial": 0.35}


def traces(
    points: pd.DataFrame, value: str = "y", ends: tuple[float, float] = (-np.inf, np.inf)
) -> list[dict[str, Any]]:
    """Return the settings of one trace for each kind and series of points.

    points: columns kind, series (text in the legend), group (what the page's switch of the series
    hides), method (selects colour and symbol), x, y, value, low, high, hover, and cells (keys of
    runs, which a click on the page shows). Optional: mode (plotly's), symbol, size.
    value: axis of the intervals. ends: where its frame ends. Longer intervals are cut there, and
    an arrowhead says so; but an IoU's interval ends at 0 without one.
    """
    points = points.assign(
        up=(points["high"].clip(upper=ends[1]) - points["value"]).fillna(0),
        down=(points["value"] - points["low"].clip(lower=ends[0])).fillna(0),
    )
    order = list(KINDS)
    grouped = list(points.groupby(["kind", "series"], sort=False))
    drawn = []
    for (kind, series), rows in sorted(grouped, key=lambda group: order.index(group[0][0])):
        # Lists, which plotly checks and writes faster than it does columns.
        column = rows.to_dict("list")
        method = column["method"][0]
        symbol = column.get("symbol", [SYMBOLS[method]])[0]
        trace = {
            "name": series,
            "legendgroup": column["group"][0],
            "mode": column.get("mode", ["markers"])[0],
            "meta": css_name(method),
            "marker_color": COLOURS[method],
            "marker_symbol": f"{symbol}-open" if kind == "paper" else symbol,
            "marker_size": column.get("size"),
            "x": column["x"],
            "y": column["y"],
            "hovertext": column["hover"],
            "customdata": column["cells"],
        }
        if rows["low"].notna().any():
            trace[f"error_{value}"] = {"array": column["up"], "arrayminus": column["down"]}
        drawn.append(trace | KINDS[kind])
        drawn += _arrowheads(trace | KINDS[kind], rows, value, ends)
    return drawn


def _arrowheads(
    trace: dict[str, Any], rows: pd.DataFrame, value: str, ends: tuple[float, float]
) -> list[dict[str, Any]]:
    """Return arrowheads at the ends of the frame for the intervals that a trace's rows cut."""
    lowest = -np.inf if ends[0] == 0 else ends[0]  # no IoU is below 0
    heads = []
    for end, is_cut, symbol in (
        (ends[0], rows["low"] < lowest, {"x": "triangle-left", "y": "triangle-down"}[value]),
        (ends[1], rows["high"] > ends[1], {"x": "triangle-right", "y": "triangle-up"}[value]),
    ):
        cut = rows[is_cut]
        if len(cut):
            head = {name: trace[name] for name in ("legendgroup", "meta", "marker_color")}
            head |= {"name": None, "mode": "markers", "marker_symbol": symbol, "marker_size": 8}
            head |= {"opacity": trace.get("opacity", 1), "cliponaxis": False}
            head |= {axis: cut[axis].tolist() for axis in "xy"} | {value: [end] * len(cut)}
            heads.append(head | {"hovertext": cut["hover"].tolist(), "customdata": [""] * len(cut)})
    return heads


def dodge(points: pd.DataFrame, column: str, names: Sequence[str], lane: float) -> pd.Series:
    """Return each point's distance from its category, so that series don't overlap.

    Each of the `names` in `column` has a lane of this width, with its means in the middle.
    """
    lanes = {name: number - (len(names) - 1) / 2 for number, name in enumerate(names)}
    beside = points["kind"].map(BESIDE).astype(float)  # there may be no points
    return lane * (points[column].map(lanes).astype(float).fillna(0) + beside)


def hover_texts(points: pd.DataFrame, labels: pd.Series, unit: str = "trials") -> pd.Series:
    """Return label, source, value, interval and, of a mean, its number of trials or patients."""
    texts = []
    for label, row in zip(labels, points.itertuples(), strict=True):
        source = {"mean": "", "trial": ", trial "}.get(row.kind, f", {row.kind}")
        trial = f"{row.trial:.0f}" if row.kind == "trial" else ""
        interval = "" if np.isnan(row.low) else f" [{row.low:.3f}, {row.high:.3f}]"
        number = f", {row.n:.0f} {unit}" if row.kind == "mean" else ""
        texts.append(f"{label}{source}{trial}: {row.value:.3f}{interval}{number}")
    return pd.Series(texts, points.index, dtype=object)


def categories(names: Sequence[str], **axis: Any) -> dict[str, Any]:
    """Return the settings of an axis with these names at 0, 1, 2, ..."""
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(names)}
    return ticks | {"range": [-0.6, max(1, len(names)) - 0.4]} | axis


def iou_axis(title: str, points: pd.DataFrame) -> dict[str, Any]:
    """Return the settings of a y axis of IoU from 0.

    It includes all values, but not the ends of wide intervals: with two trials they can exceed any
    IoU.
    """
    highest = points["value"].max()
    reach = points.loc[points["high"] < 1.4 * highest, "high"].max()
    top = 1.0 if np.isnan(highest) else min(1.0, 1.08 * np.fmax(highest, reach) + 0.01)
    return {"title_text": title, "range": [0, top], "tickformat": ".2f"}


def named_rows(names: Sequence[str]) -> dict[str, Any]:
    """Return the layout of one row per name at 0, 1, 2, ... from the top, each below its name."""
    width = NARROWEST // LETTER
    lines = [textwrap.wrap(name, width, break_on_hyphens=False) for name in names]
    height = ROW + NAME * max(map(len, lines), default=1)
    top = 0.5 + 0.5 * (height - ROW) / height  # of a row, above its points, as a share of it
    left = {"x": 0, "xref": "paper", "xanchor": "left", "yanchor": "bottom", "align": "left"}
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
    return {
        "height": height * len(names) + 116,
        "margin_l": 16,
        "annotations": [
            left | {"y": n - 0.4 * ROW / height, "text": "<br>".join(text)}
            for n, text in enumerate(lines)
        ],
        "shapes": [line | {"y0": n - top, "y1": n - top} for n in range(1, len(names))],
        "yaxis": {"visible": False, "range": [len(names) - top, -top]},
    }

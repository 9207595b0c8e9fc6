"""The page's legend of figures: a switch per series, with the marks that the figures draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import plotly.graph_objects as go

from chexseg.drawing.palette import DASHED, PATHOLOGY_COLOURS


class Switch(NamedTuple):
    """A legend entry that can be switched off. shape: CSS class. colour: of CSS, or ""."""

    text: str
    shape: str
    colour: str


#: Legend groups that aren't series: single trials and published values have their series' marks.
OTHERS = {
    "trials": Switch("single trials", "small", "var(--paper-mark)"),
    "paper": Switch("published values", "open", ""),
}
TEXTS = {
    "full": "full supervision",
    "teacher": "teacher, with its 95% interval",
}


def of_figures(figures: Iterable[go.Figure]) -> dict[str, Switch]:
    """Return legend group -> switch of all that the figures draw, series first.

    A group's mark is that of its first trace with a name, which is what all of its traces share.
    """
    switches: dict[str, Switch] = {}
    for trace in (trace for figure in figures for trace in figure.data if trace.name):
        group = trace.legendgroup
        if group in switches or group in OTHERS or group is None:
            continue
        line = "dashed-line" if trace.line.dash == "dash" else "line"
        shape = trace.marker.symbol or "circle" if "markers" in trace.mode else line
        switches[group] = Switch(TEXTS.get(group, trace.name), shape, f"var(--{trace.meta})")
    drawn = {trace.legendgroup for figure in figures for trace in figure.data}
    return switches | {group: switch for group, switch in OTHERS.items() if group in drawn}


def of_layers(pathologies: dict[int, str]) -> dict[int, Switch]:
    """Return index -> switch of the pathologies' masks in overlays."""
    return {
        k: Switch(name, "dashed" if name in DASHED else "", PATHOLOGY_COLOURS[name])
        for k, name in pathologies.items()
    }

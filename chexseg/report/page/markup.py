"""Building blocks of HTML that the page's sections share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from chexseg.report.palette import CONFIG

#: Legend group -> its switch: text, shape and colour.
SWITCHES: dict[str, tuple[str, str, str]] = {
    "weak": ("weak", "", "none"),
    "cam": ("CAM", "round", "var(--cam)"),
    "cam++": ("CAM++", "triangle", "var(--cam-plus-plus)"),
    "irnet": ("IRNet", "", "var(--irnet)"),
    "full": ("full supervision", "diamond", "var(--full)"),
    "student": ("student", "round", "var(--student)"),
    "teacher": ("teacher, with its 95% interval", "dash", "var(--full)"),
    "chexseg": ("CheXseg", "round", "var(--ink)"),
    "radiologists": ("radiologists", "diamond", "var(--radiologists)"),
    "trials": ("single trials", "small", "var(--paper-mark)"),
    "paper": ("published values", "open", ""),
}


def document(title: str, body: str) -> str:
    """Return a self-contained page with style, script and plotly.js; it needs no network."""
    html, css, js = (
        Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    parts = {
        "title": escape(title),
        "body": body,
        "css": css,
        "js": js.replace("{{config}}", escape_json(json.dumps(CONFIG))),
        "plotlyjs": get_plotlyjs(),
    }
    # One pass, because the inserted texts may contain braces too.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], html)


def escape_json(text: str) -> str:
    """Escape JSON for a script element.

    Every "<" is escaped: "</script" would close the element, and "<!--<script" would keep it open
    past its end.
    """
    return text.replace("<", "\\u003c")


def json_script(text: str, anchor: str, kind: str = "") -> str:
    """Return a script element that holds JSON as data. kind: its class."""
    attributes = f'class="{kind}" id="{anchor}"' if kind else f'id="{anchor}"'
    return f'<script type="application/json" {attributes}>{escape_json(text)}</script>'


def note(text: str) -> str:
    """Return a paragraph of small print."""
    return f'<p class="note">{text}</p>'


def scroll(table: str, kind: str = "") -> str:
    """Return a table that scrolls sideways by itself when it is wider than the page."""
    classes = " ".join(filter(None, ("scroll", kind)))
    return f'<div class="{classes}">{table}</div>'


def number(value: float) -> str:
    """Return a value with three decimals and a minus sign; a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.3f}".replace("-", "\u2212")


def switch(data: str, text: str, shape: str, colour: str = "") -> str:
    """Return a legend entry that can be switched off."""
    key = f'<span class="key {shape}"{f" style=background:{colour}" if colour else ""}></span>'
    return f'<label><input type="checkbox" checked {data}>{key}{escape(text)}</label>'


#: The switch of the published values in a table.
PAPER_SWITCH = (
    '<fieldset class="switches screen">'
    + switch('data-group="paper"', *SWITCHES["paper"])
    + "</fieldset>"
)


def plot(figure: go.Figure, anchor: str, kind: str = "") -> str:
    """Return a figure for the page's script to draw."""
    return (
        f'<figure><div class="plot {kind}" data-figure="{anchor}" '
        f'style="height:{figure.layout.height}px"></div>'
        f"{json_script(figure.to_json(), anchor)}</figure>"
    )


def plots(figures: Mapping[str, go.Figure], wide: bool = False) -> str:
    """Return figures by anchor, below one switch for each of their legend groups."""
    groups = {trace.legendgroup for figure in figures.values() for trace in figure.data}
    switches = "".join(
        switch(f'data-group="{group}"', *entry)
        for group, entry in SWITCHES.items()
        if group in groups
    )
    drawn = "".join(
        plot(figure, anchor, "wide" if wide else "") for anchor, figure in figures.items()
    )
    fieldset = f'<fieldset class="switches">{switches}</fieldset>'
    return fieldset + (drawn if wide else f'<div class="plots">{drawn}</div>')

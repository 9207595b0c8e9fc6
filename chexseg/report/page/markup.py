"""The pieces of HTML that the page's sections share."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from chexseg.report.palette import CONFIG


def document(title: str, body: str) -> str:
    """A self-contained page: style, behaviour and plotly.js stand in it, and nothing needs a network."""
    html, css, js = (
        Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    parts = {
        "title": escape(title),
        "body": body,
        "css": css,
        "js": js.replace("{{config}}", json.dumps(CONFIG)),
        "plotlyjs": get_plotlyjs(),
    }
    # One pass: what is filled in may itself hold braces.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], html)


def note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def scroll(table: str, kind: str = "") -> str:
    """Wide tables scroll by themselves, and the page doesn't."""
    return f'<div class="scroll {kind}">{table}</div>'


def number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}".replace("-", "\u2212")


def switch(data: str, text: str, shape: str, colour: str = "") -> str:
    """A legend entry that can be switched off."""
    key = f'<span class="key {shape}"{f" style=background:{colour}" if colour else ""}></span>'
    return f'<label><input type="checkbox" checked {data}>{key}{escape(text)}</label>'


PAPER_SWITCH = switch('data-group="paper"', "the paper’s values", "open")


def plot(figure: go.Figure, anchor: str, kind: str = "") -> str:
    """A figure that the page's script draws."""
    data = figure.to_json().replace("</", "<\\/")
    return (
        f'<figure><div class="plot {kind}" data-figure="{anchor}" style="height:{figure.layout.height}px"></div>'
        f'<script type="application/json" id="{anchor}">{data}</script></figure>'
    )

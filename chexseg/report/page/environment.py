"""Render the templates of `chexseg/report/templates`, which escape all text that they show."""

from __future__ import annotations

import base64
import functools
import math

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from chexseg.analysis.published import METHODS
from chexseg.analysis.tables.text import bare
from chexseg.drawing.palette import SERIES, css_name
from chexseg.report.page import switches

#: Settings of plotly.js on the page: only the buttons that a reader needs.
PLOTLY = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}


@functools.cache
def environment() -> Environment:
    """Return the environment of all templates, with the filters below."""
    environment = Environment(
        loader=PackageLoader("chexseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {
        "bare": bare,
        "css_name": css_name,
        "data_uri": data_uri,
        "number": number,
        "script_json": script_json,
        "thousands": "{:,}".format,
        "upper_first": upper_first,
    }
    environment.tests |= {"missing": pd.isna}
    environment.globals |= {
        "method_names": METHODS,
        "published_switch": switches.OTHERS["paper"],
        "series": SERIES,
        "switches_of": switches.of_figures,
        "switches_of_layers": switches.of_layers,
    }
    return environment


def render(template: str, **values: object) -> str:
    """Return a self-contained page with style, script and plotly.js; it needs no network."""
    return (
        environment()
        .get_template(template)
        .render(plotly_config=PLOTLY, plotlyjs=get_plotlyjs(), **values)
    )


def script_json(text: str) -> Markup:
    """Escape JSON for a script element.

    Every "<" is escaped: "</script" would close the element, and "<!--<script" would keep it open
    past its end.
    """
    return Markup(text.replace("<", "\\u003c"))


def data_uri(picture: bytes) -> str:
    """Return a PNG or JPEG as a URI."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def number(value: float, sign: str = "") -> str:
    """Return a value with three decimals and a minus sign; a dash for NaN. sign: "+" or ""."""
    return "–" if math.isnan(value) else format(value, f"{sign}.3f").replace("-", "\u2212")


def upper_first(text: str) -> str:
    """Return a text with an upper-case first letter."""
    return text[:1].upper() + text[1:]

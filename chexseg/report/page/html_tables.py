"""Tables as HTML; in grids, each value has its interval and its published value."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.published import AVERAGE, METHODS, css_name
from chexseg.analysis.tables import grid
from chexseg.analysis.tables.grid import SHARED, bare, half
from chexseg.analysis.tables.text import gaps, text

#: Style of a table in a file by itself; the page has its own.
STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#1b1f24}"
    "table{border-collapse:collapse}"
    "th,td{padding:.3rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid #dde1e5}"
    ".number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".interval,.paper,small{font-size:.78em;color:#5a636e;margin-left:.3em}"
    ".paper{font-style:italic}p{color:#5a636e}"
)


def to_html(rows: pd.DataFrame) -> str:
    """Return a ``<table>`` whose values open the runs behind them."""
    if grid.is_grid(rows):
        return _grid_html(rows)
    names = [name for name in rows.columns if not name.endswith((" low", " high"))]
    numeric = [pd.api.types.is_numeric_dtype(rows[name]) for name in names]
    heads = [
        _head(html.escape(name.replace("_", " ")), number)
        for name, number in zip(names, numeric, strict=True)
    ]
    body = []
    for row in rows.to_dict("records"):
        cells = []
        for name, number in zip(names, numeric, strict=True):
            value = text(row, name)
            if name in ("key", "cells"):
                count = len(value.split())
                shown = value[:12] if name == "key" else f"{count} cell{'' if count == 1 else 's'}"
                button = runs_button(f"<code>{html.escape(shown)}</code>", value)
                cells.append(f'<td class="key">{button}</td>')
            else:
                key = row.get("key", "") if name == "mIoU" else ""
                shown = runs_button(html.escape(value), key)
                cells.append(
                    f"<td{_class(number)}{_data(row[name]) if number else ''}>{shown}</td>"
                )
        body.append("<tr>" + "".join(cells) + "</tr>")
    return _table("", heads, body)


def dashes(rows: pd.DataFrame) -> str:
    """Return the reasons for the dashes of a grid, as text below it."""
    return "".join(f" {html.escape(gap.replace('-: ', 'Dash: ', 1))}" for gap in gaps(rows))


def runs_button(text: str, keys: str) -> str:
    """Return a value whose click opens the runs behind it. keys: from `study_tables.cell_keys`."""
    shortened = " ".join(key[:12] for key in keys.split())
    return (
        f'<button class="runs-button" data-cells="{html.escape(shortened)}">{text}</button>'
        if shortened
        else text
    )


def to_html_file(rows: pd.DataFrame) -> str:
    """Return a document with one table and the reasons for its gaps."""
    notes = (
        "".join(f"<p>{html.escape(line)}</p>" for line in gaps(rows)) if grid.is_grid(rows) else ""
    )
    return (
        f'<!DOCTYPE html>\n<meta charset="utf-8"><style>{STYLE}</style>\n{to_html(rows)}{notes}\n'
    )


def _table(attributes: str, heads: list[str], body: list[str]) -> str:
    head = f"<thead><tr>{''.join(heads)}</tr></thead>"
    return f"<table{attributes}>{head}<tbody>{''.join(body)}</tbody></table>"


def _head(title: str, number: bool) -> str:
    return f"<th{_class(number)}>{title}</th>"


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _data(value: object) -> str:
    return f' data-value="{value}"' if not pd.isna(value) else ""


# ---- grids ---------------------------------------------------------------------------------------


def _grid_html(rows: pd.DataFrame) -> str:
    """Return a grid; rows with equal first key form a group that shows the key once."""
    first, names = grid.keys(rows), grid.columns(rows)
    lines = rows.to_dict("records")
    starts = [i for i in range(len(rows)) if not grid.repeated(rows, i)]
    body = []
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        group = lines[start:stop]
        spread = {name for name in names if any(row[f"{name} reason"] == SHARED for row in group)}
        for offset, row in enumerate(group):
            cells = []
            if offset == 0:
                scope = f'"rowgroup" rowspan="{len(group)}"' if len(group) > 1 else '"row"'
                cells.append(f"<th scope={scope}{_mark(row[first[0]])}>{_key(row, first[0])}</th>")
            cells += [f"<td{_mark(row[key])}>{_key(row, key)}</td>" for key in first[1:]]
            for name in names:
                if row[f"{name} reason"] == SHARED:
                    continue
                # A value that several rows share is bold if it is the best of any of them.
                sharing = group if name in spread else [row]
                cells.append(
                    _value(row, name, len(sharing), any(grid.is_best(one, name) for one in sharing))
                )
            kind = " ".join(
                ["first"] * (offset == 0) + ["average"] * (offset == 0 and row[first[0]] == AVERAGE)
            )
            body.append(f'<tr class="{kind}">' + "".join(cells) + "</tr>")
    heads = [_head(html.escape(key[:1].upper() + key[1:]), False) for key in first]
    heads += [_head(_title(name), True) for name in names]
    return _table(' class="table1"', heads, body)


def _title(name: str) -> str:
    if not name.startswith("p="):
        return html.escape(name)
    ends = {"p=0": "weak", "p=1": "full"}
    return f"{name.replace('p=', '<i>p</i> = ')}<small>{ends.get(name, '&nbsp;')}</small>"


def _key(row: Mapping[str, Any], name: str) -> str:
    return html.escape(text(row, name))


def _mark(key: object) -> str:
    """Return the class attribute that colours a kind of weak labels; empty for other keys."""
    return (
        f' class="method {css_name(key.lower())}"'
        if isinstance(key, str) and key in METHODS.values()
        else ""
    )


def _value(row: Mapping[str, Any], name: str, rowspan: int, best: bool) -> str:
    span = f' rowspan="{rowspan}"' if rowspan > 1 else ""
    paper, width = row[f"{name} paper"], row.get(f"{name} paper ±", np.nan)
    also = "" if pd.isna(width) else f" ±{bare(width)}"
    beneath = "" if pd.isna(paper) else f'<span class="paper">{paper:.3f}{also}</span>'
    if pd.isna(row[name]):
        value = f'<abbr title="{html.escape(str(row[f"{name} reason"]))}">–</abbr>'
    else:
        figure = f"<b>{row[name]:.3f}</b>" if best else f"{row[name]:.3f}"
        value = runs_button(figure, row[f"{name} cells"])
    interval = "" if np.isnan(half(row, name)) else f"±{bare(half(row, name))}"
    return f'<td class="number"{span}>{value}<span class="interval">{interval}</span>{beneath}</td>'

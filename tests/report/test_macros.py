"""Test the macros that render tables, and what keeps text of others from becoming markup."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError

from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.tables.value_table import NO_EXPERT, SHARED, number, stacked, value_table
from chexseg.report.page import environment
from chexseg.report.page.film_grids import Film, FilmGrid, FilmRow
from chexseg.report.page.table_views import grid, plain
from tests.report.rendered import macro

NAN = float("nan")
HOSTILE = "</script><!--<script>\"'&"
KEYS = f"{'a' * 64} {'b' * 64}"


def interval(mean: float, half: float = NAN) -> Interval:
    return Interval(mean, mean - half, mean + half, 2)


@pytest.fixture
def table():
    """Return a small Table 1: two methods that share p = 1, and a task without expert masks."""
    rows = [
        ("Avg. IoU", "CAM", 0.0, number(interval(0.2, 0.05), 0.163, 0.01, cells=KEYS)),
        ("Avg. IoU", "CAM", 1.0, number(interval(0.25))),
        ("Avg. IoU", "IRNet", 0.0, number(interval(0.3))),
        ("Avg. IoU", "IRNet", 1.0, number(interval(0.25), reason=SHARED)),
        ("Edema", "CAM", 0.0, number(interval(NAN))),
        ("Edema", "CAM", 1.0, number(interval(0.5))),
        ("Edema", "IRNet", 0.0, number(interval(NAN), reason="no finished cell")),
        ("Edema", "IRNet", 1.0, number(interval(0.5), reason=SHARED)),
    ]
    named = [{"task": task, "method": kind, "p": p, **cell} for task, kind, p, cell in rows]
    return value_table(named, ("task", "method"), "p", "row", "Table 1", "p={:g}")


def rows_of(html: str) -> list[str]:
    return re.findall(r"<tr[ >].*?</tr>", html, re.S)


def test_rows_of_a_group_share_its_head_and_the_value_at_p_1(table):
    view = grid(table)
    assert [(row["head"], row["rows"], row["texts"]) for row in view["rows"]] == [
        ("Avg. IoU", 2, ["CAM"]),
        ("", 2, ["IRNet"]),
        ("Edema", 2, ["CAM"]),
        ("", 2, ["IRNet"]),
    ]
    html = macro("grid", view)
    head, first, second, third, _ = rows_of(html)
    assert "<i>p</i> = 0<small>weak" in head and "<i>p</i> = 1<small>full" in head
    assert first.count("<td") == 3 and second.count("<td") == 2
    assert '<th scope="rowgroup" rowspan="2">Avg. IoU</th>' in first and "<th" not in second
    assert '<td class="number" rowspan="2" data-value="0.25">' in first
    assert 'class="first average"' in first and 'class="first"' in third
    assert '<td class="method square" style="--series:var(--irnet)">IRNet</td>' in second


def test_a_value_has_its_interval_runs_and_published_value(table):
    html = macro("grid", grid(table))
    shown = f'<button class="runs-button" data-cells="{"a" * 12} {"b" * 12}">0.200</button>'
    paper = '<span class="paper">0.163 ±.010</span>'
    assert f'{shown}<span class="interval">±.050</span>{paper}</td>' in html
    assert html.count('class="paper"') == 1, "other values have no published one"


def test_the_best_of_a_row_is_bold_also_if_it_is_shared(table):
    first, second, third, _ = (
        re.findall("<b>(.*?)</b>", row) for row in rows_of(macro("grid", grid(table)))[1:]
    )
    assert (first, second, third) == (["0.250"], ["0.300"], ["0.500"])


def test_a_dash_says_why_and_the_reasons_are_listed(table):
    view = grid(table)
    html = macro("grid", view)
    assert f'<td class="number"><abbr title="{NO_EXPERT}">–</abbr>' in html
    assert macro("dashes", view) == (
        f" Dash: {NO_EXPERT}: Edema. Dash: no finished cell: IRNet p=0."
    )


def test_differences_have_a_sign_and_long_tables_are_cut():
    rows = [
        {"task": f"{n}", "series": name, **number(interval(value))}
        for n in range(5)
        for name, value in (("gap", -0.25), ("relative %", 12.4))
    ]
    table = value_table(rows, ("task",), "series")
    view = grid(stacked(table, None, most=2), {"gap": "minus", "1": "one"})
    assert len(view["rows"]) == 2
    html = macro("grid", view)
    assert html.count("\u22120.250") == 2 and html.count("+12<") == 2
    assert "gap<small>minus</small>" in html and "1<small>one</small>" in html


def test_plain_tables_sort_by_exact_numbers_and_open_runs():
    frame = pd.DataFrame(
        {
            "name": [HOSTILE],
            "mIoU": [0.12345],
            "gap_s": [np.nan],
            "difference": [0.1],
            "difference low": [0.05],
            "difference high": [0.15],
            "cells": [KEYS],
            "key": ["c" * 64],
        }
    )
    html = macro("plain", plain(frame), "cells")
    assert (
        '<td class="number" data-value="0.12345"><button class="runs-button" data-cells="cccccccccccc">0.123</button>'
        in html
    )
    assert '<td class="number">-</td>' in html
    assert '<td class="number score" data-value="0.1">+0.100 ±0.050</td>' in html, "stays in view"
    assert f'data-cells="{"a" * 12} {"b" * 12}">2 cells</button>' in html
    assert "<th>name</th>" in html and ">gap s</th>" in html and "difference low" not in html


def test_text_of_others_is_escaped_everywhere(table):
    for column in ("task", "method", "reason", "cells"):
        table.values[column] = HOSTILE
    film = FilmRow(
        HOSTILE, HOSTILE, b"", HOSTILE, [Film(HOSTILE, score=HOSTILE), Film(reason=HOSTILE)]
    )
    for html in (
        macro("grid", grid(table, {HOSTILE: HOSTILE})),
        macro("plain", plain(pd.DataFrame({HOSTILE: [HOSTILE], "key": HOSTILE, "cells": HOSTILE}))),
        macro("films", FilmGrid([(HOSTILE, HOSTILE)], [film])),
        macro("runs", HOSTILE, HOSTILE),
        macro("switch", "layer", HOSTILE, HOSTILE, HOSTILE, HOSTILE),
    ):
        assert "script" in html and "<script" not in html and "</script" not in html
        assert "<!--" not in html and "\"'&" not in html


def test_json_cannot_end_its_script_element():
    text = json.dumps({"text": f"{HOSTILE}<!-- </SCRIPT"})
    escaped = environment.script_json(text)
    assert "<" not in escaped and json.loads(escaped) == json.loads(text)


def test_a_template_that_lacks_a_value_fails():
    made = environment.environment().from_string("{{ title }}")
    assert made.render(title="<b>") == "&lt;b&gt;"
    with pytest.raises(UndefinedError, match="title"):
        made.render()


def test_numbers_have_a_minus_sign():
    assert environment.number(-0.1234, "+") == "\u22120.123"
    assert environment.number(0.1236, "+") == "+0.124" and environment.number(NAN) == "–"

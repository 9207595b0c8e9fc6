"""Test the page in a browser: no errors or requests, sorting, figures, themes, widths, print."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
from typing import Any

import pandas as pd
import pytest

from chexseg.analysis.results import GRAPH_COLUMNS
from tests.report import chromium
from tests.report.rendered import publish

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(chromium.PATH is None, reason="Chromium isn't installed (make chromium)"),
]

COLUMN = (
    "[...document.querySelectorAll('{table} tbody tr')].map(row => row.cells[{column}].textContent)"
)
#: Rows of Table 1 as their task; empty for further rows of a task.
TABLE1 = "[...document.querySelectorAll('[id$=--table-1] tbody tr')].map(row => row.querySelector('th')?.textContent ?? '')"
#: Texts that would end a script element, or keep it open past its end.
HOSTILE = "</script><!--<script>"
#: Number of points in each figure.
POINTS = "plots.map(plot => plot.querySelectorAll('.scatterlayer .point').length)"
WIDEST = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: Select a pathology and return the visible ones.
CHOOSE = """(() => {
  const select = document.querySelector("select[data-choice]");
  select.value = "Edema";
  select.dispatchEvent(new Event("change"));
  const grids = [...document.querySelectorAll("[data-pathology]")];
  return grids.filter(grid => grid.offsetHeight).map(grid => grid.dataset.pathology);
})()"""


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def whole(study):
    """Return the synthetic study with the runs behind it."""
    cells = study.cells.assign(cell=[key(name) for name in study.cells["name"]])
    test = key("ingest test")
    graph = [(test, "ingest", "ingest test", "cached", 4.0, ())]
    for name, score in zip(cells["name"], cells["cell"], strict=True):
        fit = key(f"fit {name}")
        graph.append((fit, "fit", f"fit: {name}", "cached", 60.0, (test,)))
        graph.append((score, "score", f"score: {name}", "cached", 1.0, (fit, test)))
    settings = {"ingest": '{"split": "test"}', "score": '{"resolution": "training"}'}
    stages = [
        {
            "stage": stage,
            "key": run,
            "seconds": seconds,
            "host": "node",
            "data": key("data") if stage == "ingest" else None,
        }
        | {"settings": settings.get(stage, f'{{"epochs": 20, "text": "{HOSTILE}{label}"}}')}
        for run, stage, label, _, seconds, _ in graph
    ]
    graph = pd.DataFrame(graph, columns=list(GRAPH_COLUMNS))
    return dataclasses.replace(study, cells=cells, graph=graph, stages=pd.DataFrame(stages))


async def look(path) -> dict[str, Any]:
    """Collect everything that the tests below check, in two visits."""
    seen: dict[str, Any] = {}
    async with chromium.visit(path) as open_page:
        ask = open_page.evaluate
        seen["drawn at first"] = await ask("plots.filter(drawn).length")
        seen["unsorted"] = await ask(TABLE1)
        for turn in ("descending", "ascending"):
            await ask(
                "document.querySelector('[id$=--table-1] thead th:nth-child(3) .sort').click()"
            )
            seen[turn] = await ask(TABLE1)
            seen[f"{turn} values"] = await ask(
                "groups(document.querySelector('[id$=--table-1] tbody')).map(group => group.cells.map(line => number(line[2])))"
            )
            await ask("document.querySelector('[id$=--cells] thead th:first-child .sort').click()")
            seen[f"{turn} cells"] = await ask(COLUMN.format(table="[id$=--cells]", column=0))
        seen["sorted by"] = await ask(
            "document.querySelector('[id$=--table-1] thead th:nth-child(3)').getAttribute('aria-sort')"
        )
        seen["unsortable"] = await ask(
            "[...document.querySelectorAll('table')].filter(table => table.tBodies[0].rows.length > 1"
            " && !table.querySelector('thead .sort')).map(table => table.outerHTML.slice(0, 200))"
        )
        await ask(
            "document.querySelectorAll('details').forEach(details => { details.open = true; })"
        )
        await open_page.scroll_through()
        seen["figures"], seen["points"] = await ask("plots.length"), await ask(POINTS)
        await ask("document.querySelector('[id$=--table-1] .runs-button').click()")
        seen["behind"] = await ask("document.querySelector('#runs-dialog').textContent")
        await ask("document.querySelector('#runs-dialog button').click()")
        await open_page.settle()
        seen["runs"] = await ask("document.querySelectorAll('details[data-runs] tbody tr').length")
        seen["choices"] = await ask(
            "[...document.querySelectorAll('select[data-choice] option')].map(option => option.value)"
        )
        seen["chosen"] = await ask(CHOOSE)
        for width in (1280, 400):
            for dark in (False, True):
                await open_page.resize(width, dark=dark)
                name = f"{width} {'dark' if dark else 'light'}"
                seen[f"{name}: too wide"] = await ask(WIDEST)
                seen[f"{name}: paper"] = await ask(
                    "getComputedStyle(document.body).backgroundColor"
                )
                seen[f"{name}: ink of a figure"] = await ask(
                    "getComputedStyle(document.querySelector('.plot .gtitle')).fill"
                )
        seen["faults"] = list(open_page.faults)
    async with chromium.visit(path) as open_page:  # printed before anything has come near
        seen["pdf"] = await open_page.pdf()
        seen["drawn for print"] = await open_page.evaluate("plots.filter(drawn).length")
        seen["faults"] += open_page.faults
    return seen


@pytest.fixture(scope="module")
def seen(whole, tmp_path_factory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("page")
    return asyncio.run(look(publish([whole], out).page))


def test_nothing_is_logged_and_nothing_is_loaded(seen):
    assert seen["faults"] == []


def test_figures_are_drawn_when_they_come_near(seen):
    assert seen["drawn at first"] < seen["figures"]
    assert seen["figures"] == len(seen["points"]) >= 5
    assert all(seen["points"])


def test_table_1_sorts_by_its_best_and_keeps_rows_together(seen):
    assert seen["sorted by"] == "ascending"
    assert sorted(seen["descending"]) == sorted(seen["unsorted"])
    assert seen["descending"] != seen["unsorted"]
    for turn, best in (("descending", max), ("ascending", min)):
        assert seen[turn][0] == "Avg. IoU", "the average keeps its place"
        assert all(seen[turn][::2]) and not any(seen[turn][1::2]), "a task's two rows stay together"
        values = [best(pair) for pair in seen[f"{turn} values"][1:]]
        assert values == sorted(values, reverse=turn == "descending")


def test_every_table_sorts(whole, seen):
    assert seen["unsortable"] == []
    names = sorted(whole.cells["name"])
    assert sorted(seen["descending cells"]) == names
    assert seen["descending cells"] == seen["ascending cells"][::-1] != seen["ascending cells"]


def test_a_number_leads_to_its_cells_and_what_they_read(whole, seen):
    trials = whole.cells[(whole.cells["weak"] == "cam") & (whole.cells["p"] == 0)]
    assert len(trials) == 2
    for name, score in zip(trials["name"], trials["cell"], strict=True):
        assert (
            f"score/{score[:20]}" in seen["behind"]
            and f"fit/{key(f'fit {name}')[:20]}" in seen["behind"]
        )
    assert key("data")[:12] in seen["behind"]
    assert f"text = {HOSTILE}fit: cam p=0 trial 0" in seen["behind"], (
        "what sets one fit apart from another"
    )
    assert seen["behind"].count("score/") == 2
    assert seen["runs"] == len(whole.stages)


def test_overlays_of_the_chosen_pathology_alone(whole, seen):
    assert seen["choices"][:2] == ["Cardiomegaly", "Airspace Opacity"]
    assert sorted(seen["choices"]) == sorted(whole.pathologies)
    assert seen["chosen"] == ["Edema"]


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_no_wider_than_its_window(seen, width):
    assert seen[f"{width} light: too wide"] <= 0 and seen[f"{width} dark: too wide"] <= 0


@pytest.mark.parametrize("width", [1280, 400])
def test_figures_follow_the_colours_of_the_page(seen, width):
    light, dark = (f"{width} {name}" for name in ("light", "dark"))
    for part in ("paper", "ink of a figure"):
        brightness = [
            sum(map(int, re.findall(r"\d+", seen[f"{name}: {part}"])[:3])) for name in (light, dark)
        ]
        assert (brightness[0] > brightness[1]) == (part == "paper"), (part, brightness)


def test_print_has_pages_and_every_figure(seen):
    assert seen["pdf"].startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", seen["pdf"])) >= 3
    assert seen["drawn for print"] == seen["figures"]

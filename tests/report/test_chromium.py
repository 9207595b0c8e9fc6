"""Test the page in a browser: no errors or requests, sorting, figures, themes, widths, print."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
from typing import Any

import pandas as pd
import pytest

from chexseg.analysis import comparison
from chexseg.analysis.results import GRAPH_COLUMNS
from chexseg.report import compare_page
from tests.report import chromium
from tests.report.page_checks import faults
from tests.report.rendered import publish
from tests.report.test_compare import group, side

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
#: Use the browser of test images: return what it shows at first, by pathology, and in a zoom.
BROWSE = """(async () => {
  const wait = () => new Promise(done => setTimeout(done, 400));
  const browser = document.querySelector(".browser"), seen = {};
  const scores = () => [...browser.querySelectorAll(".thumb .score")].map(x => x.textContent);
  const choose = (name, value) => {
    const select = browser.querySelector(`select[name=${name}]`);
    select.value = value;
    select.dispatchEvent(new Event("change"));
  };
  const pixels = canvas => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let coloured = 0;
    for (let p = 0; p < data.length; p += 4) coloured += Math.abs(data[p] - data[p + 2]) > 20;
    return coloured;
  };
  browser.scrollIntoView();
  await wait();
  seen.worst = scores();
  choose("order", "best");
  seen.best = scores();
  choose("pathology", "4");
  seen.filtered = scores();
  seen.count = browser.querySelector("output").textContent;
  browser.querySelector(".thumb").scrollIntoView({block: "center"});
  await wait();
  seen.painted = pixels(browser.querySelector(".thumb canvas"));
  browser.querySelector(".thumb").click();
  await wait();
  const dialog = document.getElementById("image-dialog");
  seen.title = dialog.querySelector("h2").textContent;
  seen.panels = [...dialog.querySelectorAll("figcaption")].map(x => x.textContent);
  seen.radiograph = pixels(dialog.querySelector("canvas"));
  seen.zooms = [];
  for (let click = 0; click < 4; click++) {
    seen.zooms.push(new DOMMatrix(getComputedStyle(dialog.querySelector("canvas")).transform).a);
    dialog.querySelector(".frame").click();
  }
  dialog.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
  await wait();
  seen.next = dialog.querySelector("h2").textContent;
  dialog.close();
  return seen;
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
        seen["browser"] = await ask(BROWSE)
        await ask("document.querySelector('nav a:nth-of-type(3)').click()")
        await open_page.settle()
        seen["marked"] = await ask(
            "[...document.querySelectorAll('nav a[aria-current=true]')].map(link => link.textContent)"
        )
        for width in (1280, 400):
            for dark in (False, True):
                name = f"{width} {'dark' if dark else 'light'}"
                seen[f"{name}: faults"] = await faults(open_page, width, dark)
                seen[f"{name}: paper"] = await ask(
                    "getComputedStyle(document.body).backgroundColor"
                )
                seen[f"{name}: ink of a figure"] = await ask(
                    "getComputedStyle(document.querySelector('.plot .gtitle')).fill"
                )
                seen[f"{name}: contents"] = await ask(
                    "document.querySelector('nav').scrollWidth <= innerWidth"
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


def test_the_browser_sorts_filters_and_zooms(whole, seen):
    browser = seen["browser"]
    worst, best = (
        [float(text[4:]) for text in browser[name] if text[:3] == "IoU"]
        for name in ("worst", "best")
    )
    assert worst == sorted(worst) and best == worst[::-1] and len(worst) > 20
    assert len(browser["worst"]) == len(whole.image_ids), "images without masks come last"
    filtered = [float(text[4:]) for text in browser["filtered"]]
    assert filtered == sorted(filtered, reverse=True)
    assert 0 < len(filtered) < len(worst) and browser["count"] == f"{len(filtered)} images"
    assert browser["painted"] > 0 == browser["radiograph"]
    assert browser["panels"][:2] == ["radiograph", "experts"]
    assert browser["panels"][2].startswith("cam p=0 trial 0: IoU 0.")
    assert browser["zooms"] == [1, 2, 4, 1]
    assert {browser["title"], browser["next"]} <= set(whole.image_ids)
    assert browser["title"] != browser["next"]


def test_the_contents_mark_where_the_reader_is(seen):
    assert seen["marked"] == ["Table 1"]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tables_and_figures_can_be_read_at_every_width(seen, width, theme):
    for check, found in seen[f"{width} {theme}: faults"].items():
        assert found == [], check
    assert seen[f"{width} {theme}: contents"], "the contents fit"


def test_a_comparison_can_be_read_on_a_phone(tmp_path):
    groups = [
        group(f"cam p={p} architecture=resnet34 loss=class-average-dice", 1, (0, 1, 2), p)
        for p in range(4)
    ]
    compared = comparison.compare(side("A", *groups), side("B", group("full", 2, (0, 1, 2))))
    page = compare_page.write(compared, tmp_path)

    async def visit() -> dict[str, Any]:
        async with chromium.visit(page) as opened:
            await opened.scroll_through()
            return {
                **await faults(opened, 400, dark=True),
                "console or network": list(opened.faults),
            }

    for check, found in asyncio.run(visit()).items():
        assert found == [], check


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

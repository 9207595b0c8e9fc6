"""Test docs/reference/metrics.md: its metrics, tags and panels are those of the code."""

from __future__ import annotations

import json
import re

from chexseg.run.progress.counts import RunCounts
from chexseg.run.progress.metrics import CELLS, FIGURES
from tests.reference.pages import ROOT, read

PAGE = read("reference/metrics.md")
DASHBOARD = json.loads((ROOT / "monitoring" / "grafana-chexseg.json").read_text())


def test_metrics_are_those_of_the_code_with_their_descriptions():
    meanings = dict(re.findall(r"^- `ray_(\w+)`: (.*)\.$", PAGE, re.MULTILINE))
    assert meanings.pop(CELLS) == "Cells of a study by state"
    assert meanings == dict(FIGURES.values())


def test_the_table_has_every_metric_with_its_tags():
    tags = dict(re.findall(r"^\| `ray_(\w+)` \| [^|]+ \| (.*) \|$", PAGE, re.MULTILINE))
    assert tags == {CELLS: "`state`"} | {name: "`cell`, `stage`" for name, _ in FIGURES.values()}


def test_states_are_those_of_a_run():
    (states,) = re.findall(r"^\| `state` \| (.*) \|$", PAGE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", states) == list(RunCounts(total=1).states())


def test_panels_are_those_of_the_dashboard():
    rows = re.findall(r"^\| ([A-Z][^|]*) \| (.*) \|$", PAGE.partition("## Dashboards")[2], re.M)
    assert {panel: set(re.findall(r"`(\w+)`", metrics)) for panel, metrics in rows} == {
        panel["title"]: {
            name for one in panel["targets"] for name in re.findall(r"ray_chexseg\w+", one["expr"])
        }
        for panel in DASHBOARD["panels"]
    }

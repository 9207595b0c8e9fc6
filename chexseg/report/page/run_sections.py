"""The page's sections on how results came about: the graph of stages, their time, every run with its key."""

from __future__ import annotations

import json

import pandas as pd

from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import study_tables
from chexseg.report.figures import stage_graph
from chexseg.report.page import provenance
from chexseg.report.page.html_tables import to_html
from chexseg.report.page.markup import note, plot, scroll

#: Of more runs a browser's drawing can't be read, and takes seconds.
MOST_DRAWN = 1500
#: Of more runs the page holds no settings: they would take more than a megabyte.
MOST_TOLD = 5000


def stages_html(results: StudyResults, name: str) -> str:
    """The graph of all runs, or how many there are where they are too many to draw."""
    if len(results.graph) > MOST_DRAWN:
        found = (
            results.graph.groupby(["stage", "state"], sort=False)
            .size()
            .rename("runs")
            .reset_index()
        )
        told = f"{len(results.graph):,} runs are too many to draw. <code>tables/{name}-runs.csv</code> has each with its inputs."
        return scroll(to_html(found)) + note(told)
    told = (
        "Every run of a stage that the study needs, once, to the right of what it reads. Point at one to see which it is, "
        "click for its settings; runs that several cells need have several lines to the right."
    )
    return plot(stage_graph.draw(stage_graph.rows(results)), f"{name}--graph", "wide") + note(told)


def time_html(results: StudyResults) -> str:
    minutes, seconds = divmod(round(float(pd.to_numeric(results.stages["seconds"]).sum())), 60)
    together = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    told = f"Together {together} of stage time; stages that ran side by side count each."
    return scroll(to_html(study_tables.stages_rows(results))) + note(told)


def provenance_html(results: StudyResults, name: str) -> str:
    """What a key is, the data's fingerprints, and every run with its settings for the page's script to show."""
    found = provenance.rows(results)
    parts = [
        "<p>A key is the sha256 of a stage’s name, version, settings, the keys of its inputs and the fingerprint of the data: "
        "the same key, the same result. In the store, the folder of that name (its first 20 characters) holds the files and "
        f'their manifest. <span class="screen">Click a number that a dotted line underlines, a key or a point of a figure to '
        f"see the runs behind it.</span> <code>tables/{name}-runs.csv</code> has all of them.</p>"
    ]
    data = found.loc[found["data"].notna(), ["label", "data"]].drop_duplicates()
    if len(data):
        parts.append(
            scroll(
                to_html(
                    data.rename(columns={"label": "read by", "data": "fingerprint of the data"})
                )
            )
        )
    if len(found) > MOST_TOLD:
        parts.append(
            note(
                f"{len(found):,} runs are more than this page holds: their settings stand in that file alone."
            )
        )
        return "".join(parts)
    told = json.dumps(provenance.embedded(found), separators=(",", ":")).replace("</", "<\\/")
    ran = int(found["settings"].notna().sum())
    parts.append(
        f'<script type="application/json" class="runs" id="{name}--runs">{told}</script>'
        f'<details class="screen" data-runs="{name}--runs"><summary>{ran:,} runs and their keys</summary></details>'
    )
    return "".join(parts)

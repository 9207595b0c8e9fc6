"""The page's sections on runs: the graph of stages, their time, all runs with their keys."""

from __future__ import annotations

import json

import pandas as pd

from chexseg.analysis.points.stage_graph import rows as graph_rows
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import study_tables
from chexseg.report.figures import stage_graph
from chexseg.report.page import provenance
from chexseg.report.page.html_tables import to_html
from chexseg.report.page.markup import json_script, note, plot, scroll

#: Larger graphs aren't drawn: they take seconds and can't be read.
MOST_DRAWN = 1500
#: With more runs, the page has no settings: they would take more than a megabyte.
MOST_EMBEDDED = 5000


def stages_html(results: StudyResults, name: str) -> str:
    """Return the graph of all runs, or a table of their counts if they are too many to draw."""
    if len(results.graph) > MOST_DRAWN:
        counts = (
            results.graph.groupby(["stage", "state"], sort=False)
            .size()
            .rename("runs")
            .reset_index()
        )
        text = (
            f"{len(results.graph):,} runs are too many to draw. "
            f"<code>tables/{name}-runs.csv</code> lists all of them with their inputs."
        )
        return scroll(to_html(counts)) + note(text)
    text = (
        "All runs that the study needs, each once, to the right of its inputs. Point at a run to "
        "see its name, click for its settings. A run with several lines to its right is used by "
        "several others."
    )
    return plot(stage_graph.draw(graph_rows(results)), f"{name}--graph", "wide") + note(text)


def time_html(results: StudyResults) -> str:
    """Return the run time by stage, and their total."""
    minutes, seconds = divmod(round(float(pd.to_numeric(results.stages["seconds"]).sum())), 60)
    total = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    text = f"Total: {total}. Stages that ran in parallel are added up."
    return scroll(to_html(study_tables.stages_rows(results))) + note(text)


def provenance_html(results: StudyResults, name: str) -> str:
    """Return an explanation of keys, the data's fingerprints, and all runs for the script."""
    rows = provenance.rows(results)
    parts = [
        "<p>A key is the SHA-256 of a stage’s name, version, settings, the keys of its inputs and "
        "the fingerprint of the data. Equal keys mean equal results. In the store, the directory "
        "named by the first 20 characters of a key holds the result’s files and manifest. "
        '<span class="screen">Click a number with a dotted underline, a key or a point of a figure '
        f"to see the runs behind it.</span> <code>tables/{name}-runs.csv</code> lists all runs.</p>"
    ]
    data = rows.loc[rows["data"].notna(), ["label", "data"]].drop_duplicates()
    if len(data):
        data = data.rename(columns={"label": "read by", "data": "fingerprint of the data"})
        parts.append(scroll(to_html(data)))
    if len(rows) > MOST_EMBEDDED:
        text = f"{len(rows):,} runs are too many for this page; their settings are in that file."
        return "".join([*parts, note(text)])
    embedded = json.dumps(provenance.embedded(rows), separators=(",", ":"))
    parts += [
        json_script(embedded, f"{name}--runs", "runs"),
        f'<details class="screen" data-runs="{name}--runs">'
        f"<summary>{rows['settings'].notna().sum():,} runs and their keys</summary></details>",
    ]
    return "".join(parts)

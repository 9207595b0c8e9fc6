"""The page's sections on how results came about: the graph of stages, their time, every run with its key."""

from __future__ import annotations

from html import escape

import pandas as pd

from chexseg.report import stage_graph, tables
from chexseg.report.markup import note, plot, scroll
from chexseg.report.results import StudyResults


def stages_html(results: StudyResults, name: str) -> str:
    told = (
        "Every run of a stage that the study needs, once, to the right of what it reads. Point at one to see which it is; runs "
        "that several cells need have several lines to the right."
    )
    return plot(stage_graph.draw(stage_graph.rows(results)), f"{name}--graph", "wide") + note(told)


def time_html(results: StudyResults) -> str:
    minutes, seconds = divmod(round(float(pd.to_numeric(results.stages["seconds"]).sum())), 60)
    together = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    told = f"Together {together} of stage time; stages that ran side by side count each."
    return scroll(tables.to_html(tables.stages_rows(results))) + note(told)


def provenance_html(results: StudyResults) -> str:
    parts = [
        "<p>A key is the sha256 of a stage’s name, version, settings, the keys of its inputs and the fingerprint of the data: "
        "the same key, the same result. In the store, the folder of that name holds the files and their manifest.</p>"
    ]
    cells = {"Cell": results.cells["name"], "Key of its scores": results.cells["cell"]}
    stages = {name.capitalize(): results.stages[name] for name in ("stage", "key", "host", "settings")}
    for text, columns in ((f"{len(results.cells)} cells", cells), (f"{len(results.stages)} stage runs", stages)):
        head = "".join(f"<th>{name}</th>" for name in columns)
        lines = zip(*columns.values(), strict=True)
        body = "".join("<tr>" + "".join(f"<td><code>{escape(str(v))}</code></td>" for v in line) + "</tr>" for line in lines)
        table = f'<table class="keys"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        parts.append(f"<details><summary>{text} and their keys</summary>{scroll(table)}</details>" if body else "")
    return "".join(parts)

"""Test the graph of a study's stages: positions and lines."""

from __future__ import annotations

import dataclasses

import pandas as pd

from chexseg.analysis.points.stage_graph import rows as graph_rows
from chexseg.analysis.results import GRAPH_COLUMNS
from chexseg.report.figures import stage_graph

RUNS = [
    ("train", "ingest", ()),
    ("valid", "ingest", ()),
    ("test", "ingest", ()),
    ("classifier", "classify", ("train", "valid")),
    ("maps", "saliency", ("train", "valid", "classifier")),
    ("weak", "fit", ("valid", "train", "maps")),
    ("full", "fit", ("valid",)),
    ("logits", "distil", ("train", "full")),
    ("student", "fit", ("valid", "train", "logits")),
    *((f"{fit} scores", "score", ("test", fit)) for fit in ("weak", "full", "student")),
]


def graph(states: dict[str, str] | None = None) -> pd.DataFrame:
    rows = [
        (key, stage, key, (states or {}).get(key, "cached"), 60.0, inputs)
        for key, stage, inputs in RUNS
    ]
    return pd.DataFrame(rows, columns=list(GRAPH_COLUMNS))


def test_stages_stand_in_the_order_of_the_data_and_a_student_after_its_teacher(study):
    rows = graph_rows(dataclasses.replace(study, graph=graph())).set_index("key")
    assert [
        rows.loc[key, "column"]
        for key in ("train", "classifier", "maps", "weak", "logits", "student", "full scores")
    ] == [*range(7)]
    assert rows.loc["full", "column"] == rows.loc["weak", "column"]
    for _, group in rows.groupby("column"):
        assert group["place"].is_unique and group["place"].between(0, 1).all()
    order = rows[rows["stage"] == "score"].sort_values("place").index.tolist()
    assert order.index("full scores") != order.index("weak scores")


def test_a_line_stands_for_what_is_read_and_not_needed_on_another_way(study):
    rows = graph_rows(dataclasses.replace(study, graph=graph())).set_index("key")
    assert rows.loc["maps", "reads"] == ("classifier",)
    assert rows.loc["weak", "reads"] == ("maps",)
    assert rows.loc["student", "reads"] == ("logits",)
    assert set(rows.loc["logits", "reads"]) == {"train", "full"}
    figure = stage_graph.draw(rows.reset_index())
    assert figure.data[0].x.count(None) == sum(map(len, rows["reads"]))


def test_states_are_told_by_symbol_and_counted(study):
    rows = graph_rows(
        dataclasses.replace(study, graph=graph({"weak": "failed", "weak scores": "new"}))
    )
    figure = stage_graph.draw(rows)
    named = {trace.name: trace.marker.symbol for trace in figure.data[1:]}
    assert named == {"done (10)": "circle", "failed (1)": "x", "to run (1)": "circle-open"}
    assert "score × 3" in {note.text for note in figure.layout.annotations}

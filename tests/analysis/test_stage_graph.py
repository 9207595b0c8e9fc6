"""Test the rows of the graph of a study's stages: positions and lines."""

from __future__ import annotations

import dataclasses

from chexseg.analysis.points.stage_graph import rows as graph_rows
from tests.analysis.run_graph import graph


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

"""Test the drawing of the graph of a study's stages."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from chexseg.analysis.points.stage_graph import rows as graph_rows
from chexseg.report.figures import stage_graph
from tests.analysis.run_graph import graph


@pytest.fixture
def rows(study):
    states = {"weak": "failed", "weak scores": "new"}
    return graph_rows(dataclasses.replace(study, graph=graph(states)))


def test_a_line_leads_from_each_input_to_its_run(rows):
    lines = stage_graph.draw(rows).data[0]
    assert np.isnan(lines.x).sum() == sum(map(len, rows["reads"])) > 0
    ends = zip(lines.x[::3], lines.y[::3], lines.x[1::3], lines.y[1::3], strict=True)
    at = {(run.column, run.place): run.key for run in rows.itertuples()}
    pairs = {(at[x0, y0], at[x1, y1]) for x0, y0, x1, y1 in ends}
    assert pairs == {(key, run.key) for run in rows.itertuples() for key in run.reads}
    assert ("maps", "weak") in pairs and ("train", "maps") not in pairs


def test_states_have_symbols_and_counts(rows):
    figure = stage_graph.draw(rows)
    named = {trace.name: trace.marker.symbol for trace in figure.data[1:]}
    assert named == {"done (10)": "circle", "failed (1)": "x", "to run (1)": "circle-open"}
    assert "score × 3" in {note.text for note in figure.layout.annotations}


def test_a_run_has_its_name_state_time_and_key(rows):
    failed = next(t for t in stage_graph.draw(rows).data if t.name == "failed (1)")
    assert failed.hovertext[0] == "weak<br>weak<br>60 s<br>failed"
    assert list(failed.customdata) == ["weak"]

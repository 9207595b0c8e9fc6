"""Test which stages included studies share."""

from __future__ import annotations

from collections import Counter

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.plan.status import sharing, sharing_text

DATA = {"train": "a", "valid": "b", "test": "c"}


def both(tmp_path, first: str, second: str) -> Plan:
    for name, text in (("first", first), ("second", second)):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n{text}")
    (tmp_path / "both.yaml").write_text("name: both\nstudies: [first.yaml, second.yaml]")
    return planner.plan(study_file.load(tmp_path / "both.yaml"), DATA)


def test_runs_saved_are_those_of_the_studies_apart_less_those_together(tmp_path):
    # A teacher with two fractions, in one study each, is a cell of neither.
    cells = (
        "axes: {{labels.weak: [cam, irnet], labels.p: [0, 1], trial: [0, 1]}}\nalso: "
        "[{{distil.fraction: {}}}]"
    )
    study_plan = both(tmp_path, cells.format(0.1), cells.format(0.2).replace("[0, 1]}", "[0]}"))
    apart = Counter()
    for member in study_plan.study.members:
        apart.update(node.stage for node in planner.plan(member, DATA).nodes.values())
    together = Counter(node.stage for node in study_plan.nodes.values())
    shared = sharing(study_plan)
    assert shared["members"] == {"first": 7, "second": 4}
    assert shared["shared"] == dict(apart - together)
    assert shared["shared"]["distil"] == 1 and shared["shared"]["fit"] == 3
    assert shared["runs_saved"] == apart.total() - together.total() > 0


def test_the_lines_for_people_say_the_same(tmp_path):
    study_plan = both(tmp_path, "axes: {trial: [0, 1]}", "axes: {labels.p: [0, 1]}")
    assert sharing_text(study_plan) == [
        "cells of each study: first 2, second 2",
        "shared: 3 ingest, 1 pretrain, 1 fit, 1 score; 6 runs saved by sharing between 2 studies",
    ]


def test_a_study_by_itself_shares_nothing_and_has_no_line(tmp_path):
    alone = planner.plan(study_file.parse("name: s\naxes: {trial: [0, 1]}", "x.yaml"), DATA)
    assert sharing_text(alone) == []
    assert sharing(alone) == {"members": {"s": 2}, "shared": {}, "runs_saved": 0}

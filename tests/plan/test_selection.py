"""Test which cells of a plan are selected to run."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.selection import select, study_and_cell
from tests.store.places import DATA

PLAN = planner.plan(
    study_file.parse("name: s\naxes: {labels.p: [0.5, 1], trial: [0, 1]}", "x.yaml"), DATA
)
NAMES = ["cam p=0.5 trial 0", "cam p=0.5 trial 1", "full trial 0", "full trial 1"]


def selected(only: tuple[str, ...] = (), limit: int | None = None, scored: Collection[str] = ()):
    return [cell.name for cell in select(PLAN, only, limit, scored).cells]


def test_all_cells_are_selected_by_default():
    assert selected() == NAMES


@pytest.mark.parametrize(
    ("only", "cells"),
    [
        (("full trial 1",), NAMES[3:]),
        (("full",), NAMES[2:]),
        (("full*",), NAMES[2:]),
        ((PLAN.cells[0].fit[:8],), NAMES[:1]),
        (("*trial 0", "full trial 1"), [NAMES[0], *NAMES[2:]]),
    ],
)
def test_cells_are_selected_by_name_or_pattern(only, cells):
    assert selected(only) == cells


def test_what_no_cell_needs_does_not_run():
    part = select(PLAN, ("full*",), None, set())
    assert {node.stage for node in part.needed(())} == {"ingest", "pretrain", "fit", "score"}
    assert {node.stage for node in PLAN.needed(())} > {"saliency", "classify"}


def test_a_limit_counts_the_cells_that_are_missing():
    scored = {PLAN.cells[0].score}
    assert selected(limit=2, scored=scored) == NAMES[:3]
    assert selected(("full*",), 1, scored) == ["full trial 0"]
    assert selected(limit=9) == NAMES


def test_a_name_that_no_cell_has_is_refused_with_names_like_it():
    with pytest.raises(UserError, match="--only full trial 7: no cell 'full trial 7'.*full trial"):
        selected(("full trial 7",))


def test_a_path_may_contain_the_mark_before_a_cell(tmp_path):
    path = tmp_path / "a#b" / "s#1.yaml"
    path.parent.mkdir()
    path.touch()
    assert study_and_cell(f"{path}#full trial 0") == (str(path), "full trial 0")
    assert study_and_cell(str(path)) == (str(path), "")
    assert study_and_cell("no.yaml#full") == ("no.yaml", "full")

"""Test draws: what the trials share is drawn anew, and trials are nested in them."""

from __future__ import annotations

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.status import summarise
from chexseg.store.store import Store

DATA = {"train": "a", "valid": "b", "test": "c"}
STUDY = """
name: draws
settings:
  irnet: {init: chexpert, architecture: resnet18}
  labels: {weak: irnet}
axes:
  encoder.init: [random, chexpert, moco]
  labels.p: [0.9, 1]
  draw: [0, 1, 2]
  trial: [0, 1]
also:
  - {distil.fraction: 0.1, draw: 0}
  - {distil.fraction: 0.1, draw: 1}
"""


def planned(text: str):
    return planner.plan(study_file.parse(text, "x.yaml"), DATA, {})


def seeds(plan, stage: str, setting: str = "seed") -> list[int]:
    return [node.config[setting] for node in plan.nodes.values() if node.stage == stage]


def test_every_stage_that_trains_something_runs_once_a_draw():
    plan = planned(STUDY)
    for stage in ("classify", "saliency", "irnet", "pretrain", "moco"):
        assert len(seeds(plan, stage)) == len(set(seeds(plan, stage))) == 3, stage
    assert len(set(seeds(plan, "distil"))) == 2
    assert len(set(seeds(plan, "fit", "split_seed"))) == 3
    assert len([node for node in plan.nodes.values() if node.stage == "ingest"]) == 3
    # No two trials of different draws share a seed, and so no weak images.
    assert len(set(seeds(plan, "fit"))) == 6


def test_draw_0_is_the_study_without_draws():
    without = planned("name: one\naxes: {labels.p: [0.9, 1], trial: [0, 1]}")
    both = planned("name: two\naxes: {labels.p: [0.9, 1], draw: [0, 1], trial: [0, 1]}")
    keys = {cell.score for cell in without.cells}
    assert {cell.score for cell in both.cells if cell.settings.draw == 0} == keys
    assert not keys & {cell.score for cell in both.cells if cell.settings.draw == 1}


def test_a_cell_is_named_by_its_draw_if_there_are_several():
    names = [cell.name for cell in planned("name: x\naxes: {draw: [0, 1], trial: [0]}").cells]
    assert names == ["full draw 0 trial 0", "full draw 1 trial 0"]
    assert planned("name: x\naxes: {trial: [0]}").cells[0].name == "full trial 0"
    record = planned("name: x\naxes: {draw: [0, 1]}").cells[1].as_record()
    assert (record["draw"], record["trial"], record["other"]) == (1, 0, "")


def test_the_plan_says_what_further_draws_cost(tmp_path):
    plan = planned("name: x\nsettings: {encoder: {init: chexpert}}\naxes: {draw: [0, 1, 2]}")
    summary = summarise(plan, Store(tmp_path), {"train": 100, "valid": 10, "test": 10})
    text = {line.split("  ")[0]: line.split() for line in summary.plan_text().splitlines()}
    # Each draw has a pretraining, a fit and a score; the three ingests are shared.
    assert text["all"][1:4] == ["12", "0", "12"]
    assert "of these, for 2 further draws: 6 to run, ~" in summary.plan_text()
    one = planned("name: x\naxes: {trial: [0, 1]}")
    assert "draw" not in summarise(one, Store(tmp_path), {"train": 1}).plan_text()


def test_a_search_has_no_draws():
    text = "name: s\naxes: {draw: [0, 1], fit.epochs: [1, 2]}\nsearch: {points: 2}"
    with pytest.raises(UserError, match=r"axes\.draw: found in a search; expected: no axis"):
        planned(text)

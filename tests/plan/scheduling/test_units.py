"""The units of a run: which stage runs start together, and when each of them may."""

from __future__ import annotations

import pytest

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.plan.scheduling.units import Units

DATA = {"train": "a", "valid": "b", "test": "c"}
STUDY = """
name: s
axes: {labels.p: [0.5, 1], encoder.init: [random, moco]}
also: [{labels.p: 1, distil.fraction: 0.5, encoder.init: random}]
"""


def planned(text: str = STUDY) -> Plan:
    return planner.plan(study_file.parse(text, "s.yaml"), DATA)


def units_of(
    plan: Plan, done: set[str] | frozenset[str] = frozenset(), whole: bool = True
) -> Units:
    seconds = {key: 1000.0 if node.stage == "moco" else 1.0 for key, node in plan.nodes.items()}
    return Units(plan, done, seconds, whole_cells=whole)


def stages(plan: Plan, units: Units, names: list[str]) -> list[str]:
    """Return the stages of each unit's nodes, joined, sorted."""
    return sorted("+".join(plan.nodes[key].stage for key in units.nodes[name]) for name in names)


def run_all(plan: Plan, units: Units) -> list[list[str]]:
    """Return the units by waves, and check that every node runs once, after its inputs."""
    waves, wave, done = [], units.ready(), set()
    while wave:
        waves.append(stages(plan, units, wave))
        following = []
        for unit in wave:
            for key in units.nodes[unit]:
                assert key not in done
                assert set(plan.nodes[key].inputs.values()) <= done
                done.add(key)
                following += units.ready_after(key)
        wave = following
    assert done == {node.key for node in plan.needed(())}
    return waves


def test_a_cell_waits_only_for_what_it_reads():
    plan = planned()
    waves = run_all(plan, units_of(plan))
    assert waves[0] == ["ingest"] * 3
    # Cells with a random encoder at p = 1 need no stage but ingest; the student's teacher is one.
    assert waves[1] == ["classify", "fit+score", "moco"]
    assert waves[2] == ["distil", "fit+score", "saliency"]
    assert waves[3] == ["fit+score"] * 3 and len(waves) == 4


def test_the_longest_path_of_a_unit_includes_all_that_waits_for_it():
    plan = planned()
    units = units_of(plan)
    of_stage = {plan.nodes[keys[0]].stage: unit for unit, keys in units.nodes.items()}
    assert units.longest(of_stage["moco"]) == 1002
    assert units.longest(of_stage["classify"]) == 4  # saliency, fit, score
    assert units.longest(of_stage["distil"]) == 3


def test_fits_that_workers_share_and_their_scores_are_units_of_their_own():
    plan = planned()
    units = units_of(plan, whole=False)
    assert set(units.nodes) == {node.key for node in plan.needed(())}
    assert all(keys == [unit] for unit, keys in units.nodes.items())
    run_all(plan, units)


def test_what_has_a_result_is_not_waited_for():
    plan = planned()
    cell = next(cell for cell in plan.cells if plan.nodes[cell.fit].config["init"] == "moco")
    moco = next(key for key, node in plan.nodes.items() if node.stage == "moco")
    ingested = {key for key, node in plan.nodes.items() if node.stage == "ingest"}
    units = units_of(plan, {*ingested, moco})
    assert cell.score in units.ready() or plan.nodes[cell.fit].config["p"] < 1
    # A stored fit leaves its scores.
    units = units_of(plan, {*ingested, cell.fit})
    assert units.nodes[cell.score] == [cell.score] and cell.score in units.ready()


def test_a_teacher_whose_fit_was_lost_is_fitted_again_though_its_scores_are_there():
    plan = planned()
    distil = next(node for node in plan.nodes.values() if node.stage == "distil")
    teacher = next(cell for cell in plan.cells if cell.fit == distil.inputs["teacher"])
    done = {key for key, node in plan.nodes.items() if node.stage == "ingest"}
    units = units_of(plan, {*done, teacher.score})
    assert units.nodes[teacher.score] == [teacher.fit]
    assert distil.key in units.ready_after(teacher.fit)


@pytest.mark.parametrize("whole", [True, False])
def test_two_scores_of_one_fit_wait_for_it(whole):
    text = "name: s\naxes: {score.resolution: [training, own]}\nsettings: {encoder: {init: random}}"
    plan = planned(text)
    first, second = plan.cells
    assert first.fit == second.fit
    units = units_of(plan, whole=whole)
    run_all(plan, units)
    if whole:
        assert units.nodes[first.score] == [first.fit, first.score]
        assert units.nodes[second.score] == [second.score]

"""Plans: each stage once, keys that follow from what decides a result and from nothing else."""

from __future__ import annotations

from collections import Counter

from chexseg.stages import fit, score
from chexseg.study import plan, spec

DATA = {"train": "a", "valid": "b", "test": "c"}
GRID = """
name: grid
axes:
  labels.weak: [cam, irnet]
  labels.p: [0, 0.5, 1]
  trial: [0, 1]
also:
  - {distil.fraction: 0.5}
"""


def planned(text: str = GRID, data: dict[str, str] = DATA) -> plan.Plan:
    return plan.plan(spec.parse(text, "x.yaml"), data)


def test_shared_stages_stand_once_and_inputs_come_first():
    found = planned()
    assert Counter(node.stage for node in found.nodes.values()) == {
        "ingest": 3, "classify": 1, "pretrain": 1, "saliency": 1, "irnet": 1, "fit": 11, "distil": 1, "score": 11,
    }  # fmt: skip
    seen: set[str] = set()
    for key, node in found.nodes.items():
        assert set(node.inputs.values()) <= seen
        seen.add(key)


def test_a_student_learns_from_the_fully_supervised_cell_of_its_trial():
    found = planned()
    student = next(cell for cell in found.cells if cell.name == "student 50% trial 0")
    teacher = found.nodes[found.nodes[student.fit].inputs["teacher"]].inputs["teacher"]
    assert teacher == next(cell.fit for cell in found.cells if cell.name == "full trial 0")


def test_a_key_changes_with_all_that_decides_the_result(monkeypatch):
    def score(found: plan.Plan) -> str:
        return next(cell.score for cell in found.cells if cell.name == "cam p=0.5 trial 1")

    base = score(planned())
    assert score(planned(GRID.replace("name: grid", "name: other"))) == base
    assert score(planned(GRID + "resources: {cpu: 2}\n")) == base
    assert score(planned(GRID + "settings: {fit: {epochs: 3}}\n")) != base
    assert score(planned(GRID + "settings: {classify: {epochs: 1}}\n")) != base
    assert score(planned(data={**DATA, "train": "changed"})) != base
    assert score(planned(data={**DATA, "test": "changed"})) != base
    monkeypatch.setattr(fit, "VERSION", fit.VERSION + 1)
    assert score(planned()) != base


def test_only_what_scores_lack_is_needed():
    found = planned()
    assert len(found.needed(set())) == len(found.nodes)
    assert found.needed({cell.score for cell in found.cells}) == []
    one = found.cells[0]
    have = set(found.nodes) - {one.score}
    assert [node.key for node in found.needed(have)] == [one.score]
    have -= {one.fit}
    assert [node.key for node in found.needed(have)] == [one.fit, one.score]


def test_planning_imports_neither_ray_nor_torch():
    import subprocess
    import sys

    code = "import sys, chexseg.study.plan, chexseg.study.summary; print(sorted({'ray', 'torch'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_settings_that_do_not_reach_a_cell_make_no_second_trial_of_it():
    found = planned("name: g\naxes: {labels.p: [0, 1], labels.weak: [cam, irnet], irnet.threshold: [0.5, 0.6]}")
    assert [cell.name for cell in found.cells] == [
        "cam p=0 trial 0",
        "irnet p=0 threshold=0.5 trial 0",
        "irnet p=0 threshold=0.6 trial 0",
        "full trial 0",
    ]
    assert [cell.row()["other"] for cell in found.cells] == ["", "threshold=0.5", "threshold=0.6", ""]


def test_the_official_rule_is_planned_and_told_by_its_effective_p():
    found = planned("name: g\naxes: {labels.p: [0.05, 0.85]}\nsettings: {labels: {mixing: official}}")
    assert [cell.row()["p"] for cell in found.cells] == [0.0, 0.8]
    assert found.nodes[found.cells[0].fit].config["p"] == 0.0


def test_another_resolution_is_another_score_of_the_same_fit_and_reads_the_raw_data():
    found = planned("name: g\naxes: {labels.p: [0, 1], score.resolution: [training, own]}")
    assert [cell.name for cell in found.cells] == [
        "cam p=0 resolution=training trial 0",
        "cam p=0 resolution=own trial 0",
        "full resolution=training trial 0",
        "full resolution=own trial 0",
    ]
    training, own, *_ = found.cells
    assert training.fit == own.fit and training.score != own.score
    assert found.nodes[training.score].inputs == found.nodes[own.score].inputs
    assert [found.nodes[cell.score].data for cell in (training, own)] == [None, DATA["test"]]
    changed = planned("name: g\nsettings: {score: {resolution: own}}", {**DATA, "test": "changed"})
    assert changed.cells[0].score not in found.nodes


def test_scores_from_before_there_was_a_resolution_keep_their_key():
    assert score.Config().model_dump(mode="json") == {}
    assert planned("name: g").cells[0].score == planned("name: g\nsettings: {score: {resolution: training}}").cells[0].score

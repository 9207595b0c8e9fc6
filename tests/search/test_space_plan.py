"""Test the space of a search: errors in its file, its points, and its plan and status."""

from __future__ import annotations

import json

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.search import space_plan, status
from chexseg.search.optuna_study import OptunaStudy
from chexseg.store.store import Store
from tests.search.searches import IMAGES, finish, grid, searched

MISTAKES = {
    "labels.p: {low: 0, high: 2}\nsearch: {}": (
        "x.yaml:3: axes.labels.p: found 2.0; expected: at most 1"
    ),
    "labels.p: {low: 1,\n    high: 0}\nsearch: {}": (
        "x.yaml:4: axes.labels.p.high: found 0; expected: above low, 1"
    ),
    "labels.p: {low: 0}\nsearch: {}": (
        "x.yaml:3: axes.labels.p.high: is missing; expected: a number"
    ),
    "labels.p: {low: zero, high: 1}\nsearch: {}": (
        "x.yaml:3: axes.labels.p.low: found 'zero'; expected: a number"
    ),
    "labels.p: {low: 0, hihg: 1}\nsearch: {}": (
        "x.yaml:3: axes.labels.p.hihg: no such key (did you mean 'high'?); allowed: low, high, "
        "log, step"
    ),
    "label.p: {low: 0, high: 1}\nsearch: {}": (
        "x.yaml:3: axes.label.p: no such setting (did you mean 'labels.p'?)"
    ),
    "labels: {low: 0, high: 1}\nsearch: {}": (
        "x.yaml:3: axes.labels: found 0.0; expected: a mapping"
    ),
    "labels.p: {low: 0, high: 1, log: true}\nsearch: {}": (
        "axes.labels.p.log: found true; expected: false, or low above 0"
    ),
    "fit.learning_rate: {low: 1, high: 2, log: true, step: 1}\nsearch: {}": (
        "step: found 1; expected: no step together with log"
    ),
    "labels.p: {low: 0, high: 1}": (
        "x.yaml:3: axes.labels.p: found a range; expected: a list of values, or a section search"
    ),
    "labels.p: 1\nsearch: {}": (
        "found 1; expected: a list of values, or in a search a range: {low: .., high: ..}"
    ),
    "labels.weak: {low: 0, high: 1}\nsearch: {}": (
        "axes.labels.weak: found 0.0; allowed: 'cam', 'cam++' or 'irnet'"
    ),
    "fit.flips: {low: 0, high: 1}\nsearch: {}": (
        "found a range for a setting that is not a number; expected: a list of values"
    ),
    "fit.epochs: {low: 1.5, high: 3}\nsearch: {}": (
        "axes.fit.epochs: found 1.5; expected: a whole number"
    ),
    "fit.epochs: {low: 1, high: 3, step: 0.5}\nsearch: {}": (
        "step: found 0.5; expected: a whole number"
    ),
    "size: {low: 64, high: 96, step: 32}\nsearch: {}": (
        "axes.size: cells can't differ in it; hint: put it in settings"
    ),
    "trial: [0, 1]\nsearch: {}": (
        "x.yaml:3: axes.trial: found in a search; hint: search.trials is the number of trials"
    ),
    "labels.p: [0]\nalso: [{trial: 1}]\nsearch: {}": (
        "x.yaml:4: also: found in a search; expected: axes only"
    ),
    "labels.p: [0]\nsearch: {sampler: tpo}": (
        "x.yaml:4: search.sampler: found 'tpo' (did you mean 'tpe'?); allowed: 'tpe' or 'random'"
    ),
    "labels.p: [0]\nsearch: {smpler: tpe}": (
        "x.yaml:4: search.smpler: no such key (did you mean 'sampler'?); allowed: sampler, "
        "pruner, points, trials, seed"
    ),
    "labels.p: [0]\nsearch: {points: 0}": "x.yaml:4: search.points: found 0; expected: at least 1",
    "labels.p: [0]\nsearch: {}\nresources: {workers: 2}": (
        "x.yaml:5: resources.workers: found 2 in a search; expected: 1"
    ),
    "labels.p: [0]\nsearch: {}\nsettings: {labels: {expert_split: {select: 0}}}": (
        "select: found 0 in a search"
    ),
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_line_that_says_all(text):
    with pytest.raises(UserError) as caught:
        study_file.parse(f"name: s\naxes:\n  {text}", "x.yaml")
    assert MISTAKES[text] in str(caught.value)
    assert str(caught.value).startswith("x.yaml:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("axis", "stage"),
    [
        ("saliency.images: {low: 10, high: 90}", "saliency"),
        ("labels.expert_split.train: {low: 10, high: 90}", "saliency"),
        ("seed: {low: 0, high: 5}", "pretrain"),
        ("classify.learning_rate: {low: 0.001, high: 0.1}", "classify"),
        ("distil.fraction: {low: 0.1, high: 0.5}", "distil"),
    ],
)
def test_a_range_that_reaches_a_shared_stage_is_refused(axis, stage):
    search = searched(f"name: s\naxes:\n  {axis}\nsettings: {{labels: {{p: 0.5}}}}\nsearch: {{}}")
    with pytest.raises(
        UserError, match=f"found a range that {stage} depends on.*expected a list of values"
    ):
        search.upstream()


def test_a_range_that_no_cell_depends_on_is_refused():
    with pytest.raises(
        UserError,
        match="axes.distil.temperature: found a range that no cell of this study depends on",
    ):
        searched("name: s\naxes:\n  distil.temperature: {low: 1, high: 9}\nsearch: {}").check()
    searched(
        "name: s\naxes:\n  labels.p: [1, 0.5]\n  labels.weak_images: {low: 1, high: 2}\nsearch: {}"
    ).check()


def test_shared_stages_are_those_of_every_choice_each_once_and_no_points():
    search = searched()
    upstream = search.upstream()
    stages = sorted(node.stage for node in upstream.nodes.values())
    assert stages == ["classify", "ingest", "ingest", "ingest", "irnet", "pretrain", "saliency"]
    assert upstream.cells == [] and upstream.needed([]) == list(upstream.nodes.values())
    assert upstream.needed(upstream.nodes) == []
    planned = search.plan([{"labels.weak": "irnet", "labels.p": 0.3, "fit.learning_rate": 0.002}])
    assert planned.nodes.keys() - upstream.nodes.keys() == {
        key for cell in planned.cells for key in (cell.fit, cell.score)
    }


def test_a_students_teacher_is_a_shared_stage():
    text = (
        "name: s\naxes: {distil.fraction: [0.1, 0.2], distil.temperature: {low: 1, high: "
        "20}}\nsearch: {trials: 2}"
    )
    search = searched(text)
    upstream = search.upstream()
    assert (
        sorted(node.stage for node in upstream.nodes.values() if node.stage in ("fit", "distil"))
        == ["distil"] * 4 + ["fit"] * 2
    )
    planned = search.plan([{"distil.fraction": 0.2, "distil.temperature": 3.0}])
    assert all(
        set(planned.nodes[cell.fit].inputs.values()) <= upstream.nodes.keys()
        for cell in planned.cells
    )


def test_a_point_is_a_grids_cell_of_the_same_settings():
    cells = {cell.name: cell.fit for cell in grid().cells}
    points = (
        searched()
        .plan([{"labels.weak": "irnet", "labels.p": 0.5, "fit.learning_rate": 0.001}])
        .cells
    )
    assert [cell.fit for cell in points] == [
        cells["irnet p=0.5 trial 0"],
        cells["irnet p=0.5 trial 1"],
    ]


def test_no_point_reads_a_test_image_before_it_is_scored():
    search = searched()
    planned = search.plan([{"labels.weak": "irnet", "labels.p": 0.5, "fit.learning_rate": 0.001}])
    tests = {
        key
        for key, node in planned.nodes.items()
        if node.stage == "ingest" and node.config["split"] == "test"
    }
    reached, pending = set(), [cell.fit for cell in planned.cells]
    while pending:
        key = pending.pop()
        reached.add(key)
        pending += planned.nodes[key].inputs.values()
    assert len(tests) == 1 and not reached & tests


def test_points_that_are_drawn_lie_in_the_space_and_on_its_steps(tmp_path):
    text = """
name: s
axes:
  labels.p: {low: 0.1, high: 0.9, step: 0.1}
  fit.batch_size: {low: 2, high: 16, log: true}
  fit.clip_norm: [null, 1]
  labels.expert_split: [{train: 20, select: 4}, {train: 10, select: 4}]
search: {points: 12, sampler: random}
"""
    optuna_study = OptunaStudy(searched(text), Store(tmp_path))
    optuna_study.open()
    points = [optuna_study.ask()[1] for _ in range(12)]
    assert {point["labels.p"] for point in points} <= {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    assert all(
        isinstance(point["fit.batch_size"], int) and 2 <= point["fit.batch_size"] <= 16
        for point in points
    )
    assert {point["fit.clip_norm"] for point in points} == {None, 1}
    assert {point["labels.expert_split"]["train"] for point in points} == {10, 20}
    assert len({json.dumps(point) for point in points}) == 12
    assert all(optuna_study.point(optuna_study.params(point)) == point for point in points)


def test_plan_and_status_of_a_search(tmp_path):
    store = Store(tmp_path / "store")
    summary = status.summarise(searched(), store, IMAGES)
    assert not store.backend.local.exists(), "reading writes nothing"
    text = summary.plan_text()
    assert "s: 6 points, each the mean of 2 trials; sampler tpe, pruner median" in text
    assert (
        "0.0001 to 0.01, log" in text and "cam, irnet" in text and "at most 12 fits to come" in text
    )
    assert "0 of 6 points tried" in summary.status_text()
    optuna_study = OptunaStudy(searched(), store)
    optuna_study.open()
    trial, point = optuna_study.ask()
    planned = optuna_study.search.plan([point])
    for cell in planned.cells:
        finish(store, planned, cell.fit, 0.25)
        finish(store, planned, cell.score, None)
    optuna_study.complete(trial, [cell.fit for cell in planned.cells], ())
    summary = status.summarise(searched(), store)
    assert (
        "1 of 6 points tried" in summary.status_text()
        and "best: mIoU 0.250" in summary.status_text()
    )
    answer = summary.status_dict()
    assert not answer["complete"]
    assert [cell["key"] for cell in answer["cells"]] == [cell.score for cell in planned.cells]
    assert answer["search"]["best"] == {
        "selection_miou": 0.25,
        "point": point,
        "confirmed": True,
    }
    planned = status.summarise(searched(), store, IMAGES).plan_dict()
    assert json.loads(json.dumps(planned))["search"]["space"]["labels.p"]["high"] == 1


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ("", True),
        ("  fit: {epoch_size: used-images}", True),
        ("  irnet: {architecture: resnet18, freeze_backbone: false}", True),
        ("  fit: {epoch_size: expert-and-weak}", False),
        ("  ingest: {mask_resize: area}", False),
        ("  labels: {expert_split: {by: image}}", False),
    ],
)
def test_a_setting_that_was_added_later_leaves_the_optuna_study_as_it_was(setting, same):
    """The first identity was computed by a version without these settings."""
    text = (
        "name: pinned\naxes: {labels.p: {low: 0.1, high: 0.9}}\nsearch: {trials: 5}\n"
        "settings:\n  size: 64\n"
    )
    irnet = "" if "irnet" in setting else "  irnet: {architecture: resnet18}\n"
    study = study_file.parse(text + irnet + setting, "x.yaml")
    identity = space_plan.identity(study, {"train": "a", "valid": "b"}, {})
    assert (identity == "1cb59b4f") == same

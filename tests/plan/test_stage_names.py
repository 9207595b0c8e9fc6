"""Test the settings that trackers get for a stage run, by its name."""

from __future__ import annotations

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.stage_names import settings_of_names

TEXT = """
name: s
axes: {fit.loss: [class-average-dice, cross-entropy], labels.p: [0.5, 1], trial: [0, 1]}
settings: {encoder: {init: random}, labels: {weak: cam}, classify: {epochs: 2}}
"""
PLAN = planner.plan(study_file.parse(TEXT, "s.yaml"), {"train": "a", "valid": "b", "test": "c"})
OF_NAME = settings_of_names(PLAN.nodes, PLAN.cells)


def test_a_fit_has_the_settings_that_affect_its_cell():
    full = OF_NAME("full loss=cross-entropy trial 1, fit")
    assert (full["fit.loss"], full["labels.p"], full["trial"]) == ("cross-entropy", 1, 1)
    assert full["size"] == 320 and full["encoder.init"] == "random"
    weak = OF_NAME("cam p=0.5 loss=class-average-dice trial 0, fit")
    assert (weak["labels.p"], weak["classify.epochs"]) == (0.5, 2)
    assert "classify.epochs" not in full and "irnet.epochs" not in weak
    differing = {name for name in full.keys() & weak.keys() if full[name] != weak[name]}
    assert differing == {"fit.loss", "labels.p", "trial"}


def test_a_shared_stage_has_its_own_settings():
    assert OF_NAME("classify")["classify.epochs"] == 2
    assert all(name.startswith("classify.") for name in OF_NAME("classify"))


def test_another_name_has_none():
    assert OF_NAME("point 1") == {}

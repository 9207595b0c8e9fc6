"""Test what the analysis takes from the plan of a study without results."""

from __future__ import annotations

from chexseg.analysis import load
from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.store.store import Store
from tests.plan.test_planner import DATA


def test_the_settings_of_weak_labels_name_both_values_of_inputs_of_one_stage(tmp_path):
    """A classifier of crops needs the images in two geometries."""
    plan = planner.plan(
        study_file.parse(
            "name: s\naxes: {classify.geometry: [pad, crop]}\n"
            "settings: {labels: {p: 0, weak: irnet}, irnet: {boundaries: false}}\n",
            "x.yaml",
        ),
        DATA,
    )
    cams = {
        labels.settings["classify.geometry"]: labels.settings
        for labels in load.study_results(plan, Store(tmp_path)).weak_labels
        if labels.kind == "irnet"
    }
    assert cams["pad"]["ingest.geometry"] == "pad"
    assert cams["crop"]["ingest.geometry"] == "pad and short-side"
    for settings in cams.values():
        assert settings["ingest.size"] == 320 and settings["irnet.boundaries"] is False
        assert "ingest.split" not in settings and "irnet.momentum" not in settings

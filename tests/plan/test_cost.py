"""Test a plan's estimated cost: by pixels processed, from measurements, else a labelled guess."""

from __future__ import annotations

from typing import Any

import pytest

from chexseg.config import study_file
from chexseg.plan import cost, planner
from chexseg.plan.graph import Plan
from chexseg.stages.registry import STAGES

DATA = {"train": "a", "valid": "b", "test": "c"}
COUNTS = {"train": 1000, "valid": 200, "test": 100}
STUDY = """
name: costs
axes: {fit.epochs: [10, 20], labels.p: [0.5, 1]}
settings: {size: 96, encoder: {init: random}, labels: {weak_images: 53}}
resources: {gpu: 0.25}
"""


def planned(text: str = STUDY) -> Plan:
    return planner.plan(study_file.parse(text, "x.yaml"), DATA)


def finished(
    study_plan: Plan, seconds: dict[str, float], device: str = "cpu"
) -> list[dict[str, Any]]:
    """Return manifests of some nodes, by key."""
    made = []
    for key, took in seconds.items():
        node = study_plan.nodes[key]
        facts: dict[str, Any] = (
            {"images": COUNTS[node.config["split"]]} if node.stage == "ingest" else {}
        )
        manifest = {
            "key": key,
            "stage": node.stage,
            "config": node.config,
            "inputs": node.inputs,
            "facts": facts,
        }
        made.append(manifest | {"seconds": took, "device": device})
    return made


def by_name(study_plan: Plan) -> dict[str, str]:
    return {cell.name: cell.fit for cell in study_plan.cells}


def test_results_from_before_a_setting_was_added_are_measurements():
    study_plan = planned()
    (key,) = (key for key, node in study_plan.nodes.items() if node.stage == "classify")
    ingested = study_plan.nodes[key].inputs
    manifests = finished(study_plan, dict.fromkeys(ingested.values(), 1.0) | {key: 500.0})
    for manifest in manifests:
        added = STAGES[manifest["stage"]].config.ADDED
        kept = {name: value for name, value in manifest["config"].items() if name not in added}
        assert len(kept) < len(manifest["config"])
        manifest["config"] = kept
    measured = cost.expected(study_plan, manifests, COUNTS)[key]
    assert measured.measured and measured.seconds == pytest.approx(500)
    manifests[-1]["config"] = {"epochs": 3}
    assert not cost.expected(study_plan, manifests, COUNTS)[key].measured


def test_costs_grow_with_epochs_and_images():
    study_plan = planned()
    costs = cost.expected(study_plan, [], COUNTS)
    fits = {name: costs[key].seconds for name, key in by_name(study_plan).items()}
    assert fits["full epochs=20 trial 0"] == pytest.approx(2 * fits["full epochs=10 trial 0"])
    assert fits["cam p=0.5 epochs=10 trial 0"] == pytest.approx(
        200 / 147 * fits["full epochs=10 trial 0"]
    )
    assert not any(study_plan.measured or study_plan.gpu for study_plan in costs.values())
    ingest = {
        node.config["split"]: costs[key].seconds
        for key, node in study_plan.nodes.items()
        if node.stage == "ingest"
    }
    assert ingest["train"] == pytest.approx(5 * ingest["valid"])


def test_what_was_measured_replaces_the_guess_in_proportion():
    study_plan = planned()
    names = by_name(study_plan)
    ingests = {key: 1.0 for key, node in study_plan.nodes.items() if node.stage == "ingest"}
    store = finished(study_plan, ingests | {names["full epochs=10 trial 0"]: 30.0}, device="cuda")
    costs = cost.expected(study_plan, store, COUNTS)
    twice = costs[names["full epochs=20 trial 0"]]
    assert twice.measured and twice.seconds == pytest.approx(60)
    assert twice.gpu_hours == pytest.approx(60 * 0.25 / 3600)
    classify = next(
        costs[key] for key, node in study_plan.nodes.items() if node.stage == "classify"
    )
    assert not classify.measured and not classify.gpu_hours


def test_another_size_of_image_is_another_cost():
    small, large = planned(), planned(STUDY.replace("size: 96", "size: 192"))
    ingests = {key: 1.0 for key, node in small.nodes.items() if node.stage == "ingest"}
    store = finished(small, ingests | {by_name(small)["full epochs=10 trial 0"]: 30.0})
    assert cost.expected(large, store, COUNTS)[
        by_name(large)["full epochs=10 trial 0"]
    ].seconds == pytest.approx(120)


def test_of_several_rates_those_of_the_same_architecture_count():
    study_plan = planned(STUDY.replace("{init: random}", "{init: random, architecture: resnet34}"))
    other = planned()
    ingests = {key: 1.0 for key, node in study_plan.nodes.items() if node.stage == "ingest"}
    store = finished(study_plan, ingests | {by_name(study_plan)["full epochs=10 trial 0"]: 50.0})
    store += finished(other, {by_name(other)["full epochs=10 trial 0"]: 30.0})
    assert cost.expected(study_plan, store, COUNTS)[
        by_name(study_plan)["full epochs=20 trial 0"]
    ].seconds == pytest.approx(100)
    assert cost.expected(other, store, COUNTS)[
        by_name(other)["full epochs=20 trial 0"]
    ].seconds == pytest.approx(60)


@pytest.mark.parametrize("fields", [{"config": {}}, {"stage": "gone"}, {"facts": {"images": "x"}}])
def test_a_result_that_no_stage_of_today_could_make_counts_for_nothing(fields):
    found = planned()
    names = by_name(found)
    ingests = {key: 1.0 for key, node in found.nodes.items() if node.stage == "ingest"}
    store = finished(found, ingests | {names["full epochs=10 trial 0"]: 30.0})
    costs = cost.expected(found, [about | fields for about in store], COUNTS)
    measured = [key for key, expected in costs.items() if expected.measured]
    assert measured == [] or "facts" in fields


@pytest.mark.parametrize("missing", ["samples_per_epoch", "expert_train", "epochs"])
def test_a_fit_of_a_version_without_a_setting_counts_for_nothing(missing):
    study_plan = planned()
    fit = study_plan.cells[0].fit
    inputs = dict.fromkeys(study_plan.nodes[fit].inputs.values(), 1.0)
    manifests = finished(study_plan, inputs | {fit: 100.0})
    older = [
        manifest | {"config": {k: v for k, v in manifest["config"].items() if k != missing}}
        if manifest["stage"] == "fit"
        else manifest
        for manifest in manifests
    ]
    assert cost.expected(study_plan, manifests, COUNTS)[fit].measured
    assert not cost.expected(study_plan, older, COUNTS)[fit].measured


def test_a_fit_of_before_a_setting_that_keeps_its_results_counts():
    study_plan = planned()
    fit = study_plan.cells[0].fit
    inputs = dict.fromkeys(study_plan.nodes[fit].inputs.values(), 1.0)
    for manifest in (manifests := finished(study_plan, inputs | {fit: 100.0})):
        added = STAGES[manifest["stage"]].config.ADDED
        manifest["config"] = {k: v for k, v in manifest["config"].items() if k not in added}
    assert cost.expected(study_plan, manifests, COUNTS)[fit].measured

"""Test the published rules of each cell: the config of a fit holds the rule itself."""

from __future__ import annotations

import pytest

from chexseg.config import study_file
from chexseg.config.canonical import canonical
from chexseg.config.settings import Settings
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from tests.plan.test_planner import DATA

RULES = "fit: {checkpoint: published, thresholds: published}"


def planned(text: str) -> Plan:
    return planner.plan(study_file.parse(f"name: s\n{text}", "x.yaml"), DATA)


def fits(text: str, *fields: str) -> dict[str, list]:
    """Return cell's name -> these fields of its fit's config."""
    plan = planned(text)
    return {
        cell.name: [plan.nodes[cell.fit].config[name] for name in fields] for cell in plan.cells
    }


def keys(text: str) -> list[str]:
    return [cell.score for cell in planned(text).cells]


def test_published_is_the_rule_of_each_arm():
    assert fits(
        f"axes: {{labels.p: [0, 0.5, 1]}}\nalso: [{{distil.fraction: 0.1}}]\nsettings: {{{RULES}}}",
        "checkpoint",
        "thresholds",
    ) == {
        "cam p=0 trial 0": ["best-threshold-all", "selection"],
        "cam p=0.5 trial 0": ["best-threshold", "training-batches"],
        "full trial 0": ["best-threshold", "training-batches"],
        "student 10% trial 0": ["best-threshold", "training-batches"],
    }


def test_a_p_that_mixing_rounds_to_zero_is_a_weak_arm():
    labels = "labels: {p: 0.05, mixing: published}"
    assert fits(f"settings: {{{labels}, {RULES}}}", "p", "thresholds") == {
        "cam p=0 trial 0": [0, "selection"]
    }


def test_published_is_the_same_cell_as_the_rule_by_name():
    explicit = "fit: {checkpoint: best-threshold, thresholds: training-batches}"
    assert keys(f"settings: {{{RULES}}}") == keys(f"settings: {{{explicit}}}")
    assert len(keys("axes: {fit.thresholds: [published, training-batches]}")) == 1


def test_a_student_has_its_own_epochs_rate_and_rules_and_its_teacher_keeps_its():
    own = "distil: {fraction: 0.1, epochs: 100, learning_rate: 1.0e-4, thresholds: logit-quantiles}"
    plan = planned(f"settings: {{{own}, {RULES}}}")
    (cell,) = plan.cells
    names = ("epochs", "learning_rate", "checkpoint", "thresholds")
    student = plan.nodes[cell.fit]
    teacher = plan.nodes[plan.nodes[student.inputs["teacher"]].inputs["teacher"]]
    assert [student.config[n] for n in names] == [100, 1e-4, "best-threshold", "logit-quantiles"]
    assert [teacher.config[n] for n in names] == [20, None, "best-threshold", "training-batches"]
    assert cell.as_record()["epochs"] == 100


def test_settings_of_a_student_that_repeat_the_fits_change_nothing():
    repeated = "distil: {fraction: 0.1, epochs: 20, checkpoint: selection, thresholds: training}"
    assert keys(f"settings: {{{repeated}}}") == keys("settings: {distil: {fraction: 0.1}}")
    assert keys("settings: {distil: {epochs: 7, thresholds: published}}") == keys("")
    again = "distil: {fraction: 0.1, thresholds: published}"
    assert keys(f"settings: {{{RULES}, {again}}}") == keys(
        f"settings: {{{RULES}, distil: {{fraction: 0.1}}}}"
    )


def test_epochs_of_table_1_at_p_zero_are_another_cell_and_nowhere_else():
    for labels, different in (("p: 0", True), ("p: 0.5", False), ("p: 1", False)):
        one, other = (
            keys(f"settings: {{labels: {{{labels}}}, fit: {{epoch_size: {size}}}}}")
            for size in ("used-images", "expert-and-weak")
        )
        assert (one != other) == different
    given = "samples_per_epoch: 16"
    assert keys(f"settings: {{labels: {{p: 0}}, fit: {{{given}}}}}") == keys(
        f"settings: {{labels: {{p: 0}}, fit: {{{given}, epoch_size: expert-and-weak}}}}"
    )


def test_uneven_images_matter_only_where_an_epoch_is_longer_than_a_set():
    def mixed(p: float, mixing: str, size: str) -> list[str]:
        return keys(
            f"settings: {{labels: {{p: {p}, mixing: {mixing}}}, fit: {{epoch_size: {size}}}}}"
        )

    assert mixed(1, "published", "used-images") == mixed(1, "exact", "used-images")
    assert mixed(0, "published", "used-images") == mixed(0, "exact", "used-images")
    assert mixed(0, "published", "expert-and-weak") != mixed(0, "exact", "expert-and-weak")
    assert mixed(0, "official", "expert-and-weak") == mixed(0, "exact", "expert-and-weak")
    assert mixed(0.9, "published", "used-images") != mixed(0.9, "official", "used-images")


def test_a_split_by_image_reaches_every_stage_that_splits():
    plan = planned("settings: {labels: {p: 0.5, expert_split: {by: image}}}")
    configs = [node.config for node in plan.nodes.values() if "expert_train" in node.config]
    assert len(configs) == 2
    assert {config["expert_split_by"] for config in configs} == {"image"}


def test_default_settings_are_canonical_as_they_are():
    settings = Settings()
    assert canonical(settings).fit is settings.fit
    assert canonical(settings).distil is settings.distil
    student = Settings.model_validate({"distil": {"fraction": 0.1}})
    assert canonical(student).distil is student.distil


@pytest.mark.parametrize("key", ["fit.thresholds", "distil.thresholds"])
def test_a_threshold_that_is_no_rule_is_refused_in_one_line(key):
    section, name = key.split(".")
    with pytest.raises(UserError) as caught:
        planned(f"settings: {{{section}: {{{name}: best}}}}")
    assert str(caught.value) == (
        f"x.yaml:2: settings.{key}: found 'best'; expected training, training-batches, selection,"
        " logit-quantiles, published, or one of 0, 0.05 .. 0.95"
    )


@pytest.mark.parametrize("rule", ["selection", "published"])
def test_thresholds_chosen_on_images_of_which_there_are_none_are_refused(rule):
    labels = "labels: {p: 0, expert_split: {select: 0}}"
    with pytest.raises(UserError, match=r"labels.expert_split.select: found 0; expected: at least"):
        planned(f"settings: {{{labels}, fit: {{thresholds: {rule}}}}}")
    planned(f"settings: {{{labels}, fit: {{thresholds: training}}}}")


def test_the_resizing_of_masks_matters_only_to_images_that_have_some():
    crops = "classify: {geometry: crop}, labels: {p: 0.5}"
    plans = [
        planned(f"settings: {{ingest: {{mask_resize: {method}}}, {crops}}}")
        for method in ("nearest", "area")
    ]
    one, other = (
        {
            (node.config["split"], node.config["geometry"]): key
            for key, node in plan.nodes.items()
            if node.stage == "ingest"
        }
        for plan in plans
    )
    assert one.keys() == other.keys() and len(one) == 5
    assert {name for name in one if one[name] != other[name]} == {("valid", "pad"), ("test", "pad")}

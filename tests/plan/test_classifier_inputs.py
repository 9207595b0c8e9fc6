"""Test how a classifier's start and input reach the plan: its imports, its strips, its keys."""

from __future__ import annotations

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.graph import Node, Plan

DATA = {"train": "a", "valid": "b", "test": "c"}
IMPORTED = {("imagenet", "densenet121"): "d" * 64, ("imagenet", "resnet18"): "e" * 64}
PUBLISHED = """
name: published
axes: {labels.p: [0.9, 1]}
settings:
  classify: {init: imagenet, geometry: crop, normalisation: imagenet, uncertainty: ignore}
  pretrain: {init: imagenet, geometry: crop, normalisation: imagenet, uncertainty: ignore}
"""


def planned(text: str, imported: dict | None = None) -> Plan:
    return planner.plan(study_file.parse(text, "x.yaml"), DATA, imported)


def stage(plan: Plan, name: str) -> Node:
    (node,) = (node for node in plan.nodes.values() if node.stage == name)
    return node


def sources(plan: Plan, node: Node) -> dict[str, str]:
    """Return role -> stage, split and geometry of an input, or architecture of an import."""
    out = {}
    for role, key in node.inputs.items():
        source = plan.nodes[key]
        words = [source.config.get(name) for name in ("split", "geometry", "architecture")]
        out[role] = " ".join([source.stage, *filter(None, words)])
    return out


def test_published_classifiers_read_strips_and_start_from_imports():
    plan = planned(PUBLISHED, IMPORTED)
    strips = {"train": "ingest train short-side", "valid": "ingest valid short-side"}
    assert sources(plan, stage(plan, "classify")) == strips | {"encoder": "imported densenet121"}
    assert sources(plan, stage(plan, "pretrain")) == strips | {"encoder": "imported resnet18"}
    assert sources(plan, stage(plan, "saliency")) == {
        "train": "ingest train pad",
        "valid": "ingest valid pad",
        "train_strips": "ingest train short-side",
        "valid_strips": "ingest valid short-side",
        "classifier": "classify crop densenet121",
    }
    for cell in plan.cells:
        read = sources(plan, plan.nodes[cell.fit])
        assert read["valid"] == "ingest valid pad"
    ingested = [node for node in plan.nodes.values() if node.stage == "ingest"]
    assert len(ingested) == 5  # nobody crops the test images


def test_padded_classifiers_read_no_strips_and_nothing_is_imported_for_them():
    plan = planned("name: s\naxes: {labels.p: [0.9, 1]}")
    assert sources(plan, stage(plan, "classify")) == {
        "train": "ingest train pad",
        "valid": "ingest valid pad",
    }
    assert {"train_strips", "encoder"}.isdisjoint(stage(plan, "saliency").inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "{labels: {p: 0}, classify: {init: imagenet}}",
            "classify.init: found imagenet: no imagenet encoder of densenet121 is in the store; "
            "import one first: chexseg encoder import [FILE] --kind imagenet --architecture "
            "densenet121",
        ),
        (
            "{pretrain: {init: imagenet}}",
            "pretrain.init: found imagenet: no imagenet encoder of resnet18 is in the store; "
            "import one first: chexseg encoder import [FILE] --kind imagenet --architecture "
            "resnet18",
        ),
        (
            "{encoder: {init: moco}, moco: {init: imagenet}}",
            "moco.init: found imagenet: no imagenet encoder of resnet18 is in the store; "
            "import one first: chexseg encoder import [FILE] --kind imagenet --architecture "
            "resnet18",
        ),
    ],
)
def test_a_missing_import_is_named_with_its_setting_and_its_command(settings, message):
    with pytest.raises(UserError) as raised:
        planned(f"name: s\nsettings: {settings}")
    assert str(raised.value) == message


def test_moco_starts_from_an_import():
    text = "name: s\nsettings: {encoder: {init: moco}, moco: {init: imagenet}}"
    plan = planned(text, IMPORTED)
    assert sources(plan, stage(plan, "moco")) == {
        "train": "ingest train pad",
        "encoder": "imported resnet18",
    }


def test_cells_without_a_classifier_need_none_of_its_imports():
    plan = planned("name: s\nsettings: {encoder: {init: random}, classify: {init: imagenet}}")
    assert {node.stage for node in plan.nodes.values()} == {"ingest", "fit", "score"}


def test_steps_between_checkpoints_are_idle_where_checkpoints_go_by_epochs():
    text = """
name: s
axes: {classify.checkpoint_every: [10, 20], classify.checkpoints_per_epoch: [null, 10]}
settings: {labels: {p: 0}}
"""
    plan = planned(text)
    assert [cell.name for cell in plan.cells] == [
        "cam p=0 checkpoint_every=10 checkpoints_per_epoch=None trial 0",
        "cam p=0 checkpoint_every=4800 checkpoints_per_epoch=10 trial 0",
        "cam p=0 checkpoint_every=20 checkpoints_per_epoch=None trial 0",
    ]
    assert plan.merged_combinations == 1

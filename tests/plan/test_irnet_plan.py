"""Test which settings of IRNet make another stage run, and which inputs they need."""

from __future__ import annotations

import pytest

from chexseg.config import study_file
from chexseg.config.settings import Irnet
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.stages.configuration.irnet import OF_BOUNDARIES

DATA = {"train": "a", "valid": "b", "test": "c"}
IMPORTED = {("imagenet", "resnet18"): "0" * 64, ("imagenet", "resnet50"): "1" * 64}
#: Another value of each setting that has no effect without boundaries.
OTHER = {
    "architecture": "resnet18", "init": "chexpert", "freeze_backbone": "false", "images": 7,
    "epochs": 2, "batch_size": 4, "learning_rate": 0.01, "momentum": 0.0001, "weight_decay": 0,
    "schedule": "constant", "precision": "tf32", "losses": "published",
    "smallest_scale": 0.5, "largest_scale": 1.5,
    "foreground": 0.4, "background": 0.1, "seed_classes": "all", "crf": "true", "radius": 4, "walk_power": 3,
}  # fmt: skip


def planned(irnet: str, axes: str = "", size: int = 128) -> Plan:
    text = (
        f"name: s\nsettings: {{size: {size}, labels: {{p: 0, weak: irnet}}, irnet: {{{irnet}}}}}\n"
        f"axes: {{{axes}}}"
    )
    return planner.plan(study_file.parse(text, "x.yaml"), DATA, IMPORTED)


def walk(plan: Plan):
    (node,) = (node for node in plan.nodes.values() if node.stage == "irnet")
    return node


@pytest.mark.parametrize("init", ["chexpert", "moco"])
def test_the_backbone_is_an_encoder_of_the_study(init):
    stage = {"chexpert": "pretrain", "moco": "moco"}[init]
    plan = planned(f"init: {init}")
    node = walk(plan)
    encoder = plan.nodes[node.inputs["encoder"]]
    assert (encoder.stage, encoder.config["architecture"]) == (stage, "resnet50")
    assert node.config["freeze_backbone"] is True
    # The segmenter's encoder of the same architecture is the same one.
    plan = planned(f"init: {init}, architecture: resnet18", f"encoder.init: [{init}]")
    assert len([node for node in plan.nodes.values() if node.stage == stage]) == 1
    (cell,) = plan.cells
    assert plan.nodes[cell.fit].inputs["encoder"] == walk(plan).inputs["encoder"]
    longer = planned(f"init: {init}", f"{stage}.epochs: [1, 2]", 64)
    assert (
        len({node.inputs["encoder"] for node in longer.nodes.values() if node.stage == "irnet"})
        == 2
    )
    assert [cell.name for cell in longer.cells] == [
        "irnet p=0 epochs=1 trial 0",
        "irnet p=0 epochs=2 trial 0",
    ]


def test_auto_freezes_pretrained_backbones():
    for init, value in (("random", "false"), ("imagenet", "true"), ("chexpert", "true")):
        assert walk(planned(f"init: {init}")).config["freeze_backbone"] is (value == "true")
        plan = planned(f"init: {init}", f"irnet.freeze_backbone: [auto, {value}]")
        assert len(plan.cells) == plan.merged_combinations == 1
    assert len(planned("init: chexpert", "irnet.freeze_backbone: [auto, false]").cells) == 2


@pytest.mark.parametrize("name", sorted(OTHER))
def test_without_boundaries_a_setting_of_the_network_makes_no_second_cell(name):
    value = OTHER[name]
    given = {"smallest_scale": "largest_scale: 2, "}.get(name, "")
    plan = planned(f"{given}boundaries: false", f"irnet.{name}: [{default(name)}, {value}]")
    assert [cell.name for cell in plan.cells] == ["irnet p=0 trial 0"]
    assert walk(plan).inputs.keys() == {"train", "valid", "saliency"}
    if name != "freeze_backbone":  # false is the default of a random backbone
        assert len(planned(given, f"irnet.{name}: [{default(name)}, {value}]", 320).cells) == 2


def default(name: str) -> str:
    value = getattr(Irnet(), name)
    return "null" if value is None else str(value)


def test_every_setting_of_the_network_is_tried():
    assert OTHER.keys() | {"instances"} == set(OF_BOUNDARIES)


@pytest.mark.parametrize("name", ["walk_radius", "walk_steps_log2", "threshold", "normalise"])
def test_without_boundaries_the_walk_has_its_settings(name):
    value = {"threshold": "training", "normalise": "image"}.get(name, 2)
    plan = planned("boundaries: false", f"irnet.{name}: [{default(name)}, {value}]")
    assert len(plan.cells) == 2


def test_lengths_are_the_same_where_they_refer_to():
    axis = "irnet.lengths: [absolute, relative]"
    assert len(planned("", axis, 320).cells) == 1
    assert [cell.name for cell in planned("", axis, 128).cells] == [
        "irnet p=0 lengths=absolute trial 0",
        "irnet p=0 lengths=relative trial 0",
    ]


def test_published_losses_without_a_pair_are_refused_before_a_run():
    with pytest.raises(UserError) as caught:
        planned("losses: published", size=64)
    assert str(caught.value) == (
        "irnet.radius: found 10; with losses: published, the map of 16 x 16 of an image of 64"
        " pixels has border pairs only, which are left out; hint: lengths: relative"
    )
    planned("losses: published, lengths: relative", size=64)
    planned("losses: published", size=96)

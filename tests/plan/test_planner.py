"""Test plans: each stage once, keys that depend only on what decides a result."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import graph, planner
from chexseg.plan.graph import Plan
from chexseg.stages import configs
from chexseg.stages.registry import STAGES

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


def planned(text: str = GRID, data: dict[str, str] = DATA) -> Plan:
    return planner.plan(study_file.parse(text, "x.yaml"), data)


def test_shared_stages_stand_once_and_inputs_come_first():
    study_plan = planned()
    assert Counter(node.stage for node in study_plan.nodes.values()) == {
        "ingest": 3,
        "classify": 1,
        "pretrain": 1,
        "saliency": 1,
        "irnet": 1,
        "fit": 11,
        "distil": 1,
        "score": 11,
    }
    seen: set[str] = set()
    for key, node in study_plan.nodes.items():
        assert set(node.inputs.values()) <= seen
        seen.add(key)


def test_a_student_learns_from_the_fully_supervised_cell_of_its_trial():
    study_plan = planned()
    student = next(cell for cell in study_plan.cells if cell.name == "student 50% trial 0")
    teacher = study_plan.nodes[study_plan.nodes[student.fit].inputs["teacher"]].inputs["teacher"]
    assert teacher == next(cell.fit for cell in study_plan.cells if cell.name == "full trial 0")


UNTRAINED = """
name: untrained
axes: {labels.p: [0.5, 1], trial: [0, 1]}
also:
  - {fit.epochs: 0}
  - {fit.epochs: 0, trial: 1}
settings: {fit: {epochs: 3, samples_per_epoch: 48}}
"""


def test_a_network_without_epochs_is_untrained_and_no_fully_supervised_cell():
    study_plan = planned(UNTRAINED)
    records = {cell.name: cell.as_record() for cell in study_plan.cells}
    assert {name: record["method"] for name, record in records.items()} == {
        "cam p=0.5 trial 0": "mixed",
        "cam p=0.5 trial 1": "mixed",
        "full trial 0": "full",
        "full trial 1": "full",
        "untrained trial 0": "untrained",
        "untrained trial 1": "untrained",
    }
    untrained = next(cell for cell in study_plan.cells if cell.name == "untrained trial 0")
    config = study_plan.nodes[untrained.fit].config
    assert (config["epochs"], config["samples_per_epoch"]) == (0, None), "no setting of a training"


def test_settings_of_a_training_make_no_second_untrained_network():
    rates = planned("name: s\naxes: {fit.epochs: [0, 3], fit.learning_rate: [0.1, 0.2]}\n").cells
    assert [cell.name for cell in rates] == [
        "untrained trial 0",
        "full learning_rate=0.1 trial 0",
        "full learning_rate=0.2 trial 0",
    ]


def test_trained_cells_are_still_named_by_several_numbers_of_epochs():
    names = [cell.name for cell in planned("name: s\naxes: {fit.epochs: [0, 2, 5]}\n").cells]
    assert names == ["untrained trial 0", "full epochs=2 trial 0", "full epochs=5 trial 0"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("axes: {labels.p: [0.5, 1]}", "labels.p 0.5"),
        ("also: [{distil.fraction: 0.1}]", "distil.fraction 0.1"),
    ],
)
def test_an_untrained_network_learns_from_no_label(text, found):
    with pytest.raises(UserError) as error:
        planned(f"name: s\n{text}\nsettings: {{fit: {{epochs: 0}}}}\n")
    assert str(error.value) == (
        f"fit.epochs: found 0, an untrained network, with {found};"
        " expected: at least 1 (hint: `also: [{fit.epochs: 0}]` adds it beside other cells)"
    )


def test_images_are_resized_as_the_study_says_and_the_default_keeps_its_keys():
    resized = planned(f"{GRID}settings: {{ingest: {{mask_resize: area}}}}\n")
    ingests = [node for node in resized.nodes.values() if node.stage == "ingest"]
    assert [node.config["mask_resize"] for node in ingests] == ["nearest", "area", "area"]
    assert {node.key for node in ingests} & set(planned().nodes) == {ingests[0].key}  # no masks
    spelt_out = planned(f"{GRID}settings: {{ingest: {{mask_resize: nearest}}}}\n")
    assert set(spelt_out.nodes) == set(planned().nodes)


STUDENTS = """
name: students
axes:
  encoder.init: [chexpert, random]
  distil.fraction: [0.001, 0, 0.1]
  trial: [0, 1]
also:
  - {distil.fraction: 0.01}
  - {distil.fraction: 0.2, encoder.init: random, trial: 1}
"""


def test_a_teacher_labels_the_largest_fraction_once_for_all_of_its_students():
    study_plan = planned(STUDENTS)
    full = {
        (c.settings.encoder.init, c.settings.trial): c.fit
        for c in study_plan.cells
        if c.as_record()["method"] == "full"
    }
    students = [cell for cell in study_plan.cells if cell.as_record()["method"] == "student"]
    assert (len(full), len(students)) == (4, 10)
    for cell in students:
        student = study_plan.nodes[cell.fit]
        teacher = study_plan.nodes[student.inputs["teacher"]]
        init, trial = cell.settings.encoder.init, cell.settings.trial
        assert teacher.inputs["teacher"] == full[init, trial]
        assert teacher.config["fraction"] == (0.2 if (init, trial) == ("random", 1) else 0.1)
        assert (
            student.config["fraction"]
            == cell.settings.distil.fraction
            == cell.as_record()["fraction"]
        )
    assert Counter(node.stage for node in study_plan.nodes.values())["distil"] == 4


def test_a_student_stays_the_same_when_its_study_asks_for_larger_fractions_too():
    few, many = (
        planned(f"name: g\naxes: {{distil.fraction: {values}}}")
        for values in ("[0, 0.01]", "[0, 0.01, 0.1]")
    )
    names = [
        {cell.name: (cell.fit, cell.score) for cell in study_plan.cells}
        for study_plan in (few, many)
    ]
    assert len(names[1]) == 3 and names[0].items() <= names[1].items()
    teachers = [
        study_plan.nodes[study_plan.nodes[names[0]["student 1% trial 0"][0]].inputs["teacher"]]
        for study_plan in (few, many)
    ]
    assert [teacher.config["fraction"] for teacher in teachers] == [0.01, 0.1]


def test_a_teacher_is_fully_supervised_whatever_the_labels_and_even_where_it_is_no_cell():
    study_plan = planned("name: g\naxes: {labels.p: [0, 0.5], distil.fraction: [0.1, 0.2]}")
    assert [cell.name for cell in study_plan.cells] == [
        "student 10% trial 0",
        "student 20% trial 0",
    ]
    (labelled,) = (node for node in study_plan.nodes.values() if node.stage == "distil")
    teacher = study_plan.nodes[labelled.inputs["teacher"]]
    assert (teacher.config["supervision"], teacher.config["p"], teacher.config["fraction"]) == (
        "masks",
        1.0,
        None,
    )


def test_a_key_changes_with_all_that_decides_the_result(monkeypatch):
    def score(study_plan: Plan) -> str:
        return next(cell.score for cell in study_plan.cells if cell.name == "cam p=0.5 trial 1")

    base = score(planned())
    assert score(planned(GRID.replace("name: grid", "name: other"))) == base
    assert score(planned(GRID + "resources: {cpu: 2}\n")) == base
    assert score(planned(GRID + "settings: {fit: {epochs: 3}}\n")) != base
    assert score(planned(GRID + "settings: {classify: {epochs: 1}}\n")) != base
    assert score(planned(data={**DATA, "train": "changed"})) != base
    assert score(planned(data={**DATA, "test": "changed"})) != base
    monkeypatch.setitem(STAGES, "fit", replace(STAGES["fit"], version=STAGES["fit"].version + 1))
    assert score(planned()) != base


def test_an_added_field_changes_a_key_only_with_another_value(monkeypatch):
    config = configs.SaliencyConfig()
    before = graph.node_of("saliency", config, {}).key
    fields = config.model_dump(mode="json")
    added = {**configs.SaliencyConfig.ADDED, "seeding": "none"}
    monkeypatch.setattr(configs.SaliencyConfig, "ADDED", added)
    assert graph.node_of("saliency", fields | {"seeding": "none"}, {}).key == before
    assert graph.node_of("saliency", fields | {"seeding": "otsu"}, {}).key != before


def test_added_fields_have_the_value_of_earlier_versions_as_default():
    for stage in STAGES.values():
        for name, value in stage.config.ADDED.items():
            assert stage.config.model_fields[name].default == value


def test_only_what_scores_lack_is_needed():
    study_plan = planned()
    assert len(study_plan.needed(set())) == len(study_plan.nodes)
    assert study_plan.needed({cell.score for cell in study_plan.cells}) == []
    one = study_plan.cells[0]
    have = set(study_plan.nodes) - {one.score}
    assert [node.key for node in study_plan.needed(have)] == [one.score]
    have -= {one.fit}
    assert [node.key for node in study_plan.needed(have)] == [one.fit, one.score]


def test_planning_imports_neither_ray_nor_torch():
    import subprocess
    import sys

    code = (
        "import sys, chexseg.plan.planner, chexseg.plan.status; print(sorted({'ray', 'torch'} & "
        "set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_settings_that_do_not_reach_a_cell_make_no_second_trial_of_it():
    study_plan = planned(
        "name: g\naxes: {labels.p: [0, 1], labels.weak: [cam, irnet], irnet.threshold: [0.5, 0.6]}"
    )
    assert [cell.name for cell in study_plan.cells] == [
        "cam p=0 trial 0",
        "irnet p=0 threshold=0.5 trial 0",
        "irnet p=0 threshold=0.6 trial 0",
        "full trial 0",
    ]
    assert [cell.as_record()["other"] for cell in study_plan.cells] == [
        "",
        "threshold=0.5",
        "threshold=0.6",
        "",
    ]


def test_the_official_rule_is_planned_and_told_by_its_effective_p():
    study_plan = planned(
        "name: g\naxes: {labels.p: [0.05, 0.85]}\nsettings: {labels: {mixing: official}}"
    )
    assert [cell.as_record()["p"] for cell in study_plan.cells] == [0.0, 0.8]
    assert study_plan.nodes[study_plan.cells[0].fit].config["p"] == 0.0


INITS = """
name: inits
axes: {encoder.init: [random, imagenet, chexpert, moco], moco.epochs: [1, 2]}
"""


def test_each_of_the_four_inits_has_its_own_source_and_only_moco_minds_its_settings():
    study = study_file.parse(INITS, "x.yaml", {"moco.queue": 64, "seed": 3})
    study_plan = planner.plan(study, DATA, {("imagenet", "resnet18"): "a" * 64})
    assert [cell.name for cell in study_plan.cells] == [
        "full init=random trial 0",
        "full init=imagenet trial 0",
        "full init=chexpert trial 0",
        "full init=moco epochs=1 trial 0",
        "full init=moco epochs=2 trial 0",
    ]
    sources = [study_plan.nodes[cell.fit].inputs.get("encoder") for cell in study_plan.cells]
    stages = [key and study_plan.nodes[key].stage for key in sources]
    assert stages == [None, "imported", "pretrain", "moco", "moco"]
    node = study_plan.nodes[sources[-1]]
    assert {
        name: node.config[name] for name in ("architecture", "epochs", "queue", "momentum", "seed")
    } == {
        "architecture": "resnet18",
        "epochs": 2,
        "queue": 64,
        "momentum": 0.999,
        "seed": 3,
    }
    assert {role: study_plan.nodes[key].label for role, key in node.inputs.items()} == {
        "train": "ingest train"
    }
    assert [study_plan.nodes[cell.fit].config["init"] for cell in study_plan.cells] == [
        "random",
        "imagenet",
        "chexpert",
        "moco",
        "moco",
    ]


def test_trials_share_one_moco_and_no_label_reaches_it():
    text = (
        "name: g\naxes: {trial: [0, 1], labels.p: [0, 1]}\nsettings: {encoder: {init: moco}, "
        "classify: {epochs: %d}}"
    )
    study_plan = [planned(text % epochs) for epochs in (1, 2)]
    for one in study_plan:
        assert Counter(node.stage for node in one.nodes.values())["moco"] == 1
    keys = [{node.key for node in one.nodes.values() if node.stage == "moco"} for one in study_plan]
    assert keys[0] == keys[1]


def test_another_resolution_is_another_score_of_the_same_fit_and_reads_the_raw_data():
    study_plan = planned("name: g\naxes: {labels.p: [0, 1], score.resolution: [training, own]}")
    assert [cell.name for cell in study_plan.cells] == [
        "cam p=0 resolution=training trial 0",
        "cam p=0 resolution=own trial 0",
        "full resolution=training trial 0",
        "full resolution=own trial 0",
    ]
    training, native, *_ = study_plan.cells
    assert training.fit == native.fit and training.score != native.score
    assert study_plan.nodes[training.score].inputs == study_plan.nodes[native.score].inputs
    assert [study_plan.nodes[cell.score].data for cell in (training, native)] == [
        None,
        DATA["test"],
    ]
    changed = planned("name: g\nsettings: {score: {resolution: own}}", {**DATA, "test": "changed"})
    assert changed.cells[0].score not in study_plan.nodes


#: Key of each stage's last node in the plan of PINNED, at version 0, as of the first release. A
#: changed key makes all stored results of the stage a miss: raise its VERSION instead, and leave
#: these keys unchanged.
PINS = {
    "ingest": "4f89535f2334",
    "pretrain": "38350aa3bc2d",
    "fit": "bc922f70e31f",
    "classify": "d5d7892001d0",
    "saliency": "07784c64b41b",
    "score": "932356159f29",
    "imported": "74ee701cca25",
    "moco": "d24779b48544",
    "irnet": "f463811492ad",
    "distil": "d2359d56f58e",
}
PINNED = """
name: pinned
axes:
  labels.weak: [cam, cam++, irnet]
  labels.p: [0, 0.85, 1]
  encoder.init: [random, imagenet, chexpert, moco]
also:
  - {distil.fraction: 0.01, trial: 1}
  - {distil.fraction: 0.1, trial: 1}
  - {score.resolution: own, encoder: {init: moco, imported: true}}
settings:
  pathologies: [Edema, Airspace Opacity]
  seed: 3
  classify: {uncertainty: {Edema: ones}}
  irnet: {init: imagenet, freeze_backbone: false}
  labels: {mixing: official, prefer_positives: true}
"""


def test_the_keys_of_finished_results_stay_what_they_were(monkeypatch):
    for name, stage in STAGES.items():
        monkeypatch.setitem(STAGES, name, replace(stage, version=0))
    encoders = {
        ("imagenet", "resnet18"): 0,
        ("chexpert", "resnet18"): 1,
        ("moco-cxr", "resnet18"): 2,
        ("imagenet", "resnet50"): 3,
    }
    study_plan = planner.plan(
        study_file.parse(PINNED, "x.yaml"),
        DATA,
        {name: 64 * str(digit) for name, digit in encoders.items()},
    )
    assert len(study_plan.nodes) == 76
    assert {node.stage: key[:12] for key, node in study_plan.nodes.items()} == PINS


def test_what_cells_share_is_made_once_however_many_there_are(monkeypatch):
    made, node_of = Counter(), graph.node_of
    monkeypatch.setattr(
        graph, "node_of", lambda stage, *rest: (made.update([stage]), node_of(stage, *rest))[1]
    )
    study_plan = planned(
        "name: g\naxes: {labels.weak: [cam, irnet], labels.p: [0.1, 0.2, 0.3], fit.epochs: [1, "
        "2], trial: [0, 1, 2]}"
    )
    assert len(study_plan.cells) == 36
    # Both kinds of weak labels need the shared stages.
    assert made == {
        "ingest": 3,
        "pretrain": 2,
        "classify": 2,
        "saliency": 2,
        "irnet": 1,
        "fit": 36,
        "score": 36,
    }


MASKS = """
name: masks
settings: {labels: {p: 0}}
axes:
  labels.weak: [cam, cam++, irnet]
  saliency.threshold: [training, otsu]
  saliency.target: [logit, probability]
  saliency.layer: [after-relu, before-relu]
"""


def test_a_rule_of_masks_makes_another_cell_only_where_it_matters():
    study_plan = planned(MASKS)
    cells = Counter(cell.settings.labels.weak for cell in study_plan.cells)
    # CAM: each layer with the tuned threshold, and with Otsu's for two targets. Grad-CAM++ has its
    # layer and target. IRNet reads the scores of both layers and no masks.
    assert cells == {"cam": 6, "cam++": 2, "irnet": 2}
    names = {cell.name for cell in study_plan.cells}
    assert "irnet p=0 layer=before-relu trial 0" in names
    assert "cam p=0 layer=after-relu threshold=training trial 0" in names
    assert "cam++ p=0 threshold=otsu trial 0" in names


def test_irnet_starts_from_the_cams_of_its_study():
    text = "name: g\nsettings: {labels: {p: 0}, saliency: {threshold: otsu}}\n"
    study_plan = planned(f"{text}axes: {{labels.weak: [cam, irnet]}}")
    (cams,) = (key for key, node in study_plan.nodes.items() if node.stage == "saliency")
    (irnet,) = (node for node in study_plan.nodes.values() if node.stage == "irnet")
    assert irnet.inputs["saliency"] == cams
    default = planned("name: g\nsettings: {labels: {p: 0, weak: irnet}}")
    assert irnet.key in default.nodes


def test_a_layer_before_the_relu_needs_the_densenet():
    text = "name: g\nsettings: {labels: {p: 0}, saliency: {layer: before-relu}, classify: "
    planned(f"{text}{{}}}}")
    with pytest.raises(UserError, match="saliency.layer: found before-relu for classify.arch"):
        planned(f"{text}{{architecture: resnet18}}}}")


@pytest.mark.parametrize("value", ["ostu", 1, -0.1])
def test_a_threshold_of_maps_is_a_rule_or_a_share(value):
    with pytest.raises(UserError, match="training, otsu, otsu-scaled, or a number"):
        planned(f"name: g\nsettings: {{saliency: {{threshold: {value}}}}}")

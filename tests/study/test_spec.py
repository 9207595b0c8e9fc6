"""Study files: what they mean, and what a mistake in one gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from chexseg.errors import UserError
from chexseg.study import plan, search, spec

STUDIES = Path(__file__).resolve().parents[2] / "studies"
DATA = {"train": "a", "valid": "b", "test": "c"}


def test_the_papers_48_combinations_are_45_cells():
    planned = plan.plan(spec.load(STUDIES / "semi_supervised.yaml"), DATA)
    assert planned.combinations == 48
    assert len(planned.cells) == 45
    assert len({cell.score for cell in planned.cells}) == 45
    assert [cell.name for cell in planned.cells if cell.settings.labels.p == 1] == [f"full trial {t}" for t in range(3)]


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_study_plans(path):
    study, imported = spec.load(path), {("imagenet", "resnet18"): "0" * 64}
    if study.search:
        searched = search.Search(study, DATA, imported)
        searched.check()
        planned = searched.plan(list(searched.middles()))
    else:
        planned = plan.plan(study, DATA, imported)
    assert planned.cells
    assert all(set(node.inputs.values()) <= set(planned.nodes) for node in planned.nodes.values())


MISTAKES = {
    "name: s\nresources: {gpu: 0.5, workers: 2}": (
        "x.yaml:2: resources: found {'gpu': 0.5, 'workers': 2}; workers: found 2 with gpu: 0.5; allowed: a whole GPU each,"
        " or none"
    ),
    "name: s\nsettings:\n  fit: {epoch: 3}": (
        "x.yaml:3: settings.fit.epoch: no such key (did you mean 'epochs'?); allowed: epochs, batch_size,"
        " learning_rate, schedule, loss, clip_norm, flips, precision, channels_last, compile, checkpoint, thresholds,"
        " samples_per_epoch"
    ),
    "name: s\naxes:\n  labels.weak: [cma]": (
        "x.yaml:3: axes.labels.weak: labels.weak: found 'cma'; input should be 'cam', 'cam++' or 'irnet' (did you mean 'cam'?)"
    ),
    "name: s\nsettings:\n  classify: {uncertainty: one}": (
        "x.yaml:3: settings.classify.uncertainty: found 'one'; no such policy (did you mean 'ones'?); allowed: ignore, zeros,"
        " ones, or one of them for each observation"
    ),
    "name: s\nsettings:\n  classify:\n    uncertainty: {Edem: ones}": (
        "x.yaml:4: settings.classify.uncertainty: found {'Edem': 'ones'}; no such observation: Edem (did you mean 'Edema'?);"
        " allowed: No Finding, Enlarged Cardiomediastinum, Cardiomegaly, Lung Opacity, Lung Lesion, Edema, Consolidation,"
        " Pneumonia, Atelectasis, Pneumothorax, Pleural Effusion, Pleural Other, Fracture, Support Devices"
    ),
    "name: s\nsettings:\n  irnet: {freeze_backbone: true}": (
        "x.yaml:3: settings.irnet: found {'freeze_backbone': True}; freeze_backbone: a random backbone never learns; allowed:"
        " with init: imagenet"
    ),
    "name: s\nsettings:\n  moco: {temprature: 0.1}": (
        "x.yaml:3: settings.moco.temprature: no such key (did you mean 'temperature'?); allowed: epochs, batch_size,"
        " learning_rate, weight_decay, queue, momentum, temperature, crop, rotation, flip, brightness, contrast, precision"
    ),
    "name: s\nsettings:\n  moco: {momentum: 1}": ("x.yaml:3: settings.moco.momentum: found 1; input should be less than 1"),
    "name: s\naxes:\n  labels.p: [0.5, 1.5]": (
        "x.yaml:3: axes.labels.p: labels.p: found 1.5; input should be less than or equal to 1"
    ),
    "name: s\naxes:\n  trial: []": "x.yaml:3: axes.trial: allowed: a list of different values, at least one",
    "name: s\naxes:\n  trial: [1, 1]": "x.yaml:3: axes.trial: allowed: a list of different values, at least one",
    "name: s\nname: t": "x.yaml:2: name: stands twice (before in line 1)",
    "settings: {}": "x.yaml: name: field required",
    "- 1": "x.yaml: found a list; allowed: a mapping with name, axes and settings",
    "name: s\nsettings:\n  score: {resolution: owns}": (
        "x.yaml:3: settings.score.resolution: found 'owns'; input should be 'training' or 'own' (did you mean 'own'?)"
    ),
    "name: [": "x.yaml:1: not YAML (expected the node content, but found '<stream end>')",
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_line_that_says_all(text):
    with pytest.raises(UserError) as caught:
        spec.parse(text, "x.yaml")
    assert str(caught.value) == MISTAKES[text]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: s\naxes:\n  label.p: [0]", ["x.yaml:3: axes.label.p", "did you mean 'labels.p'"]),
        ("name: s\nalso:\n  - {trail: 3}", ["x.yaml:3: also.trail", "did you mean 'trial'"]),
        ("name: s\nsettings:\n  pathologies: [Edma]", ["x.yaml:3: settings.pathologies", "did you mean 'Edema'"]),
        (
            "name: s\nsettings:\n  encoder:\n    init: mocco",
            ["x.yaml:4: settings.encoder.init", "'random', 'imagenet', 'chexpert' or 'moco'"],
        ),
        ("name: s\naxes:\n  size: [64, 96]", ["x.yaml:3: size: found as an axis"]),
        ("name: s\nsettings:\n  irnet: {init: moco}", ["x.yaml:3: settings.irnet.init", "'random' or 'imagenet'"]),
        ("name: s\nsettings: 3", ["x.yaml:2: settings: found 3"]),
        ("name: s\nresources: {gpu: 1.5}", ["x.yaml:2: resources.gpu: found 1.5"]),
        ("name: s\nsettings:\n  size: 100", ["x.yaml:3: settings.size", "multiple of 32"]),
    ],
)
def test_a_wrong_key_or_name_gets_the_nearest_right_one(text, parts):
    with pytest.raises(UserError) as caught:
        spec.parse(text, "x.yaml")
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_settings_laid_over_from_the_command_line():
    study = spec.parse("name: s\nsettings:\n  fit: {epochs: 3}", "x.yaml", {"fit.batch_size": 4, "size": 64})
    (_, settings), *_ = study.cells()
    assert (settings.fit.epochs, settings.fit.batch_size, settings.size) == (3, 4, 64)
    with pytest.raises(UserError, match="--set fit.epoch: no such setting"):
        spec.parse("name: s", "x.yaml", {"fit.epoch": 3})


def test_what_cannot_matter_changes_no_cell():
    def cells(text: str) -> list[str]:
        return [cell.score for cell in plan.plan(spec.parse(text, "x.yaml"), DATA).cells]

    full = cells("name: s\nsettings: {labels: {p: 1}}")
    assert cells("name: t\nsettings: {labels: {p: 1, weak: irnet, weak_images: 7, prefer_positives: true}}") == full
    assert cells("name: t\nresources: {cpu: 2}\nsettings: {labels: {p: 1}}") == full
    assert cells("name: s\nsettings: {labels: {p: 0.5}}") != full
    # p = 1 by the authors' rule is p = 1; 0.85 by it is not 0.85
    assert cells("name: s\nsettings: {labels: {p: 1, mixing: official}}") == full
    assert cells("name: s\nsettings: {labels: {p: 0.85}}") != cells("name: s\nsettings: {labels: {p: 0.85, mixing: official}}")

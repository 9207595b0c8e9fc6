"""Test the error line of each mistake in a study file: file, line, key, value, nearest name."""

from __future__ import annotations

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError

TOP = (
    "allowed: name, title, reproduces, studies, axes, also, settings, resources, execution, search"
)
SETTINGS = (
    "allowed: pathologies, size, seed, draw, trial, ingest.*, encoder.*, labels.*, classify.*, pretrain.*, "
    "moco.*, saliency.*, irnet.*, fit.*, distil.*, score.*"
)

MISTAKES = {
    # ---- not a study
    "": "x.yaml: found nothing; expected: a mapping with name, axes and settings",
    "- 1": "x.yaml: found a list; expected: a mapping with name, axes and settings",
    "hello": "x.yaml: found 'hello'; expected: a mapping with name, axes and settings",
    "name: [": "x.yaml:1: not YAML (expected the node content, but found '<stream end>')",
    "name: s\nsettings:\n\tsize: 64": (
        "x.yaml:3: not YAML (found a tab; expected: spaces before keys)"
    ),
    "name: s\ntitle: \x00": (
        "x.yaml:2: not YAML (unacceptable character #x0000: special characters are not allowed)"
    ),
    "name: s\n---\nname: t": "x.yaml:2: not YAML (but found another document)",
    "name: s\naxes: &a\n  trial: *a": "x.yaml:2: found an alias of a value that contains it",
    "name: !!python/object:os.system s": (
        "x.yaml:1: not YAML (could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object:os.system')"
    ),
    # ---- keys
    "settings: {}": "x.yaml: name: is missing; expected: text",
    "names: s": f"x.yaml:1: names: no such key (did you mean 'name'?); {TOP}",
    "name: s\naxis: {}": f"x.yaml:2: axis: no such key (did you mean 'axes'?); {TOP}",
    "name: s\ngiven: {}": f"x.yaml:2: given: no such key; {TOP}",
    "name: s\nname: t": "x.yaml:2: name: duplicate key (first in line 1)",
    "name: s\nalso:\n  - {labels.p: 1,\n     labels: {p: 0}}": (
        "x.yaml:4: also.0.labels.p: duplicate key (first in line 3)"
    ),
    "name: s\nsettings:\n  1: 2": "x.yaml:3: settings: found 1 as a key; expected: text",
    "name: s\n? [a]\n: 1": "x.yaml:2: found a list or a mapping as a key; expected: text",
    "name: s\nsettings:\n  fit: {epoch: 3}": (
        "x.yaml:3: settings.fit.epoch: no such key (did you mean 'epochs'?); allowed: epochs, "
        "batch_size, learning_rate, schedule, loss, clip_norm, flips, precision, channels_last, "
        "compile, checkpoint, thresholds, samples_per_epoch, epoch_size"
    ),
    "name: s\nsettings:\n  fit.epochs: 3": (
        "x.yaml:3: settings.fit.epochs: no such key (did you mean fit: {epochs: ...}?); allowed: "
        "pathologies, size, seed, draw, trial, ingest, encoder, labels, classify, pretrain, moco, saliency, "
        "irnet, fit, distil, score"
    ),
    "name: s\nsettings:\n  labels.expert_split.train: 3": (
        "x.yaml:3: settings.labels.expert_split.train: no such key (did you mean labels: "
        "{expert_split: {train: ...}}?); allowed: pathologies, size, seed, draw, trial, ingest, encoder, "
        "labels, classify, pretrain, moco, saliency, irnet, fit, distil, score"
    ),
    "name: s\nsettings:\n  moco: {temprature: 0.1}": (
        "x.yaml:3: settings.moco.temprature: no such key (did you mean 'temperature'?); allowed: "
        "epochs, batch_size, learning_rate, weight_decay, queue, momentum, temperature, crop, "
        "rotation, flip, brightness, contrast, precision, init"
    ),
    "name: s\nsettings:\n  labels: {weak: cam,\n    expert_split: {trian: 3}}": (
        "x.yaml:4: settings.labels.expert_split.trian: no such key (did you mean 'train'?); "
        "allowed: train, select, by"
    ),
    "name: s\naxes:\n  label.p: [0]": (
        f"x.yaml:3: axes.label.p: no such setting (did you mean 'labels.p'?); {SETTINGS}"
    ),
    "name: s\naxes: {epochs: [3]}": (
        "x.yaml:2: axes.epochs: no such setting (did you mean 'classify.epochs', 'pretrain.epochs', "
        f"'moco.epochs', 'irnet.epochs', 'fit.epochs' or 'distil.epochs'?); {SETTINGS}"
    ),
    "name: s\naxes: {architecture: [resnet18]}": (
        "x.yaml:2: axes.architecture: no such setting (did you mean 'encoder.architecture', "
        f"'classify.architecture' or 'irnet.architecture'?); {SETTINGS}"
    ),
    "name: s\naxes: {saliency.architecture: [resnet18]}": (
        "x.yaml:2: axes.saliency.architecture: no such setting (did you mean "
        "'encoder.architecture', 'classify.architecture' or 'irnet.architecture'?); allowed: "
        "saliency.images, saliency.frontal_only, saliency.layer, saliency.target, "
        "saliency.threshold, saliency.cutoff, saliency.fill_holes"
    ),
    "name: s\naxes: {klassify.epochs: [3]}": (
        "x.yaml:2: axes.klassify.epochs: no such setting (did you mean 'classify.epochs'?); "
        f"{SETTINGS}"
    ),
    "name: s\nsettings: {architecture: resnet18}": (
        "x.yaml:2: settings.architecture: no such key (did you mean encoder: {architecture: ...}, "
        "classify: {architecture: ...} or irnet: {architecture: ...}?); allowed: pathologies, size, "
        "seed, draw, trial, ingest, encoder, labels, classify, pretrain, moco, saliency, irnet, "
        "fit, distil, score"
    ),
    "name: s\naxes: {trial.x: [3]}": (
        "x.yaml:2: axes.trial.x: no such setting (did you mean 'trial'?); allowed: trial"
    ),
    "name: s\nalso:\n  - {trial: 1}\n  - {trail: 3}": (
        f"x.yaml:4: also.1.trail: no such setting (did you mean 'trial'?); {SETTINGS}"
    ),
    "name: s\naxes:\n  encoder:\n    - {init: moco}\n    - {init: random,\n       imprted: true}": (
        "x.yaml:6: axes.encoder: encoder.imprted: no such setting (did you mean "
        "'encoder.imported'?); allowed: encoder.architecture, encoder.init, encoder.imported"
    ),
    # ---- values
    "name: Two words": (
        "x.yaml:1: name: found 'Two words'; expected: a lower-case letter or digit, then "
        "lower-case letters, digits, '.', '_' and '-'"
    ),
    "name: 3": "x.yaml:1: name: found 3; expected: text",
    f"name: {300 * 'a'}": (
        f"x.yaml:1: name: found '{119 * 'a'} ...; expected: at most 150 characters"
    ),
    "name: s\nreproduces: table-1": "x.yaml:2: reproduces: found 'table-1'; expected: a list",
    "name: s\nsettings: 3": "x.yaml:2: settings: found 3; expected: a mapping",
    "name: s\nsettings: []": "x.yaml:2: settings: found []; expected: a mapping",
    "name: s\nsettings:\n  fit:": "x.yaml:3: settings.fit: found nothing; expected: a mapping",
    "name: s\nsettings: {fit: {epochs: three}}": (
        "x.yaml:2: settings.fit.epochs: found 'three'; expected: a whole number"
    ),
    "name: s\nsettings: {fit: {epochs: 1.5}}": (
        "x.yaml:2: settings.fit.epochs: found 1.5; expected: a whole number"
    ),
    "name: s\nsettings: {fit: {epochs: -1}}": (
        "x.yaml:2: settings.fit.epochs: found -1; expected: at least 0"
    ),
    "name: s\nsettings: {fit: {flips: 3}}": (
        "x.yaml:2: settings.fit.flips: found 3; expected: true or false"
    ),
    "name: s\nsettings: {fit: {learning_rate: fast}}": (
        "x.yaml:2: settings.fit.learning_rate: found 'fast'; expected: a number"
    ),
    "name: s\nsettings: {fit: {learning_rate: .inf}}": (
        "x.yaml:2: settings.fit.learning_rate: found inf; expected: a finite number"
    ),
    "name: s\nsettings: {encoder: {architecture: 18}}": (
        "x.yaml:2: settings.encoder.architecture: found 18; expected: text"
    ),
    "name: s\nsettings:\n  moco: {momentum: 1}": (
        "x.yaml:3: settings.moco.momentum: found 1; expected: below 1"
    ),
    "name: s\nsettings:\n  fit: {loss: dice}": (
        "x.yaml:3: settings.fit.loss: found 'dice'; allowed: 'class-average-dice' or "
        "'cross-entropy'"
    ),
    "name: s\nsettings:\n  score: {resolution: owns}": (
        "x.yaml:3: settings.score.resolution: found 'owns' (did you mean 'own'?); allowed: "
        "'training' or 'own'"
    ),
    "name: s\nsettings:\n  encoder:\n    init: mocco": (
        "x.yaml:4: settings.encoder.init: found 'mocco' (did you mean 'moco'?); allowed: "
        "'random', 'imagenet', 'chexpert' or 'moco'"
    ),
    "name: s\nsettings:\n  irnet: {init: chexpet}": (
        "x.yaml:3: settings.irnet.init: found 'chexpet' (did you mean 'chexpert'?); allowed: "
        "'random', 'imagenet', 'chexpert' or 'moco'"
    ),
    "name: s\nsettings:\n  irnet: {freeze_backbone: true}": (
        "x.yaml:3: settings.irnet: found {'freeze_backbone': True}; freeze_backbone: a random "
        "backbone never learns; expected: init: imagenet, chexpert or moco"
    ),
    "name: s\nsettings:\n  irnet: {freeze_backbone: no idea}": (
        "x.yaml:3: settings.irnet.freeze_backbone: found 'no idea'; expected true, false or auto"
    ),
    "name: s\nsettings:\n  irnet: {threshold: tuned}": (
        "x.yaml:3: settings.irnet.threshold: found 'tuned'; expected training, otsu, or a number "
        "from 0 to 1"
    ),
    "name: s\nsettings:\n  irnet: {threshold: 1.5}": (
        "x.yaml:3: settings.irnet.threshold: found 1.5; expected training, otsu, or a number "
        "from 0 to 1"
    ),
    "name: s\nsettings:\n  irnet: {smallest_scale: 1.5}": (
        "x.yaml:3: settings.irnet: found {'smallest_scale': 1.5}; smallest_scale is above "
        "largest_scale, 1; expected: at most that"
    ),
    "name: s\nsettings:\n  irnet: {boundaries: false, instances: true}": (
        "x.yaml:3: settings.irnet: found {'boundaries': False, 'instances': True}; instances: needs "
        "the trained network; expected: boundaries: true"
    ),
    "name: s\nsettings:\n  classify: {uncertainty: one}": (
        "x.yaml:3: settings.classify.uncertainty: found 'one'; no such policy (did you mean "
        "'ones'?); allowed: ignore, zeros, ones, or one of them for each observation"
    ),
    "name: s\nsettings:\n  classify:\n    uncertainty: {Edem: ones}": (
        "x.yaml:4: settings.classify.uncertainty: found {'Edem': 'ones'}; no such observation: "
        "Edem (did you mean 'Edema'?); allowed: No Finding, Enlarged Cardiomediastinum, "
        "Cardiomegaly, Lung Opacity, Lung Lesion, Edema, Consolidation, Pneumonia, Atelectasis, "
        "Pneumothorax, Pleural Effusion, Pleural Other, Fracture, Support Devices"
    ),
    "name: s\nsettings: {pathologies: 3}": (
        "x.yaml:2: settings.pathologies: found 3; expected: all, or a list of names"
    ),
    "name: s\nresources: {cpu: 0}": "x.yaml:2: resources.cpu: found 0; expected: above 0",
    "name: s\nresources: {gpu: 1.5}": (
        "x.yaml:2: resources.gpu: found 1.5; expected: at most 1, or a whole number"
    ),
    "name: s\nresources: {gpu: 0.5, workers: 2}": (
        "x.yaml:2: resources: found {'gpu': 0.5, 'workers': 2}; workers: found 2 with gpu: 0.5; "
        "expected: a whole GPU each, or none"
    ),
    # ---- booleans in place of numbers
    "name: s\nsettings:\n  fit: {epochs: true}": (
        "x.yaml:3: settings.fit.epochs: found true; expected: a number"
    ),
    "name: s\nsettings:\n  labels: {p: yes}": (
        "x.yaml:3: settings.labels.p: found true; expected: a number"
    ),
    "name: s\nsettings: {fit: {clip_norm: off}}": (
        "x.yaml:2: settings.fit.clip_norm: found false; expected: a number"
    ),
    "name: s\nresources: {workers: true}": (
        "x.yaml:2: resources.workers: found true; expected: a number"
    ),
    "name: s\naxes:\n  trial: [no, 1]": "x.yaml:3: axes.trial: found false; expected: a number",
    "name: s\nalso:\n  - {labels.p: on}": (
        "x.yaml:3: also.0.labels.p: found true; expected: a number"
    ),
    "name: s\nsearch: {}\naxes: {labels.p: {low: no, high: 1}}": (
        "x.yaml:3: axes.labels.p.low: found false; expected: a number"
    ),
    "name: s\nsearch: {}\naxes:\n  fit.epochs: {low: 0, high: 3}": (
        "x.yaml:4: axes.fit.epochs: found 0 in a search; expected: at least 1"
    ),
    # ---- axes and also
    "name: s\naxes: [1, 2]": "x.yaml:2: axes: found [1, 2]; expected: a mapping",
    "name: s\naxes:": "x.yaml:2: axes: found nothing; expected: a mapping",
    "name: s\naxes:\n  labels.weak: cam": (
        "x.yaml:3: axes.labels.weak: found 'cam'; expected: a list of values, or in a search a "
        "range: {low: .., high: ..}"
    ),
    "name: s\naxes:\n  labels.weak: [cma]": (
        "x.yaml:3: axes.labels.weak: found 'cma' (did you mean 'cam'?); allowed: 'cam', 'cam++' "
        "or 'irnet'"
    ),
    "name: s\naxes: {trial: [0, 1],\n  labels.weak: [\n    cam,\n    cams]}": (
        "x.yaml:5: axes.labels.weak: found 'cams' (did you mean 'cam'?); allowed: 'cam', 'cam++' "
        "or 'irnet'"
    ),
    "name: s\naxes:\n  labels.p: [0.5, 1.5]": (
        "x.yaml:3: axes.labels.p: found 1.5; expected: at most 1"
    ),
    "name: s\naxes: {fit: [3]}": "x.yaml:2: axes.fit: found 3; expected: a mapping",
    "name: s\naxes:\n  trial: []": (
        "x.yaml:3: axes.trial: found []; expected: a list of one or more different values"
    ),
    "name: s\naxes:\n  labels.p: [1, 1.0]": (
        "x.yaml:3: axes.labels.p: found [1, 1.0]; expected: a list of one or more different values"
    ),
    "name: s\naxes:\n  labels.p: [0.5]\n  labels: [{weak: cam}, {p: 1}]": (
        "x.yaml:4: axes.labels: sets labels.p, as axes.labels.p does; expected: one axis for a "
        "setting"
    ),
    "name: s\naxes:\n  irnet.background: [0.05, 0.3]\n  irnet.foreground: [0.3, 0.2]": (
        "x.yaml:4: axes.irnet.foreground: irnet: found {'background': 0.3, 'foreground': 0.2}; "
        "background is above foreground, 0.2; expected: at most that"
    ),
    "name: s\naxes:\n  size: [64, 96]": (
        "x.yaml:3: axes.size: cells can't differ in it; hint: put it in settings"
    ),
    "name: s\naxes:\n  ingest.mask_resize: [nearest, area]": (
        "x.yaml:3: axes.ingest.mask_resize: cells can't differ in it; hint: put it in settings"
    ),
    "name: s\nalso:\n  - {trial: 1,\n     pathologies: Edema}": (
        "x.yaml:4: also.0.pathologies: cells can't differ in it; hint: put it in settings"
    ),
    "name: s\nalso: {trial: 1}": "x.yaml:2: also: found {'trial': 1}; expected: a list",
    "name: s\nalso:\n  - trial": "x.yaml:3: also.0: found 'trial'; expected: a mapping",
    "name: s\nalso:\n  - {trial: 1,\n     labels.weak: cams}": (
        "x.yaml:4: also.0.labels.weak: found 'cams' (did you mean 'cam'?); allowed: 'cam', "
        "'cam++' or 'irnet'"
    ),
    "name: s\nalso:\n  - labels:\n      p: 0\n      weak: cams": (
        "x.yaml:5: also.0.labels: labels.weak: found 'cams' (did you mean 'cam'?); allowed: "
        "'cam', 'cam++' or 'irnet'"
    ),
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_line_that_says_all(text):
    with pytest.raises(UserError) as caught:
        study_file.parse(text, "x.yaml")
    assert str(caught.value) == MISTAKES[text]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "name: s\nsettings:\n  pathologies: [Edma]",
            ["x.yaml:3: settings.pathologies", "did you mean 'Edema'"],
        ),
        ("name: s\nsettings:\n  size: 100", ["x.yaml:3: settings.size", "multiple of 32"]),
        (
            f"name: s\naxes:\n  trial: [0, {'x' * 1000}]",
            ["x.yaml:3: axes.trial: found 'xxx", " ...; expected: a whole number"],
        ),
    ],
)
def test_a_wrong_value_is_found_and_cut_where_it_is_long(text, parts):
    with pytest.raises(UserError) as caught:
        study_file.parse(text, "x.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    for part in parts:
        assert part in str(caught.value)


SET = {
    "fit.epoch": (
        3,
        "--set fit.epoch: no such setting (did you mean 'fit.epochs'?); allowed: fit.epochs, "
        "fit.batch_size, fit.learning_rate, fit.schedule, fit.loss, fit.clip_norm, fit.flips, "
        "fit.precision, fit.channels_last, fit.compile, fit.checkpoint, fit.thresholds, "
        "fit.samples_per_epoch, fit.epoch_size",
    ),
    "name": ("t", f"--set name: no such setting; {SETTINGS}, resources.*, execution.*"),
    "fit.epochs": ("many", "--set fit.epochs: found 'many'; expected: a whole number"),
    "fit.batch_size": (True, "--set fit.batch_size: found true; expected: a number"),
    "fit": (3, "--set fit: found 3; expected: a mapping"),
    "irnet": (
        {"background": 1},
        "--set irnet.background: irnet: found {'background': 1}; background is above foreground, "
        "0.3; expected: at most that",
    ),
    "labels": (
        {"weak": "cams"},
        "--set labels.weak: found 'cams' (did you mean 'cam'?); allowed: 'cam', 'cam++' or 'irnet'",
    ),
    "labels.p": (
        0.3,
        "--set labels.p: is an axis of the study (x.yaml:2); expected: a setting that is not an axis",
    ),
}


@pytest.mark.parametrize("key", SET)
def test_a_mistake_on_the_command_line_is_not_blamed_on_the_file(key):
    value, expected = SET[key]
    with pytest.raises(UserError) as caught:
        study_file.parse(
            "name: s\naxes: {labels.p: [0.5]}\nsettings:\n  fit: {epochs: 3}",
            "x.yaml",
            {key: value},
        )
    assert str(caught.value) == expected

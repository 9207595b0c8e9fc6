"""Test that what the data shows to be wrong is said before a run: all of it, with file and line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from chexseg.config import study_file
from chexseg.data import chexlocalize, chexpert
from chexseg.data.raw_split import RawData
from chexseg.pathologies import PATHOLOGIES
from chexseg.plan import planner
from chexseg.plan.checks import before_run, disk
from chexseg.plan.checks.split_facts import facts
from chexseg.store.store import Store

#: Studies without a mistake on `root`.
FULL = """
name: full
settings:
  size: 64
  encoder: {init: random}
  labels: {p: 1, expert_split: {train: 6, select: 4}}
"""
MIXED = """
name: mixed
axes: {labels.weak: [cam, irnet]}
settings:
  size: 64
  encoder: {init: random}
  labels: {p: 0.5, weak_images: 10, expert_split: {train: 6, select: 4}}
  classify: {architecture: resnet18}
  irnet: {architecture: resnet18}
"""
MOCO = FULL.replace("init: random", "init: moco")


@pytest.fixture
def root(phantom_root, tmp_path) -> Path:
    """Return the phantom (14 validation images with masks) with one lateral training image."""
    shutil.copytree(phantom_root, tmp_path / "data")
    csv, _ = chexpert.locate(tmp_path / "data", "train")
    text = csv.read_text()
    assert ",Frontal," in text
    csv.write_text(text.replace(",Frontal,", ",Lateral,", 1))
    return tmp_path / "data"


@pytest.fixture
def found(root, tmp_path):
    """Return a function: the lines about a study with changed words, and ``--set``."""

    def lines(text: str, changes: dict[str, str] | None = None, planning=False, **overrides):
        for old, new in (changes or {}).items():
            assert old in text
            text = text.replace(old, new)
        given = {name.replace("__", "."): value for name, value in overrides.items()}
        study, raw = study_file.parse(text, "x.yaml", given), RawData(root)
        plan = planner.plan(study, raw.fingerprints)
        nodes, store = plan.needed(()), Store(tmp_path / "store")
        return before_run.mistakes(plan, nodes, raw, store, planning)

    return lines


def change_masks(root: Path, split: str, change) -> str:
    """Apply a function to the document of a mask file; return the file's name."""
    path = root / chexlocalize.FILES[split]
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize("text", [FULL, MIXED, MOCO])
def test_studies_that_fit_the_data_have_no_mistakes(text, found):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "changes", "line"),
    [
        (
            FULL,
            {"train: 6": "train: 11"},
            "x.yaml:6: settings.labels.expert_split: found train 11 + select 4 = 15;"
            " expected at most 14, the validation images with expert masks",
        ),
        (
            FULL,
            {", expert_split: {train: 6, select: 4}": ""},
            "x.yaml:6: settings.labels.expert_split (default): found train 147 + select 40 = 187;"
            " expected at most 14, the validation images with expert masks",
        ),
        (
            MIXED,
            {"weak_images: 10": "weak_images: 48"},
            "x.yaml:7: settings.labels.weak_images: found 48; expected at most 47,"
            " the training images with weak labels",
        ),
        (
            MIXED,
            {"  classify:": "  saliency: {images: 9}\n  classify:"},
            "x.yaml:7: settings.labels.weak_images: found 10; expected at most 9,"
            " the training images with weak labels",
        ),
        (
            MIXED,
            {"  classify:": "  saliency: {images: 48}\n  classify:"},
            "x.yaml:8: settings.saliency.images: found 48; expected at most 47,"
            " the frontal training images",
        ),
        (
            MIXED,
            {"  classify:": "  saliency: {images: 49, frontal_only: false}\n  classify:"},
            "x.yaml:8: settings.saliency.images: found 49; expected at most 48,"
            " the training images",
        ),
        (
            MIXED,
            {"irnet: {": "irnet: {images: 48, "},
            "x.yaml:9: settings.irnet.images: found 48; expected at most 47,"
            " the training images with CAMs",
        ),
        (
            MIXED,
            {"classify: {": "classify: {batch_size: 49, "},
            "x.yaml:8: settings.classify.batch_size: found 49; expected at most 48,"
            " the number of training images",
        ),
        (
            FULL + "  pretrain: {batch_size: 49}",
            {"init: random": "init: chexpert"},
            "x.yaml:7: settings.pretrain.batch_size: found 49; expected at most 48,"
            " the number of training images",
        ),
        (
            MOCO + "  moco: {batch_size: 49}",
            {},
            "x.yaml:7: settings.moco.batch_size: found 49; expected at most 48,"
            " the number of training images",
        ),
        (
            MOCO + "  moco: {queue: 49}",
            {},
            "x.yaml:7: settings.moco.queue: found 49; expected at most 48,"
            " the number of training images",
        ),
        (
            FULL + "resources: {workers: 3}",
            {},
            "x.yaml:3: settings.fit.batch_size (default): found 8;"
            " expected a multiple of 3, the number of workers",
        ),
        (
            MIXED + "resources: {stage_workers: 3}",
            {"irnet: {": "irnet: {batch_size: 3, "},
            "x.yaml:8: settings.classify.batch_size (default): found 16;"
            " expected a multiple of 3, the number of workers",
        ),
    ],
)
def test_a_mistake_has_the_line_of_its_setting(text, changes, line, found):
    assert found(text, changes) == [line]


def test_counts_at_their_limits_are_right(found):
    assert found(FULL, {"train: 6": "train: 10"}) == []
    assert found(MIXED, {"weak_images: 10": "weak_images: 47"}) == []
    assert found(MOCO + "  moco: {batch_size: 48, queue: 48}") == []
    saliency = "  saliency: {images: 48, frontal_only: false}\n  classify:"
    assert found(MIXED, {"weak_images: 10": "weak_images: 48", "  classify:": saliency}) == []


def test_values_of_axes_of_further_cells_and_of_the_command_line_have_their_places(found):
    text = FULL + (
        "axes:\n  fit.loss: [cross-entropy]\n"
        "  labels.expert_split.train: [6,\n    11]\n"
        "also:\n  - {labels.expert_split: {train: 12, select: 4}}\n"
    )
    rest = "; expected at most 14, the validation images with expert masks"
    assert found(text) == [
        "x.yaml:10: axes.labels.expert_split.train: found train 11 + select 4 = 15" + rest,
        "x.yaml:12: also.0.labels.expert_split: found train 12 + select 4 = 16" + rest,
    ]
    assert found(FULL, labels__expert_split__train=13) == [
        "--set labels.expert_split.train: labels.expert_split: found train 13 + select 4 = 17"
        + rest
    ]


def test_all_mistakes_come_together(found, root):
    path = change_masks(
        root, "test", lambda document: document.update(unknown=next(iter(document.values())))
    )
    text = MIXED + "  saliency: {images: 99}\nresources: {workers: 5}\n"
    lines = found(text, {"weak_images: 10": "weak_images: 48", "train: 6": "train: 60"})
    assert [line.partition(": found")[0] for line in lines] == [
        "x.yaml:10: settings.saliency.images",
        "x.yaml:7: settings.labels.expert_split",
        "x.yaml:7: settings.labels.weak_images",
        "x.yaml:4: settings.fit.batch_size (default)",
        f"{path}: unknown: no such image; expected images of {chexpert.locate(root, 'test')[0]}",
    ]


def test_each_included_study_with_the_mistake_is_named(found, root, tmp_path):
    wrong = FULL.replace("train: 6", "train: 11")
    for name, text in {"a": wrong, "b": FULL, "c": "\n" + wrong}.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("name: full", f"name: {name}"))
    (tmp_path / "all.yaml").write_text("name: all\nstudies: [a.yaml, b.yaml, c.yaml]")
    raw = RawData(root)
    plan = planner.plan(study_file.load(tmp_path / "all.yaml"), raw.fingerprints)
    lines = before_run.mistakes(plan, plan.needed(()), raw, Store(tmp_path / "store"))
    assert [line.partition(": settings")[0] for line in lines] == [
        f"{tmp_path}/a.yaml:6",
        f"{tmp_path}/c.yaml:7",
    ]


def test_positives_are_needed_where_masks_are_learned_from_chosen_on_and_scored(found, root):
    """One pathology that the test masks show, and no mask of the validation images."""

    def empty_lesions(document):
        for entry in document.values():
            for name in list(entry):
                if name == "Lung Lesion":
                    height, width = entry[name]["size"]
                    entry[name]["counts"] = chexlocalize.encode(np.zeros((height, width), bool))[
                        "counts"
                    ]

    change_masks(root, "valid", empty_lesions)
    text = FULL.replace("size: 64", "size: 64\n  pathologies: [Lung Lesion]")
    none = "and none of these images shows a studied pathology; expected at least one"
    assert found(text) == [
        f"x.yaml:7: settings.labels.expert_split.train: found 6, {none} to learn from",
        f"x.yaml:7: settings.labels.expert_split.select: found 4, {none} to choose the epoch on"
        " (or fit.checkpoint: last)",
    ]
    assert len(found(text + "  fit: {checkpoint: last}\n")) == 1
    change_masks(root, "test", empty_lesions)
    assert found(text)[-1] == (
        "x.yaml:5: settings.pathologies: found none that a test mask shows;"
        " expected at least one to score"
    )


def test_weak_masks_need_a_label_that_does_not_empty_them(found, root):
    csv, _ = chexpert.locate(root, "train")
    header, *rows = csv.read_text().splitlines()
    column = header.split(",").index("Lung Lesion")
    for number, row in enumerate(rows):
        fields = row.split(",")
        fields[column] = "0.0"
        rows[number] = ",".join(fields)
    csv.write_text("\n".join([header, *rows]) + "\n")
    text = MIXED.replace("size: 64", "size: 64\n  pathologies: [Lung Lesion]")
    line = (
        "x.yaml:8: settings.labels.weak_images: found 10, and no training image has a positive or"
        " uncertain label of a studied pathology; expected some (or labels.negatives_empty: false)"
    )
    assert line in found(text)
    assert line not in found(text, {"p: 0.5": "negatives_empty: false, p: 0.5"})


def test_patients_that_fit_no_list_leave_it_empty(found, root):
    """All validation images belong to one patient."""
    csv, images = chexpert.locate(root, "valid")
    header, *rows = csv.read_text().splitlines()
    renamed, names = [], {}
    for number, row in enumerate(rows):
        path, _, rest = row.partition(",")
        folder, patient, _, _ = path.rsplit("/", 3)
        new = f"{folder}/patient00001/study{number}/view1_frontal.jpg"
        names["_".join(path.rsplit("/", 3)[1:])[:-4]] = f"patient00001_study{number}_view1_frontal"
        target = images / "/".join(new.rsplit("/", 3)[1:])
        target.parent.mkdir(parents=True)
        shutil.copy(images / "/".join(path.rsplit("/", 3)[1:]), target)
        renamed.append(f"{new},{rest}")
    csv.write_text("\n".join([header, *renamed]) + "\n")

    def rename(document):
        for old in list(document):
            document[names[old]] = document.pop(old)

    change_masks(root, "valid", rename)
    patient = "expected at least as many as the images of some patient"
    assert found(FULL) == [
        f"x.yaml:6: settings.labels.expert_split.train: found 6; {patient}",
        f"x.yaml:6: settings.labels.expert_split.select: found 4; {patient}",
    ]
    assert found(FULL, {"select: 4": "select: 4, by: image"}) == []


def test_damaged_and_unknown_masks_are_told_the_first_of_many_in_full(found, root):
    def damage(document):
        for number, entry in enumerate(document.values()):
            name = next(iter(entry))
            if number == 0:
                entry["Edmea"] = entry.pop(name)
            elif number < 8:
                entry[name]["counts"] = "!"

    path = change_masks(root, "valid", damage)
    lines = found(FULL)
    assert len(lines) == 7 and all(path in line for line in lines)
    assert "unknown pathology 'Edmea'" in lines[0]
    assert all("found no COCO run lengths; expected" in line for line in lines[1:])
    assert lines[-1].startswith("and 2 more like this: ")


def test_missing_images_are_told_unless_a_study_is_only_planned_without_any(found, root):
    csv, folder = chexpert.locate(root, "valid")
    images = sorted(folder.rglob("*.jpg"))
    images[0].unlink()
    line = f"{images[0]}: no such file; expected the images of {csv}"
    assert found(FULL) == found(FULL, planning=True) == [line]
    shutil.rmtree(folder)
    assert found(FULL, planning=True) == []
    assert found(FULL) == [f"{folder}: found none of the {len(images)} images of {csv}"]


def test_a_full_disk_is_told_with_what_is_free_and_what_is_expected(found, tmp_path, monkeypatch):
    monkeypatch.setattr(
        disk.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 40_000_000)
    )
    assert found(FULL) == [
        f"--store {tmp_path}/store: found 40.0 MB free; expected at least 49.1 MB, for 4 stages to"
        " compute"
    ]


def test_the_expected_size_counts_images_maps_and_weights(root):
    text = MIXED + "  saliency: {images: 40}\n"
    raw = RawData(root)
    plan = planner.plan(study_file.parse(text, "x.yaml"), raw.fingerprints)
    sizes = {}
    for node in plan.nodes.values():
        name = node.config.get("split", node.stage)
        sizes[name] = disk.expected_bytes(node, plan, facts(raw))
    tested = len(facts(raw)["test"].masks)
    assert sizes == {
        "train": pytest.approx(0.7 * 48 * 64**2),
        "valid": pytest.approx(0.7 * 24 * 64**2),
        "test": pytest.approx(0.7 * tested * 64**2),
        "classify": 44e6,
        "saliency": 0,
        "irnet": 0.5 * 40 * len(PATHOLOGIES) * 2 * 16**2,
        "fit": 49e6,
        "score": 0,
    }


def test_results_in_the_store_are_not_checked(root, tmp_path):
    """The raw files are read only if something is to be computed from them."""
    text = FULL.replace("train: 6", "train: 9999")
    plan = planner.plan(study_file.parse(text, "x.yaml"), RawData(root).fingerprints)
    nowhere = RawData(tmp_path / "nowhere")
    assert before_run.mistakes(plan, plan.needed(plan.nodes), nowhere, Store(tmp_path)) == []


def test_networks_that_cannot_be_built_are_told_with_the_other_mistakes(found):
    text = MIXED + "  fit: {batch_size: 6}\nresources: {workers: 4}\n"
    changes = {"classify: {architecture: resnet18": "classify: {architecture: resnt18"}
    changes |= {"irnet: {architecture: resnet18": "irnet: {architecture: densenet121"}
    lines = found(text, changes | {"init: random": "init: random, architecture: vgg11"})
    places = [line.partition("; expected")[0] for line in lines]
    assert places == [
        "x.yaml:10: settings.fit.batch_size: found 6",
        "x.yaml:8: settings.classify.architecture: found 'resnt18' (did you mean 'resnet18'?)",
        "x.yaml:6: settings.encoder.architecture: found 'vgg11'",
        "x.yaml:9: settings.irnet.architecture: found 'densenet121'",
    ]
    assert "expected an encoder that can be dilated" in lines[2]

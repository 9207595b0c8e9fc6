"""Test the files of a synthetic data set: their layout, labels, frequencies and repeatability."""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chexseg import parallel
from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES, observation
from chexseg.phantom import dataset as phantom
from chexseg.phantom.anatomy import chest
from chexseg.phantom.findings import draw_findings, read_report, truth
from chexseg.phantom.radiograph import radiograph
from chexseg.phantom.side_view import lateral

SEEDS = range(6)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def rows(root: Path, split: str) -> list[dict[str, str]]:
    with (root / phantom.FOLDER / f"{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Write a data set for the tests of layout, labels and readers; return it and progress calls."""
    root = tmp_path_factory.mktemp("phantom")
    calls: list[tuple[int, int]] = []
    phantom.write(
        root,
        phantom.Config(train=40, valid=24, test=60, seed=5, size=192),
        lambda *call: calls.append(call),
    )
    return root, calls


def test_the_layout_is_chexperts(written):
    root, calls = written
    assert calls == [(done, 124) for done in range(1, 125)]
    patients = {}
    for split, images in (("train", 40), ("valid", 24), ("test", 60)):
        table = rows(root, split)
        assert len(table) == images
        assert tuple(table[0]) == phantom.COLUMNS
        patients[split] = {row["Path"].split("/")[2] for row in table}
        for row in table:
            assert row["Path"].startswith(f"CheXpert-v1.0-small/{split}/patient")
            with Image.open(root / row["Path"]) as image:
                assert image.mode == "L" and image.format == "JPEG"
                assert min(image.size) == 192 and max(image.size) <= 1.23 * 192
            assert (
                (row["AP/PA"] == "")
                == (row["Frontal/Lateral"] == "Lateral")
                == row["Path"].endswith("lateral.jpg")
            )
            assert row["Sex"] in ("Female", "Male") and 18 <= int(row["Age"]) <= 90
            allowed = {"", "1.0", "0.0", "-1.0"} if split == "train" else {"1.0", "0.0"}
            assert {row[name] for name in OBSERVATIONS} <= allowed
    assert min(patients["train"]) == "patient00001"
    assert min(patients["valid"]) == "patient64541"
    assert min(patients["test"]) == "patient64741"
    assert not patients["train"] & patients["valid"] and not patients["valid"] & patients["test"]


def test_masks_agree_with_the_labels(written):
    root, _ = written
    files = {name: chexlocalize.read(root / path) for name, path in chexlocalize.FILES.items()}
    assert set(files["test"]) == set(files["radiologists"])
    for split in ("valid", "test"):
        named = 0
        for row in rows(root, split):
            image_id = row["Path"].split("/", 2)[2].removesuffix(".jpg").replace("/", "_")
            if image_id not in files[split]:
                assert split == "valid" and not any(
                    row[observation(name)] == "1.0" for name in PATHOLOGIES
                )
                continue
            named += 1
            assert set(files[split][image_id]) == set(PATHOLOGIES)
            masks_KHW = files[split].masks(image_id)
            with Image.open(root / row["Path"]) as image:
                assert masks_KHW.shape[1:] == (image.height, image.width)
            for name, mask_HW in zip(PATHOLOGIES, masks_KHW, strict=True):
                assert mask_HW.any() == (row[observation(name)] == "1.0"), (image_id, name)
        assert named == len(files[split])
    assert 0 < len(files["valid"]) < 24


def test_readers_are_neither_perfect_nor_blind(written):
    root, _ = written
    truth_file, readers = (
        chexlocalize.read(root / chexlocalize.FILES[name]) for name in ("test", "radiologists")
    )
    overlap_K, union_K = np.zeros(10), np.zeros(10)
    for image_id in truth_file:
        true_KHW, read_KHW = truth_file.masks(image_id), readers.masks(image_id)
        overlap_K += (true_KHW & read_KHW).sum(axis=(1, 2))
        union_K += (true_KHW | read_KHW).sum(axis=(1, 2))
    iou_K = overlap_K / union_K
    assert ((iou_K > 0.1) & (iou_K < 0.9)).all(), dict(
        zip(PATHOLOGIES, iou_K.round(2), strict=True)
    )
    assert 0.35 < iou_K.mean() < 0.7


def test_same_seed_same_bytes_and_growing_keeps_the_beginning(tmp_path):
    small, again, large, other = (tmp_path / name for name in ("small", "again", "large", "other"))
    phantom.write(small, phantom.Config(6, 4, 3, seed=1, size=96))
    phantom.write(again, phantom.Config(6, 4, 3, seed=1, size=96))
    phantom.write(large, phantom.Config(9, 5, 6, seed=1, size=96))
    phantom.write(other, phantom.Config(6, 4, 3, seed=2, size=96))
    first, grown = digests(small), digests(large)
    assert digests(again) == first
    images = {name: digest for name, digest in first.items() if name.endswith(".jpg")}
    assert len(images) == 13 and images.items() <= grown.items()
    assert not set(images.values()) & set(digests(other).values())
    for split, count in (("train", 6), ("valid", 4), ("test", 3)):
        assert rows(large, split)[:count] == rows(small, split)
    for path in chexlocalize.FILES.values():
        kept, more = (chexlocalize.read(root / path) for root in (small, large))
        assert all(more[image_id] == kept[image_id] for image_id in kept)


def test_the_number_of_processes_changes_no_byte(tmp_path):
    config = phantom.Config(20, 9, 7, seed=3, size=64)
    calls: list[tuple[int, int]] = []
    phantom.write(tmp_path / "one", config, processes=1)
    phantom.write(tmp_path / "three", config, lambda *call: calls.append(call), processes=3)
    assert digests(tmp_path / "three") == digests(tmp_path / "one")
    assert calls == [(done, 36) for done in range(1, 37)]
    assert multiprocessing.active_children() == []


def test_a_fault_in_a_process_is_that_of_one(tmp_path):
    (tmp_path / phantom.FOLDER).parent.mkdir(exist_ok=True)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        phantom.write(tmp_path / "file" / "below", phantom.Config(4, 4, 4, size=64), processes=2)
    with pytest.raises(ZeroDivisionError):
        list(parallel.ordered(partial(divmod, 1), [1, 2, 0, 3], 2))
    assert multiprocessing.active_children() == []


def test_nothing_is_overwritten(written):
    root, _ = written
    before = digests(root)
    with pytest.raises(UserError, match="already exists"):
        phantom.write(root, phantom.Config(1, 1, 1))
    assert digests(root) == before


def test_patient_numbers_never_meet():
    numbers = {
        split: {image.path.split("/")[1] for image in islice(phantom.image_specs(split, 0), 600)}
        for split in ("valid", "test")
    }
    assert len(numbers["valid"]) > 400  # past CheXpert's own block of 200
    assert not numbers["valid"] & numbers["test"]


def test_some_training_images_are_lateral_and_no_others():
    views = {
        split: [image.view for image in islice(phantom.image_specs(split, 0), 1500)]
        for split in ("train", "test")
    }
    assert 0.01 < views["train"].count("Lateral") / 1500 < 0.1
    assert set(views["test"]) == {"Frontal"}


def test_a_lateral_view_shows_what_its_study_has():
    for seed in SEEDS:
        clear_HW = lateral(seed, 256, 240)
        for name in PATHOLOGIES:
            difference_HW = np.abs(lateral(seed, 256, 240, [name]).astype(int) - clear_HW)
            assert 0.001 < (difference_HW > 8).mean() < 0.4, name
    image = next(i for i in phantom.image_specs("train", 0) if i.view == "Lateral" and i.findings)
    pixels_HW, masks = phantom.draw(image, 96)
    assert masks == {}
    healthy_HW, _ = phantom.draw(replace(image, findings=frozenset()), 96)
    assert not np.array_equal(pixels_HW, healthy_HW)


def test_hearts_vary_without_the_finding_and_a_healthy_one_may_be_the_larger():
    hearts = {"healthy": [], "grown": []}
    for seed in range(40):
        for kind, big in (("healthy", False), ("grown", True)):
            body = chest(seed, 160, 180, seed % 2 == 1, seed % 4 > 1, big, False)
            hearts[kind].append(body.canvas.fill([body.heart_outline]) > 0.5)
    areas = {kind: np.array([mask.mean() for mask in masks]) for kind, masks in hearts.items()}
    assert np.quantile(areas["healthy"], 0.9) > np.quantile(areas["grown"], 0.1)
    assert (areas["grown"] > areas["healthy"]).all()
    columns = [np.nonzero(mask_HW)[1].mean() / 180 for mask_HW in hearts["healthy"]]
    assert np.std(columns) > 0.025


#: Middle half of the areas, as shares of the image; the lower and the upper quartile lie within.
AREAS = {
    "Pleural Effusion": (0.02, 0.08),
    "Atelectasis": (0.02, 0.08),
    "Consolidation": (0.02, 0.08),
}


def test_findings_in_the_lung_have_a_size_that_can_be_segmented():
    areas = {name: [] for name in AREAS}
    for seed in range(32):
        _, masks = radiograph(seed, 160, 190, list(AREAS), ("PA", "AP")[seed % 2])
        for name in AREAS:
            areas[name].append(masks[name].mean())
    for name, (low, high) in AREAS.items():
        first, third = np.quantile(areas[name], (0.25, 0.75))
        assert low < first < third < high, (name, first, third)


#: Positive labels among the 234 images of CheXpert's validation set.
VALID = {
    "Enlarged Cardiomediastinum": 109, "Cardiomegaly": 68, "Lung Opacity": 126, "Lung Lesion": 1,
    "Edema": 45, "Consolidation": 33, "Atelectasis": 80, "Pneumothorax": 8, "Pleural Effusion": 67,
    "Support Devices": 107,
}  # fmt: skip


def test_findings_of_the_validation_set_are_as_frequent_as_chexperts():
    labels = [truth(draw_findings(np.random.default_rng(seed), "valid")) for seed in range(4000)]
    for name, count in VALID.items():
        assert abs(np.mean([true[name] for true in labels]) - count / 234) < 0.03, name
    rare = [np.mean([true[name] for true in labels]) for name in ("Lung Lesion", "Pneumothorax")]
    assert 0.002 < rare[0] < 0.01 and 0.025 < rare[1] < 0.045


#: Positive labels in CheXpert's training set (Irvin et al. 2019, table 1), as fractions.
TRAIN = {
    "No Finding": 0.10, "Enlarged Cardiomediastinum": 0.05, "Cardiomegaly": 0.12, "Lung Opacity": 0.47, "Lung Lesion": 0.04,
    "Edema": 0.25, "Consolidation": 0.07, "Atelectasis": 0.15, "Pneumothorax": 0.09, "Pleural Effusion": 0.40,
    "Support Devices": 0.52,
}  # fmt: skip


def test_training_labels_are_as_frequent_and_as_noisy_as_chexperts():
    studies = [
        (truth(draw_findings(random, "train")), random)
        for random in map(np.random.default_rng, range(4000))
    ]
    reports = [(true, read_report(random, true)) for true, random in studies]
    for name, rate in TRAIN.items():
        positive = np.mean([read[name] == 1 for _, read in reports])
        assert abs(positive - rate) < 0.03, (name, positive)
    for name, low, high in (
        ("Atelectasis", 0.1, 0.2),
        ("Consolidation", 0.08, 0.16),
        ("Edema", 0.04, 0.08),
        ("Pneumothorax", 0, 0.03),
    ):
        assert low <= np.mean([read[name] == -1 for _, read in reports]) <= high
    assert (
        np.mean(
            [
                read["Pleural Effusion"] is None
                for true, read in reports
                if not true["Pleural Effusion"]
            ]
        )
        > 0.5
    )
    wrong = np.mean([read[name] == 1 for true, read in reports for name in TRAIN if not true[name]])
    assert 0.002 < wrong < 0.03


def test_findings_come_together_as_in_patients():
    studies = [draw_findings(np.random.default_rng(seed), "test") for seed in range(4000)]
    labels = [truth(findings) for findings in studies]

    def rate(name: str, given: str | None = None) -> float:
        return float(np.mean([true[name] for true in labels if given is None or true[given]]))

    assert 0.30 <= rate("Enlarged Cardiomediastinum") <= 0.45
    assert 0.20 <= rate("Cardiomegaly") <= 0.30
    assert rate("Enlarged Cardiomediastinum", "Cardiomegaly") > 0.8
    assert rate("Lung Opacity", "Consolidation") == rate("Lung Opacity", "Edema") == 1
    for name, given in (
        ("Edema", "Cardiomegaly"),
        ("Edema", "Pleural Effusion"),
        ("Atelectasis", "Pleural Effusion"),
        ("Lung Opacity", "Atelectasis"),
    ):
        assert rate(name, given) > 1.3 * rate(name)
    unmarked = np.mean([not findings & set(PATHOLOGIES) for findings in studies])
    assert 0.12 < unmarked < 0.28  # of CheXpert's 234 validation images 47 have no mask


def test_with_a_prevalence_findings_are_as_frequent_and_know_nothing_of_each_other():
    studies = [draw_findings(np.random.default_rng(seed), "train", 0.2) for seed in range(4000)]
    names = ("Lung Lesion", "Consolidation", "Edema", "Pleural Effusion")
    shown = np.array([[name in findings for name in names] for findings in studies])
    assert np.all(np.abs(shown.mean(axis=0) - 0.2) < 0.025)  # four standard errors
    assert np.all(np.abs(np.corrcoef(shown.T)[np.triu_indices(4, 1)]) < 0.065)

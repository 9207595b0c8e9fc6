"""Test the published rule from CAM to mask, and that training and counting see the same masks."""

from __future__ import annotations

import json
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chexseg.analysis.stored.stored_shards import weak_maps
from chexseg.data import radiographs, shards
from chexseg.models import classifier, encoders
from chexseg.pathologies import PATHOLOGIES, observation_indices
from chexseg.saliency.thresholds import binarise
from chexseg.saliency.weak_masks import upsample
from chexseg.stages import saliency
from chexseg.stages.artifacts import CLASSIFIER_WEIGHTS, COUNTS, THRESHOLDS
from chexseg.stages.configs import FitConfig, SaliencyConfig
from chexseg.stages.scoring.weak_label_masks import IMAGE_THRESHOLDS, MaskRule
from chexseg.stages.training import segmenter_data

from .conftest import CONTEXT, EXPERT, SIZE

PUBLISHED = {
    "layer": "before-relu",
    "target": "probability",
    "threshold": "otsu",
    "fill_holes": True,
    "negatives_empty": False,
}
IMAGES = 16


def run(results, out, **settings):
    out.mkdir()
    inputs = {name: results.paths[name] for name in ("train", "valid")} | {
        "classifier": results.paths["classify"]
    }
    return saliency.run(SaliencyConfig(images=IMAGES, **EXPERT, **settings), inputs, out, CONTEXT)


@pytest.fixture(scope="module")
def published(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "saliency"
    return out, run(results, out, **PUBLISHED)


def masks(out, results, split, ids, **rule):
    """The masks that a segmenter would see."""
    made = MaskRule.of(out / split, results.paths[split], ids, **rule)
    return made.masks(slice(None), radiographs.arrays(out / split, "scores", ids))


def raw_maps_by_hand(results, pixels_NHW):
    """captum's LayerGradCam before the ReLU, target the probability, by one backward pass each."""
    model = classifier.build("densenet121")
    encoders.load(model, results.paths["classify"] / CLASSIFIER_WEIGHTS)
    model.eval()
    before = model.body(encoders.prepare(pixels_NHW, "chexpert"))
    probabilities = model.head(torch.relu(before).mean((2, 3))).sigmoid()
    maps = []
    for column in observation_indices(PATHOLOGIES):
        (gradient,) = torch.autograd.grad(probabilities[:, column].sum(), before, retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * before.detach()).sum(1).relu())
    return torch.stack(maps, dim=1)


def mask_by_hand(raw_hw):
    """The raw map at the image's size, times 255, as uint8, by Otsu, outer contours filled."""
    raw_HW = F.interpolate(raw_hw[None, None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
    levels_HW = np.minimum(255 * raw_HW, 255).astype(np.uint8)
    _, mask_HW = cv2.threshold(levels_HW, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(mask_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask_HW), contours, -1, 1, cv2.FILLED) > 0


def test_published_masks_are_those_of_the_description(results, published):
    out, facts = published
    ids = radiographs.ids(out / "train")
    assert len(ids) == IMAGES
    raw = raw_maps_by_hand(results, radiographs.pixels(results.paths["train"], ids))
    found = masks(out, results, "train", ids, negatives_empty=False).numpy()
    expected = np.array([[mask_by_hand(one) for one in maps] for maps in raw])
    assert 0.05 < expected.mean() < 0.95
    # Scores are stored in float16, which moves the level of a few pixels by one.
    assert (found != expected).mean() < 2e-3
    assert facts["thresholds"] == dict.fromkeys(PATHOLOGIES)
    assert json.loads((out / THRESHOLDS).read_text()) == facts["thresholds"]
    assert shards.metadata(shards.files(out / "train")[0])["fill_holes"] is True


def test_segmenter_and_counts_see_all_ten_masks_of_every_image(results, published):
    out, _ = published
    ids = radiographs.ids(out / "train")
    everything = masks(out, results, "train", ids, negatives_empty=False)
    present = masks(out, results, "train", ids, negatives_empty=True)
    assert (everything | present).sum() == everything.sum() > present.sum() > 0
    inputs = {"train": results.paths["train"], "weak": out}
    for negatives_empty, expected in ((False, everything), (True, present)):
        config = FitConfig(
            p=0, weak="cam", weak_images=len(ids), negatives_empty=negatives_empty, **EXPERT
        )
        source, used = segmenter_data.weak_source(config, inputs, CONTEXT, 0)
        batch = source.take(len(used))
        assert sorted(used) == ids
        for row, packed in zip(batch["rows"].tolist(), batch["masks"], strict=True):
            unpacked = radiographs.unpack_bits(packed[None], (len(PATHOLOGIES), SIZE, SIZE))[0]
            assert torch.equal(unpacked, expected[ids.index(used[row])])

    valid_ids = [image_id for image_id, _ in radiographs.mask_index(results.paths["valid"])]
    thresholds = json.loads((out / THRESHOLDS).read_text())
    counted = masks(out, results, "valid", valid_ids, negatives_empty=False, thresholds=thresholds)
    rows = shards.read(out / COUNTS).to_pandas()
    assert rows["predicted"].tolist() == counted.sum((2, 3)).flatten().tolist()
    for image_id, masks_KHW in islice(zip(valid_ids, counted, strict=True), 3):
        shown = weak_maps(out, image_id, PATHOLOGIES)  # the report's
        assert (shown.masks_KHW == masks_KHW.numpy()).all()
        assert np.isnan(shown.thresholds_K).all()


def test_a_segmenter_of_some_pathologies_gets_their_masks(results, published):
    out, _ = published
    ids, some = radiographs.ids(out / "train"), PATHOLOGIES[7:2:-2]
    found = masks(out, results, "train", ids, negatives_empty=True, pathologies=some)
    chosen = [PATHOLOGIES.index(name) for name in some]
    assert torch.equal(found, masks(out, results, "train", ids, negatives_empty=True)[:, chosen])


def test_rules_for_masks_change_no_score(results, tmp_path):
    rules = {"threshold": "otsu", "target": "probability", "cutoff": 0.01, "fill_holes": True}
    scores = []
    for settings in ({}, rules):
        out = tmp_path / str(len(settings))
        run(results, out, **settings)
        layout = shards.metadata(shards.files(out / "train")[0])["arrays"]
        assert (IMAGE_THRESHOLDS in layout) == bool(settings)
        ids = radiographs.ids(out / "train")
        scores.append(radiographs.arrays(out / "train", "scores", ids))
    assert torch.equal(*scores)


def test_a_fixed_threshold(results, tmp_path):
    facts = run(results, tmp_path / "fixed", threshold=0.3)
    assert facts["thresholds"] == dict.fromkeys(PATHOLOGIES, 0.3)
    ids = radiographs.ids(tmp_path / "fixed" / "train")
    found = masks(tmp_path / "fixed", results, "train", ids, negatives_empty=False)
    scores = upsample(radiographs.arrays(tmp_path / "fixed" / "train", "scores", ids), SIZE)
    assert torch.equal(found, scores > 0.3)


def test_a_cutoff_empties_weak_maps_before_thresholds_are_chosen(results, tmp_path):
    out, valid = tmp_path / "cut", results.paths["valid"]
    ids = [image_id for image_id, _ in radiographs.mask_index(valid)]
    settings = {"layer": "before-relu", "target": "probability", "negatives_empty": False}
    raw = raw_maps_by_hand(results, radiographs.pixels(valid, ids)).amax((2, 3))
    cutoff = float(raw[raw > 0].median())
    facts = run(results, out, cutoff=cutoff, **settings)
    found = masks(out, results, "valid", ids, negatives_empty=False, thresholds=facts["thresholds"])
    clear = (raw - cutoff).abs() > 1e-6
    emptied = (raw < cutoff) & clear
    assert emptied.any() and not found[emptied].any()
    scores = upsample(radiographs.arrays(out / "valid", "scores", ids), SIZE)
    plain = binarise(scores, torch.tensor([facts["thresholds"][name] for name in PATHOLOGIES]))
    kept = (raw > cutoff) & clear
    assert torch.equal(found[kept], plain[kept])
    # The chosen threshold is the best of the masks that are left.
    table = shards.read(out / COUNTS).to_pandas()
    table = (
        table[table["chosen_on"]].groupby("pathology")[["intersection", "predicted", "true"]].sum()
    )
    for name, iou in facts["expert_train_iou"].items():
        shared, predicted, true = table.loc[name]
        assert iou is None or iou == pytest.approx(shared / (predicted + true - shared))

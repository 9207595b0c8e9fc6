"""Evaluation of mask files: what numpy finds on the decoded pixels, by both conventions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.pathologies import PATHOLOGIES
from chexseg.report.evaluation.evaluate import evaluate

Masks = dict[str, dict[str, np.ndarray]]
METRICS = ("pooled", "per-image")
SHAPES = [(12, 17), (30, 8), (21, 21), (5, 40), (16, 16), (9, 9)]


def random_masks(seed: int, missing: tuple[str, ...] = ()) -> Masks:
    """Masks of images of different sizes: some not named, some empty, most with pixels."""
    generator = np.random.default_rng(seed)
    out: Masks = {}
    for number, shape in enumerate(SHAPES):
        entry = {"Edema": np.zeros(shape, dtype=bool)}  # an entry can't be empty
        for name in PATHOLOGIES:
            kind = generator.choice(["not named", "empty", "pixels"], p=[0.2, 0.2, 0.6])
            if kind != "not named" and name not in missing:
                entry[name] = (generator.random(shape) < generator.random()) & (kind == "pixels")
        out[f"image{number}"] = entry
    return out


def write(path: Path, masks: Masks) -> Path:
    chexlocalize.write(path, masks)
    return path


def by_numpy(gt: Masks, pred: Masks, metric: str) -> tuple[list[float], list[int]]:
    """(iou, n_images) of the ten, from pixels."""
    ious, counts = [], []
    for name in PATHOLOGIES:
        intersections, unions, with_gt, single = 0, 0, 0, []
        for image_id, entry in gt.items():
            shape = next(iter(entry.values())).shape
            true = entry.get(name, np.zeros(shape, dtype=bool))
            guess = pred.get(image_id, {}).get(name, np.zeros(shape, dtype=bool))
            intersections += (true & guess).sum()
            unions += (true | guess).sum()
            with_gt += bool(true.any())
            if true.any() and guess.any():
                single.append((true & guess).sum() / (true | guess).sum())
        if metric == "pooled":
            ious.append(intersections / unions if with_gt else np.nan)
            counts.append(with_gt)
        else:
            ious.append(np.mean(single) if single else np.nan)
            counts.append(len(single))
    return ious, counts


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(8))
def test_iou_equals_that_of_the_decoded_pixels(tmp_path, metric, seed):
    gt, pred = random_masks(seed), random_masks(seed + 100)
    del pred["image3"]
    pred["image9"] = {"Edema": np.ones((4, 4), dtype=bool)}
    table = evaluate(write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred), metric).table
    ious, counts = by_numpy(gt, pred, metric)
    bounds = [] if metric == "pooled" else ["lower", "upper"]
    assert list(table.columns) == ["pathology", "n_images", "iou", *bounds]
    assert table["pathology"].tolist() == [*PATHOLOGIES, "mean"]
    assert table["n_images"].tolist() == [*counts, len(gt)]
    np.testing.assert_allclose(table["iou"].to_numpy(), [*ious, np.nanmean(ious)], rtol=1e-12)


def test_the_two_metrics_by_hand(tmp_path):
    line = np.zeros((1, 10), dtype=bool)
    masks = {length: line.copy() for length in (0, 2, 5, 10)}
    for length, mask_HW in masks.items():
        mask_HW[0, :length] = True
    gt = {"a": {"Edema": masks[10]}, "b": {"Edema": masks[2]}, "c": {"Edema": masks[2]}, "d": {"Edema": masks[0]}}
    pred = {"a": {"Edema": masks[5]}, "b": {"Edema": masks[5]}, "c": {"Edema": masks[0]}, "d": {"Edema": masks[2]}}
    paths = write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred)
    edema = {metric: evaluate(*paths, metric).table.set_index("pathology").loc["Edema"] for metric in METRICS}
    assert edema["pooled"]["iou"] == pytest.approx(7 / 19) and edema["pooled"]["n_images"] == 3
    assert edema["per-image"]["iou"] == pytest.approx((5 / 10 + 2 / 5) / 2) and edema["per-image"]["n_images"] == 2
    (note,) = (note for note in evaluate(*paths, "per-image").notes if note.startswith("per-image"))
    assert "1 masks without a prediction" in note and "1 predictions without a mask" in note


@pytest.mark.parametrize("metric", METRICS)
def test_a_file_against_itself_is_one(tmp_path, metric):
    path = write(tmp_path / "gt.json", random_masks(1))
    found = evaluate(path, path, metric)
    assert (found.table["iou"] == 1).all() and (found.table["n_images"] > 0).all()
    assert not any("name" in note for note in found.notes)


def test_missing_and_surplus_images_are_told(tmp_path):
    gt = random_masks(2)
    pred = {name: gt[name] for name in ("image0", "image1")} | {"other": gt["image2"]}
    found = evaluate(write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred), "pooled")
    notes = "\n".join(found.notes)
    assert "doesn't name 4 of 6 images (image2" in notes and "names 1 images that" in notes and "(other" in notes
    assert found.table["iou"].iloc[-1] < 1


def test_a_pathology_that_nobody_drew_is_left_out_of_the_mean_and_told(tmp_path):
    gt, pred = random_masks(3, missing=("Lung Lesion",)), random_masks(4)
    found = evaluate(write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred), "pooled")
    table = found.table.set_index("pathology")
    assert np.isnan(table["iou"]["Lung Lesion"]) and table["n_images"]["Lung Lesion"] == 0
    assert table["iou"]["mean"] == pytest.approx(table["iou"].drop(["mean", "Lung Lesion"]).mean())
    assert any("left out of the mean: " in note and "Lung Lesion" in note for note in found.notes)


def refuses(gt: Path, pred: Path, metric: str, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(gt, pred, metric)
    message = str(caught.value)
    assert "\n" not in message and "allowed" in message
    assert all(word in message for word in words), message


def test_mistakes_are_named(tmp_path):
    path = write(tmp_path / "gt.json", random_masks(5))
    refuses(path, path, "per-pixel", "--metric", "'per-pixel'", "pooled, per-image, hit-rate")
    refuses(path, tmp_path / "none.json", "pooled", "none.json")
    other = random_masks(5)
    other["image2"] = {"Edema": np.ones((21, 22), dtype=bool)}
    refuses(path, write(tmp_path / "pred.json", other), "pooled", "pred.json: image2", "21 x 22", "21 x 21", "gt.json")
    damaged = json.loads(path.read_text())
    damaged["image4"]["Edema"] = {"size": [16, 16], "counts": chexlocalize.encode(np.ones((17, 16), dtype=bool))["counts"]}
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    refuses(path, tmp_path / "damaged.json", "per-image", "damaged.json: image4: Edema", "272 pixels", "256")
    (tmp_path / "empty.json").write_text("{}")
    refuses(tmp_path / "empty.json", path, "pooled", "empty.json", "names no image")


def test_the_published_sample(tmp_path):
    folder = Path(__file__).resolve().parents[2].parent / "shared/chexlocalize-sample/sample"
    if not folder.is_dir():
        pytest.skip("../shared/chexlocalize-sample is not beside this checkout")
    paths = folder / "gt_segmentations_val.json", folder / "gradcam_segmentations_val_sample.json"
    truth, predicted = (chexlocalize.read(path) for path in paths)
    (true_HW,), (guess_HW,) = (one.masks("patient64541_study1_view1_frontal", ["Cardiomegaly"]) for one in (truth, predicted))
    table = evaluate(*paths, "per-image").table.set_index("pathology")
    assert table["n_images"]["Cardiomegaly"] == 1
    assert table["iou"]["Cardiomegaly"] == pytest.approx((true_HW & guess_HW).sum() / (true_HW | guess_HW).sum())
    assert pd.isna(table["iou"]["Atelectasis"])  # Grad-CAM marks something on every image, the radiologists nothing

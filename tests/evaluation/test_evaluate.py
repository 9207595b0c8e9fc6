"""Test evaluation of mask files against numpy on decoded pixels, by both conventions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chexseg.data import chexlocalize
from chexseg.evaluation.evaluate import evaluate
from chexseg.pathologies import PATHOLOGIES

Masks = dict[str, dict[str, np.ndarray]]
METRICS = ("pooled", "per-image")
SHAPES = [(12, 17), (30, 8), (21, 21), (5, 40), (16, 16), (9, 9)]


def random_masks(seed: int, missing: tuple[str, ...] = ()) -> Masks:
    """Return masks of images of different sizes: some omitted, some empty, most with pixels."""
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
    """Return (iou, n_images) of the ten pathologies, from pixels."""
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
    table = evaluate(
        write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred), metric
    ).table
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
    gt = {
        "a": {"Edema": masks[10]},
        "b": {"Edema": masks[2]},
        "c": {"Edema": masks[2]},
        "d": {"Edema": masks[0]},
    }
    pred = {
        "a": {"Edema": masks[5]},
        "b": {"Edema": masks[5]},
        "c": {"Edema": masks[0]},
        "d": {"Edema": masks[2]},
    }
    paths = write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred)
    edema = {
        metric: evaluate(*paths, metric).table.set_index("pathology").loc["Edema"]
        for metric in METRICS
    }
    assert edema["pooled"]["iou"] == pytest.approx(7 / 19) and edema["pooled"]["n_images"] == 3
    assert (
        edema["per-image"]["iou"] == pytest.approx((5 / 10 + 2 / 5) / 2)
        and edema["per-image"]["n_images"] == 2
    )
    (note,) = (note for note in evaluate(*paths, "per-image").notes if note.startswith("per-image"))
    assert "1 masks without a prediction" in note and "1 predictions without a mask" in note


@pytest.mark.parametrize("metric", METRICS)
def test_a_file_against_itself_is_one(tmp_path, metric):
    path = write(tmp_path / "gt.json", random_masks(1))
    evaluation = evaluate(path, path, metric)
    assert (evaluation.table["iou"] == 1).all() and (evaluation.table["n_images"] > 0).all()
    assert not any("name" in note for note in evaluation.notes)


@pytest.mark.parametrize("metric", METRICS)
def test_a_mask_with_a_run_of_length_0_is_the_mask_without_it(tmp_path, metric):
    path = tmp_path / "zero_run.json"
    # Runs 10, 5, 0, 5, 80: the same pixels as 10, 10, 80.
    path.write_text(json.dumps({"image": {"Edema": {"size": [10, 10], "counts": ":500`2"}}}))
    assert chexlocalize.read(path).masks("image", ["Edema"]).sum() == 10
    table = evaluate(path, path, metric).table.set_index("pathology")
    assert table["iou"]["Edema"] == 1


def test_missing_and_surplus_images_are_told(tmp_path):
    gt = random_masks(2)
    pred = {name: gt[name] for name in ("image0", "image1")} | {"other": gt["image2"]}
    evaluation = evaluate(
        write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred), "pooled"
    )
    notes = "\n".join(evaluation.notes)
    assert (
        "doesn't name 4 of 6 images (image2" in notes
        and "names 1 image that" in notes
        and "(other" in notes
    )
    assert evaluation.table["iou"].iloc[-1] < 1


def test_a_pathology_that_nobody_drew_is_left_out_of_the_mean_and_told(tmp_path):
    gt, pred = random_masks(3, missing=("Lung Lesion",)), random_masks(4)
    evaluation = evaluate(
        write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred), "pooled"
    )
    table = evaluation.table.set_index("pathology")
    assert np.isnan(table["iou"]["Lung Lesion"]) and table["n_images"]["Lung Lesion"] == 0
    assert table["iou"]["mean"] == pytest.approx(table["iou"].drop(["mean", "Lung Lesion"]).mean())
    assert any(
        "left out of the mean: " in note and "Lung Lesion" in note for note in evaluation.notes
    )


THREE = ("Airspace Opacity", "Cardiomegaly", "Support Devices")


def only(masks: Masks, names: tuple[str, ...]) -> Masks:
    """Return the same images with these pathologies only, empty masks where they had none."""
    return {
        image_id: {
            name: entry.get(name, np.zeros(entry["Edema"].shape, dtype=bool)) for name in names
        }
        for image_id, entry in masks.items()
    }


@pytest.mark.parametrize("metric", METRICS)
def test_a_pathology_that_no_image_names_was_not_predicted(tmp_path, metric):
    gt, pred = random_masks(1), random_masks(101)
    evaluation = evaluate(
        write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", only(pred, THREE)), metric
    )
    table = evaluation.table.set_index("pathology")
    whole = evaluate(
        tmp_path / "gt.json", write(tmp_path / "whole.json", pred), metric
    ).table.set_index("pathology")
    pd.testing.assert_frame_equal(table.loc[list(THREE)], whole.loc[list(THREE)])
    others = [name for name in PATHOLOGIES if name not in THREE]
    assert table.loc[others, "iou"].isna().all() and (table.loc[others, "n_images"] == 0).all()
    assert table["iou"]["mean"] == pytest.approx(whole.loc[list(THREE), "iou"].mean())
    assert evaluation.left_out.not_predicted == tuple(others)
    (note,) = (note for note in evaluation.notes if "pred.json: doesn't name 7 pathologies" in note)
    assert all(name in note for name in others) and not any(name in note for name in THREE)


def test_a_pathology_of_one_image_is_predicted_on_all(tmp_path):
    """Check that an omitted mask counts as empty, as in the published files."""
    gt = random_masks(1)
    first, *rest = gt
    pred = {first: only(gt, ("Edema", "Pneumothorax"))[first]} | {
        name: only(gt, ("Edema",))[name] for name in rest
    }
    evaluation = evaluate(write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred))
    ious, _ = by_numpy(gt, pred, "pooled")
    table = evaluation.table.set_index("pathology")
    assert table["iou"]["Pneumothorax"] == pytest.approx(ious[PATHOLOGIES.index("Pneumothorax")])
    assert table["iou"]["Pneumothorax"] < 1
    assert (
        "Pneumothorax" not in evaluation.left_out.not_predicted
        and len(evaluation.left_out.not_predicted) == 8
    )


@pytest.mark.parametrize("true_pos_only", [True, False])
def test_a_pathology_that_the_truth_never_names_gets_no_zeros(tmp_path, true_pos_only):
    gt, pred = random_masks(3), random_masks(4)
    paths = write(tmp_path / "gt.json", only(gt, THREE)), write(tmp_path / "pred.json", pred)
    evaluation = evaluate(*paths, "per-image", true_pos_only)
    table = evaluation.table.set_index("pathology")
    assert (
        table["iou"].drop([*THREE, "mean"]).isna().all()
        and table.loc[list(THREE), "iou"].notna().all()
    )
    assert len(evaluation.left_out.not_in_truth) == 7 and not evaluation.left_out.not_predicted
    assert any("gt.json: doesn't name 7 pathologies" in note for note in evaluation.notes)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ending", [".jpg", ".PNG", ".dcm"])
def test_ids_that_end_like_images_are_the_same_ids(tmp_path, metric, ending):
    gt, pred = random_masks(1), random_masks(101)
    plain = evaluate(write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred), metric)
    ended = {f"{image_id}{ending}": entry for image_id, entry in pred.items()}
    for files in (("gt.json", ended), ("ended_gt.json", pred)):
        write(
            tmp_path / "ended_gt.json",
            {f"{image_id}{ending}": entry for image_id, entry in gt.items()},
        )
        evaluation = evaluate(tmp_path / files[0], write(tmp_path / "other.json", files[1]), metric)
        pd.testing.assert_frame_equal(evaluation.table, plain.table)
        assert [
            note
            for note in evaluation.notes
            if "6 image ids are matched without their suffixes" in note
        ]


def test_the_mean_of_the_named_images_stands_beside_that_of_all(tmp_path):
    gt = random_masks(2)
    few = {name: gt[name] for name in list(gt)[:2]}
    evaluation = evaluate(write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", few))
    assert evaluation.left_out.missing_images == ("image2", "image3", "image4", "image5")
    (note,) = (
        note for note in evaluation.notes if "doesn't name 4 of 6 images (image2, ...)" in note
    )
    assert (
        "counted as empty" in note
        and note.endswith("the mean is 1.000")
        and evaluation.table["iou"].iloc[-1] < 1
    )


def test_what_is_left_out_stands_in_the_json(tmp_path):
    gt, pred = random_masks(1), only(random_masks(101), THREE)
    pred["other"] = pred.pop("image0")
    evaluation = evaluate(
        write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred)
    ).as_dict()
    assert json.loads(json.dumps(evaluation, allow_nan=False)) == evaluation
    assert evaluation["left_out"]["missing_images"] == ["image0"] and evaluation["left_out"][
        "unknown_images"
    ] == ["other"]
    rows = {row["pathology"]: row for row in evaluation["rows"]}
    assert (
        rows["Edema"] == {"pathology": "Edema", "n_images": 0, "iou": None}
        and rows["mean"]["iou"] > 0
    )
    assert len(evaluation["notes"]) >= 3


def test_the_cases_beside_this_checkout(tmp_path):
    folder = Path(__file__).resolve().parents[2].parent / "shared/cases/masks"
    if not folder.is_dir():
        pytest.skip("../shared/cases is not beside this checkout")
    gt, hb = folder / "gt_segmentations_test.json", folder / "hb_segmentations_test.json"
    assert evaluate(gt, folder / "three_pathologies.json").table["iou"].iloc[-1] == pytest.approx(
        0.552, abs=5e-4
    )
    pd.testing.assert_frame_equal(
        evaluate(gt, folder / "jpgkeys.json").table, evaluate(gt, hb).table
    )


def test_the_published_sample(tmp_path):
    folder = Path(__file__).resolve().parents[2].parent / "shared/chexlocalize-sample/sample"
    if not folder.is_dir():
        pytest.skip("../shared/chexlocalize-sample is not beside this checkout")
    paths = folder / "gt_segmentations_val.json", folder / "gradcam_segmentations_val_sample.json"
    truth, predicted = (chexlocalize.read(path) for path in paths)
    (true_HW,), (guess_HW,) = (
        one.masks("patient64541_study1_view1_frontal", ["Cardiomegaly"])
        for one in (truth, predicted)
    )
    table = evaluate(*paths, "per-image").table.set_index("pathology")
    assert table["n_images"]["Cardiomegaly"] == 1
    assert table["iou"]["Cardiomegaly"] == pytest.approx(
        (true_HW & guess_HW).sum() / (true_HW | guess_HW).sum()
    )
    assert pd.isna(
        table["iou"]["Atelectasis"]
    )  # Grad-CAM marks something on each image, the radiologists nothing

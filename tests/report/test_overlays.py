"""Test the choice, layers and colours of overlays."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from chexseg.analysis.study_scores import score
from chexseg.data import chexlocalize
from chexseg.drawing import masks, palette
from chexseg.pathologies import PATHOLOGIES
from chexseg.report.page import film_grids, image_browser, image_choice, image_section
from tests.analysis.synthetic_study import SIDE
from tests.report.rendered import sections


def test_a_third_kind_of_weak_labels_has_a_column(study):
    chosen = (study.cells["weak"] == "irnet").to_numpy()
    changed = dataclasses.replace(
        study, cells=study.cells.assign(weak=study.cells["weak"].where(~chosen, "cam++"))
    )
    columns = image_choice.columns(score(changed))
    assert [panel.title for panel in columns] == [
        "Weak, CAM",
        "Weak, CAM++",
        "Weak, IRNet",
        "Full",
        "CheXseg",
    ]
    assert columns[1].index is not None and columns[2].index is None
    assert "--columns:7" in sections(changed)["Test images"]


def test_every_pathology_has_its_own_colour():
    assert set(palette.PATHOLOGY_COLOURS) == set(PATHOLOGIES)
    assert len(set(palette.PATHOLOGY_COLOURS.values())) == len(PATHOLOGIES)


def test_images_are_chosen_by_the_experts_masks_alone(study):
    chosen = image_choice.choose_images(study)
    present_I = (study.counts_CIK3[0, :, :, 2] > 0).sum(axis=1)
    patients = [name.split("_study")[0] for name in chosen]
    assert len(set(patients)) == len(chosen) == 6
    assert present_I[study.image_ids.index(chosen[0])] == present_I.max()
    worse = study.counts_CIK3.copy()
    worse[..., :2] = 0
    assert image_choice.choose_images(dataclasses.replace(study, counts_CIK3=worse)) == chosen


def test_chexseg_is_chosen_by_selection_not_by_test_scores(study):
    cells = study.cells.copy()
    lowest = cells["name"] == "irnet p=0.5 trial 1"
    cells.loc[lowest, "selection_miou"] = 0.99
    column = image_choice.columns(score(dataclasses.replace(study, cells=cells)))[3]
    assert column.subtitle == "irnet p=0.5 trial 1"


def test_missing_arms_and_predictions_say_why(study):
    full_only = (study.cells["method"] == "full").to_numpy()
    alone = dataclasses.replace(
        study, cells=study.cells[full_only], counts_CIK3=study.counts_CIK3[full_only]
    )
    shown = image_choice.columns(score(alone))
    assert [panel.index is None for panel in shown] == [True, True, False, True]
    assert "p = 0, CAM" in image_choice.predicted(alone, shown[0], alone.image_ids[0])
    kept_none = dataclasses.replace(study, predictions=None)
    assert "kept" in image_choice.predicted(
        kept_none, image_choice.columns(score(kept_none))[0], study.image_ids[0]
    )


def test_a_layer_covers_its_mask_and_nothing_else():
    mask_HW = np.zeros((50, 40), dtype=bool)
    mask_HW[10:30, 5:25] = True
    layer = np.asarray(Image.open(io.BytesIO(masks.layer_png(mask_HW, "Edema"))).convert("RGBA"))
    large_HW = masks.enlarge(mask_HW)
    assert layer.shape[:2] == large_HW.shape == (400, 320)
    assert ((layer[..., 3] > 0) == large_HW).all()
    assert set(np.unique(layer[..., 3])) == {0, masks.FILL_OPACITY, masks.OUTLINE_OPACITY}
    red, green, blue = (int(palette.PATHOLOGY_COLOURS["Edema"][i : i + 2], 16) for i in (1, 3, 5))
    assert (layer[large_HW][:, :3] == [red, green, blue]).all()


def test_image_iou_is_the_mean_over_what_experts_drew(study):
    image_id = image_choice.choose_images(study)[0]
    counts_K3 = study.counts_CIK3[0, study.image_ids.index(image_id)].astype(float)
    drawn = counts_K3[counts_K3[:, 2] > 0]
    wanted = np.mean(drawn[:, 0] / (drawn[:, 1] + drawn[:, 2] - drawn[:, 0]))
    assert image_choice.image_iou(study, 0, image_id, study.pathologies) == pytest.approx(wanted)


def test_sheet_is_a_png_of_six_rows(study):
    shown, _ = image_section.test_images("demo", score(study))
    sheet = Image.open(io.BytesIO(film_grids.sheet_png(shown["together"], shown["drawn"])))
    assert sheet.format == "PNG" and sheet.width == 6 * 246 + 6
    without, files = image_section.test_images(
        "demo", score(dataclasses.replace(study, image=None))
    )
    assert without["together"] is None and files == {}


def test_the_browser_shows_its_progress_and_may_follow_later(study):
    progress = mock.Mock()
    shown, files = image_section.test_images("demo", score(study), progress=progress)
    assert len(files) == len(study.image_ids) and shown["browser"] and not shown["later"]
    total = len(study.image_ids)
    name = f"{study.name}: image browser"
    assert [call.args for call in progress.update.call_args_list] == [
        (name, done, total, "images") for done in range(1, total + 1)
    ]
    progress.finish.assert_called_once_with(name, f"{total} images")
    shown, files = image_section.test_images("demo", score(study), browse=False)
    assert shown["browser"] is None and shown["later"] and files == {}


def decoded(runs: str) -> np.ndarray:
    return chexlocalize.decode({"size": [SIDE, SIDE], "counts": runs}, "browser")


def test_the_browser_has_every_image_with_the_masks_and_the_iou_of_each_arm(study):
    scores = score(study)
    view, files = image_browser.browser("demo", scores)
    index = json.loads(view["index"])
    assert len(index["cells"]) == len(scores.arms) == len(set(index["cells"]))
    assert index["images"] == list(study.image_ids) and len(files) == len(study.image_ids)
    assert list(files)[7] == "figures/demo-images/00007.js"
    text = files["figures/demo-images/00007.js"].decode()
    image = json.loads(text.removeprefix('showImage("demo", 7, ').removesuffix(");\n"))
    experts_KHW = study.image(study.image_ids[7])[1]
    assert (
        index["drawn"][7]
        == [int(k) for k in image["experts"]]
        == list(np.flatnonzero(experts_KHW.any(axis=(1, 2))))
    )
    for name, stored, iou_K in zip(index["cells"], image["cells"], index["iou"][7], strict=True):
        cell = study.cells["name"].tolist().index(name)
        predicted_KHW = study.predictions(cell, study.image_ids[7])
        for k, iou in enumerate(iou_K):
            mask = (
                decoded(stored[str(k)]) if str(k) in stored else np.zeros((SIDE, SIDE), dtype=bool)
            )
            assert (mask == predicted_KHW[k]).all()
            union = (mask | experts_KHW[k]).sum()
            exact = (mask & experts_KHW[k]).sum() / union if union else -1e-6
            assert iou == pytest.approx(1e6 * exact, abs=0.5)


def test_the_browsers_cells_are_chosen_on_the_selection_images(study):
    scores = score(study)
    names = study.cells["name"].iloc[image_browser.cells(scores)].tolist()
    assert names[:4] == [
        "cam p=0 trial 0",
        "irnet p=0 trial 0",
        "full trial 0",
        "cam p=0.9 trial 0",
    ]
    cells = study.cells.copy()
    cells.loc[cells["name"] == "full trial 1", "selection_miou"] = 0.99
    again = score(dataclasses.replace(study, cells=cells))
    assert "full trial 1" in cells["name"].iloc[image_browser.cells(again)].tolist()


#: Machado, Oliveira and Fernandes (2009): linear RGB as seen without one kind of cones.
DEFICIENCIES = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    "none": np.eye(3),
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_true_and_false_pixels_differ_for_everyone(deficiency):
    script = (Path(image_browser.__file__).parents[1] / "templates" / "browser.js").read_text()
    (numbers,) = re.findall(r"PAINT = \[null, (.*)\];", script)
    true, false, line = np.array(json.loads(f"[{numbers}]"))[:, :3]
    seen = [
        np.array(DEFICIENCIES[deficiency]) @ (np.array(colour) / 255) ** 2.2
        for colour in (true, false, line, [110, 110, 110])
    ]
    distances = [np.linalg.norm(a - b) for n, a in enumerate(seen) for b in seen[n + 1 :]]
    assert min(distances) > 0.2


def test_the_browser_says_why_a_mask_is_lacking(study):
    def unreadable(index, image_id):
        raise OSError("gone")

    broken = dataclasses.replace(study, predictions=unreadable)
    _, files = image_browser.browser("demo", score(broken))
    assert b"The prediction can't be read: gone" in files["figures/demo-images/00000.js"]
    kept_none = dataclasses.replace(study, predictions=None)
    assert image_browser.browser("demo", score(kept_none)) == (None, {})

"""Test Figure 2's rows and drawing, and the choice, layers and colours of overlays."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chexseg.analysis.points.figure2 import figure2_panels, figure2_points
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables.study_tables import table1_rows
from chexseg.pathologies import PATHOLOGIES
from chexseg.report import palette
from chexseg.report.figures import figure2
from chexseg.report.page import film_grids, overlay_section, overlays
from tests.report.rendered import sections


def rows_of(study: StudyResults, task: str = AVERAGE) -> pd.DataFrame:
    rows = figure2_points(study)
    return rows[rows["task"] == task].reset_index(drop=True)


def test_rows_hold_means_trials_and_the_paper(study):
    rows = rows_of(study)
    means = rows[rows["kind"] == "mean"]
    assert means.groupby("method")["p"].apply(list).to_dict() == {
        "cam": [0, 0.5, 0.9],
        "irnet": [0, 0.5, 0.9],
        "full": [1],
    }
    table = table1_rows(study)
    assert (
        means[means["method"] == "cam"]["value"].tolist()
        == table.loc[0, ["p=0", "p=0.5", "p=0.9"]].tolist()
    )
    assert (rows["kind"] == "trial").sum() == (study.cells["method"] != "student").sum()
    assert rows[(rows["kind"] == "paper") & (rows["p"] == 0.9)]["value"].tolist() == [0.299, 0.294]
    assert rows[rows["kind"] == "poster"].set_index("p")["value"].to_dict() == {
        0: 0.156,
        0.9: 0.27,
        1: 0.246,
    }
    assert not (rows_of(study, "Edema")["kind"] == "poster").any(), "the poster has averages alone"


def test_undefined_pathology_has_no_points_of_ours(build):
    study = build(absent=("Edema",), images=8, students=False)
    assert set(rows_of(study, "Edema")["kind"]) == {"paper"}
    assert figure2.figure2(rows_of(study, "Edema")).data


def test_panels_are_the_papers_or_the_studys_first_three(study):
    assert figure2_panels(study) == (None, "Pleural Effusion", "Consolidation", "Edema")
    some = dataclasses.replace(
        study, pathologies=("Airspace Opacity", "Consolidation", "Support Devices")
    )
    assert figure2_panels(some) == (
        None,
        "Airspace Opacity",
        "Consolidation",
        "Support Devices",
    )


def test_drawing_keeps_the_values_and_can_switch_groups(study):
    rows = rows_of(study)
    figure = figure2.figure2(rows)
    assert {trace.legendgroup for trace in figure.data} == {
        "cam",
        "irnet",
        "full",
        "trials",
        "paper",
    }, "no CAM++ here"
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == ["CAM", "IRNet", "full (p = 1)", "paper", "poster", "single trials"]
    line = next(trace for trace in figure.data if trace.legendgroup == "cam")
    wanted = rows[(rows["kind"] == "mean") & rows["method"].isin(["cam", "full"])]["value"]
    assert list(line.y) == wanted.tolist()
    assert line.line.color == palette.COLOURS["cam"]


def test_a_third_kind_of_weak_labels_is_drawn(study):
    chosen = (study.cells["weak"] == "irnet").to_numpy()
    changed = dataclasses.replace(
        study, cells=study.cells.assign(weak=study.cells["weak"].where(~chosen, "cam++"))
    )
    rows = rows_of(changed)
    assert set(rows[rows["kind"] == "paper"]["method"]) == {"cam"}
    assert rows[(rows["kind"] == "mean") & (rows["method"] == "cam++")]["p"].tolist() == [
        0,
        0.5,
        0.9,
    ]
    drawn = figure2.figure2(rows)
    assert {trace.legendgroup for trace in drawn.data} == {
        "cam",
        "cam++",
        "full",
        "trials",
        "paper",
    }
    assert {trace.meta for trace in drawn.data} == {"cam", "cam-plus-plus", "full"}
    columns = overlays.columns(changed)
    assert [panel.title for panel in columns] == [
        "Weak, CAM",
        "Weak, CAM++",
        "Weak, IRNet",
        "Full",
        "CheXseg",
    ]
    assert columns[1].index is not None and columns[2].index is None
    assert "--columns:7" in sections(changed)["Test images"]


def test_tick_labels_leave_out_what_would_collide():
    labels = figure2._tick_labels([0, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9, 1])
    assert labels == ["0<br>weak", "0.2", "0.4", "0.6", "0.8", "", "0.9", "1<br>full"]


def test_every_pathology_has_its_own_colour():
    assert set(palette.PATHOLOGY_COLOURS) == set(PATHOLOGIES)
    assert len(set(palette.PATHOLOGY_COLOURS.values())) == len(PATHOLOGIES)


def test_images_are_chosen_by_the_experts_masks_alone(study):
    chosen = overlays.choose_images(study)
    present_I = (study.counts_CIK3[0, :, :, 2] > 0).sum(axis=1)
    patients = [name.split("_study")[0] for name in chosen]
    assert len(set(patients)) == len(chosen) == 6
    assert present_I[study.image_ids.index(chosen[0])] == present_I.max()
    worse = study.counts_CIK3.copy()
    worse[..., :2] = 0
    assert overlays.choose_images(dataclasses.replace(study, counts_CIK3=worse)) == chosen


def test_chexseg_is_chosen_by_selection_not_by_test_scores(study):
    cells = study.cells.copy()
    lowest = cells["name"] == "irnet p=0.5 trial 1"
    cells.loc[lowest, "selection_miou"] = 0.99
    column = overlays.columns(dataclasses.replace(study, cells=cells))[3]
    assert column.subtitle == "irnet p=0.5 trial 1"


def test_missing_arms_and_predictions_say_why(study):
    full_only = (study.cells["method"] == "full").to_numpy()
    alone = dataclasses.replace(
        study, cells=study.cells[full_only], counts_CIK3=study.counts_CIK3[full_only]
    )
    shown = overlays.columns(alone)
    assert [panel.index is None for panel in shown] == [True, True, False, True]
    assert "p = 0, CAM" in overlays.predicted(alone, shown[0], alone.image_ids[0])
    kept_none = dataclasses.replace(study, predictions=None)
    assert "kept" in overlays.predicted(
        kept_none, overlays.columns(kept_none)[0], study.image_ids[0]
    )


def test_a_layer_covers_its_mask_and_nothing_else():
    mask_HW = np.zeros((50, 40), dtype=bool)
    mask_HW[10:30, 5:25] = True
    layer = np.asarray(Image.open(io.BytesIO(overlays.layer_png(mask_HW, "Edema"))).convert("RGBA"))
    large_HW = overlays.enlarge(mask_HW)
    assert layer.shape[:2] == large_HW.shape == (400, 320)
    assert ((layer[..., 3] > 0) == large_HW).all()
    assert set(np.unique(layer[..., 3])) == {0, overlays.FILL_OPACITY, overlays.OUTLINE_OPACITY}
    red, green, blue = (int(palette.PATHOLOGY_COLOURS["Edema"][i : i + 2], 16) for i in (1, 3, 5))
    assert (layer[large_HW][:, :3] == [red, green, blue]).all()


def test_image_iou_is_the_mean_over_what_experts_drew(study):
    image_id = overlays.choose_images(study)[0]
    counts_K3 = study.counts_CIK3[0, study.image_ids.index(image_id)].astype(float)
    drawn = counts_K3[counts_K3[:, 2] > 0]
    wanted = np.mean(drawn[:, 0] / (drawn[:, 1] + drawn[:, 2] - drawn[:, 0]))
    assert overlays.image_iou(study, 0, image_id, study.pathologies) == pytest.approx(wanted)


def test_sheet_is_a_png_of_six_rows(study):
    shown = overlay_section.test_images(study)
    sheet = Image.open(io.BytesIO(film_grids.sheet_png(shown["together"], shown["drawn"])))
    assert sheet.format == "PNG" and sheet.width == 6 * 246 + 6
    without = overlay_section.test_images(dataclasses.replace(study, image=None))
    assert without["together"] is None

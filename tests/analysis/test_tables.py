"""Test the layout of Table 1 and the rows of the other tables; writing never changes a number."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.statistics.scores import miou, pooled_iou
from chexseg.analysis.tables import study_tables
from chexseg.analysis.tables.text import to_csv, to_markdown, to_terminal
from tests.report.rendered import grid_html


@pytest.fixture(scope="module")
def rows(study) -> pd.DataFrame:
    return study_tables.table1_rows(study)


def test_table1_has_the_papers_layout(study, rows):
    assert rows["task"].tolist() == [
        task for task in ("Avg. IoU", *study.pathologies) for _ in range(2)
    ]
    assert rows["method"].tolist() == ["CAM", "IRNet"] * 11
    assert [name for name in rows.columns if " " not in name][3:] == [
        "p=0",
        "p=0.5",
        "p=0.9",
        "p=1",
    ]


def test_table1_holds_means_over_trials_and_their_intervals(study, rows):
    cam = (study.cells["weak"] == "cam") & (study.cells["p"] == 0.5)
    iou_CK = pooled_iou(study.counts_CIK3[cam.to_numpy()])
    row = rows[(rows["task"] == "Edema") & (rows["method"] == "CAM")].iloc[0]
    assert row["p=0.5"] == pytest.approx(iou_CK[:, study.pathologies.index("Edema")].mean())
    assert row["p=0.5 n"] == 2 and row["p=0.5 low"] < row["p=0.5"] < row["p=0.5 high"]
    assert rows["p=0.5"].iloc[0] == pytest.approx(miou(iou_CK)[0].mean())
    assert np.isnan(rows["p=0.9 low"].iloc[1]), "one trial of IRNet at p = 0.9 failed: no interval"
    assert row["p=0.9 paper"] == 0.258 and np.isnan(row["p=0.5 paper"])


def test_p1_is_shared_and_counts_in_both_rows(rows):
    cam, irnet = rows.iloc[0], rows.iloc[1]
    assert irnet["p=1"] == cam["p=1"]
    assert irnet["p=1 reason"] == study_tables.SHARED
    assert cam["best"] == "p=0.9"


def test_best_is_the_rows_highest_mean(rows):
    for row in rows.to_dict("records"):
        assert row[row["best"]] == max(row[name] for name in ("p=0", "p=0.5", "p=0.9", "p=1"))


def test_undefined_cells_say_why(build):
    study = build(
        absent=("Pneumothorax",), drop=("irnet p=0 trial 0", "irnet p=0 trial 1"), students=False
    )
    rows = study_tables.table1_rows(study)
    absent = rows[rows["task"] == "Pneumothorax"]
    assert absent["p=0.5"].isna().all() and set(absent["p=0.5 reason"]) == {study_tables.NO_EXPERT}
    assert rows["p=0 reason"].iloc[1] == study_tables.UNFINISHED
    text = to_terminal(rows)
    assert (
        "no expert mask in the test set: Pneumothorax" in text
        and "no finished cell: IRNet p=0" in text
    )
    assert f'title="{study_tables.NO_EXPERT}"' in grid_html(rows)
    assert not np.isnan(rows["p=0.5"].iloc[0]), "the average leaves the pathology out"
    lines = grid_html(rows).split("<tr")[2:]
    assert [line.count('<td class="number"') for line in lines] == [4, 3] * 11, (
        "p = 1 stands once, defined or not"
    )


def test_terminal_fits_120_columns_with_four_p(rows):
    lines = to_terminal(rows).splitlines()
    assert max(map(len, lines)) <= 120
    widest = rows.copy()
    for name in ("p=0", "p=0.5", "p=0.9", "p=1"):
        widest[f"{name} paper"], widest["p=1 reason"] = 0.263, None
        widest[f"{name} low"], widest[f"{name} high"] = 0.1, 0.3
    assert max(map(len, to_terminal(widest).splitlines())) <= 120


def test_terminal_folds_eight_p_into_blocks(build):
    text = to_terminal(
        study_tables.table1_rows(build(p_values=(0, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9, 1), images=6))
    )
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("Task") == 2 and "p=0.85" in text


def test_csv_keeps_every_digit(rows):
    again = pd.read_csv(io.StringIO(to_csv(rows)))
    assert again["p=0.9"].to_numpy() == pytest.approx(rows["p=0.9"].to_numpy(), abs=1e-15)


def test_markdown_and_html_mark_the_best(rows):
    best = f"{rows['p=0.9'].iloc[0]:.3f}"
    assert f"**{best}**" in to_markdown(rows)
    html = grid_html(rows)
    assert f"<b>{best}</b>" in html
    assert html.count('<td class="number" rowspan="2"') == 11, "one value at p = 1 for both methods"


def test_variants_keep_encoders_apart(study):
    other = study.cells.assign(init="random", cell="other")
    both = dataclasses.replace(
        study,
        cells=pd.concat([study.cells, other]),
        counts_CIK3=np.concatenate([study.counts_CIK3, study.counts_CIK3 * 0]),
    )
    variants = study_tables.variants(both)
    assert [variant.init for variant in variants] == ["chexpert", "random"]
    assert study_tables.table1_rows(both, variants[0]).equals(study_tables.table1_rows(study))


def test_cells_table_has_a_row_a_cell(study):
    rows = study_tables.cells_rows(study)
    assert len(rows) == len(study.cells)
    assert rows["mIoU"].to_numpy() == pytest.approx(
        rows[list(study.pathologies)].mean(axis=1).to_numpy()
    )


def test_students_are_paired_with_the_teacher_of_their_trial(study):
    rows = study_tables.students_rows(study)
    cells = study_tables.cells_rows(study).set_index("name")["mIoU"]
    assert rows["fraction"].tolist() == [0.01, 0.1]
    assert rows["difference"].iloc[1] == pytest.approx(
        cells["student 0.1 trial 0"] - cells["full trial 0"]
    )
    orphan = study.cells["method"].to_numpy() == "student"
    alone = dataclasses.replace(
        study, cells=study.cells[orphan], counts_CIK3=study.counts_CIK3[orphan]
    )
    assert study_tables.students_rows(alone)["reason"].notna().all()


def test_stage_times_add_up(study):
    rows = study_tables.stages_rows(study)
    assert rows["stage"].tolist() == [
        "ingest",
        "classify",
        "pretrain",
        "saliency",
        "irnet",
        "fit",
        "score",
    ]
    assert rows["total s"].sum() == pytest.approx(study.stages["seconds"].sum())
    assert rows["runs"].sum() == len(study.stages)


def test_missing_cells_keep_their_reason(study):
    assert study_tables.missing_rows(study).to_dict("records") == [
        {
            "name": "irnet p=0.9 trial 1",
            "state": "failed",
            "reason": "fit: RuntimeError: loss is not finite",
        }
    ]


def with_cam_plus_plus(study, cells_of: str = "irnet", keep: bool = True):
    """Return the study with a third kind of weak labels, as copies of another kind's cells.

    The third kind is added, or replaces the other.
    """
    chosen = (study.cells["weak"] == cells_of).to_numpy()
    third = study.cells[chosen].assign(
        weak="cam++", cell="c", name=study.cells["name"].str.replace(cells_of, "cam++")
    )
    rest = study.cells if keep else study.cells[~chosen]
    counts = study.counts_CIK3 if keep else study.counts_CIK3[~chosen]
    return dataclasses.replace(
        study,
        cells=pd.concat([rest, third]),
        counts_CIK3=np.concatenate([counts, study.counts_CIK3[chosen]]),
    )


def test_a_third_kind_of_weak_labels_has_a_row_and_no_published_values(study, rows):
    three = study_tables.table1_rows(with_cam_plus_plus(study))
    assert three["method"].tolist()[:3] == ["CAM", "CAM++", "IRNet"] and len(three) == 33
    assert three.loc[1, "p=0.5"] == rows.loc[1, "p=0.5"] and np.isnan(three.loc[1, "p=0.9 paper"])
    assert three[three["method"] != "CAM++"].reset_index(drop=True).equals(rows)
    html = grid_html(three)
    assert html.count('rowspan="3"') == 2 * 11 and 'class="method cam-plus-plus"' in html
    assert max(map(len, to_terminal(three).splitlines())) <= 120


def test_full_supervision_keeps_its_published_value_beside_cam_plus_plus_alone(study):
    rows = study_tables.table1_rows(with_cam_plus_plus(study, "cam", keep=False))
    assert rows["method"].tolist()[:2] == ["CAM++", "IRNet"]
    assert rows["p=1 paper"].iloc[0] == 0.263

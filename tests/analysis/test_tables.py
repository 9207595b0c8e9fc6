"""Test the layout of Table 1 and the rows of the other tables; writing never changes a number."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.statistics.scores import miou, pooled_iou
from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.study_scores import score
from chexseg.analysis.tables import records
from chexseg.analysis.tables.paper_tables import students_table, table1
from chexseg.analysis.tables.text import to_csv, to_latex, to_markdown, to_terminal
from chexseg.analysis.tables.value_table import NO_EXPERT, SHARED, UNFINISHED, ValueTable


def first_table1(study) -> ValueTable:
    scores = score(study)
    return table1(scores, scores.variants[0])


def cell(table: ValueTable, column, *keys) -> pd.Series:
    """Return the row of one number."""
    values = table.values
    chosen = values[table.column] == column
    for name, key in zip(table.keys, keys, strict=True):
        chosen &= values[name] == key
    return values[chosen].squeeze(axis=0)


@pytest.fixture(scope="module")
def table(study) -> ValueTable:
    return first_table1(study)


def test_table1_has_the_papers_layout(study, table):
    lines = [(keys["task"], keys["method"], list(cells)) for keys, cells in table.rows()]
    assert lines == [
        (task, method, ["p=0", "p=0.5", "p=0.9", "p=1"])
        for task in ("Avg. IoU", *study.pathologies)
        for method in ("CAM", "IRNet")
    ]


def test_table1_holds_means_over_trials_and_their_intervals(study, table):
    cam = (study.cells["weak"] == "cam") & (study.cells["p"] == 0.5)
    iou_CK = pooled_iou(study.counts_CIK3[cam.to_numpy()])
    number = cell(table, 0.5, "Edema", "CAM")
    assert number["value"] == pytest.approx(iou_CK[:, study.pathologies.index("Edema")].mean())
    assert number["n"] == 2 and np.isnan(number["low"]), "wider than all IoUs"
    average = cell(table, 0.5, "Avg. IoU", "CAM")
    assert average["n"] == 2 and average["low"] < average["value"] < average["high"]
    assert number["cells"].split() == [key[:12] for key in study.cells.loc[cam, "cell"]]
    assert cell(table, 0.5, "Avg. IoU", "CAM")["value"] == pytest.approx(miou(iou_CK)[0].mean())
    single = cell(table, 0.9, "Avg. IoU", "IRNet")
    assert np.isnan(single["low"]), "one trial of IRNet at p = 0.9 failed: no interval"
    assert cell(table, 0.9, "Edema", "CAM")["paper"] == 0.258 and np.isnan(number["paper"])


def test_p1_is_shared_and_counts_in_both_rows(table):
    cam, irnet = (cell(table, 1, "Avg. IoU", method) for method in ("CAM", "IRNet"))
    assert irnet["value"] == cam["value"]
    assert pd.isna(cam["reason"]) and irnet["reason"] == SHARED
    assert cell(table, 0.9, "Avg. IoU", "CAM")["best"]


def test_best_is_the_rows_highest_mean(table):
    for _, group in table.values.groupby(["task", "method"]):
        assert group["best"].sum() == 1
        assert group.loc[group["best"], "value"].item() == group["value"].max()


def test_undefined_cells_say_why(build):
    study = build(
        absent=("Pneumothorax",), drop=("irnet p=0 trial 0", "irnet p=0 trial 1"), students=False
    )
    table = first_table1(study)
    absent = table.values[(table.values["task"] == "Pneumothorax") & (table.values["p"] < 1)]
    assert absent["value"].isna().all() and set(absent["reason"]) == {NO_EXPERT}
    assert cell(table, 0, "Avg. IoU", "IRNet")["reason"] == UNFINISHED
    assert dict(table.gaps())[NO_EXPERT] == "Pneumothorax"
    for text in (to_terminal(table), to_markdown(table), to_latex(table)):
        assert "no expert mask in the test set: Pneumothorax" in text
        assert "no finished cell: IRNet p=0" in text
    assert not np.isnan(cell(table, 0.5, "Avg. IoU", "CAM")["value"]), "the average leaves it out"


def test_terminal_fits_120_columns_with_four_p(table):
    assert max(map(len, to_terminal(table).splitlines())) <= 120
    value = table.values["value"]
    widest = table.values.assign(paper=0.263, low=value - 0.1, high=value + 0.1, reason=None)
    text = to_terminal(dataclasses.replace(table, values=widest))
    assert max(map(len, text.splitlines())) <= 120 and text.count("Task") == 1


def test_terminal_folds_eight_p_into_blocks(build):
    text = to_terminal(
        first_table1(build(p_values=(0, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9, 1), images=6))
    )
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("Task") == 2 and "p=0.85" in text


def test_csv_keeps_every_digit(table):
    again = pd.read_csv(io.StringIO(to_csv(table.values)))
    assert again["value"].to_numpy() == pytest.approx(table.values["value"].to_numpy(), abs=1e-15)


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-1+1", "\t=1"])
def test_text_that_is_a_formula_is_none_in_a_csv(text):
    rows = pd.DataFrame({"host": [text, "host"], "number": [-1.5, 2]})
    read = list(csv.reader(io.StringIO(to_csv(rows), newline="")))
    assert read == [["host", "number"], [f"'{text}", "-1.5"], ["host", "2.0"]]


def test_text_ends_no_row_of_a_csv():
    text = to_csv(pd.DataFrame({"host": ["a\r=1+1", "b\n=1+1"]}))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["host"], ["a?=1+1"], ["b\n=1+1"]]


def test_numbers_and_dashes_stay_as_they_are_in_a_csv():
    texts = ["-1.5", "+0.3", "-1e-3", "-", "a=b", "", "2026-11-27"]
    read = pd.read_csv(io.StringIO(to_csv(pd.DataFrame({"a": texts}))), dtype=str, na_filter=False)
    assert read["a"].tolist() == texts


def test_a_text_stays_in_its_cell_and_comment(table):
    foreign = dataclasses.replace(table, source="<script>|\n\\input{secret}")
    assert "<script>" not in to_markdown(foreign) and r"&lt;script&gt;\|" in to_markdown(foreign)
    assert all(line.startswith("%") for line in to_latex(foreign).splitlines() if "secret" in line)


def test_markdown_and_latex_mark_the_best(table):
    best = f"{cell(table, 0.9, 'Avg. IoU', 'CAM')['value']:.3f}"
    assert f"**{best}**" in to_markdown(table)
    assert rf"\textbf{{{best}}}" in to_latex(table)


def test_variants_keep_encoders_apart(study):
    other = study.cells.assign(init="random", cell="other")
    both = score(
        dataclasses.replace(
            study,
            cells=pd.concat([study.cells, other]),
            counts_CIK3=np.concatenate([study.counts_CIK3, study.counts_CIK3 * 0]),
        )
    )
    assert [variant.arms[0].init for variant in both.variants] == ["chexpert", "random"]
    assert table1(both, both.variants[0]).values.equals(first_table1(study).values)


def test_arms_that_differ_only_in_epochs_of_a_stage_keep_their_names(study):
    """Check that `pretrain.epochs`, whose last part is a column's name, is not taken for it."""
    two = pd.concat([study.cells.assign(other=f"epochs={n}") for n in (20, 5)])
    scores = score(
        dataclasses.replace(study, cells=two, counts_CIK3=np.concatenate([study.counts_CIK3] * 2))
    )
    assert len({str(arm) for arm in scores.arms}) == len(scores.arms)
    assert len({variant.text for variant in scores.variants}) == 2


def test_cells_table_has_a_row_a_cell(study):
    rows = records.cells(score(study))
    assert len(rows) == len(study.cells)
    assert rows["mIoU"].to_numpy() == pytest.approx(
        rows[list(study.pathologies)].mean(axis=1).to_numpy()
    )


def test_cells_table_has_the_settings_that_a_study_varies(study):
    axes = pd.DataFrame({"labels.p": study.cells["p"], "fit.loss": "dice"}, dtype=object)
    rows = records.cells(score(dataclasses.replace(study, axes=axes)))
    assert set(rows["fit.loss"]) == {"dice"}
    assert "p" in rows and "labels.p" not in rows, "it has a column under its short name"


def test_students_are_paired_with_the_teacher_of_their_trial(study):
    table = students_table(score(study))
    mious = records.cells(score(study)).set_index("name")["mIoU"]
    assert table.keys == ("init", "fraction")
    assert table.values["fraction"].drop_duplicates().tolist() == [0.01, 0.1]
    assert cell(table, "difference", "chexpert", 0.1)["value"] == pytest.approx(
        mious["student 0.1 trial 0"] - mious["full trial 0"]
    )
    orphan = study.cells["method"].to_numpy() == "student"
    alone = dataclasses.replace(
        study, cells=study.cells[orphan], counts_CIK3=study.counts_CIK3[orphan]
    )
    values = students_table(score(alone)).values
    assert values.loc[values["series"] != "student", "reason"].notna().all()


def test_stage_times_add_up(study):
    rows = records.stages(study)
    order = ["ingest", "classify", "pretrain", "saliency", "irnet", "fit", "score"]
    assert rows["stage"].tolist() == order
    assert rows["total s"].sum() == pytest.approx(study.stages["seconds"].sum())
    assert rows["runs"].sum() == len(study.stages)


def test_missing_cells_keep_their_reason(study):
    assert records.missing(score(study)).to_dict("records") == [
        {
            "name": "irnet p=0.9 trial 1",
            "state": "failed",
            "reason": "fit: RuntimeError: loss is not finite",
        }
    ]


def test_tables_of_an_analysis_are_one_number_a_row(study):
    tables = analyse(study).tables
    assert {"claims", "cells", "table1", "pathologies", "students", "stages"} <= set(tables)
    for name in ("table1", "pathologies", "students"):
        assert {"value", "low", "high", "n", "paper", "reason", "cells"} <= set(tables[name])


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


def test_a_third_kind_of_weak_labels_has_a_row_and_no_published_values(study, table):
    three = first_table1(with_cam_plus_plus(study))
    lines = [keys["method"] for keys, _ in three.rows()]
    assert lines[:3] == ["CAM", "CAM++", "IRNet"] and len(lines) == 33
    added = cell(three, 0.5, "Avg. IoU", "CAM++")
    assert added["value"] == cell(table, 0.5, "Avg. IoU", "IRNet")["value"]
    assert np.isnan(cell(three, 0.9, "Avg. IoU", "CAM++")["paper"])
    others = three.values[three.values["method"] != "CAM++"].reset_index(drop=True)
    assert others.equals(table.values)
    assert max(map(len, to_terminal(three).splitlines())) <= 120


def test_full_supervision_keeps_its_published_value_beside_cam_plus_plus_alone(study):
    table = first_table1(with_cam_plus_plus(study, "cam", keep=False))
    assert [keys["method"] for keys, _ in table.rows()][:2] == ["CAM++", "IRNet"]
    assert cell(table, 1, "Avg. IoU", "CAM++")["paper"] == 0.263

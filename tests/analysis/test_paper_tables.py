"""Test Table 2, arms by pathology, LaTeX and the terminal, also of studies that lack some."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.study_scores import score
from chexseg.analysis.tables.paper_tables import (
    arms_table,
    has_table2,
    students_table,
    table1,
    table2,
)
from chexseg.analysis.tables.text import study_result, to_latex
from chexseg.analysis.tables.value_table import UNFINISHED, ValueTable, number, value_table
from tests.analysis.papers_study import PIXELS, achieved, by_hand, counts_of, keep, papers_study
from tests.analysis.test_axis_effects import ADDITIVE
from tests.analysis.test_axis_effects import made as two_axes
from tests.analysis.test_tables import cell
from tests.report.rendered import sections

#: The sections that compare the study with the paper's tables and figures.
COMPARISONS = {"Table 2", "Figure 3", "Figure 4", "Figure 5", "Pathologies"}


@pytest.fixture(scope="module")
def paper():
    return papers_study()


def table2_of(study: StudyResults) -> ValueTable:
    return table2(score(study))


# ---- Table 2 -------------------------------------------------------------------------------------


def test_table2_has_the_papers_rows_and_numbers(paper):
    table = table2_of(paper)
    lines = [(keys["method"], keys["encoder"]) for keys, _ in table.rows()]
    inits = ("random", "imagenet", "moco", "chexpert")
    assert lines == [(method, init) for method in ("CAM", "IRNet") for init in inits]
    assert table.heads == ["100 images", "2,000 images", "20,000 images"]
    assert set(table.values.loc[table.values["best"], "weak images"]) == {20000}
    last = cell(table, 20000, "IRNet", "chexpert")
    assert last["paper"] == 0.156
    assert cell(table, 2000, "IRNet", "chexpert")["paper half"] == 0.00002
    ours = achieved(paper, method="weak", weak="irnet", init="chexpert", weak_images=20000)
    assert last[["value", "low", "high"]].tolist() == pytest.approx(by_hand(*ours), rel=1e-4)
    assert last["value"] == pytest.approx(0.156, abs=0.005)


def test_table2_says_which_cells_are_missing_and_keeps_settings_apart(paper):
    weak = (paper.cells["method"] == "weak").to_numpy()
    gone = (
        weak
        & (paper.cells["weak_images"] == 2000).to_numpy()
        & (paper.cells["init"] == "moco").to_numpy()
    )
    table = table2_of(keep(paper, weak & ~gone))
    moco = cell(table, 2000, "CAM", "moco")
    assert np.isnan(moco["value"]) and moco["reason"] == UNFINISHED
    assert moco["paper"] == 0.133, "the published value stays"
    assert table.gaps() == [(UNFINISHED, "CAM moco 2,000 images, IRNet moco 2,000 images")]
    imported = paper.cells["init"].eq("moco") & weak
    other = paper.cells.assign(other=imported.map({True: "imported=True", False: ""}))
    both = dataclasses.replace(
        paper,
        cells=pd.concat([paper.cells, other[imported]]),
        counts_CIK3=np.concatenate([paper.counts_CIK3, paper.counts_CIK3[imported]]),
    )
    assert "moco imported=True" in table2_of(both).values["encoder"].tolist()


def test_what_a_column_tells_is_not_told_again(paper):
    """If a study varies encoders and numbers of images, its cells list both in `other` too."""
    other = "init=" + paper.cells["init"] + " weak_images=" + paper.cells["weak_images"].astype(str)
    named = dataclasses.replace(paper, cells=paper.cells.assign(other=other))
    assert table2_of(named).values.equals(table2_of(paper).values)


def test_published_means_of_ten_stand_beside_no_other_mean():
    some = papers_study(pathologies=("Edema", "Consolidation"), trials=1, images=4)
    assert table2_of(some).values["paper"].isna().all()


def test_a_teacher_has_its_students_settings():
    study = papers_study(trials=2, images=4)
    student = (
        (study.cells["method"] == "student")
        & (study.cells["init"] == "moco")
        & (study.cells["fraction"] == 0.1)
    )
    teacher = (study.cells["method"] == "full") & (study.cells["init"] == "moco")
    small = study.cells.assign(epochs=study.cells["epochs"].where(~(student | teacher), 5))
    counts = study.counts_CIK3[student | teacher] // [2, 1, 1]
    both = dataclasses.replace(
        study,
        cells=pd.concat([study.cells, small[student | teacher]]),
        counts_CIK3=np.concatenate([study.counts_CIK3, counts]),
    )
    table = students_table(score(both)).values
    moco = table[(table["init"] == "moco") & (table["fraction"] == 0.1)]
    teachers = sorted(moco.loc[moco["series"] == "teacher", "value"])
    full = achieved(study, method="full", init="moco").mean()
    assert teachers[1] == pytest.approx(full) and teachers[0] < full / 1.5


def test_one_number_of_images_makes_no_table2(study):
    assert not has_table2(score(study))
    assert COMPARISONS & set(sections(study)) == {"Figure 3", "Figure 5", "Pathologies"}


def test_arms_by_pathology_mark_the_best_of_each_column(paper):
    table = arms_table(score(paper))
    values = table.values
    assert len(list(table.rows())) == len(score(paper).arms)
    assert table.heads == ["Avg. IoU", *paper.pathologies]
    assert values["best"].sum() == 11
    for _, column in values.groupby("pathology"):
        assert column.loc[column["best"], "value"].item() == column["value"].max()
    chosen = (paper.cells["method"] == "full") & (paper.cells["init"] == "moco")
    only = arms_table(score(keep(paper, chosen.to_numpy())))
    assert not only.values["best"].any(), "an arm alone is no best"


def test_arms_of_one_encoder_initialization_are_named_by_their_other_settings():
    made = two_axes(ADDITIVE)
    table = arms_table(score(made))
    assert table.keys == ("arm", "settings")
    names = {f"loss={loss} epochs={epochs}" for loss, epochs in ADDITIVE}
    assert set(table.values["settings"]) == names, "the start is the same for all"
    first = made.axes["loss"] == made.axes["loss"].iloc[0]
    cells = made.cells.assign(init=np.where(first, "random", "chexpert"))
    both = arms_table(score(dataclasses.replace(made, cells=cells)))
    starts = both.values["settings"].str.partition(" ")[0]
    assert both.keys == ("arm", "settings") and set(starts) == {"random", "chexpert"}


# ---- LaTeX ---------------------------------------------------------------------------------------


def check_latex(text: str) -> list[list[str]]:
    """Return the cells of a table; fail on unbalanced braces, raw specials and unequal rows."""
    table = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    unescaped = re.sub(r"\\[{}]", "", table)
    assert unescaped.count("{") == unescaped.count("}")
    assert not re.search(r"(?<!\\)[#%_]", table)
    body = table[table.index(r"\toprule") : table.index(r"\bottomrule")]
    align = re.search(r"\\begin\{tabular\}\{([lr]+)\}", table)[1]
    lines = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r" \\")]
    cells = [re.split(r"(?<!\\)&", line) for line in lines]
    assert {len(line) for line in cells} == {len(align)}
    return [[cell.strip() for cell in line] for line in cells]


def test_latex_of_table1_and_table2(paper):
    cells = check_latex(to_latex(table2_of(paper)))
    assert cells[0] == ["Method", "Encoder", "100 images", "2,000 images", "20,000 images"]
    assert len(cells) == 9 and all(line[4].startswith(r"\textbf{") for line in cells[1:])
    assert [line[0] for line in cells[1:]] == ["CAM", "", "", "", "IRNet", "", "", ""]
    scores = score(paper)
    assert check_latex(to_latex(table1(scores, scores.variants[0])))[1][0] == "Avg. IoU"


def test_latex_escapes_what_a_setting_is_called():
    nasty = r"50% of_{a}\b & #1 ~^ $x$"
    row = {"task": nasty, "p": 0.0} | number(Interval(0.5, 0.4, 0.6, 2))
    cells = check_latex(to_latex(value_table([row], ("task",), "p")))
    assert cells[1][0].startswith(r"50\% of\_\{a\}\textbackslash") and r"\$x\$" in cells[1][0]


# ---- the terminal --------------------------------------------------------------------------------


def test_the_terminal_names_the_table_and_counts_the_others(study):
    several = [study.cells.assign(init=init) for init in ("chexpert", "moco", "random")]
    three = dataclasses.replace(
        study, cells=pd.concat(several), counts_CIK3=np.concatenate([study.counts_CIK3] * 3)
    )
    text = study_result(analyse(three))
    assert text.startswith("Table 1, encoder chexpert, 100 weak images, 20 epochs\n")
    assert text.endswith("2 other Tables 1 are on the page and in tables/.")
    assert "other" not in study_result(analyse(study))
    only = study_result(analyse(keep(study, (study.cells["method"] == "full").to_numpy())))
    assert "Table 1" not in only
    assert [line.split()[0] for line in only.splitlines()[:3:2]] == ["Arm", "full"]


def test_arms_without_mixtures_beside_some_with_are_table2s(paper):
    assert [variant.text for variant in score(paper).variants] == [
        "encoder chexpert, 100 weak images, 20 epochs"
    ]


def test_counts_of_hit_their_iou():
    counts = counts_of(np.array([[0.25]]), images=3)
    assert counts[0, 0, 0].tolist() == [PIXELS * 2 // 5, PIXELS, PIXELS], "0.4 / (2 - 0.4) = 0.25"


def test_an_empty_study_has_no_tables_of_the_paper(study):
    empty = dataclasses.replace(
        study, cells=study.cells.iloc[:0], counts_CIK3=study.counts_CIK3[:0]
    )
    assert not {"pathologies", "table1", "table2", "radiologists"} & set(analyse(empty).tables)
    assert not COMPARISONS & set(sections(empty))


def test_every_table_of_the_paper_is_there(paper):
    analysis = analyse(paper)
    assert {"pathologies", "table1", "table2", "radiologists"} <= set(analysis.tables)
    assert set(analysis.paper_tables) == {"table1", "table2"}


def test_the_page_says_that_radiologists_masks_are_missing(study):
    assert "radiologists’ masks" in sections(study)["Figure 5"]

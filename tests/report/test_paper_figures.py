"""Test Table 2, arms by pathology, LaTeX and the terminal, also of studies that lack some."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.tables import grid, study_tables, table2
from chexseg.analysis.tables.text import to_tex
from chexseg.report.page.comparison_sections import comparison_sections, paper_tables
from chexseg.report.page.html_tables import to_html
from tests.analysis.papers_study import PIXELS, achieved, counts_of, papers_study


@pytest.fixture(scope="module")
def paper():
    return papers_study()


def keep(results, chosen_C: np.ndarray, **changes):
    """Return the study with some of its cells."""
    cells = results.cells[chosen_C].reset_index(drop=True)
    return dataclasses.replace(
        results, cells=cells, counts_CIK3=results.counts_CIK3[chosen_C], **changes
    )


def by_hand(*ious: float) -> list[float]:
    """Return mean, low and high of Student's t-interval: t = 4.3027 for three trials, 12.7062 for two."""
    mean, t = sum(ious) / len(ious), {2: 12.7062, 3: 4.3027}[len(ious)]
    half = t * (sum((x - mean) ** 2 for x in ious) / (len(ious) - 1) / len(ious)) ** 0.5
    return [mean, mean - half, mean + half]


# ---- Table 2 -----------------------------------------------------------------------------------------------------------


def test_table2_has_the_papers_rows_and_numbers(paper):
    rows = table2.table2_rows(paper)
    assert rows["method"].tolist() == ["CAM"] * 4 + ["IRNet"] * 4
    assert rows["encoder"].tolist() == ["random", "imagenet", "moco", "chexpert"] * 2
    assert grid.columns(rows) == ["100 images", "2,000 images", "20,000 images"]
    assert rows["best"].tolist() == ["20,000 images"] * 8
    last = rows.iloc[-1]
    assert (last["20,000 images paper"], last["2,000 images paper ±"]) == (0.156, 0.00002)
    ours = achieved(paper, method="weak", weak="irnet", init="chexpert", weak_images=20000)
    got = [last["20,000 images"], last["20,000 images low"], last["20,000 images high"]]
    assert got == pytest.approx(by_hand(*ours), rel=1e-4)
    assert last["20,000 images"] == pytest.approx(0.156, abs=0.005)


def test_table2_says_which_cells_are_missing_and_keeps_settings_apart(paper):
    weak = (paper.cells["method"] == "weak").to_numpy()
    gone = (
        weak
        & (paper.cells["weak_images"] == 2000).to_numpy()
        & (paper.cells["init"] == "moco").to_numpy()
    )
    rows = table2.table2_rows(keep(paper, weak & ~gone))
    moco = rows[(rows["encoder"] == "moco") & (rows["method"] == "CAM")].iloc[0]
    assert np.isnan(moco["2,000 images"]) and moco["2,000 images reason"] == grid.UNFINISHED
    assert moco["2,000 images paper"] == 0.133, "the published value stays"
    assert grid.gaps(rows) == [(grid.UNFINISHED, "CAM moco 2,000 images, IRNet moco 2,000 images")]
    imported = paper.cells["init"].eq("moco") & weak
    other = paper.cells.assign(other=imported.map({True: "imported=True", False: ""}))
    both = dataclasses.replace(
        paper,
        cells=pd.concat([paper.cells, other[imported]]),
        counts_CIK3=np.concatenate([paper.counts_CIK3, paper.counts_CIK3[imported]]),
    )
    assert "moco imported=True" in table2.table2_rows(both)["encoder"].tolist()


def test_what_a_column_tells_is_not_told_again(paper):
    """If a study varies encoders and numbers of images, its cells list both in `other` too."""
    other = "init=" + paper.cells["init"] + " weak_images=" + paper.cells["weak_images"].astype(str)
    named = dataclasses.replace(paper, cells=paper.cells.assign(other=other))
    assert table2.table2_rows(named).equals(table2.table2_rows(paper))


def test_published_means_of_ten_stand_beside_no_other_mean():
    some = papers_study(pathologies=("Edema", "Consolidation"), trials=1, images=4)
    assert table2.table2_rows(some)["100 images paper"].isna().all()


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
    rows = study_tables.students_rows(both)
    moco = rows[(rows["init"] == "moco") & (rows["fraction"] == 0.1)]
    full = achieved(study, method="full", init="moco").mean()
    assert (
        sorted(moco["teacher"])[1] == pytest.approx(full)
        and sorted(moco["teacher"])[0] < full / 1.5
    )


def test_one_number_of_images_makes_no_table2(study):
    assert not table2.has_table2(study)
    assert set(comparison_sections(study, "demo")) == {"Figure 3", "Figure 5", "Pathologies"}


def test_arms_by_pathology_mark_the_best_of_each_column(paper):
    rows = table2.arms_rows(paper)
    assert len(rows) == len(table2.arms(paper)) and grid.columns(rows) == [
        "Avg. IoU",
        *paper.pathologies,
    ]
    for name in grid.columns(rows):
        leaders = [row["arm"] for _, row in rows.iterrows() if grid.is_best(row, name)]
        assert leaders == [rows.loc[rows[name].idxmax(), "arm"]]
    assert rows["best"].notna().sum() < len(rows)
    assert to_html(rows).count("<b>") == 11
    only = keep(
        paper,
        (paper.cells["method"] == "full").to_numpy() & (paper.cells["init"] == "moco").to_numpy(),
    )
    assert table2.arms_rows(only)["best"].isna().all(), "an arm alone is no best"


# ---- LaTeX -------------------------------------------------------------------------------------------------------------


def check_tex(text: str) -> list[list[str]]:
    """Return the cells of a table; fail on unbalanced braces, raw specials and unequal rows."""
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= {
        "begin", "end", "toprule", "midrule", "bottomrule", "addlinespace", "textbf", "textsuperscript", "pm", "par",
        "smallskip", "footnotesize", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "times",
    }  # fmt: skip
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert not re.search(r"(?<!\\)[#%_]", text) and text.count("$") % 2 == text.count(r"\$") % 2
    align = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)[1]
    lines = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r" \\")]
    cells = [re.split(r"(?<!\\)&", line) for line in lines]
    assert {len(line) for line in cells} == {len(align)}
    return [[cell.strip() for cell in line] for line in cells]


def test_tex_of_table1_and_table2(paper):
    rows = table2.table2_rows(paper)
    cells = check_tex(to_tex(rows))
    assert cells[0] == ["Method", "Encoder", "100 images", "2,000 images", "20,000 images"]
    assert len(cells) == 9 and all(line[4].startswith(r"\textbf{") for line in cells[1:])
    assert [line[0] for line in cells[1:]] == ["CAM", "", "", "", "IRNet", "", "", ""]
    assert check_tex(to_tex(study_tables.table1_rows(paper)))[1][0] == "Avg. IoU"


def test_tex_gives_each_dash_its_reason(build):
    study = build(
        absent=("Pneumothorax",),
        drop=("irnet p=0 trial 0", "irnet p=0 trial 1"),
        students=False,
        images=8,
    )
    text = to_tex(study_tables.table1_rows(study))
    cells = check_tex(text)
    letter = text[text.index("no expert mask") - 4]
    assert (
        next(line for line in cells if line[0] == "Pneumothorax")[2]
        == rf"--\textsuperscript{{{letter}}}"
    )
    assert "no finished cell" in text


def test_tex_escapes_what_a_study_is_called():
    nasty = pd.DataFrame(
        [{"name": r"50% of_{a}\b & #1 ~^ $x$ <y>", "state": "failed", "reason": "—"}]
    )
    cells = check_tex(to_tex(nasty))
    assert cells[1][0] == (
        r"50\% of\_\{a\}\textbackslash{}b \& \#1 \textasciitilde{}\textasciicircum{} \$x\$ \textless{}y\textgreater{}"
    )


# ---- the terminal ------------------------------------------------------------------------------------------------------


def test_the_terminal_names_the_table_and_counts_the_others(study):
    several = [study.cells.assign(init=init) for init in ("chexpert", "moco", "random")]
    three = dataclasses.replace(
        study, cells=pd.concat(several), counts_CIK3=np.concatenate([study.counts_CIK3] * 3)
    )
    text = table2.terminal(three)
    assert text.startswith("Table 1, encoder chexpert, 100 weak images, 20 epochs\n")
    assert text.endswith("2 other Tables 1 are on the page and in tables/.")
    assert "other" not in table2.terminal(study)
    only = keep(study, (study.cells["method"] == "full").to_numpy())
    assert not study_tables.has_table1(only) and "Table 1" not in table2.terminal(only)
    assert [line.split()[0] for line in table2.terminal(only).splitlines()[:3:2]] == ["Arm", "full"]


def test_arms_without_mixtures_beside_some_with_are_table2s(paper):
    assert [str(variant) for variant in study_tables.variants(paper)] == [
        "encoder chexpert, 100 weak images, 20 epochs"
    ]


def test_counts_of_hit_their_iou():
    counts = counts_of(np.array([[0.25]]), images=3)
    assert counts[0, 0, 0].tolist() == [PIXELS * 2 // 5, PIXELS, PIXELS], "0.4 / (2 - 0.4) = 0.25"


def test_an_empty_study_has_no_tables_of_the_paper(study):
    empty = dataclasses.replace(
        study, cells=study.cells.iloc[:0], counts_CIK3=study.counts_CIK3[:0]
    )
    assert not any(map(len, paper_tables(empty).values()))
    assert comparison_sections(empty, "demo") == {}


def test_every_table_of_the_paper_is_there(paper):
    assert set(paper_tables(paper)) == {"pathologies", "table2", "radiologists"}


def test_the_page_says_that_radiologists_masks_are_missing(study):
    assert "radiologists’ masks" in comparison_sections(study, "demo")["Figure 5"]

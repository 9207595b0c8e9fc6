"""Test Table 2, Figures 3 to 5 and arms by pathology, also of studies that lack some of them."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.points.figure3 import figure3_panels, figure3_rows
from chexseg.analysis.points.figure4 import figure4_panels, figure4_rows
from chexseg.analysis.points.figure5 import figure5_rows, radiologists_rows
from chexseg.analysis.tables import grid, study_tables, table2
from chexseg.analysis.tables.text import to_tex
from chexseg.report.figures import figure3, figure4, figure5, study_figures
from chexseg.report.page import page
from tests.analysis.papers_study import PIXELS, RADIOLOGISTS, achieved, counts_of, papers_study
from tests.report.rendered import grid_html, sections

#: The sections that compare the study with the paper's tables and figures.
COMPARISONS = {"Table 2", "Figure 3", "Figure 4", "Figure 5", "Pathologies"}


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
    assert figure4_rows(named).equals(figure4_rows(paper))
    assert set(figure3_rows(named)["settings"]) == {""}


def test_published_means_of_ten_stand_beside_no_other_mean():
    some = papers_study(pathologies=("Edema", "Consolidation"), trials=1, images=4)
    assert table2.table2_rows(some)["100 images paper"].isna().all()
    assert not figure4_rows(some)["kind"].isin(["paper", "poster"]).any()
    assert not figure3_rows(some)["kind"].isin(["paper", "poster"]).any()
    rows = figure5_rows(some)
    assert set(rows.loc[rows["kind"] == "paper", "task"]) == {"Edema", "Consolidation"}


# ---- Figures 3 and 4 ---------------------------------------------------------------------------------------------------


def test_figure3_has_students_and_the_teachers_of_their_encoder(paper):
    rows = figure3_rows(paper)
    assert figure3_panels(rows) == ("random", "moco", "chexpert"), (
        "imagenet's teacher has no student"
    )
    mean = rows[(rows["kind"] == "mean") & (rows["init"] == "moco")]
    assert mean[mean["method"] == "student"]["fraction"].tolist() == [0.001, 0.01, 0.1]
    ours = achieved(paper, method="student", init="moco", fraction=0.01)
    assert mean[mean["fraction"] == 0.01][["value", "low", "high"]].iloc[
        0
    ].tolist() == pytest.approx(by_hand(*ours), rel=1e-4)
    assert rows.loc[rows["kind"] == "paper", ["init", "value"]].values.tolist() == [
        ["chexpert", 0.263]
    ]
    line = next(
        trace
        for trace in figure3.figure3(rows, "moco").data
        if trace.legendgroup == "teacher" and trace.meta == "full"
    )
    teacher = achieved(paper, method="full", init="moco").mean()
    assert line.line.dash == "dash" and list(line.y) == pytest.approx([teacher] * 2)


def test_figure3_panels_share_their_axes_and_a_missing_share_leaves_a_gap(paper):
    gone = (paper.cells["init"] == "moco") & (paper.cells["fraction"] == 0.01)
    rows = figure3_rows(keep(paper, ~gone.to_numpy()))
    drawn = [figure3.figure3(rows, init) for init in figure3_panels(rows)]
    assert len({tuple(panel.layout.yaxis.range) for panel in drawn}) == 1
    assert {panel.layout.xaxis.ticktext for panel in drawn} == {("0.1%", "1%", "10%")}
    students = [next(t for t in panel.data if t.legendgroup == "student") for panel in drawn]
    assert [len(trace.x) for trace in students] == [3, 2, 3]


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


def test_figure4_compares_encoders_with_published_values_beside_ours(paper):
    rows = figure4_rows(paper)
    assert figure4_panels(rows) == (0, 100, 2000, 20000)
    full = rows[(rows["images"] == 0) & (rows["kind"] == "mean")]
    assert full["encoder"].tolist() == ["random", "imagenet", "moco", "chexpert"]
    assert full["value"].iloc[1] == pytest.approx(
        achieved(paper, method="full", init="imagenet").mean()
    )
    published = rows[(rows["images"] == 0) & rows["kind"].isin(["paper", "poster"])]
    assert published[["kind", "value"]].values.tolist() == [["paper", 0.263], ["poster", 0.246]]
    table = rows[
        (rows["images"] == 100) & (rows["kind"] == "paper") & (rows["encoder"] == "random")
    ]
    assert (table["high"] - table["value"]).tolist() == pytest.approx([0.00783, 0.00133])
    drawn = figure4.figure4(rows, 20000, "b")
    cam = next(trace for trace in drawn.data if trace.legendgroup == "cam")
    assert len(cam.x) == 4 and all(at < number for number, at in enumerate(cam.x)), (
        "beside IRNet, not upon it"
    )
    assert drawn.layout.yaxis.range == figure4.figure4(rows, 100).layout.yaxis.range


def test_one_encoder_makes_no_figure4_and_one_number_no_table2(study):
    assert figure4_panels(figure4_rows(study)) == ()
    assert not table2.has_table2(study)
    assert COMPARISONS & set(sections(study)) == {"Figure 3", "Figure 5", "Pathologies"}


# ---- Figure 5 ----------------------------------------------------------------------------------------------------------


def test_figure5_by_hand():
    """Test Figure 5 by hand, for six patients with one image each.

    Readers share 800 of their 1,000 pixels with the experts' 1,000: IoU 800 / 1,200 in all images.
    CheXseg shares 500 in three images (500 / 1,500) and 800 in the others: pooled, 1,300 / 2,700.
    """
    study = papers_study(trials=1, images=6, pathologies=("Edema",))
    chosen = (
        (study.cells["method"] == "mixed")
        & (study.cells["weak"] == "cam")
        & (study.cells["p"] == 0.9)
    )
    one = keep(
        study,
        chosen.to_numpy(),
        image_ids=tuple(f"patient{number}_study1_view1_frontal" for number in range(6)),
    )
    one = dataclasses.replace(
        one,
        counts_CIK3=np.array([[[[500, 1000, 1000]], [[800, 1000, 1000]]] * 3]),
        radiologists_IK3=np.array([[[800, 1000, 1000]]] * 6),
    )
    rows = figure5_rows(one)
    ours = rows[(rows["kind"] == "mean") & (rows["task"] == "Edema")].set_index("role")
    assert ours["value"].to_dict() == pytest.approx(
        {"chexseg": 1300 / 2700, "radiologists": 2 / 3, "gap": 1300 / 2700 - 2 / 3}
    )
    # The images' differences, 500 / 1,500 - 2 / 3 and 0, lie 1 / 6 to either side of their mean: so does IoU, nearly. The
    # standard error of six is 0.183 / sqrt(6) = 0.075, Student's quantile 2.57.
    low, high = ours.loc["gap", ["low", "high"]]
    assert (high - low) / 2 == pytest.approx(2.57 * 0.075, rel=0.1) and ours.loc["gap", "n"] == 6
    assert (low + high) / 2 == pytest.approx(1300 / 2700 - 2 / 3)
    assert ours.loc["radiologists", ["low", "high"]].tolist() == pytest.approx([2 / 3, 2 / 3])
    table = radiologists_rows(rows)
    assert table["task"].tolist() == ["Avg. IoU", "Edema"] and table[
        "relative %"
    ].tolist() == pytest.approx([-27.78] * 2, abs=0.01)


def test_figure5_has_the_papers_roles_and_what_follows_from_its_text(paper):
    rows = figure5_rows(paper)
    arms = rows[rows["kind"] == "mean"].set_index("role")["description"]
    assert arms["chexseg"].iloc[0].startswith("CAM, p = 0.9")
    assert arms["weak"].iloc[0].startswith("IRNet, p = 0, 20,000 weak images, encoder chexpert")
    published = rows[rows["kind"].isin(["paper", "poster"])].set_index(["task", "role", "kind"])[
        "value"
    ]
    # (0.299 - 0.156) / 71.6% and (0.27 - 0.156) / 57.2% above weak supervision.
    assert published["Avg. IoU", "radiologists", "paper"] == pytest.approx(0.3557, abs=1e-4)
    assert published["Avg. IoU", "radiologists", "poster"] == pytest.approx(0.3553, abs=1e-4)
    assert published["Atelectasis", "radiologists", "paper"] == pytest.approx(0.324 / 2.65)
    assert (
        published["Edema", "chexseg", "paper"] == 0.258
        and ("Edema", "radiologists", "paper") not in published
    )
    gap = rows[(rows["role"] == "gap")].set_index("task")
    assert {task for task in RADIOLOGISTS if gap.loc[task, "low"] > 0} == set(RADIOLOGISTS)


def test_figure5_without_radiologists_or_expert_masks(build):
    some = build(absent=("Pneumothorax",), images=8, students=False)
    rows = figure5_rows(some)
    assert set(rows.loc[rows["kind"] == "mean", "role"]) == {"weak", "full", "chexseg"}
    assert rows[(rows["task"] == "Pneumothorax") & (rows["kind"] == "mean")]["value"].isna().all()
    figure = figure5.figure5(rows)
    assert all(np.isfinite(trace.x).all() for trace in figure.data)
    assert "radiologists’ masks" in sections(some)["Figure 5"]


# ---- all of them -------------------------------------------------------------------------------------------------------


def test_every_figure_and_table_of_the_paper_is_there(paper):
    names = set(study_figures.paper_figures(paper))
    assert {f"figure2-{letter}" for letter in "abcd"} | {
        "figure2-lung-lesion",
        "figure3-moco",
        "figure5",
    } <= names
    assert {"figure4a", "figure4b-100", "figure4b-2000", "figure4b-20000"} <= names and len(
        names
    ) == 19
    assert {"pathologies", "table2", "radiologists"} <= set(page.all_tables(paper))


@pytest.mark.parametrize("trials", [1, 2])
def test_figures_hold_numbers_alone(trials):
    drawn = study_figures.paper_figures(papers_study(trials=trials, images=4))
    for name, figure in drawn.items():
        for trace in figure.data:
            assert (
                len(trace.x) == len(trace.y)
                and np.isfinite(np.array([trace.x, trace.y], dtype=float)).all()
            ), name
        assert figure.layout.showlegend and len({t.name for t in figure.data if t.showlegend}) > 1


def test_an_empty_study_has_no_figures(study):
    empty = dataclasses.replace(
        study, cells=study.cells.iloc[:0], counts_CIK3=study.counts_CIK3[:0]
    )
    assert study_figures.paper_figures(empty) == {}
    assert not {"pathologies", "table2", "radiologists"} & set(page.all_tables(empty))
    assert not COMPARISONS & set(sections(empty))


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
    assert grid_html(rows).count("<b>") == 11
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

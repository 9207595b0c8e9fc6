"""Test a page's first screen: question, answer, main figure, facts, links and names."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.tables.records import origin
from chexseg.report.figures import study_figures
from chexseg.report.page.overview import (
    MOST_EFFECTS,
    answer_sentences,
    effects_sentences,
    facts,
    overview,
)
from tests.analysis.papers_study import papers_study
from tests.analysis.test_axis_effects import ADDITIVE
from tests.analysis.test_axis_effects import made as two_axes
from tests.report.rendered import publish


@pytest.fixture(scope="module")
def own(build):
    """Return a study that reproduces nothing, with two axes."""
    made = build(
        pathologies=("Edema", "Consolidation"), trials=3, images=24, students=False, drop=()
    )
    weak = made.cells["weak"].astype(object).where(made.cells["weak"].notna(), None)
    axes = pd.DataFrame({"labels.p": made.cells["p"], "labels.weak": weak}, dtype=object)
    return dataclasses.replace(made, reproduces=(), axes=axes, title="Do weak labels help?")


def text_of(results, out) -> str:
    return publish([results], out).page.read_text(encoding="utf-8")


def header(page: str) -> str:
    return page.partition("<header")[2].partition("</header>")[0]


def test_a_reproduction_answers_with_the_papers_order():
    analysis = analyse(papers_study(images=20))
    order, claims = answer_sentences(analysis)
    arms = analysis.headline.set_index("arm")["mIoU"]
    for name in ("Weak", "Full", "CheXseg"):
        assert f"({arms[name]:.3f})" in order
    verdict = next(claim.verdict for claim in analysis.claims if claim.name == "order")
    assert ("undecided" in order) == (verdict == "undecided")
    assert claims.startswith(f"Of {len(analysis.claims)} claims of the paper: ")


def test_a_study_of_its_own_question_answers_with_its_ranking_and_effects(own):
    analysis = analyse(own)
    first, *others = answer_sentences(analysis)
    best = analysis.answer.ranking.iloc[0]
    name = best["arm"].replace(", encoder chexpert", "")
    assert ", encoder chexpert" in best["arm"], "all arms have it"
    assert first == f"Highest mIoU, {best['mIoU']:.3f}: {name}."
    for row in analysis.answer.effects.itertuples():
        if row.verdict == "undecided":
            begin, text = "Undecided (", f"{row.axis} {row.value} instead of {row.against}, "
        else:
            begin, text = (
                "Resolved over all arms: ",
                f"{row.axis} {row.value} is {row.verdict} than {row.against}, ",
            )
        number = f"{row.difference:+.3f}".replace("-", "\u2212")
        assert any(one.startswith(begin) and f"{text}{number}" in one for one in others)


def test_effects_that_could_not_be_tested_stand_in_the_answer_with_the_reason(own):
    """A reader wants to know how large they are, and what a test needs."""
    of_two = (own.cells["trial"] < 2).to_numpy()
    made = dataclasses.replace(
        own,
        cells=own.cells[of_two].reset_index(drop=True),
        axes=own.axes[of_two].reset_index(drop=True),
        counts_CIK3=own.counts_CIK3[of_two],
    )
    analysis = analyse(made)
    _, effects = answer_sentences(analysis)
    assert effects.startswith("Undecided (2 trials, a test needs 3): labels.p ")
    assert analysis.answer.effects["P"].isna().all() and len(analysis.answer.effects) > 2


def test_the_only_arm_is_the_answer_although_radiologists_are_better(own):
    only = (own.cells["method"] == "full").to_numpy()
    made = dataclasses.replace(
        own,
        cells=own.cells[only].reset_index(drop=True),
        axes=own.axes.iloc[:0, :0],
        counts_CIK3=own.counts_CIK3[only],
        radiologists_IK3=np.repeat(own.counts_CIK3[0, :, :, 2:], 3, axis=-1),  # perfect
    )
    analysis = analyse(made)
    (arm,) = analysis.scores.arms
    miou = arm.over_trials(analysis.scores.miou_C).mean
    assert analysis.headline.set_index("arm").loc["Radiologists", "mIoU"] == 1 > miou
    assert answer_sentences(analysis) == [f"Full: mIoU {miou:.3f}."]


def test_a_long_list_of_effects_is_cut(own):
    answer = analyse(own).answer
    effects = pd.concat([answer.effects.head(1).assign(verdict="undecided", reason="x")] * 9)
    *_, last = effects_sentences(dataclasses.replace(answer, effects=effects))
    assert last.count(" instead of ") == MOST_EFFECTS and last.endswith(
        f"; {9 - MOST_EFFECTS} more."
    )


def test_the_caption_speaks_of_bars_only_where_the_figure_has_some(own):
    analysis = analyse(own)
    bare = analysis.ranking.assign(low=np.nan, high=np.nan)
    for rows, end in (
        (analysis.ranking, "; bars: 95% over trials"),
        (bare, "; too few trials for bars"),
    ):
        figures = study_figures.draw(dataclasses.replace(analysis, ranking=rows), legend=False)
        assert overview("demo", analysis, figures, [])["caption"].endswith(end)


def test_a_study_of_one_encoder_initialization_has_no_figure_by_initialization():
    """Its panels would repeat the ranking under a wrong title."""
    made = two_axes(ADDITIVE)
    assert not any(name.startswith("figure4") for name in study_figures.draw(analyse(made)))
    first = made.axes["loss"] == made.axes["loss"].iloc[0]
    two = made.cells.assign(init=np.where(first, "random", "chexpert"))
    assert "figure4a" in study_figures.draw(analyse(dataclasses.replace(made, cells=two)))


def test_the_pages_cells_have_no_column_of_what_their_names_say(tmp_path):
    made = two_axes(ADDITIVE)
    page = text_of(made, tmp_path).partition('id="made--cells"')[2].partition("</thead>")[0]
    assert "selection mIoU" in page and ">loss" not in page
    csv = pd.read_csv(tmp_path / "tables" / "made-cells.csv")
    assert csv["loss"].tolist() == made.axes["loss"].tolist()


def test_the_first_screen_has_question_answer_figure_and_facts_in_this_order(own, tmp_path):
    stages = own.stages.assign(
        finished="2026-11-02T10:00:00+00:00", version="chexseg 0.1.0", device="cuda", cpu="Xeon"
    )
    stages["gpu"] = ["NVIDIA B"] + ["NVIDIA A"] * (len(stages) - 1)
    stages.loc[0, "finished"] = "2026-11-01T10:00:00+00:00"
    made = dataclasses.replace(
        own,
        stages=stages,
        study_file="name: own\n",
        overrides=("fit.epochs=2",),
        dashboards=(("optuna-dashboard", "optuna-dashboard store/journal.log"),),
    )
    top = header(text_of(made, tmp_path))
    parts = ["Do weak labels help?", "Highest mIoU, ", 'data-figure="demo--ranking"', "Procedure"]
    assert [top.index(part) for part in parts] == sorted(top.index(part) for part in parts)
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", top))
    assert shown == {
        "Procedure": "the study file’s settings",
        "Data": "24 test images of 12 patients; 2 pathologies",
        "Cells": "21 of 21 cells finished",
        "Version": "chexseg 0.1.0",
        "Date": "2026-11-01 to 2026-11-02",
        "Hardware": "NVIDIA A and NVIDIA B, laptop",
        "Set by --set": "fit.epochs=2",
    }
    # Long paths would push the figure off a phone's first screen.
    folded = top.partition("<summary>Commands for optuna-dashboard</summary>")[2]
    assert folded.partition("</details>")[0].count("<code>optuna-dashboard store/journal.log<") == 1
    assert '<a href="tables/demo-study.yaml">' in top
    assert (tmp_path / "tables" / "demo-study.yaml").read_text() == "name: own\n"


def test_facts_that_no_run_recorded_are_left_out(study):
    assert facts(analyse(study)).keys() == {"Procedure", "Data", "Cells", "Hardware"}


@pytest.mark.parametrize(
    ("columns", "hardware"),
    [
        ({"device": "cuda"}, "CUDA, laptop"),  # of earlier versions
        ({"device": "cuda", "gpu": None, "cpu": "Xeon"}, "CUDA, laptop"),
        ({"device": "cpu", "gpu": None, "cpu": "Xeon"}, "Xeon, laptop"),
        ({"device": None, "gpu": None, "cpu": None}, "laptop"),
    ],
)
def test_the_hardware_is_what_the_runs_recorded(own, columns, hardware):
    made = dataclasses.replace(own, stages=own.stages.assign(**columns))
    assert origin(made)["Hardware"] == hardware


def test_the_main_figure_is_the_first_that_the_study_has(study, own):
    for results, name in ((study, "figure2-a"), (own, "ranking")):
        analysis = analyse(results)
        figures = study_figures.draw(analysis, legend=False)
        view = overview("demo", analysis, figures, [])
        assert view["figure"] == figures[name] and view["figure_anchor"] == f"demo--{name}"
        assert "bars: 95% over trials" in view["caption"]
    bare = overview("demo", analyse(study), {}, [])
    assert bare["figure"] is None and bare["caption"] == ""


def test_the_ranking_has_a_row_per_arm_named_by_what_sets_it_apart(own):
    analysis = analyse(own)
    figure = study_figures.draw(analysis)["ranking"]
    rows = analysis.ranking[analysis.ranking["kind"] == "mean"]
    assert rows["value"].is_monotonic_decreasing
    assert [note.text for note in figure.layout.annotations] == rows["arm"].tolist()
    assert not rows["arm"].str.contains("encoder").any(), "all arms have the same"
    assert rows["arm"].is_unique and len(rows) == 7


def test_only_a_reproduction_speaks_of_chexseg_and_the_papers_figures(study, own, tmp_path):
    ours = text_of(own, tmp_path / "own").partition("<footer>")[0]
    theirs = text_of(study, tmp_path / "theirs")
    plain = re.sub(r"<script.*?</script>|<[^>]*>", "", ours, flags=re.S)
    assert not re.search("CheXseg|the paper", plain), "it isn't a study of the paper"
    assert "Best mixture" in plain
    title = "IoU against the share of expert labels (the paper’s Figure 2)"
    assert f"<h2>{title}</h2>" in theirs and ">Figure 2</a>" in theirs
    assert "<h2>IoU against the share of expert labels</h2>" in ours and ">Mixing</a>" in ours


def test_a_study_of_one_supervision_compares_none(own, tmp_path):
    """A study of losses, say: its arms stand beside baselines and radiologists."""
    several = dataclasses.replace(own, radiologists_IK3=own.counts_CIK3[0])
    full = (several.cells["method"] == "full").to_numpy()
    single = dataclasses.replace(
        several,
        cells=several.cells[full].reset_index(drop=True),
        axes=several.axes[full].reset_index(drop=True),
        counts_CIK3=several.counts_CIK3[full],
    )
    both, one = text_of(several, tmp_path / "several"), text_of(single, tmp_path / "single")
    words = ("kind of supervision", "Weak, full and best mixture", "minus radiologists")
    assert [word in both for word in words] == [True] * 3
    assert not any(word in one for word in words)
    assert "<h2>mIoU beside baselines</h2>" in one
    assert "<h2>IoU by pathology, beside radiologists</h2>" in one
    assert ">Supervision</a>" in both and ">Radiologists</a>" in one


def test_the_contents_name_missing_cells_only_where_some_are(own, tmp_path):
    assert "--missing-cells" not in text_of(own, tmp_path)

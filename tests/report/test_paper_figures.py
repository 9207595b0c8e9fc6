"""Test the drawings of Figures 2 to 5: their traces, switches, hover texts, keys and axes."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from chexseg.analysis.points.figure3 import panels as figure3_panels
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.study_analysis import analyse
from chexseg.drawing import palette
from chexseg.report.figures import figure2, figure3, figure4, figure5, study_figures
from chexseg.report.figures.parts import dodge
from chexseg.report.figures.theme import LEGEND_ROW, TEMPLATE
from chexseg.report.page import switches
from tests.analysis.papers_study import achieved, papers_study
from tests.analysis.points import figure2_points, figure3_points, figure4_points, figure5_points


@pytest.fixture(scope="module")
def paper():
    return papers_study()


def average(study) -> pd.DataFrame:
    rows = figure2_points(study)
    return rows[rows["task"] == AVERAGE]


def first(figure: go.Figure, group: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.legendgroup == group)


def names(figure: go.Figure) -> list[str]:
    return [trace.name for trace in figure.data if trace.showlegend]


# ---- Figure 2 ------------------------------------------------------------------------------------


def test_figure2_has_one_switch_and_one_legend_entry_per_series(study):
    figure = figure2.figure2(average(study))
    groups = {trace.legendgroup for trace in figure.data}
    assert groups == {"cam", "irnet", "full", "trials", "paper"}, "no CAM++ here"
    expected = ["CAM", "IRNet", "full (p = 1)", "paper", "poster", "single trials"]
    assert sorted(names(figure)) == expected
    assert {trace.meta for trace in figure.data} == {"cam", "irnet", "full"}


def test_figure2_lines_have_the_means_and_end_at_full_supervision(study):
    rows = average(study)
    figure = figure2.figure2(rows)
    line = first(figure, "cam")
    means = rows[rows["kind"] == "mean"]
    assert list(line.y) == means.loc[means["method"].isin(["cam", "full"]), "value"].tolist()
    assert line.mode == "lines+markers" and line.marker.color == palette.COLOURS["cam"]
    assert list(line.marker.size) == [9, 9, 9, 0] and line.x[-1] == 1
    of_cam = means[means["method"] == "cam"]
    above = (of_cam["high"] - of_cam["value"]).fillna(0).tolist()
    assert list(line.error_y.array) == pytest.approx([*above, 0]), "full's interval is full's alone"
    full = first(figure, "full")
    assert full.mode == "markers" and list(full.y) == [line.y[-1]]


def test_figure2_says_what_each_point_is_and_which_runs_are_behind_it(study):
    rows = average(study)
    figure = figure2.figure2(rows)
    line, trials = first(figure, "cam"), first(figure, "trials")
    mean = rows[(rows["kind"] == "mean") & (rows["method"] == "cam")].iloc[1]
    interval = f"[{mean['low']:.3f}, {mean['high']:.3f}]"
    assert line.hovertext[1] == f"CAM, p = 0.5: {mean['value']:.3f} {interval}, 2 trials"
    assert line.customdata[1] == mean["cells"] and len(mean["cells"].split()) == 2
    assert re.fullmatch(r"CAM, p = 0, trial 0: 0\.\d{3}", trials.hovertext[0])
    assert len(trials.customdata[0].split()) == 1
    assert first(figure, "paper").hovertext[-2] == "CAM, p = 0.9, paper: 0.299"


def test_published_points_are_open_and_dotted_below_ours(study):
    figure = figure2.figure2(average(study))
    kinds = ["paper" if trace.legendgroup == "paper" else "ours" for trace in figure.data]
    assert kinds == sorted(kinds, reverse=True)
    for trace in figure.data:
        published = trace.legendgroup == "paper"
        assert published == trace.marker.symbol.endswith("-open")
        assert published == (trace.line.dash == "dot")


def test_figure2_of_an_undefined_pathology_has_only_published_points(build):
    rows = figure2_points(build(absent=("Edema",), images=8, students=False))
    figure = figure2.figure2(rows[rows["task"] == "Edema"])
    assert {trace.legendgroup for trace in figure.data} == {"paper"}


def test_a_third_kind_of_weak_labels_has_a_colour_and_a_switch(study):
    weak = study.cells["weak"].mask(study.cells["weak"] == "irnet", "cam++")
    changed = dataclasses.replace(study, cells=study.cells.assign(weak=weak))
    figure = figure2.figure2(average(changed))
    groups = {trace.legendgroup for trace in figure.data}
    assert groups == {"cam", "cam++", "full", "trials", "paper"}
    assert {trace.meta for trace in figure.data} == {"cam", "cam-plus-plus", "full"}


def test_tick_labels_leave_out_what_would_collide():
    labels = figure2.tick_labels([0, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9, 1])
    assert labels == ["0<br>weak", "0.2", "0.4", "0.6", "0.8", "", "0.9", "1<br>full"]


# ---- Figures 3 and 4 -----------------------------------------------------------------------------


def test_figure3_has_the_teacher_as_a_dashed_line_over_its_interval(paper):
    figure = figure3.figure3(figure3_points(paper), "moco")
    line = first(figure, "teacher")
    teacher = achieved(paper, method="full", init="moco").mean()
    assert line.line.dash == "dash" and list(line.y) == pytest.approx([teacher] * 2)
    assert line.customdata[0] and line.hovertext.startswith(f"teacher: {teacher:.3f} [")
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert band.legendgroup == "teacher" and min(band.y) < teacher < max(band.y)
    assert "paper" not in {trace.legendgroup for trace in figure.data}
    published = first(figure3.figure3(figure3_points(paper), "chexpert"), "paper")
    assert published.line.dash == "dot" and list(published.y) == [0.263] * 2


def test_figure3_panels_have_equal_axes_and_a_gap_for_a_missing_fraction(paper):
    gone = (paper.cells["init"] == "moco") & (paper.cells["fraction"] == 0.01)
    left = dataclasses.replace(
        paper, cells=paper.cells[~gone], counts_CIK3=paper.counts_CIK3[~gone]
    )
    rows = figure3_points(left)
    panels = [figure3.figure3(rows, init) for init in figure3_panels(rows)]
    assert len({panel.layout.yaxis.range for panel in panels}) == 1
    assert {panel.layout.xaxis.ticktext for panel in panels} == {("0.1%", "1%", "10%")}
    assert [len(first(panel, "student").x) for panel in panels] == [3, 2, 3]


def test_students_that_differ_in_other_settings_have_symbols_of_their_own(paper):
    rows = figure3_points(paper)
    other = rows[rows["method"] == "student"].assign(settings="epochs=5")
    figure = figure3.figure3(pd.concat([rows, other], ignore_index=True), "moco")
    students = [first(figure, name) for name in ("student", "student epochs=5")]
    assert len({trace.marker.symbol for trace in students}) == 2
    assert np.subtract(students[1].x, students[0].x) == pytest.approx([figure3.LANE] * 3)


def test_figure4_has_methods_side_by_side_on_equal_axes(paper):
    rows = figure4_points(paper)
    figure = figure4.figure4(rows, 20000, "b")
    cam, irnet = first(figure, "cam"), first(figure, "irnet")
    assert np.subtract(irnet.x, cam.x) == pytest.approx([figure4.LANE] * 4)
    assert np.add(irnet.x, cam.x) == pytest.approx([0, 2, 4, 6])
    assert figure.layout.yaxis.range == figure4.figure4(rows, 100).layout.yaxis.range
    assert figure.layout.title.text == "<b>b</b>  weak supervision, 20,000 images"
    assert first(figure, "paper").error_y.array is not None, "Table 2 has intervals"


# ---- Figure 5 ------------------------------------------------------------------------------------


def test_figure5_has_a_symbol_per_role_and_intervals_along_x(study, paper):
    figure = figure5.figure5(figure5_points(paper))
    assert names(figure)[-4:] == ["weak", "full", "CheXseg", "radiologists"]
    weak, chexseg = first(figure, "weak"), first(figure, "chexseg")
    assert weak.hovertext[0].startswith("Avg. IoU, weak: ")
    assert ", 20 patients<br>IRNet" in weak.hovertext[0]
    assert chexseg.error_x.array is not None and chexseg.error_y.array is None
    assert chexseg.customdata[0] and first(figure, "radiologists").customdata[0] == ""
    same = figure5.figure5(figure5_points(study))  # weak supervision and CheXseg are both CAM's
    assert first(same, "weak").marker.color == first(same, "chexseg").marker.color
    assert first(same, "weak").marker.symbol != first(same, "chexseg").marker.symbol


def test_figure5_leaves_out_what_is_undefined(build):
    rows = figure5_points(build(absent=("Pneumothorax",), images=8, students=False))
    figure = figure5.figure5(rows)
    assert all(np.isfinite(trace.x).all() for trace in figure.data)
    assert "Pneumothorax" in figure.layout.yaxis.ticktext


# ---- all of them ---------------------------------------------------------------------------------


def test_lanes_keep_series_and_kinds_apart():
    kinds = ("paper", "mean", "trial")
    rows = pd.DataFrame(itertools.product("ab", kinds), columns=["series", "kind"])
    shift = dodge(rows, "series", ["a", "b"], 0.2)
    assert shift.tolist() == pytest.approx([-0.17, -0.1, -0.03, 0.03, 0.1, 0.17])
    assert dodge(rows, "series", ["b"], 0.2).tolist()[:3] == pytest.approx([-0.07, 0, 0.07])


def test_every_figure_of_the_paper_is_there(paper):
    drawn = set(study_figures.draw(analyse(paper)))
    expected = {f"figure2-{letter}" for letter in "abcd"} | {"figure2-lung-lesion"}
    expected |= {"figure3-moco", "figure4a", "figure4b-100", "figure4b-2000", "figure4b-20000"}
    assert expected | {"figure5"} <= drawn and len(drawn) == 19


@pytest.mark.parametrize("trials", [1, 2])
def test_all_figures_have_numbers_one_theme_and_a_legend(trials):
    drawn = study_figures.draw(analyse(papers_study(trials=trials, images=4)))
    for name, figure in drawn.items():
        for trace in figure.data:
            assert len(trace.x) == len(trace.y), name
            assert np.isfinite(np.array([trace.x, trace.y], dtype=float)).all(), name
        assert figure.layout.showlegend and len(set(names(figure))) == len(names(figure)) > 1
        assert figure.layout.template == TEMPLATE, name


def test_a_figure_for_the_page_has_no_legend_and_less_height(study):
    rows = average(study)
    of_file, of_page = figure2.figure2(rows), figure2.figure2(rows, legend=False)
    assert not of_page.layout.showlegend
    assert of_page.layout.height < of_file.layout.height
    panel = [figure.layout.height - figure.layout.margin.b for figure in (of_file, of_page)]
    assert panel[0] == panel[1]


def test_an_empty_study_has_no_figures(study):
    empty = dataclasses.replace(
        study, cells=study.cells.iloc[:0], counts_CIK3=study.counts_CIK3[:0]
    )
    assert study_figures.draw(analyse(empty)) == {}


def test_a_legend_of_many_series_has_room_below_the_axis(paper):
    rows = figure3_points(paper)
    students = rows[rows["method"] == "student"]
    more = [students.assign(settings=f"epochs={number}") for number in range(8)]
    one = figure3.figure3(rows, "moco")
    many = figure3.figure3(pd.concat([rows, *more], ignore_index=True), "moco")
    room = many.layout.margin.b - one.layout.margin.b
    assert room == many.layout.height - one.layout.height >= 2 * LEGEND_ROW


def test_names_of_encoders_that_would_overprint_have_a_row_each(paper):
    rows = figure4_points(paper)
    other = rows.assign(encoder=rows["encoder"] + " architecture=resnet34")
    beside = figure4.figure4(rows, 0)
    below = figure4.figure4(pd.concat([rows, other], ignore_index=True), 0)
    assert beside.layout.xaxis.ticktext == ("random", "imagenet", "moco", "chexpert")
    texts = [annotation.text for annotation in below.layout.annotations]
    named = ["random", "imagenet", "moco", "chexpert"]
    assert texts == [*named, *(f"{name} architecture=resnet34" for name in named)]
    means = first(below, "full")
    assert list(means.y) == list(range(8)) and means.error_x.array is not None
    for annotation, y in zip(below.layout.annotations, means.y, strict=True):
        assert annotation.y < y - figure4.ROW_LANE, "the axis points down: above the row's points"
    assert below.layout.height > beside.layout.height


def test_a_cut_interval_ends_in_an_arrowhead_inside_the_frame(build):
    rows = figure2_points(build(trials=2, drop=(), students=False))
    figure = figure2.figure2(rows[rows["task"] == "Edema"])
    top = figure.layout.yaxis.range[1]
    cut = rows[(rows["task"] == "Edema") & (rows["high"] > top)]
    assert len(cut), "two trials have wide intervals"
    heads = [trace for trace in figure.data if trace.marker.symbol == "triangle-up"]
    assert sum(len(trace.x) for trace in heads) == len(cut)
    assert {y for trace in heads for y in trace.y} == {top}
    assert {trace.legendgroup for trace in heads} == set(cut["method"])
    for trace in figure.data:
        if trace.error_y.array is not None:
            ends = (
                np.add(trace.y, trace.error_y.array),
                np.subtract(trace.y, trace.error_y.arrayminus),
            )
            assert ends[0].max() <= top + 1e-9 and ends[1].min() >= -1e-9


def test_switches_have_the_marks_of_the_figures(study, paper):
    for results in (study, paper):
        panels = study_figures.draw(analyse(results), legend=False)
        for figure in panels.values():
            for group, switch in switches.of_figures([figure]).items():
                if group in switches.OTHERS:
                    continue
                traces = [t for t in figure.data if t.legendgroup == group and t.name]
                assert switch.colour == f"var(--{traces[0].meta})"
                assert {t.marker.symbol or "dashed-line" for t in traces if t.fill is None} == {
                    switch.shape
                }
    assert switches.of_figures([figure2.figure2(average(study))]).keys() == {
        "cam", "irnet", "full", "trials", "paper",
    }  # fmt: skip


def test_series_of_a_figure_differ_without_colour(paper):
    for name, figure in study_figures.draw(analyse(paper), legend=False).items():
        shapes = [switch.shape for switch in switches.of_figures([figure]).values()]
        assert len(set(shapes)) == len(shapes), name

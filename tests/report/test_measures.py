"""Test the report's table and section of measures of masks, which are there only if asked for."""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys

import numpy as np
import pandas as pd
import pytest

from chexseg import cli
from chexseg.analysis import load
from chexseg.analysis.claims import headline
from chexseg.analysis.statistics import mask_measures
from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.study_scores import score
from chexseg.analysis.tables import measures_table
from chexseg.analysis.tables.value_table import NO_EXPERT
from chexseg.data import chexlocalize
from chexseg.data.images import Frame
from chexseg.progress import Quiet
from chexseg.report.write import write
from tests.analysis import stores
from tests.analysis.synthetic_study import build_study
from tests.report.rendered import split_sections

NAMES = ("Edema", "Consolidation", "Pneumothorax")


@pytest.fixture(scope="module")
def small():
    return build_study(NAMES, images=16, students=False, drop=(), absent=("Pneumothorax",))


@pytest.fixture(scope="module")
def analysis(small):
    return analyse(small, Quiet())


def value(analysis, task: str, arm: str, measure: str) -> pd.Series:
    values = analysis.measures.values
    chosen = values["pathology"].eq(task) & values["arm"].eq(arm) & values["measure"].eq(measure)
    return values[chosen].squeeze(axis=0)


def test_values_are_means_over_trials_then_over_pathologies(small, analysis):
    arm = headline.choose(score(small))["chexseg"]
    assert len(arm.indices) == 2
    dice_TIK = np.array(
        [
            [
                [
                    mask_measures.dice(*masks)
                    for masks in zip(small.predictions(index, i), small.image(i)[1], strict=True)
                ]
                for i in small.image_ids
            ]
            for index in arm.indices
        ]
    )
    dice_K = np.nanmean(dice_TIK[..., :2], axis=(0, 1))  # equal images in each trial
    for name, expected in zip(NAMES, dice_K, strict=False):
        row = value(analysis, name, "CheXseg", "Dice")
        assert row["value"] == pytest.approx(expected) and row["n"] == 2
        by_trial = np.nanmean(dice_TIK[..., list(NAMES).index(name)], axis=1)
        half = 12.7062 * abs(by_trial[0] - by_trial[1]) / 2
        possible = expected - half >= 0 and expected + half <= 1
        assert row["high"] == pytest.approx(expected + half if possible else np.nan, nan_ok=True)
    mean = value(analysis, "Mean", "CheXseg", "Dice")
    assert mean["value"] == pytest.approx(dice_K.mean())
    assert mean["cells"].split() == [small.cells["cell"][index][:12] for index in arm.indices]


def test_areas_are_those_of_the_counts(small, analysis):
    arm = headline.choose(score(small))["full"]
    _, predicted_TK, true_TK = np.moveaxis(small.counts_CIK3[list(arm.indices)].sum(axis=1), -1, 0)
    ratio = (predicted_TK[:, 0] / true_TK[:, 0]).mean()
    assert value(analysis, "Edema", "Full", "area ratio")["value"] == pytest.approx(ratio)
    assert predicted_TK[:, 2].any(), "invented masks of a pathology without an expert mask"
    together = (predicted_TK[:, :2].sum(axis=1) / true_TK[:, :2].sum(axis=1)).mean()
    assert value(analysis, "Mean", "Full", "area ratio")["value"] == pytest.approx(together)


def test_each_arm_has_rows_and_what_is_undefined_says_why(analysis):
    values = analysis.measures.values
    assert values["arm"].unique().tolist() == analysis.headline["arm"].tolist()
    assert values["pathology"].unique().tolist() == ["Mean", *NAMES]
    absent = values[values["pathology"] == "Pneumothorax"]
    assert absent["value"].isna().all() and set(absent["reason"]) == {NO_EXPERT}
    assert values[values["pathology"] != "Pneumothorax"]["value"].notna().all()
    assert analysis.measures.gaps() == [(NO_EXPERT, "Pneumothorax")]


def test_an_arm_with_two_roles_is_measured_once(small):
    scores = score(small)
    weak = headline.choose(scores)["weak"]
    table = measures_table.measures(scores, {"weak": weak, "best": weak}, Quiet())
    assert set(table.values["arm"]) == {"Weak"} and set(table.values["n"]) <= {0, 2}


def test_without_a_negative_image_specificity_has_a_reason_of_its_own(small):
    both_KHW = np.ones((len(NAMES), 96, 96), dtype=bool)
    full = dataclasses.replace(small, image=lambda image_id: (None, both_KHW))
    row = value(analyse(full, Quiet()), "Edema", "Full", "specificity")
    assert np.isnan(row["value"]) and row["reason"] == measures_table.NO_NEGATIVE


def test_processes_change_nothing(small, analysis, monkeypatch):
    monkeypatch.setattr(measures_table, "MASKS_A_PROCESS", 1)
    monkeypatch.setattr(measures_table.parallel, "cores", lambda: 2)
    values = analyse(small, Quiet()).measures.values
    pd.testing.assert_frame_equal(values, analysis.measures.values)
    assert multiprocessing.active_children() == []


def test_a_report_has_measures_only_if_they_were_asked_for(small, analysis, tmp_path):
    asked = write([analysis], tmp_path / "asked", images=False)
    text = asked.page.read_text(encoding="utf-8")
    section = split_sections(text)["Measures"]
    summary = "<details><summary>The pathologies</summary>"
    means, folded, pathologies = section.partition(summary)
    assert folded and "Edema" not in means and "Edema" in pathologies
    assert f'data-value="{value(analysis, "Mean", "Full", "HD95 px")["value"]}"' in means
    assert f"Dash: {NO_EXPERT}: Pneumothorax." in pathologies
    table = pd.read_csv(tmp_path / "asked" / "tables" / "demo-measures.csv")
    pd.testing.assert_series_equal(table["value"], analysis.measures.values["value"])

    plain = write([analyse(small)], tmp_path / "plain", images=False)
    assert "demo--measures" not in plain.page.read_text(encoding="utf-8")
    assert not (tmp_path / "plain" / "tables" / "demo-measures.csv").exists()


def test_nothing_is_read_unless_asked(small):
    def read(*_):
        raise AssertionError("a mask was read")

    assert analyse(dataclasses.replace(small, predictions=read, image=read)).measures is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"predictions": None}, "the predicted masks aren't available"),
        ({"image": None}, "the store lacks the ingested test images with their expert masks"),
    ],
)
def test_what_is_lacking_is_named(small, changes, reason):
    study = dataclasses.replace(small, **changes)
    assert measures_table.lacking(study) == reason
    assert analyse(study, Quiet()).measures is None


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path, phantom_root, monkeypatch):
    """Return ``report(*options)``, which reports a study of two scored cells of four."""
    monkeypatch.setitem(sys.modules, "kaleido", None)  # drawing figures as files takes seconds
    study, store = stores.write_study(tmp_path / "small.yaml"), tmp_path / "store"
    plan = stores.plan_of(study, phantom_root, stores.Store(store))
    stores.score(stores.Store(store), plan, phantom_root, plan.cells[1:3])
    out = tmp_path / "report"
    where = ["--data", str(phantom_root), "--store", str(store), "--out", str(out)]

    def run(*options: str):
        cli.app(["report", str(study), *where, *options], standalone_mode=False)
        return out

    return run


def test_a_store_without_the_test_images_gives_one_line(report, capsys):
    out = report("--measures")
    lines = [line for line in capsys.readouterr().err.splitlines() if "measure" in line]
    lacking = "the store lacks the ingested test images with their expert masks"
    assert lines == [f"note: small: masks not measured: {lacking}"]
    assert not (out / "tables" / "small-measures.csv").exists()
    report()
    assert "measure" not in capsys.readouterr().err


def test_the_command_measures_what_the_store_holds(report, phantom_root, capsys, monkeypatch):
    """Only the ingested images are not from the store. Predictions are the experts', one row off."""
    loaded, truth = load.study_results, chexlocalize.read(phantom_root / chexlocalize.FILES["test"])

    def with_images(*arguments):
        results = loaded(*arguments)

        def image(image_id: str) -> tuple[np.ndarray, np.ndarray]:
            masks_KHW = truth.masks(image_id, results.pathologies)
            square_KSS = Frame(*truth.size(image_id), 64).masks(masks_KHW)
            return square_KSS[0].astype(np.uint8), square_KSS

        return dataclasses.replace(results, image=image)

    monkeypatch.setattr(load, "study_results", with_images)
    out = report("--measures")
    assert "small: measures: 16 images of 2 cells" in capsys.readouterr().err
    table = pd.read_csv(out / "tables" / "small-measures.csv")
    full = table[(table["arm"] == "Full") & (table["pathology"] == "Mean")]
    values = full.set_index("measure")["value"]
    assert values["NSD 2 px"] == 1 and 0 < values["HD95 px"] <= 1 and 0.3 < values["Dice"] < 1
    assert values["sensitivity"] == values["specificity"] == values["area ratio"] == 1

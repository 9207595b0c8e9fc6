"""Test the Python API: a study is planned, run and read, and its network segments an image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import chexseg
from chexseg.analysis.study_analysis import analyse
from chexseg.data import chexpert
from chexseg.errors import UserError
from tests.analysis.test_axis_effects import ADDITIVE, made

STUDY = """
name: api
axes: {labels.p: [1], trial: [0, 1]}
settings:
  size: 64
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {expert_split: {train: 8, select: 4}}
  fit: {epochs: 1, samples_per_epoch: 8}
"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "study.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def finished(ray_session, study_file, phantom_root) -> chexseg.Study:
    """Return a study whose two cells have run."""
    study = chexseg.load_study(study_file, data=phantom_root, store=study_file.parent / "store")
    first = study.run(limit=1, quiet=True)
    assert len(first.computed) == 4 and not first.failed, "two ingests, a fit and its scores"
    second = study.run(only=["full trial 1"], quiet=True)
    assert len(second.computed) == 2 and study.run(quiet=True).computed == {}
    return study


def test_what_a_study_needs_is_a_table(study_file, phantom_root, tmp_path):
    study = chexseg.load_study(study_file, data=phantom_root, store=tmp_path / "store")
    plan = study.plan()
    assert list(plan.columns) == ["stage", "name", "key", "state", "expected_seconds"]
    assert plan.groupby("stage").size().to_dict() == {"ingest": 3, "fit": 2, "score": 2}
    assert set(plan["state"]) == {"new", "unneeded"}, "no cell needs the training images"
    assert (plan["expected_seconds"] > 0).all()
    assert {"full trial 0, fit", "ingest test"} <= set(plan["name"])
    assert not (tmp_path / "store").exists(), "planning writes nothing"


def test_a_study_that_cannot_be_read_is_refused_when_it_is_loaded(tmp_path, phantom_root):
    (tmp_path / "study.yaml").write_text("nme: x")
    with pytest.raises(UserError, match="nme"):
        chexseg.load_study(tmp_path / "study.yaml", data=phantom_root)


def test_results_per_cell_pathology_and_image(finished):
    cells = finished.results()
    assert list(cells["name"]) == ["full trial 0", "full trial 1"]
    by_pathology = finished.results(per="pathology")
    assert len(by_pathology) == 2 * 10
    means = by_pathology.groupby("name", sort=False)["iou"].mean()
    assert np.allclose(means, cells["miou"])
    by_image = finished.results(per="image")
    assert len(by_image) == 2 * 10 * 16
    sums = by_image.groupby(["name", "pathology"])[["intersection", "predicted", "true"]].sum()
    pooled = sums["intersection"] / (sums["predicted"] + sums["true"] - sums["intersection"])
    expected = by_pathology.set_index(["name", "pathology"])["iou"]
    expected = expected.sort_index().dropna()  # NaN without an expert pixel
    pd.testing.assert_series_equal(pooled[expected.index], expected, check_names=False)
    with pytest.raises(ValueError, match="per: found 'patient'"):
        finished.results(per="patient")


def test_results_have_a_column_for_each_axis():
    """A researcher groups by the settings that the study compares, as numbers if they are some."""
    analysis = analyse(made(ADDITIVE))
    cells = chexseg.Study.results(SimpleNamespace(_analysis=lambda: analysis))
    assert cells["loss"].tolist() == analysis.results.axes["loss"].tolist()
    assert set(cells["epochs"]) == {5, 9}
    means = cells.groupby("loss")["miou"].mean()
    assert means["focal"] - means["dice"] == pytest.approx(0.04, abs=0.01)


def test_figures_are_those_of_the_report(finished):
    assert {"stages"} <= finished.figures().keys()


def test_a_model_is_found_by_its_cell_and_segments_a_file_or_an_array(finished):
    model = chexseg.load_model(
        f"{finished.path}#full trial 1", data=finished.data, store=finished.store
    )
    path = chexpert.read(Path(finished.data), "test")["path"][0]
    masks = model.predict(path)
    assert tuple(masks) == model.pathologies
    from chexseg.data import images

    pixels_HW = images.decode(path)
    again = model.predict(pixels_HW)
    for name, mask_HW in masks.items():
        assert mask_HW.shape == pixels_HW.shape and mask_HW.dtype == bool
        assert np.array_equal(mask_HW, again[name])
    with pytest.raises(ValueError, match=r"float64 of shape .* expected: uint8"):
        model.predict(pixels_HW / 255)
    with pytest.raises(UserError, match="2 fits; expected: one cell"):
        chexseg.load_model(f"{finished.path}#full", data=finished.data, store=finished.store)
    with pytest.raises(UserError, match="no cell 'half'"):
        chexseg.load_model(f"{finished.path}#half", data=finished.data, store=finished.store)
    with pytest.raises(UserError, match="without --data"):
        chexseg.load_model(f"{finished.path}#full trial 0")


def test_a_cell_that_has_not_run_has_no_model(study_file, phantom_root, tmp_path):
    (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match="has no finished fit"):
        chexseg.load_model(
            f"{study_file}#full trial 0", data=phantom_root, store=tmp_path / "store"
        )


def test_importing_the_package_imports_nothing_slow():
    code = (
        "import sys, chexseg; chexseg.load_study;"
        " print({'torch', 'pandas', 'ray', 'plotly'} & sys.modules.keys())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "set()", printed.stderr


def test_a_name_that_the_package_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="load_models"):
        chexseg.load_models  # noqa: B018

"""Test what the analysis reads of trainings: curves of fits and classifiers, and ROC curves."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pandas as pd
import pytest

from chexseg.analysis import load
from chexseg.analysis.points import training
from chexseg.analysis.stored import trainings
from chexseg.config import study_file
from chexseg.pathologies import OBSERVATIONS
from chexseg.plan import planner
from chexseg.report.figures.training import panels
from chexseg.report.page import study_view
from chexseg.report.page.environment import environment
from chexseg.store import manifest
from chexseg.store.store import Store
from tests.plan.test_planner import DATA

STUDY = """
name: s
axes: {fit.schedule: [constant, cosine], labels.p: [0.5, 1]}
settings: {fit: {epochs: 4, learning_rate: 0.002, batch_size: 5, samples_per_epoch: 10}}
"""
HISTORY = [{"epoch": n, "loss": 1 / n, "selection_miou": n / 10} for n in range(1, 5)]
CHECKPOINTS = [{"step": 8 * n, "loss": 1 / n, "mean_auroc": 0.5 + n / 10} for n in (1, 2)]
STEPS = [{"step": n, "loss": 1 / n, "accuracy": n / 10} for n in (2, 4, 5)]
ROC = {"Edema": [[0.0, 0.5, 1.0], [0.0, 1.0, 1.0]]}


@pytest.fixture(scope="module")
def planned():
    return planner.plan(study_file.parse(STUDY, "x.yaml"), DATA)


@pytest.fixture
def results(planned, tmp_path):
    """Return the results of a store with fits and a classifier; one fit and a file are of old."""
    store = Store(tmp_path / "store")
    train(planned, store)
    return load.study_results(planned, store)


def train(planned, store):
    facts = {"selection_miou": 0.4, "best_epoch": 4, "learning_rate": 0.002, "samples": 40}
    auroc = {"auroc": dict.fromkeys(OBSERVATIONS, 0.75), "mean_auroc": 0.7, "step": 16, "steps": 16}
    files = {"fit": {"history.json": HISTORY}}
    files["classify"] = {"history.json": CHECKPOINTS, "roc.json": ROC}
    files["moco"] = files["irnet"] = {"history.json": STEPS}
    (without, *_) = [node.key for node in planned.nodes.values() if node.stage == "fit"]
    for node in planned.nodes.values():
        if node.stage not in ("fit", "classify", "pretrain", "moco", "irnet"):
            continue
        written = {} if node.key == without else files.get(node.stage, {})
        with store.working_on(node) as partial:
            partial.mkdir(parents=True)
            for name, document in written.items():
                (partial / name).write_text(json.dumps(document))
            of_stage = facts if node.stage == "fit" else auroc | {"images": 64}
            of_stage = {"steps": 5} if node.stage in ("moco", "irnet") else of_stage
            store.commit(node, partial, of_stage, 1.0, {"device": "cpu"})


def test_curves_are_those_in_the_store_with_the_rate_of_each_epoch(results):
    rows = results.curves
    fits = dict(iter(rows[rows["stage"] == "fit"].groupby("name")))
    assert len(fits) == 3, "a fit without a history has no curve"
    for name, one in fits.items():
        assert one["loss"].tolist() == [entry["loss"] for entry in HISTORY]
        assert one["score"].tolist() == [entry["selection_miou"] for entry in HISTORY]
        assert one["step"].tolist() == [1, 2, 3, 4] and one["kept"].tolist() == [0, 0, 0, 1]
        # Two steps an epoch: the last of epoch e is step 2 e of 8, and the first has the whole rate.
        decay = [(1 + math.cos(math.pi * (2 * e - 1) / 8)) / 2 for e in (1, 2, 3, 4)]
        expected = [0.002 * x for x in decay] if "cosine" in name else [0.002] * 4
        assert one["learning rate"].tolist() == pytest.approx(expected), name
    classifier = rows[rows["stage"] == "classify"]
    assert classifier["score"].tolist() == [0.6, 0.7] and classifier["kept"].tolist() == [0, 1]
    assert not (rows["stage"] == "pretrain").any(), "an earlier version recorded no checkpoints"


def test_moco_and_irnet_have_curves_with_their_rates(results, tmp_path):
    settings = "encoder: {init: moco}, labels: {weak: irnet, p: 0.5}, moco: {learning_rate: 0.5}"
    study = study_file.parse(f"name: s\nsettings: {{{settings}}}", "x.yaml")
    planned, store = planner.plan(study, DATA), Store(tmp_path / "another store")
    train(planned, store)
    curves = trainings.curves(planned, store.find_all(planned.nodes.values()), [])
    rows = dict(iter(curves.groupby("stage")))
    assert rows["moco"]["score"].tolist() == [0.2, 0.4, 0.5] and rows["irnet"]["score"].isna().all()
    for stage in ("moco", "irnet"):
        assert rows[stage]["step"].tolist() == [2, 4, 5]
        assert rows[stage]["loss"].tolist() == [1 / 2, 1 / 4, 1 / 5]
        assert rows[stage]["kept"].tolist() == [False, False, True]
    done = [1 / 5, 3 / 5, 4 / 5]  # before the step
    cosine = [0.25 * (1 + math.cos(math.pi * part)) for part in done]
    assert rows["moco"]["learning rate"].tolist() == pytest.approx(cosine)
    polynomial = [0.1 * (1 - part) ** 0.9 for part in done]
    assert rows["irnet"]["learning rate"].tolist() == pytest.approx(polynomial)
    curves = training.curves(dataclasses.replace(results, curves=curves))
    figures = panels(curves, training.roc(results))
    assert {name for name in figures if "moco" in name or "irnet" in name} == {
        *(f"training-moco-{name}" for name in ("loss", "score", "learning-rate")),
        *(f"training-irnet-{name}" for name in ("loss", "learning-rate")),
    }
    (loss,) = figures["training-irnet-loss"].data
    assert (loss.name, loss.legendgroup) == ("weak labels: IRNet", "stage irnet")
    assert list(loss.y) == [1 / 2, 1 / 4, 1 / 5]
    views = study_view._training("s", curves, figures)
    shown = {kind for kind, view in views.items() if view}
    assert shown == {"classifier", "moco", "irnet"}  # the only fit is of old


@pytest.mark.parametrize("stage", ["fit", "classify"])
def test_the_section_on_trainings_of_one_kind(results, stage):
    curves = training.curves(results)
    curves = curves[curves["stage"] == stage]
    view = study_view._training("s", curves, panels(curves, training.roc(results).iloc[:0]))
    section = environment().get_template("training.html").module.training(view, None)
    assert section.count("<figure") == len(
        view["fit" if stage == "fit" else "classifier"]["panels"]
    )
    headings = re.findall("<h3>(.*?)</h3>", section)
    assert headings == ([] if stage == "fit" else ["Classifiers"])


def test_a_damaged_history_has_no_curve_and_a_note(planned, results, tmp_path):
    (path, *_) = (tmp_path / "store" / "fit").glob("*/history.json")
    content = path.read_text()
    path.write_text(content.replace("1", "2"))
    again = load.study_results(planned, Store(tmp_path / "store"))
    assert len(results.curves) - len(again.curves) == len(HISTORY)
    (note,) = set(again.notes) - set(results.notes)
    assert note.startswith(f"{path}: not what its manifest says") and "curve is left out" in note


def test_a_history_of_another_version_has_no_curve_and_a_note(planned, tmp_path, results):
    (path, *_) = (tmp_path / "store" / "fit").glob("*/history.json")
    path.write_text(json.dumps([{"epoch": 1}]))
    document = json.loads((path.parent / manifest.MANIFEST).read_text())
    document["files"][path.name] = {
        "size": path.stat().st_size,
        "sha256": manifest.sha256_of(path),
    }
    del document["sha256"]
    (path.parent / manifest.MANIFEST).write_text(json.dumps(manifest.seal(document)))
    again = load.study_results(planned, Store(tmp_path / "store"))
    (note,) = set(again.notes) - set(results.notes)
    assert note.startswith(f"{path}: found values of another version; its curve is left out")


def test_dashboards_are_named_where_the_store_has_their_files(tmp_path):
    store = Store(tmp_path / "a store")
    assert trainings.dashboards(store, "s") == ()
    (tmp_path / "a store" / ".runs" / "s" / "20260101T000000-host-1" / "tensorboard").mkdir(
        parents=True
    )
    (tmp_path / "a store" / "optuna").mkdir()
    (tmp_path / "a store" / "optuna" / "journal.log").touch()
    assert trainings.dashboards(store, "s") == (
        ("optuna-dashboard", f"optuna-dashboard '{tmp_path}/a store/optuna/journal.log'"),
        ("TensorBoard", f"tensorboard --logdir '{tmp_path}/a store/.runs/s'"),
    )
    assert len(trainings.dashboards(store, "other")) == 1


def test_panels_of_curves_and_of_roc_curves(results):
    curves, roc = training.curves(results), training.roc(results)
    figures = panels(curves, roc)
    assert set(figures) == {
        *(f"training-fit-{name}" for name in ("loss", "score", "learning-rate")),
        *(f"training-classifier-{name}" for name in ("loss", "score")),
        "roc-edema",
    }
    loss = figures["training-fit-loss"]
    assert len(loss.data) == 3 and [list(trace.x) for trace in loss.data] == [[1, 2, 3, 4]] * 3
    assert all(list(trace.marker.size) == [3, 3, 3, 9] for trace in loss.data)
    assert ", epoch 4: 0.25, kept" in loss.data[0].hovertext[3]
    chance, curve = figures["roc-edema"].data
    assert list(chance.x) == list(chance.y) == [0, 1]
    assert [list(curve.x), list(curve.y)] == ROC["Edema"]
    assert figures["roc-edema"].layout.title.text == "Edema, AUROC 0.75"


def test_a_long_roc_curve_is_thinned_between_its_ends():
    rates = [n / 1000 for n in range(1001)]
    thinned = training._thinned(rates)
    assert len(thinned) == training.MOST_POINTS and thinned[0] == 0 and thinned[-1] == 1
    assert pd.Series(thinned).is_monotonic_increasing

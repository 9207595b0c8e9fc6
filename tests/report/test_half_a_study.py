"""Test reports of incomplete studies, failed cells, absent pathologies and old stores."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis import load
from chexseg.config import study_file
from chexseg.data import shards
from chexseg.pathologies import PATHOLOGIES
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.report import file_manifest
from chexseg.stages.artifacts import COUNTS
from chexseg.stages.registry import STAGES
from chexseg.store.manifest import MANIFEST
from chexseg.store.store import Store
from tests.report.rendered import page_text, publish
from tests.store.places import result_path

STUDY = """
name: halves
axes: {labels.p: [0, 0.5, 1], trial: [0, 1]}
settings: {pathologies: [Consolidation, Edema], labels: {weak: cam}}
"""
IDS = tuple(f"patient{n}_study1_view1_frontal" for n in range(4))


@pytest.fixture
def planned() -> Plan:
    return planner.plan(
        study_file.parse(STUDY, "halves.yaml"),
        {"train": "a", "valid": "b", "test": "fingerprint of test"},
    )


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def keep(store: Store, planned: Plan, cell: int) -> None:
    """Commit the fit and the scores of a cell; no expert mask has Consolidation."""
    fit, scores = (
        planned.nodes[key] for key in (planned.cells[cell].fit, planned.cells[cell].score)
    )
    with store.working_on(fit) as out:
        out.mkdir(parents=True)
        store.commit(fit, out, {"selection_miou": 0.2}, 60.0)
    named = {
        "image_id": np.repeat(IDS, len(PATHOLOGIES)),
        "pathology": np.tile(PATHOLOGIES, len(IDS)),
    }
    edema = named["pathology"] == "Edema"
    counts = {"intersection": edema * (10 + cell), "predicted": edema * 40 + 5, "true": edema * 60}
    with store.working_on(scores) as out:
        out.mkdir(parents=True)
        shards.write(
            out / COUNTS, shards.table(named | counts, {}, pathologies=PATHOLOGIES, size=64)
        )
        store.commit(scores, out, {}, 1.0)


def text_of(planned: Plan, store: Store) -> str:
    text = page_text(load.study_results(planned, store))
    shown = re.sub(r"<[^>]+>", "", text[: text.index('<script type="text/plain"')])
    return " ".join(shown.split())


def test_half_a_study(planned, store):
    for cell in range(3):
        keep(store, planned, cell)
    results = load.study_results(planned, store)
    assert results.cells["name"].tolist() == [cell.name for cell in planned.cells[:3]]
    # Edema: IoU (10 + cell) / (45 + 60 - (10 + cell)) in every image alike.
    assert results.counts_CIK3[2, 0, 1].tolist() == [12, 45, 60]
    text = text_of(planned, store)
    assert (
        "3 of 6 cells finished" in text and "Incomplete: 3 of 6 cells finished (3 missing)" in text
    )
    assert text.count("not run yet") == 3
    assert "Stale" not in text


def test_damaged_scores_are_left_out_with_a_note_and_the_others_are_shown(planned, store):
    for cell in range(3):
        keep(store, planned, cell)
    path = result_path(store, "score", planned.cells[1].score) / COUNTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    results = load.study_results(planned, store)
    assert results.cells["name"].tolist() == [planned.cells[0].name, planned.cells[2].name]
    assert results.missing.set_index("name")["state"][planned.cells[1].name] == "damaged"
    (note,) = results.notes
    assert note.startswith(f"{path}: not what its manifest says") and "chexseg study run" in note
    text = text_of(planned, store)
    assert "2 of 6 cells finished" in text and "(3 missing, 1 damaged)" in text
    assert store.drop_damaged_scores(planned.nodes.values()), "the next run sees it too"


def test_a_lost_fit_of_a_finished_cell_is_a_note(planned, store):
    """Its number of steps is unknown too, on which verdicts depend."""
    for cell in range(3):
        keep(store, planned, cell)
    assert load.study_results(planned, store).notes == ()
    fit = planned.cells[1].fit
    (result_path(store, "fit", fit) / MANIFEST).unlink()
    results = load.study_results(planned, store)
    (note,) = results.notes
    assert note.startswith(f"{store}: found no complete fit/{fit[:20]}, from which finished cells")
    assert results.cells["selection_miou"].isna().tolist() == [False, True, False]


def test_failed_cells(planned, store):
    keep(store, planned, 0)
    store.record_failure(
        planned.nodes[planned.cells[1].fit],
        "RuntimeError: loss is not finite <at step 3>",
        "traceback",
    )
    text = text_of(planned, store)
    assert "(4 missing, 1 failed)" in text
    assert "RuntimeError: loss is not finite &lt;at step 3&gt;" in text


def test_a_pathology_without_positives(planned, store):
    keep(store, planned, 0)
    assert (
        "Without an expert mask in the test set, and excluded from all means: Consolidation."
        in text_of(planned, store)
    )


def test_a_store_of_an_older_version(planned, store, monkeypatch):
    monkeypatch.setitem(
        STAGES, "score", replace(STAGES["score"], version=STAGES["score"].version - 1)
    )
    older = planner.plan(planned.study, {"train": "a", "valid": "b", "test": "fingerprint of test"})
    for cell in range(6):
        keep(store, older, cell)
    monkeypatch.undo()
    text = text_of(planned, store)
    assert "0 of 6 cells finished (6 stale)" in text and "made by another version" in text
    assert f"version {STAGES['score'].version - 1}, now {STAGES['score'].version}" in text
    assert "No cell has finished yet" in text


def test_fingerprints_of_the_data_are_kept(planned, store):
    keep(store, planned, 0)
    test = next(
        node
        for node in planned.nodes.values()
        if node.stage == "ingest" and node.config["split"] == "test"
    )
    with store.working_on(test) as out:
        out.mkdir(parents=True)
        store.commit(test, out, {}, 1.0)
    results = dataclasses.replace(load.study_results(planned, store), image=None)
    fingerprints = results.stages.set_index("key")["data"]
    assert fingerprints[test.key] == "fingerprint of test"
    assert pd.isna(fingerprints[planned.cells[0].score])
    text = page_text(results)
    assert "fingerprint of test" in text[: text.index('class="runs"')], "seen without a click"


def test_a_report_leaves_nothing_old_and_nothing_of_others(planned, store, tmp_path):
    keep(store, planned, 0)
    results = load.study_results(planned, store)
    out = tmp_path / "report"
    first = publish([dataclasses.replace(results, name="first")], out)
    notes, changed = out / "tables" / "notes.csv", out / "tables" / "first-cells.csv"
    notes.write_text("my own")
    changed.write_text(changed.read_text() + "a remark\n")
    second = publish([dataclasses.replace(results, name="second")], out)
    files = {path for path in out.rglob("*") if path.is_file()}
    assert files == {notes, changed, out / file_manifest.REPORT, second.page, *second.files}
    assert changed in first.files and len(second.files) > 4


def test_the_first_screen_lists_where_a_study_deviates_from_the_published_procedure(planned, store):
    text = text_of(planned, store)
    start = text.index("as CheXseg’s published code, but for")
    assert start < text.index("Incomplete:")
    assert "ingest.image_resize bilinear antialiased" in text[start : text.index("Incomplete:")]
    published = dataclasses.replace(load.study_results(planned, store), deviations=())
    assert "<dd>as CheXseg’s published code</dd>" in page_text(published)

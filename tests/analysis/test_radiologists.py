"""Test scores of the radiologists' masks: counted for the images that the study tests.

They are left out where the file lacks what the study tests.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from chexseg.analysis import load, radiologists
from chexseg.analysis.study_scores import score
from chexseg.analysis.tables import records
from chexseg.data import chexlocalize
from chexseg.pathologies import PATHOLOGIES
from chexseg.store.store import Store
from tests.analysis import stores
from tests.report.rendered import sections

NAMES = ("Edema", "Cardiomegaly", "Support Devices")


@pytest.fixture
def root(phantom_root, tmp_path) -> Path:
    """Return a data root with the test set's masks and an editable copy of the radiologists'."""
    (tmp_path / "CheXlocalize").mkdir()
    for name in ("test", "radiologists"):
        (tmp_path / chexlocalize.FILES[name]).write_bytes(
            (phantom_root / chexlocalize.FILES[name]).read_bytes()
        )
    return tmp_path


def change(root: Path, reduce) -> Path:
    path = root / chexlocalize.FILES["radiologists"]
    path.write_text(json.dumps(reduce(json.loads(path.read_text()))))
    return path


def counts(root: Path, names: tuple[str, ...] = NAMES) -> tuple[np.ndarray | None, str]:
    image_ids = sorted(chexlocalize.read(root / chexlocalize.FILES["test"]))
    return radiologists.counts(root, image_ids, names, 0)


def test_a_whole_file_needs_no_note_and_none_is_none(root):
    counts_IK3, note = counts(root)
    assert counts_IK3.any() and not note
    (root / chexlocalize.FILES["radiologists"]).unlink()
    assert counts(root) == (None, "")


def test_a_file_of_other_pathologies_is_left_out(root):
    path = change(
        root,
        lambda masks: {image_id: {"Edema": entry["Edema"]} for image_id, entry in masks.items()},
    )
    assert counts(root) == (
        None,
        f"{path}: doesn't name Cardiomegaly, Support Devices; the radiologists are left out",
    )
    counts_IK3, note = counts(root, ("Edema",))
    assert counts_IK3.any() and not note


def test_a_pathology_that_the_test_set_lacks_may_be_missing(root):
    truth = chexlocalize.read(root / chexlocalize.FILES["test"])
    drawn_K = np.any([truth.masks(image_id).any(axis=(1, 2)) for image_id in truth], axis=0)
    drawn = {name for name, any_pixel in zip(PATHOLOGIES, drawn_K, strict=True) if any_pixel}
    assert drawn < set(PATHOLOGIES)
    change(
        root,
        lambda masks: {
            image_id: {name: entry[name] for name in drawn} for image_id, entry in masks.items()
        },
    )
    counts_IK3, note = counts(root, PATHOLOGIES)
    assert counts_IK3.any() and not note


def test_ids_with_an_ending_are_matched_and_others_left_out(root):
    whole_IK3, _ = counts(root)
    path = change(
        root, lambda masks: {f"{image_id}.jpg": entry for image_id, entry in masks.items()}
    )
    counts_IK3, note = counts(root)
    np.testing.assert_array_equal(counts_IK3, whole_IK3)
    assert f"{path}: {len(whole_IK3)} image ids are matched without their suffixes" in note
    change(root, lambda masks: {f"x/{image_id}": entry for image_id, entry in masks.items()})
    counts_IK3, note = counts(root)
    assert (
        counts_IK3 is None
        and "found no image of the test set" in note
        and note.endswith("the radiologists are left out")
    )


def test_images_that_they_do_not_name_are_empty_and_noted(root):
    whole_IK3, _ = counts(root)
    path = change(root, lambda masks: dict(sorted(masks.items())[2:]))
    counts_IK3, note = counts(root)
    assert not counts_IK3[:2, :, 1].any() and (counts_IK3[2:] == whole_IK3[2:]).all()
    assert note.startswith(
        f"{path}: doesn't name 2 of {len(whole_IK3)} test images ("
    ) and note.endswith("counted as empty")


def test_a_study_s_results_have_the_note(root, phantom_root, tmp_path):
    study, store = stores.write_study(tmp_path / "small.yaml"), Store(tmp_path / "store")
    plan = stores.plan_of(study, phantom_root, store)
    stores.score(store, plan, phantom_root, plan.cells[:1])
    assert load.study_results(plan, store, root).radiologists_IK3.any()
    path = change(
        root,
        lambda masks: {image_id: {"Edema": entry["Edema"]} for image_id, entry in masks.items()},
    )
    results = load.study_results(plan, store, root)
    assert results.radiologists_IK3 is None and results.radiologists_note.startswith(
        f"{path}: doesn't name Cardiomegaly"
    )


def test_the_report_says_why_they_are_missing(study):
    left_out = dataclasses.replace(study, radiologists_note="hb.json: doesn't name <Edema>")
    row = records.missing(score(left_out)).to_dict("records")[-1]
    assert row == {
        "name": "radiologists",
        "state": "left out",
        "reason": "hb.json: doesn't name <Edema>",
    }
    assert "hb.json: doesn&#39;t name &lt;Edema&gt;." in sections(left_out)["Figure 5"]
    partly = dataclasses.replace(left_out, radiologists_IK3=study.counts_CIK3[0])
    assert records.missing(score(partly))["state"].iloc[-1] == "incomplete"

"""Test the facts of a manifest: wrong types and missing ones are one line, as other damage is."""

from __future__ import annotations

import json

import pytest

from chexseg.errors import UserError
from chexseg.store import facts, manifest
from chexseg.store.store import Artifact

GOOD = {
    "selection_miou": 0.5,
    "mean_auroc": float("nan"),
    "learning_rate": None,
    "samples": 16,
    "auroc": {"Edema": 0.5, "Fracture": None},
    "selection_curve": [0.25, None],
    "thresholds": {"Edema": "of its stage alone"},
}


def parsed(given: dict) -> dict:
    document = {
        "key": "0" * 64,
        "stage": "fit",
        "version": 1,
        "config": {},
        "inputs": {},
        "data": None,
        "files": {},
        "facts": given,
        "seconds": 1.5,
        "finished": "2026-01-01T00:00:00+00:00",
        "host": "a",
    }
    return manifest.parse(json.dumps(manifest.seal(document)).encode(), "fit/0/manifest.json")


def test_numbers_and_missing_facts_are_accepted():
    assert parsed(GOOD)["facts"].keys() == GOOD.keys()
    assert parsed({})["facts"] == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selection_miou", "0.5"),
        ("selection_miou", [0.5]),
        ("selection_miou", 10**400),
        ("mean_auroc", True),
        ("samples", 1.5),
        ("samples", -1),
        ("samples", None),
        ("steps", 2**53),
        ("auroc", [0.5]),
        ("auroc", {"Edema": "0.5"}),
        ("selection_curve", 0.5),
        ("selection_curve", [[0.5]]),
    ],
)
def test_values_of_other_types_are_an_unreadable_manifest(name, value):
    line = rf"^fit/0/manifest.json: (facts: {name}: found |not JSON ).*; expected: a manifest"
    with pytest.raises(manifest.UnreadableManifestError, match=line):
        parsed(GOOD | {name: value})


@pytest.mark.parametrize(("field", "value"), [("packages", True), ("device", 1), ("gpu", [])])
def test_optional_fields_have_their_types(field, value):
    document = parsed(GOOD) | {field: value}
    document.pop("sha256")
    with pytest.raises(manifest.UnreadableManifestError, match=rf"^m: {field}: found "):
        manifest.parse(json.dumps(document).encode(), "m")


def test_a_fact_that_another_version_did_not_write_is_one_line(tmp_path):
    artifact = Artifact("fit/0", "store/fit/0", parsed({"samples": 16}), lambda: tmp_path)
    assert artifact.facts["samples"] == 16 and artifact.facts.get("step") is None
    with pytest.raises(UserError, match=r"^store/fit/0/manifest\.json: facts: step is missing; "):
        artifact.facts["step"]


def test_facts_are_the_values_of_the_manifest():
    assert facts.Facts("m", GOOD) == GOOD

"""Test that a study which wants more labelled images than there are is refused before it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.data import chexpert
from chexseg.data.raw_split import RawSplit
from chexseg.errors import UserError
from chexseg.plan import planner, preflight

STUDY = """
name: counts
axes: {{labels.weak: [cam, irnet]}}
settings:
  labels: {{p: 0.5, weak_images: {weak}, expert_split: {{train: {train}, select: 4}}}}
  saliency: {{images: {mapped}, frontal_only: {frontal}}}
"""


@pytest.fixture
def root(phantom_root, tmp_path) -> Path:
    """Return the phantom with one lateral training image."""
    shutil.copytree(phantom_root, tmp_path / "data")
    csv, _ = chexpert.locate(tmp_path / "data", "train")
    text = csv.read_text()
    assert ",Frontal," in text
    csv.write_text(text.replace(",Frontal,", ",Lateral,", 1))
    return tmp_path / "data"


@pytest.fixture
def check(root):
    def check_with(**counts: object) -> None:
        values = {"weak": 2, "train": 4, "mapped": "null", "frontal": "true"} | counts
        study = study_file.parse(STUDY.format(**values), "counts.yaml")
        planned = planner.plan(study, planner.fingerprints(root))
        preflight.check_counts(planned.needed(()), planned, root)

    return check_with


def test_expert_images_are_at_most_those_with_masks(check, root):
    masked = len(RawSplit(root, "valid").masks())
    check(train=masked - 4)
    with pytest.raises(
        UserError,
        match=rf"^labels.expert_split: found train {masked - 3} \+ select 4 = {masked + 1};"
        rf" expected at most {masked}, the validation images with expert masks",
    ):
        check(train=masked - 3)


def test_weak_images_are_at_most_those_that_are_mapped(check, root):
    table = RawSplit(root, "train").table
    frontal = int(table["frontal"].sum())
    assert frontal < len(table)
    check(weak=frontal)
    check(weak=len(table), frontal="false")
    check(weak=7, mapped=7)
    for most, counts in (
        (frontal, {}),
        (frontal, {"mapped": 10 * frontal}),
        (len(table), {"frontal": "false"}),
        (7, {"mapped": 7}),
    ):
        with pytest.raises(
            UserError, match=rf"^labels.weak_images: found {most + 1}; expected at most {most},"
        ):
            check(weak=most + 1, **counts)


def test_results_in_the_store_are_not_checked(phantom_root):
    """The raw files are read only if something is to be computed from them."""
    study = study_file.parse(
        STUDY.format(weak=9999, train=9999, mapped="null", frontal="true"), "x.yaml"
    )
    planned = planner.plan(study, planner.fingerprints(phantom_root))
    preflight.check_counts(planned.needed(planned.nodes), planned, phantom_root / "nowhere")

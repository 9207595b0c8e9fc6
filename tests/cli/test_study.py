"""Test what `chexseg study` says of a data set before it spends anything."""

from __future__ import annotations

import shutil

import pytest

from chexseg import launch
from chexseg.cli import study
from chexseg.data.audit import validation
from chexseg.data.chexpert import SPLITS
from chexseg.data.raw_split import RawSplit

STUDY = """\
name: small
axes: {labels.p: [1]}
settings: {size: 64, encoder: {init: random}, labels: {expert_split: {train: 8, select: 4}}}
"""


@pytest.mark.parametrize("leaking", [0, 1, 2])
def test_patients_in_two_splits_are_one_warning(
    phantom_root, tmp_path, capsys, monkeypatch, leaking
):
    root, file = tmp_path / "root", tmp_path / "small.yaml"
    shutil.copytree(phantom_root, root)
    file.write_text(STUDY)
    tables = {split: RawSplit(root, split).table for split in SPLITS}
    (csv,) = root.glob("*/valid.csv")
    text = csv.read_text()
    names = sorted(set(tables["train"]["patient"]))[:leaking]
    (masks,) = root.glob("*/gt_segmentations_val.json")
    for name, mine in zip(names, tables["valid"]["patient"].unique(), strict=False):
        text = text.replace(f"/{mine}/", f"/{name}/")
        masks.write_text(masks.read_text().replace(f"{mine}_", f"{name}_"))
        (csv.parent / "valid" / mine).rename(csv.parent / "valid" / name)
    csv.write_text(text)
    monkeypatch.setattr(launch, "launch", lambda *arguments: "ran")
    where = str(root), str(tmp_path / "store")
    study.study_plan(file, *where)
    planned = capsys.readouterr().err
    assert study.run_study(file, *where, None, None, quiet=True) == "ran"
    assert capsys.readouterr().err == planned
    if not leaking:
        assert planned == ""
        return
    assert planned.startswith(f"warning: {root}/CheXpert-v1.0-small/train.csv and valid.csv: found")
    count = "1 patient in both" if leaking == 1 else "2 patients in both"
    assert count in planned and names[0] in planned and planned.count("\n") == 1
    audited = validation.check(root)
    assert len(audited.faults["patient in two splits"]) == leaking
    assert audited.text().endswith("; a study would fail or have meaningless results")

"""Test that a tool of `execution.trackers` must be installed before a run."""

from __future__ import annotations

from importlib.machinery import PathFinder
from types import SimpleNamespace

import pytest

from chexseg.config import study_file
from chexseg.data.raw_split import RawData
from chexseg.plan import planner
from chexseg.plan.checks import before_run
from chexseg.store.store import Store

STUDY = """
name: full
settings: {size: 64, encoder: {init: random}, labels: {expert_split: {train: 6, select: 4}}}
"""


@pytest.fixture
def lines(phantom_root, tmp_path):
    """Return a function: the lines about the study with some trackers."""

    def of(*trackers):
        raw = RawData(phantom_root)
        study = study_file.parse(STUDY, "x.yaml", {"execution.trackers": list(trackers)})
        plan = planner.plan(study, raw.fingerprints)
        return before_run.mistakes(plan, plan.needed(()), raw, Store(tmp_path / "store"))

    return of


def test_a_missing_one_is_named_with_its_extra(lines, monkeypatch):
    missing = SimpleNamespace(find_spec=lambda name: None)
    monkeypatch.setattr(before_run, "PathFinder", missing)
    assert lines("mlflow", "wandb", "mlflow") == [
        f"--set execution.trackers: found {name!r}, which isn't installed;"
        f" hint: pip install 'chexseg[{name}]'"
        for name in ("mlflow", "wandb")
    ]
    assert lines() == []


def test_a_folder_of_its_name_is_no_package(lines, tmp_path, monkeypatch):
    """W&B writes its files to `wandb` in the working directory."""
    (tmp_path / "here" / "wandb").mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path / "here")])
    assert PathFinder.find_spec("wandb") is not None
    (line,) = lines("wandb")
    assert "'wandb', which isn't installed" in line


def test_trackers_are_in_no_key(phantom_root):
    prints = RawData(phantom_root).fingerprints
    plans = [
        planner.plan(study_file.parse(STUDY, "x.yaml", {"execution.trackers": names}), prints)
        for names in ([], ["mlflow", "wandb"])
    ]
    assert plans[0].nodes.keys() == plans[1].nodes.keys()

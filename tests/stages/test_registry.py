"""Test how the code of stages is imported."""

from __future__ import annotations

import gc
import sys

import pytest

from chexseg.stages.configs import ScoreConfig
from chexseg.stages.registry import STAGES, Stage


def test_the_collector_goes_on_after_an_import_whether_or_not_it_succeeds():
    assert gc.isenabled()
    assert STAGES["score"].load().__name__ == "chexseg.stages.score"
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError):
        Stage(ScoreConfig, 1, "chexseg.stages.none").load()
    assert gc.isenabled()


def test_it_stays_off_where_it_is_off():
    gc.disable()
    try:
        STAGES["score"].load()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_libraries_of_a_stage_find_no_tracker_and_others_find_it_afterwards(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").touch()
    (tmp_path / "stage_of_test.py").write_text(
        "try:\n    import wandb\nexcept ImportError:\n    wandb = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert Stage(ScoreConfig, 1, "stage_of_test").load().wandb is None
    import wandb

    monkeypatch.delitem(sys.modules, "stage_of_test")
    assert Stage(ScoreConfig, 1, "stage_of_test").load().wandb is wandb
    monkeypatch.delitem(sys.modules, "wandb")

"""Test how the code of stages is imported."""

from __future__ import annotations

import gc

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

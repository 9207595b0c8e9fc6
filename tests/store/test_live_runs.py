"""Test that nothing is collected while a run is alive whose record is lost."""

from __future__ import annotations

import pytest

from chexseg.errors import UserError
from chexseg.store import live_runs
from chexseg.store.store import Store
from tests.store.places import NODE


def test_a_run_that_is_alive_without_a_record_stops_the_collection(tmp_path):
    """What it needs is unknown, also to a collection that other runs wait for."""
    store = Store(tmp_path / "store")
    with live_runs.holding(store, "study", [NODE]):
        (record,) = (store.backend.local / live_runs.LIVE).iterdir()
        assert len(live_runs.live_runs(store)) == 1
        record.unlink()
        message = f"{record.name}: found no such file, and its run is alive; hint: wait"
        with pytest.raises(UserError, match=message):
            live_runs.live_runs(store)
        with pytest.raises(UserError, match=message), live_runs.collecting(store):
            pytest.fail("garbage is collected")
    assert live_runs.live_runs(store) == []

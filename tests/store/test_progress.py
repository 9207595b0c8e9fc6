"""Test the progress of running studies in a store: who sees it, and what becomes of it."""

from __future__ import annotations

import math

import pytest

from chexseg.config import study_file
from chexseg.plan import planner, status
from chexseg.store import live_runs
from chexseg.store.store import Store
from tests.store.places import DATA, NODE

PLAN = planner.plan(study_file.parse("name: s\naxes: {labels.p: [0.5, 1]}", "x.yaml"), DATA)
MIXED, FULL = PLAN.cells
PROGRESS = {
    "done": 1200,
    "total": 4800,
    "unit": "samples",
    "epoch": 3,
    "rate": 35.2,
    "seconds_left": 102,
}


def test_the_status_shows_what_a_running_study_publishes(tmp_path):
    store = Store(tmp_path)
    shared = next(node for node in PLAN.nodes.values() if node.stage == "classify")
    with (
        live_runs.holding(store, "s", PLAN.nodes.values()) as publish,
        store.working_on(PLAN.nodes[FULL.fit]),
        store.working_on(shared),
    ):
        publish({"running": {FULL.fit: PROGRESS}})
        summary = status.summarise(PLAN, store)
        assert summary.status_text().splitlines()[1:5] == [
            "",
            "running",
            "  classify",  # it has reported nothing yet
            "  full trial 0, fit                    epoch 3, 1,200 of 4,800 samples, 35/s,"
            " about 2 min left",
        ]
        classify, fit = summary.status_dict()["progress"]
        assert classify == {"name": "classify", "key": shared.key}
        assert fit == {"name": "full trial 0, fit", "key": FULL.fit, **PROGRESS}
    assert live_runs.progress(store) == {}, "the run has ended, and its file is gone"
    assert list((tmp_path / ".live").iterdir()) == []


def test_the_progress_of_a_dead_run_is_not_shown_and_is_collected(tmp_path):
    store = Store(tmp_path)
    store.write(".live/dead.json", {"study": "s", "host": "h", "process": 1, "names": []})
    store.write(".live/dead.progress", {"running": {FULL.fit: PROGRESS}})
    assert live_runs.progress(store) == {}
    with live_runs.collecting(store):
        pass
    assert list((tmp_path / ".live").iterdir()) == []


def test_progress_that_cannot_be_read_is_left_out(tmp_path):
    store = Store(tmp_path)
    with live_runs.holding(store, "s", [NODE]) as publish:
        publish({"running": {"key": PROGRESS}})
        (path,) = (tmp_path / ".live").glob("*.progress")
        for content in (b"", b"[]", b"{}", b'{"running": 1}', b"\xff", path.read_bytes()[:9]):
            path.write_bytes(content)
            assert live_runs.progress(store) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"done": "many"},
        {"total": None},
        {"unit": 3},
        {"seconds_left": math.nan},
        {"seconds_left": math.inf},
        {"rate": [1]},
        {"epoch": -1},
    ],
)
def test_progress_that_cannot_be_shown_is_left_out(change, tmp_path):
    store = Store(tmp_path)
    with (
        live_runs.holding(store, "s", PLAN.nodes.values()) as publish,
        store.working_on(PLAN.nodes[FULL.fit]),
        store.working_on(PLAN.nodes[MIXED.fit]),
    ):
        publish({"running": {FULL.fit: PROGRESS | change, MIXED.fit: PROGRESS}})
        summary = status.summarise(PLAN, store)
        assert "  full trial 0, fit\n" in summary.status_text()
        assert summary.progress == {MIXED.fit: PROGRESS}

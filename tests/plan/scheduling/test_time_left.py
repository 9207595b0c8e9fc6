"""Test the estimate of the time that a run still takes."""

from __future__ import annotations

import pytest

from chexseg.plan.graph import Node
from chexseg.plan.scheduling.time_left import PRIOR, Running, TimeLeft

#: One resource. A classifier takes all of it, a fit half.
SHARES = {"classify": (1.0,), "fit": (0.5,)}


def a_study(fits: int = 4) -> tuple[dict[str, Node], dict[str, float]]:
    """Return a classifier of 100 expected seconds with fits of 10 behind it."""
    nodes = {"c": Node("classify", {}, {}, None, "c")}
    nodes |= {f"f{n}": Node("fit", {}, {"encoder": "c"}, None, f"f{n}") for n in range(fits)}
    return nodes, {key: 100.0 if key == "c" else 10.0 for key in nodes}


def test_before_anything_has_ended_the_plans_costs_count():
    nodes, seconds = a_study()
    assert TimeLeft(nodes, seconds, SHARES).seconds({}) == pytest.approx(100 + 4 * 10 / 2)


def test_the_longest_path_is_a_bound_where_the_cluster_has_room():
    nodes, seconds = a_study()
    wide = {"classify": (0.01,), "fit": (0.01,)}
    assert TimeLeft(nodes, seconds, wide).seconds({}) == pytest.approx(110)


def test_a_running_stage_shows_its_pace():
    nodes, seconds = a_study()
    left = TimeLeft(nodes, seconds, SHARES)
    # A quarter took 50 s instead of 25. The fits are expected to be nearly as slow.
    fits = 20 * (PRIOR * 140 + 50) / (PRIOR * 140 + 25)
    assert left.seconds({"c": Running(0.25, 50.0)}) == pytest.approx(150 + fits)
    # Too early to tell.
    assert left.seconds({"c": Running(0.01, 50.0)}) == pytest.approx(99 + 20)


def test_what_has_ended_refines_the_rest():
    nodes, seconds = a_study()
    left = TimeLeft(nodes, seconds, SHARES)
    left.end("c", 50.0)
    pace = (PRIOR * 140 + 50) / (PRIOR * 140 + 100)
    assert left.seconds({}) == pytest.approx(20 * pace), "all are expected to be nearly as fast"
    left.end("f0", 30.0)
    assert left.seconds({}) == pytest.approx(3 * 30 / 2), "a stage's own pace counts most"
    assert left.seconds({"f1": Running(0.5, 3.0)}) == pytest.approx(2.5 * 30 / 2)
    for key in ("f1", "f2", "f3"):
        left.end(key)
    assert left.seconds({}) == 0


def test_what_a_failure_prevents_takes_no_time():
    nodes, seconds = a_study()
    nodes["g"], seconds["g"] = Node("fit", {}, {}, None, "g"), 10.0
    left = TimeLeft(nodes, seconds, SHARES)
    left.end("c", succeeded=False)
    assert left.seconds({}) == pytest.approx(10), "only the fit that doesn't need it"


def test_a_small_stage_that_starts_slowly_says_little_about_the_others():
    nodes, seconds = a_study()
    nodes = {"i": Node("ingest", {}, {}, None, "i"), **nodes}
    left = TimeLeft(nodes, {"i": 0.01, **seconds}, {"ingest": (0.1,), **SHARES})
    left.end("i", 1.0)  # a hundred times as long
    assert left.seconds({}) < 1.2 * 120

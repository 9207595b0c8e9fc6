"""The order in which stage runs start, on hand-made graphs and clusters."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest

from chexseg.plan.graph import Node, node_of
from chexseg.plan.scheduling import schedule
from chexseg.plan.scheduling.schedule import Need, Queue, Slots, Start
from chexseg.stages.configs import IngestConfig

WHOLE, HALF, NO_GPU = Need(1, 1), Need(1, 0.5), Need(1)


def graph(inputs: Mapping[str, str]) -> dict[str, Node]:
    """Return nodes by the names given, each with the names of its inputs."""
    nodes = {}
    for number, (name, needed) in enumerate(inputs.items()):
        config = IngestConfig(split="train", size=32 * (1 + number % 60))
        nodes[name] = node_of("ingest", config, {one: one for one in needed})
    return nodes


def starts(ready: str, slots: Slots, needs: Mapping[str, Need], **longest: float) -> list[Start]:
    queue = Queue()
    for name in ready:
        queue.add(name, needs[name], longest.get(name, 1.0))
    begun = queue.start(slots)
    assert bool(queue) == (len(begun) < len(ready))
    return begun


def started(ready: str, slots: Slots, needs: Mapping[str, Need], **longest: float) -> str:
    return "".join(start.key for start in starts(ready, slots, needs, **longest))


def test_the_remaining_path_is_the_longest_sum_behind_a_node():
    nodes = graph({"a": "", "b": "a", "c": "a", "d": "bc", "e": ""})
    seconds = {"a": 1, "b": 10, "c": 2, "d": 3, "e": 7}
    assert schedule.remaining(nodes, seconds) == {"a": 14, "b": 13, "c": 5, "d": 3, "e": 7}


def test_a_random_graph_by_all_its_paths():
    drawn = random.Random(0)
    names = "abcdefghij"
    inputs = {
        name: "".join(other for other in names[:number] if drawn.random() < 0.4)
        for number, name in enumerate(names)
    }
    seconds = {name: drawn.randrange(1, 20) for name in names}

    def paths(name: str) -> int:
        behind = [other for other in names if name in inputs[other]]
        return seconds[name] + max((paths(other) for other in behind), default=0)

    expected = {name: paths(name) for name in names}
    assert schedule.remaining(graph(inputs), seconds) == expected


def test_the_longest_path_starts_first_and_the_plans_order_decides_among_equals():
    needs = dict.fromkeys("abc", WHOLE)
    assert started("abc", Slots(9, [1.0, 1.0]), needs, b=5) == "ba"
    assert started("abc", Slots(2, [1.0, 1.0, 1.0]), needs) == "ab", "there are two CPUs"


def test_cells_fill_a_gpu_before_they_begin_another():
    slots = Slots(9, [1.0, 0.5, 1.0])
    needs = dict.fromkeys("ab", HALF)
    begun = starts("ab", slots, needs)
    assert [start.gpus for start in begun] == [(1,), (0,)]
    assert slots.gpus == [0.5, 0.0, 1.0]
    slots.take(HALF, begun[0].gpus, sign=1)
    assert slots.gpus == [0.5, 0.5, 1.0]


def test_a_stage_that_waits_for_a_whole_gpu_keeps_the_next_one_free():
    """Without that cells would take every half that becomes free, and it would start last."""
    needs = {"a": WHOLE, "b": HALF, "c": HALF, "d": NO_GPU}
    slots = Slots(9, [0.5, 0.0])
    assert started("abcd", slots, needs, a=9) == "d"
    assert slots.gpus == [0.5, 0.0]
    slots = Slots(9, [0.5, 0.5])
    assert started("abcd", slots, needs, a=9, d=2) == "db", "the other GPU is in use"
    assert sorted(slots.gpus) == [0.0, 0.5]


def test_several_gpus_are_taken_at_once():
    slots = Slots(9, [1.0, 0.5, 1.0])
    assert Slots(9, [1.0, 0.5]).place(Need(1, 2)) is None
    place = slots.place(Need(1, 2))
    assert place is not None and sorted(place) == [0, 2]
    slots.take(Need(1, 2), place)
    assert slots.gpus == [0.0, 0.5, 0.0]


@pytest.mark.parametrize("gpus", [1, 2, 3])
def test_no_order_of_starts_leaves_a_gpu_idle_that_a_ready_stage_fits(gpus):
    needs = {"a": WHOLE, "b": WHOLE, "c": HALF}
    for order in itertools.permutations("abc"):
        slots = Slots(9, [1.0] * gpus)
        rank = {name: float(9 - place) for place, name in enumerate(order)}
        begun = started("abc", slots, needs, **rank)
        assert begun == "".join(order)[: len(begun)], "in the order of the paths"
        assert len(begun) >= gpus


def test_stages_before_the_cells_are_limited_in_number_and_cells_are_not():
    stage = Need(cpus=1, stages=1)
    needs = {"a": stage, "b": stage, "c": NO_GPU}
    slots = Slots(9, stages=1)
    assert started("abc", slots, needs) == "ac"
    slots.take(stage, (), sign=1)
    assert started("b", slots, needs) == "b"


def test_a_stage_that_waits_for_cpus_keeps_those_that_become_free():
    needs = {"a": Need(cpus=7), "b": NO_GPU, "c": Need()}
    slots = Slots(5)
    assert started("abc", slots, needs, a=9) == "c", "it needs nothing"
    assert slots.cpus == 5
    assert started("abc", Slots(5), needs, b=9, a=2) == "bc", "before it in line"
    assert started("abc", Slots(8), needs, a=9) == "abc"


def test_what_is_held_back_starts_later():
    queue, slots = Queue(), Slots(9, [1.0])
    queue.add("cell", HALF, 5.0)
    queue.add("stage", NO_GPU, 1.0)
    assert [start.key for start in queue.start(slots, excluded=HALF)] == ["stage"]
    assert [start.key for start in queue.start(slots)] == ["cell"]

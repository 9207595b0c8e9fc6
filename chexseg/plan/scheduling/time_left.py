"""Estimate how long a run still takes, from the plan's costs and from what has ended so far."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from chexseg.plan.graph import Node
from chexseg.plan.scheduling.schedule import remaining

#: Share of a running stage from which its own pace says something.
TELLING = 0.02
#: Share of all work that counts as done at the expected pace. Without it the first small stage,
#: whose start takes most of its time, would say that everything takes hours.
PRIOR = 0.05


@dataclass(frozen=True)
class Running:
    """A stage that runs. done: share of its work, 0 to 1. seconds: since it reported first."""

    done: float
    seconds: float


class TimeLeft:
    """The expected seconds to the end of a run.

    It is the larger of two lower bounds of list scheduling (Graham 1969, as `schedule`): all
    remaining work over what the cluster does at once, and the longest remaining path. Each stage's
    expected times are multiplied by its pace: measured seconds over expected ones in this run.

    nodes: key -> node to run, each after its inputs. seconds: key -> expected time.
    shares: stage -> the share of each of the cluster's resources that one of its runs takes.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        seconds: Mapping[str, float],
        shares: Mapping[str, tuple[float, ...]],
    ) -> None:
        self._stages = {key: node.stage for key, node in nodes.items()}
        self._seconds, self._shares = seconds, shares
        self._longest = remaining(nodes, seconds)
        self._heap = [(-longest, key) for key, longest in self._longest.items()]
        heapq.heapify(self._heap)
        self._open = set(nodes)
        self._work: dict[str, float] = defaultdict(float)  # of each stage, expected
        self._behind: dict[str, list[str]] = defaultdict(list)
        for key, node in nodes.items():
            self._work[node.stage] += seconds[key]
            for needed in node.inputs.values():
                self._behind[needed].append(key)
        self._prior = PRIOR * sum(self._work.values())
        self._measured: dict[str, float] = defaultdict(float)
        self._expected: dict[str, float] = defaultdict(float)

    def end(self, key: str, seconds: float | None = None, succeeded: bool = True) -> None:
        """Take note that a stage has ended. seconds: how long it took, if it ran now.

        If it has failed, nothing that needs its result will run.
        """
        ended = [key]
        while ended:
            key = ended.pop()
            if key in self._open:
                self._open.discard(key)
                self._work[self._stages[key]] -= self._seconds[key]
                ended += [] if succeeded else self._behind[key]
                if succeeded and seconds is not None:
                    self._measured[self._stages[key]] += seconds
                    self._expected[self._stages[key]] += self._seconds[key]

    def seconds(self, running: Mapping[str, Running]) -> float:
        """Return the expected seconds to the end. running: key -> how far it is."""
        running = {key: one for key, one in running.items() if key in self._open}
        paces = self._paces(running)
        done: dict[str, float] = defaultdict(float)
        for key, one in running.items():
            done[self._stages[key]] += one.done * self._seconds[key]
        work = {
            stage: max(0.0, expected - done[stage]) * paces[stage]
            for stage, expected in self._work.items()
        }
        resources = len(next(iter(self._shares.values()), ()))
        bounds = [
            sum(seconds * self._shares[stage][resource] for stage, seconds in work.items())
            for resource in range(resources)
        ]
        return max([*bounds, self._path(running, paces)])

    def _paces(self, running: Mapping[str, Running]) -> dict[str, float]:
        """Return stage -> measured over expected seconds.

        A stage without a result has the pace of its running ones, and otherwise that of all stages:
        what a guess gets wrong is mostly the machine.
        """
        spent: dict[str, float] = defaultdict(float)
        expected: dict[str, float] = defaultdict(float)
        for key, one in running.items():
            if one.done >= TELLING:
                spent[self._stages[key]] += one.seconds
                expected[self._stages[key]] += one.done * self._seconds[key]
        for stage, seconds in self._expected.items():
            if seconds:
                spent[stage], expected[stage] = self._measured[stage], seconds
        total = self._prior + sum(expected.values())
        overall = (self._prior + sum(spent.values())) / total if total else 1.0
        return {
            stage: spent[stage] / expected[stage] if expected[stage] else overall
            for stage in self._work
        } | {"": overall}

    def _path(self, running: Mapping[str, Running], paces: Mapping[str, float]) -> float:
        """Return the expected seconds of the longest path that is left."""
        while self._heap and self._heap[0][1] not in self._open:
            heapq.heappop(self._heap)
        if not self._heap:
            return 0.0
        longest, key = -self._heap[0][0], self._heap[0][1]
        seconds = self._seconds[key]
        left = seconds * (1 - running[key].done) if key in running else seconds
        return left * paces[self._stages[key]] + (longest - seconds) * paces[""]

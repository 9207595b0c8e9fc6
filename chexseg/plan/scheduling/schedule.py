"""The order of stage runs: pure functions, so that a benchmark can simulate whole studies.

A run starts as soon as its inputs are there and its resources are free. Of several the one with the
longest remaining path starts first (list scheduling by critical path; Graham 1969, "Bounds on
Multiprocessing Timing Anomalies"). One that needs a whole GPU, or many CPUs, gets what becomes free
next: the runs after it don't take it meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chexseg.plan.graph import Node


@dataclass(frozen=True)
class Need:
    """The resources of a run. gpus: a share of one GPU up to 1, or whole GPUs.

    stages: 1 for a run that counts towards `Slots.stages`.
    """

    cpus: float = 0
    gpus: float = 0
    stages: int = 0


@dataclass
class Slots:
    """The free resources of a cluster.

    gpus: the free share of each GPU. stages: how many more runs before the cells may start.
    """

    cpus: float
    gpus: list[float] = field(default_factory=list)
    stages: int = 1

    def place(self, need: Need) -> list[int] | None:
        """Return the numbers of the GPUs on which there is room; None if there is none.

        A share goes to the fullest GPU on which it fits, so that others stay empty.
        """
        if need.cpus > self.cpus + 1e-9 or need.stages > self.stages:
            return None
        share, count = min(1.0, need.gpus), max(1, round(need.gpus))
        if not share:
            return []
        fitting = [number for number, free in enumerate(self.gpus) if free >= share - 1e-9]
        fitting.sort(key=lambda number: self.gpus[number])
        return fitting[:count] if len(fitting) >= count else None

    def take(self, need: Need, numbers: Iterable[int], sign: int = -1) -> None:
        """Take the resources of a run on these GPUs; with a sign of 1 give them back."""
        self.cpus += sign * need.cpus
        self.stages += sign * need.stages
        for number in numbers:
            self.gpus[number] += sign * min(1.0, need.gpus)


@dataclass(frozen=True)
class Start:
    """A run to start now, and the numbers of its GPUs."""

    key: str
    gpus: tuple[int, ...]


class Queue:
    """The runs whose inputs are there. Adding and starting one takes logarithmic time."""

    def __init__(self) -> None:
        self._heaps: dict[Need, list[tuple[float, int, str]]] = {}
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return any(self._heaps.values())

    def add(self, key: str, need: Need, longest: float) -> None:
        """Add a run. longest: of `remaining`; among equally long paths the first one added wins."""
        heapq.heappush(self._heaps.setdefault(need, []), (-longest, next(self._numbers), key))

    def start(self, slots: Slots, excluded: Need | None = None) -> list[Start]:
        """Remove and return the runs to start now, and take their resources from `slots`.

        excluded: runs with this need don't start.
        """
        begun: list[Start] = []
        full = {excluded} if excluded else set()
        kept_cpus = 0.0
        kept: dict[int, float] = {}
        while heads := [
            (heap[0], need) for need, heap in self._heaps.items() if heap and need not in full
        ]:
            (_, _, key), need = min(heads, key=lambda head: head[0])
            place = slots.place(need)
            if place is not None:
                heapq.heappop(self._heaps[need])
                slots.take(need, place)
                begun.append(Start(key, tuple(place)))
                continue
            full.add(need)
            if need.stages > slots.stages or kept or kept_cpus:
                continue
            # Keep what this one waits for: all CPUs, or the emptiest GPUs.
            if need.cpus > slots.cpus:
                kept_cpus, slots.cpus = slots.cpus, 0.0
            else:
                emptiest = sorted(range(len(slots.gpus)), key=lambda number: -slots.gpus[number])
                for number in emptiest[: max(1, round(need.gpus))]:
                    kept[number], slots.gpus[number] = slots.gpus[number], 0.0
        slots.cpus += kept_cpus
        for number, free in kept.items():
            slots.gpus[number] = free
        return begun


def remaining(nodes: Mapping[str, Node], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds from the start of each node to the end of the longest path behind it.

    nodes: each after its inputs. seconds: of each node.
    """
    longest = dict.fromkeys(nodes, 0.0)
    for key in reversed(list(nodes)):
        longest[key] += seconds[key]
        for needed in nodes[key].inputs.values():
            if needed in longest:
                longest[needed] = max(longest[needed], longest[key])
    return longest

"""The order of stage runs: pure functions, so that a benchmark can simulate whole studies.

A run starts as soon as its inputs are there and its resources are free. Of several the one with the
longest remaining path starts first (list scheduling by critical path; Graham 1969, "Bounds on
Multiprocessing Timing Anomalies"). One that needs a whole GPU gets the next one that is empty: the
runs after it don't take shares of it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chexseg.plan.graph import Node


@dataclass(frozen=True)
class Need:
    """The resources of a running stage. gpus: a share of one GPU up to 1, or whole GPUs."""

    cpus: float = 0
    gpus: float = 0


@dataclass
class Slots:
    """The free resources of a cluster.

    gpus: the free share of each GPU.
    """

    cpus: float
    gpus: list[float] = field(default_factory=list)

    def place(self, need: Need) -> list[int] | None:
        """Return the numbers of the GPUs on which there is room; None if there is none.

        A share goes to the fullest GPU on which it fits, so that others stay empty.
        """
        if need.cpus > self.cpus + 1e-9:
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
        for number in numbers:
            self.gpus[number] += sign * min(1.0, need.gpus)


@dataclass(frozen=True)
class Start:
    """A run to start now, and the numbers of its GPUs."""

    key: str
    gpus: tuple[int, ...]


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


def starts(
    ready: Iterable[str], longest: Mapping[str, float], needs: Mapping[str, Need], slots: Slots
) -> list[Start]:
    """Return the ready nodes to start now, and take their resources from `slots`.

    ready: in the plan's order, which decides among equally long paths. longest: of `remaining`.
    """
    begun: list[Start] = []
    kept: dict[int, float] = {}
    for key in sorted(ready, key=lambda key: -longest[key]):
        need = needs[key]
        place = slots.place(need)
        if place is not None:
            slots.take(need, place)
            begun.append(Start(key, tuple(place)))
        elif need.gpus and not kept and need.cpus <= slots.cpus:
            # Keep the emptiest GPUs for this one.
            emptiest = sorted(range(len(slots.gpus)), key=lambda number: -slots.gpus[number])
            kept = {number: slots.gpus[number] for number in emptiest[: max(1, round(need.gpus))]}
            for number in kept:
                slots.gpus[number] = 0.0
    for number, free in kept.items():
        slots.gpus[number] = free
    return begun

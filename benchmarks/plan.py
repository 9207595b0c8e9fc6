"""Benchmark planning a study of many cells against hashing its nodes' identities as JSON.

    python benchmarks/plan.py [--cells N] [--rounds N]

The study varies p, the number of weak images, the trial and the learning rate. So each cell has a
separate fit and scores, and all share the rest. Planning is from the study file's text to the plan,
without a store. The reference only hashes the same identities, which are built before, and must get
the plan's keys.

The sides take turns, and each one's time is its best of the rounds. It is CPU time, because the
wall clock of a shared machine includes other work; the wall clock's best is shown too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import bare

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.graph import Node
from chexseg.stages.registry import STAGES

DATA = {"train": "a", "valid": "b", "test": "c"}


def study_text(cells: int) -> str:
    """Return a study of at least `cells` cells: 20 x N x 10 x 5."""
    weak_images = list(range(100, 100 + -(-cells // 1000)))
    return json.dumps(
        {
            "name": "many",
            "axes": {
                "labels.p": [round(0.04 * step, 2) for step in range(1, 21)],
                "labels.weak_images": weak_images,
                "trial": list(range(10)),
                "fit.learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
            },
        }
    )


def identity(node: Node) -> dict[str, Any]:
    """Return what a node's key is the hash of; no node of this study replaces another."""
    return {
        "stage": node.stage,
        "version": STAGES[node.stage].version,
        "config": node.config,
        "inputs": node.inputs,
        "data": node.data,
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return (the result, seconds of CPU time, seconds of the wall clock)."""
    wall, cpu = perf_counter(), process_time()
    result = work()
    return result, process_time() - cpu, perf_counter() - wall


def main() -> None:
    given = bare.parse(__doc__, cells=(100_000, "at least"), rounds=(3, "of both sides"))
    text = study_text(given.cells)
    ours, theirs = [], []
    for _ in range(given.rounds):
        planned, *seconds = timed(lambda: planner.plan(study_file.parse(text, "many.yaml"), DATA))
        ours.append(seconds)
        identities = [identity(node) for node in planned.nodes.values()]
        keys, *seconds = timed(
            lambda these=identities: [
                hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest()
                for one in these
            ]
        )
        theirs.append(seconds)
        if keys != list(planned.nodes):
            raise SystemExit("the reference has other keys than the plan")
        size = len(planned.cells), len(planned.nodes)
        del planned, identities, keys  # so that the next round doesn't include them
    print(f"{size[0]:,} cells, {size[1]:,} nodes; best of {given.rounds} rounds, in seconds\n")
    print(f"{'':<28}{'CPU time':>10}{'wall clock':>12}{'to the reference':>18}")
    for name, seconds in (("planning", ours), ("reference: the keys alone", theirs)):
        cpu, wall = (min(column) for column in zip(*seconds, strict=True))
        reference = min(cpu for cpu, _ in theirs)
        print(f"{name:<28}{cpu:>10.2f}{wall:>12.2f}{cpu / reference:>18.2f}")


if __name__ == "__main__":
    main()

"""Simulate the whole paper on clusters of GPUs: the scheduler's policy against going by levels.

    python benchmarks/makespan.py [--study FILE]

Replays the graph of a study with the stage times below. Events are stage runs that start and end;
nothing is computed. A stage before the cells has a GPU to itself, cells share one, and ingest needs
none. The reference is a lower bound: the longest path, or the GPU time divided by the GPUs,
whichever is longer. `levels` runs all stages that are ready, waits for all, then all cells that are
ready.

Times are in seconds on one H200. "eager": measured before steps were captured, the rest scaled from
these by images and epochs (docs/explanation/performance.md). "captured": with the rates of captured
steps; the stages themselves were not timed.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Mapping
from pathlib import Path

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.graph import Node, Plan
from chexseg.plan.scheduling import schedule
from chexseg.plan.scheduling.schedule import Need, Slots

DATA = {"train": "a", "valid": "b", "test": "c"}
IMPORTED = {
    (kind, architecture): "0" * 64
    for kind in ("imagenet", "moco-cxr", "chexpert")
    for architecture in ("densenet121", "resnet18", "resnet50")
}
#: Images of CheXpert's training set, and those of a student's fraction 1.
TRAIN, FRONTAL = 223_414, 191_027
#: Rates in images/s: before and after steps were captured.
RATES = {
    "eager": {"classify": 225, "pretrain": 266, "moco": 235, "irnet": 100, "fit": 415},
    "captured": {"classify": 824, "pretrain": 4196, "moco": 2796, "irnet": 379, "fit": 1400},
}
#: Cells at once on a GPU, and seconds of a cell besides its training.
SHARED = {"eager": 4, "captured": 2}
BESIDE = {"eager": 6.0, "captured": 3.0}


def seconds(node: Node, rates: str) -> float:
    """Return the assumed time of a stage run, alone on its share of a GPU."""
    rate, config = RATES[rates], node.config
    if node.stage in ("classify", "pretrain", "moco"):
        return config["epochs"] * TRAIN / rate[node.stage] + 10
    if node.stage == "irnet":
        images = config["images"] or FRONTAL
        return config["epochs"] * images / rate["irnet"] + FRONTAL / 700 + 10
    if node.stage in ("saliency", "distil"):
        images = config.get("images") or config.get("fraction", 1) * FRONTAL
        return images / 2000 + 10
    if node.stage == "fit":
        samples = config["samples_per_epoch"]
        if samples is None:
            weak = config["weak_images"] if config["supervision"] == "masks" else 1000
            samples = weak + config["expert_train"]
        # Cells that share a GPU slow each other down.
        return SHARED[rates] * config["epochs"] * samples / rate["fit"] + BESIDE[rates]
    return {"ingest": 60.0, "score": 2.0, "imported": 0.0}[node.stage]


def needs(plan: Plan, rates: str) -> dict[str, Need]:
    """Return what each node reserves."""
    share = 1 / SHARED[rates]
    of_stage = {"ingest": Need(cpus=1), "imported": Need()}
    of_stage |= {"fit": Need(1, share), "score": Need(1, share)}
    return {key: of_stage.get(node.stage, Need(1, 1)) for key, node in plan.nodes.items()}


def by_policy(plan: Plan, times: Mapping[str, float], need: Mapping[str, Need], gpus: int) -> float:
    """Return the makespan of the scheduler's policy."""
    slots = Slots(cpus=16 * gpus, gpus=[1.0] * gpus)
    longest = schedule.remaining(plan.nodes, times)
    missing = {key: set(node.inputs.values()) for key, node in plan.nodes.items()}
    queue, now, ended = schedule.Queue(), 0.0, 0
    running: list[tuple[float, str, tuple[int, ...]]] = []
    for key in plan.nodes:
        if not missing[key]:
            queue.add(key, need[key], longest[key])
    while ended < len(plan.nodes):
        for start in queue.start(slots):
            heapq.heappush(running, (now + times[start.key], start.key, start.gpus))
        now, key, numbers = heapq.heappop(running)
        slots.take(need[key], numbers, sign=1)
        ended += 1
        for other, inputs in missing.items():
            if key in inputs:
                inputs.discard(key)
                if not inputs:
                    queue.add(other, need[other], longest[other])
    return now


def by_levels(plan: Plan, times: Mapping[str, float], need: Mapping[str, Need], gpus: int) -> float:
    """Return the makespan of going by levels: stages that are ready, then cells that are ready."""
    cells = {cell.score: cell.fit for cell in plan.cells}
    in_cells = {*cells, *cells.values()}
    done: set[str] = set()
    now = 0.0
    while len(done) < len(plan.nodes):
        left = {key: node for key, node in plan.nodes.items() if key not in done}
        stages = [
            [key]
            for key, node in left.items()
            if key not in in_cells and set(node.inputs.values()) <= done
        ]
        ready = stages or [
            [key for key in (fit, score) if key not in done]
            for score, fit in cells.items()
            if score not in done and _inputs(plan, (fit, score)) - {fit} <= done
        ]
        slots = Slots(cpus=16 * gpus, gpus=[1.0] * gpus)
        running: list[tuple[float, int, list[int]]] = []
        for number, group in enumerate(ready):
            while (place := slots.place(need[group[0]])) is None:
                now, other, numbers = heapq.heappop(running)
                slots.take(need[ready[other][0]], numbers, sign=1)
            slots.take(need[group[0]], place)
            heapq.heappush(running, (now + sum(times[key] for key in group), number, place))
        now = max([now, *(end for end, _, _ in running)])
        done.update(key for group in ready for key in group)
    return now


def _inputs(plan: Plan, keys: tuple[str, ...]) -> set[str]:
    return {needed for key in keys for needed in plan.nodes[key].inputs.values()}


def bound(plan: Plan, times: Mapping[str, float], need: Mapping[str, Need], gpus: int) -> float:
    """Return the lower bound of every makespan."""
    path = max(schedule.remaining(plan.nodes, times).values())
    work = sum(times[key] * min(1, need[key].gpus) for key in plan.nodes)
    return max(path, work / gpus)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent.parent / "studies" / "paper" / "all.yaml"
    parser.add_argument("--study", type=Path, default=default, help="default: the whole paper")
    plan = planner.plan(study_file.load(parser.parse_args().study), DATA, IMPORTED)
    print(f"{len(plan.cells)} cells, {len(plan.nodes)} stage runs")
    print(f"{'rates':<10}{'GPUs':>5}{'bound, h':>10}{'policy':>8}{'levels':>8}   (times the bound)")
    policies: tuple[Callable[..., float], ...] = (by_policy, by_levels)
    for rates in RATES:
        times = {key: seconds(node, rates) for key, node in plan.nodes.items()}
        need = needs(plan, rates)
        for gpus in (1, 8, 24):
            least = bound(plan, times, need, gpus)
            ratios = [policy(plan, times, need, gpus) / least for policy in policies]
            print(f"{rates:<10}{gpus:>5}{least / 3600:>10.2f}{ratios[0]:>8.3f}{ratios[1]:>8.3f}")


if __name__ == "__main__":
    main()

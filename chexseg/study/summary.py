"""What a plan comes to against a store: for people, and as JSON. Read-only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chexseg.progress import duration
from chexseg.study import cost
from chexseg.study.cost import Cost
from chexseg.study.plan import STAGES, Plan
from chexseg.study.store import Store

#: A row of a plan's table: stage, then `Summary.row`.
TABLE = "{:<10} {:>6} {:>7} {:>7} {:>10} {:>10}"


@dataclass(frozen=True)
class Summary:
    """states: key -> "cached", "new" (will run), "failed" (did, and will again) or "unneeded" (its results are there)."""

    plan: Plan
    states: dict[str, str]
    errors: dict[str, str]
    #: Key of each node -> what it costs to run; empty where nobody asked.
    costs: Mapping[str, Cost]

    def fault(self, key: str) -> str | None:
        """Why a node has no result: its own failure, or that of something it needs; None where it just hasn't run."""
        if key in self.errors:
            return f"{self.plan.nodes[key].label}: {self.errors[key]}"
        return next(filter(None, map(self.fault, self.plan.nodes[key].inputs.values())), None)

    def cell_state(self, score: str) -> str:
        if self.states[score] == "cached":
            return "done"
        return "failed" if self.fault(score) else "missing"

    @property
    def complete(self) -> bool:
        return all(self.states[cell.score] == "cached" for cell in self.plan.cells)

    def plan_dict(self) -> dict[str, Any]:
        """The object of ``study plan --json``."""
        return {
            "study": self.plan.study.name,
            "cells": self._cells(),
            "stages": [
                {
                    "stage": node.stage,
                    "key": key,
                    "state": self.states[key],
                    "config": dict(node.config),
                    "inputs": dict(node.inputs),
                    "expected_seconds": round(self.costs[key].seconds, 1),
                    "expected_gpu_hours": round(self.costs[key].gpu_hours, 3),
                    "measured": self.costs[key].measured,
                }
                for key, node in self.plan.nodes.items()
            ],
            "expected_seconds": round(sum(cost.seconds for cost in self._to_pay()), 1),
            "expected_gpu_hours": round(sum(cost.gpu_hours for cost in self._to_pay()), 3),
            "warnings": self.warnings(),
        }

    def status_dict(self) -> dict[str, Any]:
        """The object of ``study status --json``."""
        return {"study": self.plan.study.name, "cells": self._cells(), "complete": self.complete}

    def _cells(self) -> list[dict[str, Any]]:
        return [
            {
                "name": cell.name,
                "key": cell.score,
                "state": self.cell_state(cell.score),
                "error": None if self.states[cell.score] == "cached" else self.fault(cell.score),
                "settings": cell.settings.model_dump(mode="json"),
            }
            for cell in self.plan.cells
        ]

    def warnings(self) -> list[str]:
        """What a reader should know before anything is spent."""
        plan, out = self.plan, []
        if plan.collapsed:
            out.append(
                f"{plan.combinations} combinations are {len(plan.cells)} distinct cells: the others differ in"
                " settings that don't reach them (at p = 1 there are no weak labels)"
            )
        guessed = {node.stage for key, node in plan.nodes.items() if self._to_run(key) and not self.costs[key].measured}
        if guessed:
            names = ", ".join(stage for stage in STAGES if stage in guessed)
            out.append(f"the time of {names} is a guess from two CPU cores: none has run in this store")
        return out

    def _to_run(self, key: str) -> bool:
        return self.states[key] in ("new", "failed")

    def _to_pay(self) -> list[Cost]:
        return [cost for key, cost in self.costs.items() if self._to_run(key)]

    def plan_text(self) -> str:
        plan, table = self.plan, TABLE
        done = sum(self.states[cell.score] == "cached" for cell in plan.cells)
        lines = [f"{plan.study.name}: {len(plan.cells)} distinct cells, {done} of them done", ""]
        lines.append(table.format("stage", "runs", "cached", "to run", "expected", "GPU hours"))
        by_stage: dict[str, list[str]] = {}
        for key, node in plan.nodes.items():
            by_stage.setdefault(node.stage, []).append(key)
        for stage in (stage for stage in STAGES if stage in by_stage):
            lines.append(table.format(stage, *self.row(by_stage[stage])))
        lines.append(table.format("all", *self.row(list(plan.nodes))))
        lines += [f"note: {warning}" for warning in self.warnings()]
        lines.append("")
        lines += [f"  {cell.name:<36} {self.cell_state(cell.score)}" for cell in plan.cells]
        return "\n".join(lines)

    def row(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Runs, cached, to run, expected time one after another, GPU hours."""
        to_run = [key for key in keys if self._to_run(key)]
        cached = sum(self.states[key] == "cached" for key in keys)
        hours = sum(self.costs[key].gpu_hours for key in to_run)
        seconds = sum(self.costs[key].seconds for key in to_run)
        guess = "" if all(self.costs[key].measured for key in to_run) else "~"
        expected = f"{guess}{duration(seconds)}" if to_run else ""
        return str(len(keys)), str(cached), str(len(to_run)), expected, f"{hours:.2f}" if hours else ""

    def status_text(self) -> str:
        counts = Counter(self.cell_state(cell.score) for cell in self.plan.cells)
        lines = [f"{self.plan.study.name}: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))]
        for cell in self._cells():
            lines.append(f"  {cell['name']:<36} {cell['state']}{': ' + cell['error'] if cell['error'] else ''}")
        return "\n".join(lines)


def summarise(plan: Plan, store: Store, images: Mapping[str, int] | None = None) -> Summary:
    """Look up every node of a plan in a store. images: split -> how many the data set has; with it, costs are told."""
    cached = store.cached(plan.nodes.values())
    needed = {node.key for node in plan.needed(cached)}
    states, errors = {}, {}
    for key in plan.nodes:
        failure = store.failure(key) if key in needed else None
        if failure:
            errors[key] = failure["error"]
        states[key] = "cached" if key in cached else "failed" if failure else "new" if key in needed else "unneeded"
    costs = {} if images is None else cost.expected(plan, store.artifacts(), images)
    return Summary(plan, states, errors, costs)

"""What a plan comes to against a store: for people, and as JSON. Read-only."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chexseg.study.plan import STAGES, Plan
from chexseg.study.store import Artifact, Store


@dataclass(frozen=True)
class Summary:
    """states: key -> "cached", "new" (will run), "failed" (did, and will again) or "unneeded" (its results are there)."""

    plan: Plan
    states: dict[str, str]
    errors: dict[str, str]
    #: stage -> median seconds of its results in the store
    seconds: dict[str, float]
    #: key -> result
    artifacts: Mapping[str, Artifact]

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
                    "expected_seconds": self.seconds.get(node.stage),
                }
                for key, node in self.plan.nodes.items()
            ],
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
        unknown = [stage for stage in STAGES if stage not in self.seconds and self._count("new", stage)]
        if unknown:
            out.append(f"no time can be told for {', '.join(unknown)}: none of them has run in this store")
        return out

    def _count(self, state: str, stage: str) -> int:
        return sum(self.states[key] == state for key, node in self.plan.nodes.items() if node.stage == stage)

    def plan_text(self) -> str:
        plan = self.plan
        done = sum(self.states[cell.score] == "cached" for cell in plan.cells)
        lines = [f"{plan.study.name}: {len(plan.cells)} distinct cells, {done} of them done", ""]
        lines.append(f"{'stage':<10} {'runs':>6} {'cached':>7} {'to run':>7} {'expected':>10}")
        total = 0.0
        for stage in STAGES:
            runs = sum(node.stage == stage for node in plan.nodes.values())
            new = self._count("new", stage) + self._count("failed", stage)
            cost = self.seconds.get(stage)
            total += new * (cost or 0)
            expected = "" if not new else "?" if cost is None else f"{new * cost:.0f} s"
            if runs:
                lines.append(f"{stage:<10} {runs:>6} {self._count('cached', stage):>7} {new:>7} {expected:>10}")
        lines.append(f"{'all':<10} {len(plan.nodes):>6} {'':>7} {'':>7} {f'{total:.0f} s' if total else '':>10}")
        lines += [f"note: {warning}" for warning in self.warnings()]
        lines.append("")
        lines += [f"  {cell.name:<36} {self.cell_state(cell.score)}" for cell in plan.cells]
        return "\n".join(lines)

    def status_text(self) -> str:
        counts = Counter(self.cell_state(cell.score) for cell in self.plan.cells)
        lines = [f"{self.plan.study.name}: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))]
        for cell in self._cells():
            lines.append(f"  {cell['name']:<36} {cell['state']}{': ' + cell['error'] if cell['error'] else ''}")
        return "\n".join(lines)


def summarise(plan: Plan, store: Store) -> Summary:
    """Look up every node of a plan in a store."""
    artifacts = store.find_all(plan.nodes.values())
    costs: dict[str, list[float]] = {}
    for key, artifact in artifacts.items():
        costs.setdefault(plan.nodes[key].stage, []).append(artifact.manifest["seconds"])
    needed = {node.key for node in plan.needed(artifacts)}
    errors = {key: failure["error"] for key, failure in store.failures(needed).items()}
    states = {
        key: "cached" if key in artifacts else "failed" if key in errors else "new" if key in needed else "unneeded"
        for key in plan.nodes
    }
    seconds = {stage: statistics.median(times) for stage, times in costs.items()}
    return Summary(plan, states, errors, seconds, artifacts)

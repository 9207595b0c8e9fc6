"""Compare a plan with a store: states and costs, as text and as JSON. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chexseg.errors import counted
from chexseg.plan import cost, staleness
from chexseg.plan.cells import FEWEST_TRIALS
from chexseg.plan.cost import Cost
from chexseg.plan.graph import Plan
from chexseg.plan.stage_names import stage_names
from chexseg.progress import duration, rate_text
from chexseg.stages.registry import STAGES
from chexseg.store import live_runs
from chexseg.store.store import Artifact, Store

#: Format of a row of a plan's table: stage, then `Summary.row`.
TABLE = "{:<10} {:>6} {:>7} {:>7} {:>10} {:>10}"
#: Least width of the cells' names, characters.
NARROWEST = 36
#: Unneeded runs that a note names.
MOST_UNNEEDED = 3


@dataclass(frozen=True)
class Summary:
    """The state, errors and cost of each node of a plan."""

    plan: Plan
    #: Key -> "cached", "unneeded" (not cached, but all results that need it are), or for a node
    #: to run: "running" (in some process), "failed" (before), "stale" (a similar older result
    #: exists) or "new".
    states: dict[str, str]
    errors: dict[str, str]
    #: Key of a stale node -> difference from the older result; empty unless requested.
    reasons: Mapping[str, str]
    #: Key of each node -> cost of running it; empty unless requested.
    costs: Mapping[str, Cost]
    #: Key -> result.
    artifacts: Mapping[str, Artifact]
    #: Key of a running node -> its progress (`live_runs.progress`).
    progress: Mapping[str, Mapping[str, Any]]

    def fault(self, key: str) -> str | None:
        """Return the failure of a node or of one it needs; None if neither has failed."""
        if key in self.errors:
            return f"{self.plan.nodes[key].label}: {self.errors[key]}"
        return next(filter(None, map(self.fault, self.plan.nodes[key].inputs.values())), None)

    def change(self, key: str) -> str | None:
        """Return how a missing result, or the first one it needs, differs from an older result.

        None if neither is stale.
        """
        if self.states[key] in ("cached", "unneeded"):
            return None
        change = next(filter(None, map(self.change, self.plan.nodes[key].inputs.values())), None)
        return change or (self._reason(key) if key in self.reasons else None)

    def _reason(self, key: str) -> str:
        """Return the reason of a stale node, with the name of its stage."""
        node, reason = self.plan.nodes[key], self.reasons[key]
        return reason if reason.startswith(f"{node.stage}.") else f"{node.label}: {reason}"

    def cell_state(self, score: str) -> str:
        """Return the state of a cell: done, running, failed, stale or missing."""
        if self.states[score] == "cached":
            return "done"
        # Only its fit and scores: a shared stage may run for another cell.
        if "running" in (
            self.states[score],
            self.states[self.plan.nodes[score].inputs["segmenter"]],
        ):
            return "running"
        return "failed" if self.fault(score) else "stale" if self.change(score) else "missing"

    @property
    def complete(self) -> bool:
        return all(self.states[cell.score] == "cached" for cell in self.plan.cells)

    def plan_dict(self) -> dict[str, Any]:
        """Return the object of ``study plan --json``."""
        return {
            "study": self.plan.study.name,
            "cells": self._cells(),
            "stages": [
                {
                    "stage": node.stage,
                    "key": key,
                    "state": self.states[key],
                    "change": self.reasons.get(key),
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
            **sharing(self.plan),
        }

    def status_dict(self) -> dict[str, Any]:
        """Return the object of ``study status --json``."""
        return {
            "study": self.plan.study.name,
            "cells": self._cells(),
            "complete": self.complete,
            "running": list(self._running().values()),
            "progress": [
                {"name": name, "key": key, **self.progress.get(key, {})}
                for key, name in self._running().items()
            ],
        }

    def _running(self) -> dict[str, str]:
        """Return key -> name of each node that runs."""
        names = stage_names(self.plan.nodes, self.plan.cells)
        return {key: names[key] for key, state in self.states.items() if state == "running"}

    def _cells(self) -> list[dict[str, Any]]:
        states = [self.cell_state(cell.score) for cell in self.plan.cells]
        return [
            {
                "name": cell.name,
                "key": cell.score,
                "fit": cell.fit,
                "state": state,
                "error": self.fault(cell.score) if state == "failed" else None,
                "change": self.change(cell.score) if state == "stale" else None,
                "settings": cell.settings.model_dump(mode="json"),
            }
            for cell, state in zip(self.plan.cells, states, strict=True)
        ]

    def warnings(self) -> list[str]:
        """Return notes on merged combinations, guessed times, stale and unneeded runs, trials."""
        plan, out = self.plan, []
        if plan.merged_combinations:
            out.append(
                f"{plan.combinations} combinations are {len(plan.cells)} distinct cells: the others"
                " differ only in irrelevant settings (at p = 1 there are no weak labels)"
            )
        guessed = {
            node.stage
            for key, node in plan.nodes.items()
            if self._to_run(key) and not self.costs[key].measured
        }
        if guessed:
            names = ", ".join(stage for stage in STAGES if stage in guessed)
            out.append(
                f"the time of {names} is a guess for two CPU cores: none has run in this store"
            )
        changes = Counter(map(self._reason, self.reasons))
        out += [
            f"stale: {reason}" + (f" ({runs} runs)" if runs > 1 else "")
            for reason, runs in changes.items()
        ]
        unneeded = [
            node.label for key, node in plan.nodes.items() if self.states[key] == "unneeded"
        ]
        if unneeded:
            more = len(unneeded) - MOST_UNNEEDED
            named = [*unneeded[:MOST_UNNEEDED], *([f"{more} more"] if more > 0 else [])]
            out.append(f"won't run, because nothing needs the result: {', '.join(named)}")
        # Of fewer cells than that, each trial has one: there is nothing to compare.
        trials = {(cell.settings.draw, cell.settings.trial) for cell in plan.cells}
        if len(trials) < min(FEWEST_TRIALS, len(plan.cells)):
            out.append(
                f"with {counted(len(trials), 'trial')} no comparison of cells can be tested:"
                f" a test needs {FEWEST_TRIALS}"
            )
        return out

    def _to_run(self, key: str) -> bool:
        return self.states[key] not in ("cached", "unneeded")

    def _to_pay(self) -> list[Cost]:
        return [cost for key, cost in self.costs.items() if self._to_run(key)]

    def plan_text(self) -> str:
        plan = self.plan
        done = sum(self.states[cell.score] == "cached" for cell in plan.cells)
        cells = f"{len(plan.cells)} distinct cell{'' if len(plan.cells) == 1 else 's'}"
        by_stage: dict[str, list[str]] = {}
        for key, node in plan.nodes.items():
            by_stage.setdefault(node.stage, []).append(key)
        lines = [
            f"{plan.study.name}: {cells}, {done} of them done",
            "",
            TABLE.format("stage", "runs", "cached", "to run", "expected", "GPU hours"),
            *(
                TABLE.format(stage, *self.row(by_stage[stage]))
                for stage in STAGES
                if stage in by_stage
            ),
            TABLE.format("all", *self.row(list(plan.nodes))),
            *self._of_draws(),
            *sharing_text(plan),
            *(f"note: {warning}" for warning in self.warnings()),
            "",
            *self._cell_lines(),
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _of_draws(self) -> list[str]:
        """Return the line on the runs that a study with its first draw alone would not need."""
        draws = sorted({cell.settings.draw for cell in self.plan.cells})
        if len(draws) < 2:
            return []
        first = [cell.score for cell in self.plan.cells if cell.settings.draw == draws[0]]
        needed = self.plan.behind(first)
        _, _, to_run, expected, _ = self.row([key for key in self.plan.nodes if key not in needed])
        further = counted(len(draws) - 1, "further draw")
        return [f"of these, for {further}: {to_run} to run{expected and f', {expected}'}"]

    def row(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Return runs, cached, to run, expected sequential time, GPU hours."""
        cached = sum(self.states[key] == "cached" for key in keys)
        costs = [self.costs[key] for key in keys if self._to_run(key)]
        hours = sum(cost.gpu_hours for cost in costs)
        guess = "" if all(cost.measured for cost in costs) else "~"
        return (
            str(len(keys)),
            str(cached),
            str(len(costs)),
            f"{guess}{duration(sum(cost.seconds for cost in costs))}" if costs else "",
            f"{hours:.2f}" if hours else "",
        )

    def status_text(self) -> str:
        counts = Counter(self.cell_state(cell.score) for cell in self.plan.cells)
        states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        running = self._running()
        return "\n".join(
            [
                f"{self.plan.study.name}: {states}",
                *(["", "running"] if running else []),
                *(
                    f"  {name:<36} {_progress_text(self.progress.get(key, {}))}".rstrip()
                    for key, name in running.items()
                ),
                *(["", "cells"] if running else []),
                *self._cell_lines(),
            ]
        )

    def _cell_lines(self) -> list[str]:
        cells = self._cells()
        width = max([NARROWEST, *(len(cell["name"]) for cell in cells)])
        return [
            f"  {cell['name']:<{width}} "
            + ": ".join(filter(None, (cell["state"], cell["error"], cell["change"])))
            for cell in cells
        ]


def _progress_text(progress: Mapping[str, Any]) -> str:
    """Return a stage's progress for people, as "epoch 3, 1,200 of 4,800 samples, 35/s"."""
    words = []
    if progress.get("epoch"):
        words.append(f"epoch {progress['epoch']}")
    if progress.get("total"):
        words.append(f"{progress['done']:,} of {progress['total']:,} {progress['unit']}")
    if progress.get("rate"):
        words.append(rate_text(progress["rate"]))
    if progress.get("seconds_left") is not None:
        words.append(f"about {duration(progress['seconds_left'])} left")
    return ", ".join(words)


def summarise(
    plan: Plan,
    store: Store,
    images: Mapping[str, int] | None = None,
    explain_stale: bool = False,
) -> Summary:
    """Look up every node of a plan in a store.

    images: split -> number of images in the data set, from which costs are estimated.
    explain_stale: compare missing results with older ones.
    """
    artifacts = store.find_all(plan.nodes.values())
    needed = {node.key: node for node in plan.needed(artifacts)}
    errors = {key: failure["error"] for key, failure in store.failures(needed).items()}
    in_progress = store.in_progress(needed.values())
    reasons = (
        staleness.reasons(plan.nodes, needed.keys() - errors.keys(), store) if explain_stale else {}
    )
    states = (
        dict.fromkeys(plan.nodes, "unneeded")
        | dict.fromkeys(artifacts, "cached")
        | dict.fromkeys(needed, "new")
        | dict.fromkeys(reasons, "stale")
        | dict.fromkeys(errors, "failed")
        | dict.fromkeys(in_progress, "running")
    )
    costs = {} if images is None else cost.expected(plan, store.manifests(), images)
    progress = live_runs.progress(store) if in_progress else {}
    return Summary(plan, states, errors, reasons, costs, artifacts, progress)


def sharing(plan: Plan) -> dict[str, Any]:
    """Return the part of ``study plan --json`` about included studies.

    members: name of each study -> number of cells. shared: stage -> runs that several studies
    need. runs_saved: additional runs if each study had a separate store.
    """
    uses = Counter(key for scores in plan.members.values() for key in plan.behind(scores))
    shared = Counter(plan.nodes[key].stage for key, times in uses.items() if times > 1)
    return {
        "members": {name: len(scores) for name, scores in plan.members.items()},
        "shared": {stage: shared[stage] for stage in STAGES if stage in shared},
        "runs_saved": uses.total() - len(uses),
    }


def sharing_text(plan: Plan) -> list[str]:
    """Return the lines of `sharing` for people; none for a study that includes no others."""
    counts = sharing(plan)
    if len(counts["members"]) < 2:
        return []
    studies = ", ".join(f"{name} {cells}" for name, cells in counts["members"].items())
    stages = ", ".join(f"{runs} {stage}" for stage, runs in counts["shared"].items())
    saved = f"{counts['runs_saved']} runs saved by sharing between {len(counts['members'])} studies"
    return [f"cells of each study: {studies}", f"shared: {stages or 'nothing'}; {saved}"]

"""Summarise a search and its results in a store, as text and as JSON. Read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from chexseg.config.search_space import Range
from chexseg.plan import cost, status
from chexseg.plan.graph import Plan
from chexseg.progress import duration
from chexseg.search.optuna_study import OptunaStudy, TrialCounts
from chexseg.search.space_plan import Search, describe
from chexseg.stages.registry import STAGES
from chexseg.store.store import Store


def planned(search: Search, store: Store, all_points: bool = False) -> Plan:
    """Return the plan of the stages that points share, and of the best point so far.

    all_points: plan every point in the journal or with a fit in the store, because a journal may
    be lost. Raises `UserError` for a range that a shared stage depends on.
    """
    upstream, optuna_study = search.upstream(), OptunaStudy(search, store)
    if all_points:
        points = [*optuna_study.points(), *optuna_study.finished_points()]
    else:
        best = optuna_study.trial_counts().point
        points = [best] if best else []
    if not points:
        return upstream
    cells = search.plan(points)
    return replace(cells, nodes=upstream.nodes | cells.nodes, targets=upstream.targets)


@dataclass(frozen=True)
class SearchSummary:
    """The state of a search. summary: of `planned`. fit: cost of a fit, None if not computed."""

    search: Search
    trial_counts: TrialCounts
    summary: status.Summary
    fit: cost.Cost | None

    @property
    def complete(self) -> bool:
        """Return True if all points were tried and the best one has its scores."""
        return self._tried >= self.search.options.points and self.summary.complete

    @property
    def _tried(self) -> int:
        return self.trial_counts.done + self.trial_counts.pruned

    def plan_dict(self) -> dict[str, Any]:
        """Return the object of ``study plan --json``."""
        return self.summary.plan_dict() | {"search": self._search()}

    def status_dict(self) -> dict[str, Any]:
        """Return the object of ``study status --json``. Its cells are the best point's."""
        return self.summary.status_dict() | {"complete": self.complete, "search": self._search()}

    def _search(self) -> dict[str, Any]:
        counts = self.trial_counts
        best = None
        if counts.point is not None:
            best = {
                "selection_miou": counts.value,
                "point": dict(counts.point),
                "confirmed": counts.confirmed,
            }
        return {
            **self.search.options.model_dump(),
            "space": {
                key: values.model_dump() if isinstance(values, Range) else list(values)
                for key, values in self.search.study.axes.items()
            },
            "done": counts.done,
            "pruned": counts.pruned,
            "failed": counts.failed,
            "told": counts.imported,
            "note": counts.note,
            "best": best,
        }

    def plan_text(self) -> str:
        """Return the text of ``study plan``. Needs `fit`."""
        assert self.fit is not None
        options, nodes = self.search.options, self.summary.plan.nodes
        trials = (
            f"each the mean of {options.trials} trials" if options.trials > 1 else "one trial each"
        )
        lines = [
            f"{self.search.study.name}: {options.points} points, {trials};"
            f" sampler {options.sampler}, pruner {options.pruner}",
            "",
        ]
        for key, values in self.search.study.axes.items():
            text = values.describe() if isinstance(values, Range) else ", ".join(map(str, values))
            lines.append(f"{key:<28} {text}")
        lines += [
            "",
            status.TABLE.format("shared", "runs", "cached", "to run", "expected", "GPU hours"),
        ]
        for stage in STAGES:
            keys = [key for key in self.summary.plan.targets if nodes[key].stage == stage]
            if keys:
                lines.append(status.TABLE.format(stage, *self.summary.row(keys)))
        left = max(0, options.points - self._tried) * options.trials
        time = f"{'' if self.fit.measured else '~'}{duration(left * self.fit.seconds)}"
        lines += ["", f"at most {left} fits to come: {time} if none is pruned", self._line()]
        return "\n".join(lines)

    def status_text(self) -> str:
        counts = self.trial_counts
        lines = [f"{self.search.study.name}: {self._line()}"]
        if counts.point is not None:
            origin = (
                "a finished cell of another study"
                if counts.best_imported
                else "a point of this search"
            )
            source = "" if counts.confirmed else " by the journal alone (its fits are gone)"
            lines.append(
                f"  best: mIoU {counts.value:.3f} on the selection images{source}, {origin}:"
                f" {describe(counts.point)}"
            )
        if counts.note:
            lines.append(f"  note: {counts.note}")
        lines += [
            f"  {cell.name:<36} {self.summary.cell_state(cell.score)}"
            for cell in self.summary.plan.cells
        ]
        return "\n".join(lines)

    def _line(self) -> str:
        counts = self.trial_counts
        parts = [f"{self._tried} of {self.search.options.points} points tried"]
        for count, state in (
            (counts.pruned, "pruned"),
            (counts.failed, "failed"),
            (counts.imported, "imported from finished cells"),
        ):
            if count:
                parts.append(f"{count} {state}")
        return ", ".join(parts)


def summarise(
    search: Search,
    store: Store,
    images: Mapping[str, int] | None = None,
    explain_stale: bool = False,
) -> SearchSummary:
    """Look up a search in a store. images, explain_stale: as in `plan.status.summarise`."""
    fit = None
    if images is not None:
        middle = search.plan([next(search.middles())])
        fit = cost.expected(middle, store.manifests(), images)[middle.cells[0].fit]
    summary = status.summarise(planned(search, store), store, images, explain_stale=explain_stale)
    return SearchSummary(search, OptunaStudy(search, store).trial_counts(), summary, fit)

"""What a search comes to against a store: for people, and as JSON. Read-only."""

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


def planned(search: Search, store: Store, every: bool = False) -> Plan:
    """The stages that all points share, and the cells of the best point so far, or of every point.

    Every point is one that the journal has, or of which a fit is in the store: a journal may be lost.
    Raises `UserError` for a range that a shared stage depends on.
    """
    out, optuna_study = search.upstream(), OptunaStudy(search, store)
    best = optuna_study.trial_counts().point
    points = (
        [*optuna_study.points(), *optuna_study.finished_points()]
        if every
        else [best]
        if best
        else []
    )
    if not points:
        return out
    cells = search.plan(points)
    return replace(cells, nodes=out.nodes | cells.nodes, targets=out.targets)


@dataclass(frozen=True)
class SearchSummary:
    search: Search
    trial_counts: TrialCounts
    #: Of `planned`.
    found: status.Summary
    #: What a fit costs; None where nobody asked.
    fit: cost.Cost | None

    @property
    def complete(self) -> bool:
        tried = self.trial_counts.done + self.trial_counts.pruned
        return tried >= self.search.study.search.points and self.found.complete

    def plan_dict(self) -> dict[str, Any]:
        """The object of ``study plan --json``."""
        return self.found.plan_dict() | {"search": self._search()}

    def status_dict(self) -> dict[str, Any]:
        """The object of ``study status --json``. Its cells are the best point's."""
        return self.found.status_dict() | {"complete": self.complete, "search": self._search()}

    def _search(self) -> dict[str, Any]:
        study, trial_counts = self.search.study, self.trial_counts
        return {
            **study.search.model_dump(),
            "space": {
                key: values.model_dump() if isinstance(values, Range) else list(values)
                for key, values in study.axes.items()
            },
            "done": trial_counts.done,
            "pruned": trial_counts.pruned,
            "failed": trial_counts.failed,
            "told": trial_counts.told,
            "note": trial_counts.note,
            "best": None
            if trial_counts.point is None
            else {"selection_miou": trial_counts.value, "point": dict(trial_counts.point)},
        }

    def plan_text(self) -> str:
        study = self.search.study
        settings = study.search
        trials = (
            f"each the mean of {settings.trials} trials"
            if settings.trials > 1
            else "one trial each"
        )
        lines = [
            f"{study.name}: {settings.points} points, {trials}; sampler {settings.sampler}, pruner {settings.pruner}",
            "",
        ]
        for key, values in study.axes.items():
            what = values.describe() if isinstance(values, Range) else ", ".join(map(str, values))
            lines.append(f"{key:<28} {what}")
        lines += [
            "",
            status.TABLE.format("shared", "runs", "cached", "to run", "expected", "GPU hours"),
        ]
        for stage in STAGES:
            keys = [
                key for key in self.found.plan.targets if self.found.plan.nodes[key].stage == stage
            ]
            if keys:
                lines.append(status.TABLE.format(stage, *self.found.row(keys)))
        left = (
            max(0, settings.points - self.trial_counts.done - self.trial_counts.pruned)
            * settings.trials
        )
        guess = "" if self.fit.measured else "~"
        lines += [
            "",
            f"at most {left} fits to come: {guess}{duration(left * self.fit.seconds)} if none is pruned",
        ]
        return "\n".join([*lines, self._line()])

    def status_text(self) -> str:
        trial_counts = self.trial_counts
        lines = [f"{self.search.study.name}: {self._line()}"]
        if trial_counts.point is not None:
            whose = (
                "a finished cell of another study"
                if trial_counts.was_told
                else "a point of this search"
            )
            lines.append(
                f"  best: mIoU {trial_counts.value:.3f} on the images held back, {whose}: {describe(trial_counts.point)}"
            )
        if trial_counts.note:
            lines.append(f"  note: {trial_counts.note}")
        lines += [
            f"  {cell.name:<36} {self.found.cell_state(cell.score)}"
            for cell in self.found.plan.cells
        ]
        return "\n".join(lines)

    def _line(self) -> str:
        trial_counts = self.trial_counts
        parts = [
            f"{trial_counts.done + trial_counts.pruned} of {self.search.study.search.points} points tried"
        ]
        parts += [
            f"{count} {name}"
            for name, count in (("pruned", trial_counts.pruned), ("failed", trial_counts.failed))
            if count
        ]
        parts += [f"{trial_counts.told} told from finished cells"] if trial_counts.told else []
        return ", ".join(parts)


def summarise(
    search: Search,
    store: Store,
    images: Mapping[str, int] | None = None,
    format_validation_error: bool = False,
) -> SearchSummary:
    """Look up a search in a store; images and explain as for `summary.summarise`."""
    fit = None
    if images is not None:
        middle = search.plan([next(search.middles())])
        fit = cost.expected(middle, store.manifests(), images)[middle.cells[0].fit]
    found = status.summarise(planned(search, store), store, images, format_validation_error)
    return SearchSummary(search, OptunaStudy(search, store).trial_counts(), found, fit)

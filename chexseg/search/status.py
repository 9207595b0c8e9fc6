"""What a search comes to against a store: for people, and as JSON. Read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from chexseg.config.search_space import Range
from chexseg.plan import cost, status
from chexseg.plan.graph import Plan
from chexseg.progress import duration
from chexseg.search.optuna_study import Ledger, Standing
from chexseg.search.space_plan import Search, describe
from chexseg.stages.registry import STAGES
from chexseg.store.store import Store


def planned(search: Search, store: Store, every: bool = False) -> Plan:
    """The stages that all points share, and the cells of the best point so far, or of every point.

    Every point is one that the journal has, or of which a fit is in the store: a journal may be lost.
    Raises `UserError` for a range that a shared stage depends on.
    """
    out, ledger = search.upstream(), Ledger(search, store)
    best = ledger.standing().point
    points = [*ledger.points(), *ledger.finished_points()] if every else [best] if best else []
    if not points:
        return out
    cells = search.plan(points)
    return replace(cells, nodes=out.nodes | cells.nodes, targets=out.targets)


@dataclass(frozen=True)
class SearchSummary:
    search: Search
    standing: Standing
    #: Of `planned`.
    found: status.Summary
    #: What a fit costs; None where nobody asked.
    fit: cost.Cost | None

    @property
    def complete(self) -> bool:
        tried = self.standing.done + self.standing.pruned
        return tried >= self.search.study.search.points and self.found.complete

    def plan_dict(self) -> dict[str, Any]:
        """The object of ``study plan --json``."""
        return self.found.plan_dict() | {"search": self._search()}

    def status_dict(self) -> dict[str, Any]:
        """The object of ``study status --json``. Its cells are the best point's."""
        return self.found.status_dict() | {"complete": self.complete, "search": self._search()}

    def _search(self) -> dict[str, Any]:
        study, standing = self.search.study, self.standing
        return {
            **study.search.model_dump(),
            "space": {
                key: values.model_dump() if isinstance(values, Range) else list(values)
                for key, values in study.axes.items()
            },
            "done": standing.done,
            "pruned": standing.pruned,
            "failed": standing.failed,
            "told": standing.told,
            "note": standing.note,
            "best": None
            if standing.point is None
            else {"selection_miou": standing.value, "point": dict(standing.point)},
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
        left = max(0, settings.points - self.standing.done - self.standing.pruned) * settings.trials
        guess = "" if self.fit.measured else "~"
        lines += [
            "",
            f"at most {left} fits to come: {guess}{duration(left * self.fit.seconds)} if none is pruned",
        ]
        return "\n".join([*lines, self._line()])

    def status_text(self) -> str:
        standing = self.standing
        lines = [f"{self.search.study.name}: {self._line()}"]
        if standing.point is not None:
            whose = (
                "a finished cell of another study"
                if standing.was_told
                else "a point of this search"
            )
            lines.append(
                f"  best: mIoU {standing.value:.3f} on the images held back, {whose}: {describe(standing.point)}"
            )
        if standing.note:
            lines.append(f"  note: {standing.note}")
        lines += [
            f"  {cell.name:<36} {self.found.cell_state(cell.score)}"
            for cell in self.found.plan.cells
        ]
        return "\n".join(lines)

    def _line(self) -> str:
        standing = self.standing
        parts = [
            f"{standing.done + standing.pruned} of {self.search.study.search.points} points tried"
        ]
        parts += [
            f"{count} {name}"
            for name, count in (("pruned", standing.pruned), ("failed", standing.failed))
            if count
        ]
        parts += [f"{standing.told} told from finished cells"] if standing.told else []
        return ", ".join(parts)


def summarise(
    search: Search, store: Store, images: Mapping[str, int] | None = None, explain: bool = False
) -> SearchSummary:
    """Look up a search in a store; images and explain as for `summary.summarise`."""
    fit = None
    if images is not None:
        middle = search.plan([next(search.middles())])
        fit = cost.expected(middle, store.manifests(), images)[middle.cells[0].fit]
    found = status.summarise(planned(search, store), store, images, explain)
    return SearchSummary(search, Ledger(search, store).standing(), found, fit)

"""Run a grid or a search: find what is missing, start Ray, and record the run."""

from __future__ import annotations

import shlex
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chexseg import resolve
from chexseg.data.raw_split import RawData
from chexseg.data.remote_path import Location
from chexseg.errors import Mistakes, UserError, counted
from chexseg.plan import selection
from chexseg.plan.graph import Node, Plan
from chexseg.progress import Reporter
from chexseg.run import run_record
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.progress import log
from chexseg.run.run_record import RunResult
from chexseg.search import grid_export, status
from chexseg.search.optuna_study import OptunaStudy
from chexseg.search.space_plan import Search
from chexseg.store import live_runs, marker
from chexseg.store.store import Store


def launch(
    plan: Plan | Search,
    store: Store,
    data: Location | RawData,
    reporter: Reporter,
    address: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    limits: ClusterLimits = CURRENT_SIZE,
    only: Sequence[str] = (),
    limit: int | None = None,
) -> RunResult:
    """Compute what is missing, on the Ray at `address` or a local one; if nothing is, without Ray.

    Before that, all is checked that can be checked without Ray (`resolve.mistakes`).
    file, overrides: source of the plan, for the record. limits: largest size of the cluster.
    only, limit: run some cells of a grid (`selection.select`).
    Raises `Mistakes` before anything runs, and `UserError` as `scheduler.run` and
    `searcher.run_search`.
    """
    raw = data if isinstance(data, RawData) else RawData(data)
    data = raw.root
    if isinstance(plan, Search):
        if only or limit is not None:
            raise UserError(
                f"{'--only' if only else '--limit'}: study {plan.study.name} is a search, whose"
                " points have no names in advance; expected a grid;"
                " hint: --set search.points=N sets the number of points"
            )
        _drop_damaged_scores(status.planned(plan, store), store, reporter)
        summary = status.summarise(plan, store)
        if not summary.complete:
            _check(plan, store, raw)
        marker.mark(store)
        if summary.complete:
            return RunResult(cached=len(summary.summary.plan.nodes))
        points = plan.plan(OptunaStudy(plan, store).points())
        nodes = (plan.upstream().nodes | points.nodes).values()
        with _logged(plan, store, reporter) as (record, logged):
            logged.say(summary.status_text())
            result = _run(
                plan, nodes, store, data, logged, address, record, file, overrides, limits
            )
            logged.say(status.summarise(plan, store).status_text())
        return result
    _drop_damaged_scores(plan, store, reporter)
    cached = store.cached(plan.nodes.values())
    grid, plan = plan, selection.select(plan, only, limit, cached)
    missing = plan.needed(cached)
    _check(plan, store, raw, cached)
    marker.mark(store)
    with grid_export.exporting(grid, store, reporter.say):
        if not missing:
            return RunResult(cached=len(plan.nodes))
        nodes = plan.nodes.values()
        with _logged(plan, store, reporter) as (record, logged):
            logged.say(
                f"{counted(len(plan.cells), 'cell')};"
                f" {len(missing)} of {len(plan.nodes)} stages to compute"
            )
            result = _run(
                plan, nodes, store, data, logged, address, record, file, overrides, limits
            )
            logged.doing("comparing the arms")
            if best := best_arms(grid, store):
                logged.say(best)
    return result


@contextmanager
def _logged(
    plan: Plan | Search, store: Store, reporter: Reporter
) -> Iterator[tuple[str, Reporter]]:
    """Yield the name of the next run's record, and a reporter that also writes the run's log."""
    record = run_record.record_name(plan.study)
    # An object store is sent the whole log each time.
    interval, trackers = 2 if store.backend.shared else 60, plan.study.execution.trackers
    with log.logged(store, f"{record}.log", reporter, interval, trackers) as logged:
        yield record, logged
        logged.say(f"log: {store}/{record}.log")
        curves = log.tensorboard_folder(store, f"{record}.log")
        if curves.exists():
            logged.say(
                f"training curves: tensorboard --logdir {shlex.quote(str(curves.parent.parent))}"
            )


def best_arms(plan: Plan, store: Store) -> str | None:
    """Return a line on the arms with the best mean selection mIoU of their finished cells.

    An arm is the cells that differ in draw and trial only. None unless two arms have finished
    cells.
    """
    scored = store.cached(plan.nodes[cell.score] for cell in plan.cells)
    cells = [cell for cell in plan.cells if cell.score in scored]
    fits = store.find_all(plan.nodes[cell.fit] for cell in cells)
    arms: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        miou = fits[cell.fit].facts.get("selection_miou") if cell.fit in fits else None
        if miou is not None:
            arms[selection.arm_name(cell.name)].append(miou)
    if len(arms) < 2:
        return None
    means = {arm: f"{statistics.fmean(mious):.3f}" for arm, mious in arms.items()}
    best = max(means.values())
    names = [f"{arm} ({counted(len(arms[arm]), 'cell')})" for arm in arms if means[arm] == best]
    return f"best mean selection mIoU {best}: {', '.join(names)}"


def _check(
    plan: Plan | Search, store: Store, raw: RawData, cached: Collection[str] | None = None
) -> None:
    if lines := resolve.mistakes(plan, store, raw, cached):
        raise Mistakes(lines)
    raw.forget()  # the tables have no use in the hours that follow


def _drop_damaged_scores(plan: Plan, store: Store, reporter: Reporter) -> None:
    for name in store.drop_damaged_scores(plan.nodes.values()):
        reporter.say(f"{store}/{name}: differs from its manifest; computing it again")


def _run(
    plan: Plan | Search,
    nodes: Iterable[Node],
    store: Store,
    data: Location,
    reporter: Reporter,
    address: str | None,
    record_name: str,
    file: Path | None,
    overrides: Sequence[str],
    limits: ClusterLimits,
) -> RunResult:
    """Connect to Ray, run the plan, and record the run in the store.

    nodes: stage runs whose results to protect from `store gc`.
    """
    reporter.doing("starting Ray")
    from chexseg.run import cluster, scheduler, start_checks

    searches, cells = isinstance(plan, Search), plan.cells if isinstance(plan, Plan) else []
    with (
        live_runs.holding(store, plan.study.name, nodes, searches, reporter.say) as publish,
        cluster.cluster(address) as location,
        run_record.recorded(store, record_name, plan.study, cells, file, overrides, data) as record,
    ):
        if location:
            reporter.say(location)
        reporter.doing("checking the nodes")
        start_checks.check_nodes()
        record["nodes"] = cluster.describe()
        capacity = cluster.Capacity.of_cluster(limits)
        if note := capacity.without_gpus(plan.study.resources, address):
            reporter.say(note)
        if isinstance(plan, Search):
            from chexseg.search import searcher

            result = searcher.run_search(plan, store, data, reporter, limits, publish)
        else:
            result = scheduler.run(plan, store, data, reporter, limits, publish)
        record |= {"computed": result.computed, "failed": result.failed, "cached": result.cached}
        reporter.doing("stopping Ray" if location else "")
    return result

"""Run a grid or a search: find what is missing, start Ray, record the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chexseg.data.remote_path import Location
from chexseg.plan.graph import Plan
from chexseg.progress import Reporter
from chexseg.run import run_record
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.result import RunResult
from chexseg.search import grid_export, status
from chexseg.search.optuna_study import OptunaStudy
from chexseg.search.space_plan import Search
from chexseg.store import live_runs, marker
from chexseg.store.store import Store


def launch(
    meant: Plan | Search,
    store: Store,
    data: Location,
    reporter: Reporter,
    address: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    limits: ClusterLimits = CURRENT_SIZE,
) -> RunResult:
    """Compute whatever is missing, on the Ray at `address` or on a local one; without Ray where nothing is.

    file, overrides: what `meant` was read from, for the record. growth: what the Ray at `address` may grow to.
    Raises `UserError` as `run.run` and `search_run.run_search` do.
    """
    marker.mark(store)
    if isinstance(meant, Search):
        _drop_damaged_scores(status.planned(meant, store), store, reporter)
        found = status.summarise(meant, store)
        if found.complete:
            return RunResult(cached=len(found.found.plan.nodes))
        reporter.say(f"{found.status_text()}\nstarting Ray")
        asked = meant.plan(OptunaStudy(meant, store).points()).nodes
        held = (meant.upstream().nodes | asked).values()
        with (
            live_runs.holding(store, meant.study.name, held, searches=True, say=reporter.say),
            _recorded(meant, store, data, reporter, address, file, overrides) as outcome,
        ):
            from chexseg.search import searcher

            _tell_of_gpus(meant, address, limits, reporter)
            vars(outcome).update(vars(searcher.run_search(meant, store, data, reporter, limits)))
        reporter.say(status.summarise(meant, store).status_text())
        return outcome
    _drop_damaged_scores(meant, store, reporter)
    missing = meant.needed(store.cached(meant.nodes.values()))
    with grid_export.recording(meant, store, reporter.say):
        if not missing:
            return RunResult(cached=len(meant.nodes))
        reporter.say(
            f"{len(meant.cells)} cells; {len(missing)} of {len(meant.nodes)} stages to compute; starting Ray"
        )
        with (
            live_runs.holding(store, meant.study.name, meant.nodes.values(), say=reporter.say),
            _recorded(meant, store, data, reporter, address, file, overrides) as outcome,
        ):
            from chexseg.run import scheduler

            _tell_of_gpus(meant, address, limits, reporter)
            vars(outcome).update(vars(scheduler.run(meant, store, data, reporter, limits)))
    return outcome


def _drop_damaged_scores(plan: Plan, store: Store, reporter: Reporter) -> None:
    for name in store.drop_damaged_scores(plan.nodes.values()):
        reporter.say(f"{store}/{name}: not what its manifest says; it is computed again")


def _tell_of_gpus(
    meant: Plan | Search, address: str | None, limits: ClusterLimits, reporter: Reporter
) -> None:
    from chexseg.run.cluster import Capacity

    if note := Capacity.of_cluster(limits).without_gpus(meant.study.resources, address):
        reporter.say(note)


@contextmanager
def _recorded(
    meant: Plan | Search,
    store: Store,
    data: Location,
    reporter: Reporter,
    address: str | None,
    file: Path | None,
    overrides: Sequence[str],
) -> Iterator[RunResult]:
    """Ray for the length of a run, and the run's record in the store; the outcome is to be filled in."""
    from chexseg.run import cluster, worker_imports

    cells = meant.cells if isinstance(meant, Plan) else []
    outcome = RunResult()
    recorded = run_record.recorded(store, meant.study, cells, file, overrides, data)
    with cluster.cluster(address) as place, recorded as more:
        if place:
            reporter.say(place)
        worker_imports.check_nodes()
        more["nodes"] = cluster.describe()
        yield outcome
        more |= {"computed": outcome.computed, "failed": outcome.failed, "cached": outcome.cached}

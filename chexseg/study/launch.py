"""Run what a study file means, a grid or a search, from its first look into the store to the record of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chexseg.data.location import Location
from chexseg.progress import Reporter
from chexseg.study import grid_record, live_runs, marker, search_summary, snapshot
from chexseg.study.growth import NO_GROWTH, Growth
from chexseg.study.ledger import Ledger
from chexseg.study.outcome import Outcome
from chexseg.study.plan import Plan
from chexseg.study.search import Search
from chexseg.study.store import Store


def launch(
    meant: Plan | Search,
    store: Store,
    data: Location,
    reporter: Reporter,
    address: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    growth: Growth = NO_GROWTH,
) -> Outcome:
    """Compute whatever is missing, on the Ray at `address` or on a local one; without Ray where nothing is.

    file, overrides: what `meant` was read from, for the record. growth: what the Ray at `address` may grow to.
    Raises `UserError` as `run.run` and `search_run.run_search` do.
    """
    marker.mark(store)
    if isinstance(meant, Search):
        _drop_damaged_scores(search_summary.planned(meant, store), store, reporter)
        found = search_summary.summarise(meant, store)
        if found.complete:
            return Outcome(cached=len(found.found.plan.nodes))
        reporter.say(f"{found.status_text()}\nstarting Ray")
        asked = meant.plan(Ledger(meant, store).points()).nodes
        held = (meant.upstream().nodes | asked).values()
        with (
            live_runs.holding(store, meant.study.name, held, searches=True, say=reporter.say),
            _recorded(meant, store, data, reporter, address, file, overrides) as outcome,
        ):
            from chexseg.study import search_run

            _tell_of_gpus(meant, address, growth, reporter)
            vars(outcome).update(vars(search_run.run_search(meant, store, data, reporter, growth)))
        reporter.say(search_summary.summarise(meant, store).status_text())
        return outcome
    _drop_damaged_scores(meant, store, reporter)
    missing = meant.needed(store.cached(meant.nodes.values()))
    with grid_record.recording(meant, store, reporter.say):
        if not missing:
            return Outcome(cached=len(meant.nodes))
        reporter.say(f"{len(meant.cells)} cells; {len(missing)} of {len(meant.nodes)} stages to compute; starting Ray")
        with (
            live_runs.holding(store, meant.study.name, meant.nodes.values(), say=reporter.say),
            _recorded(meant, store, data, reporter, address, file, overrides) as outcome,
        ):
            from chexseg.study import run

            _tell_of_gpus(meant, address, growth, reporter)
            vars(outcome).update(vars(run.run(meant, store, data, reporter, growth)))
    return outcome


def _drop_damaged_scores(plan: Plan, store: Store, reporter: Reporter) -> None:
    for name in store.drop_damaged_scores(plan.nodes.values()):
        reporter.say(f"{store}/{name}: not what its manifest says; it is computed again")


def _tell_of_gpus(meant: Plan | Search, address: str | None, growth: Growth, reporter: Reporter) -> None:
    from chexseg.study.cluster import Capacity

    if note := Capacity.of_cluster(growth).without_gpus(meant.study.resources, address):
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
) -> Iterator[Outcome]:
    """Ray for the length of a run, and the run's record in the store; the outcome is to be filled in."""
    from chexseg.study import cluster, worker_imports

    cells = meant.cells if isinstance(meant, Plan) else []
    outcome = Outcome()
    recorded = snapshot.recorded(store, meant.study, cells, file, overrides, data)
    with cluster.cluster(address) as place, recorded as more:
        if place:
            reporter.say(place)
        worker_imports.check_nodes()
        more["nodes"] = cluster.describe()
        yield outcome
        more |= {"computed": outcome.computed, "failed": outcome.failed, "cached": outcome.cached}

"""Run a search on Ray: shared stages, then points as Tune trials, then the best point's scores.

A point's cells are fitted one after another into the same store as a grid's. Optuna's storage and
the store hold all state: every start makes a new Tuner for whatever is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, cast

from ray.tune.search import Searcher

from chexseg.config.study import Study
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan import gpu_share
from chexseg.plan.cells import relevant_settings
from chexseg.progress import ProgressNote, Reporter
from chexseg.run import ray_internals, scheduler, start_checks, tune_trials
from chexseg.run.cluster import MAX_FAILURES, Capacity, start_here
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.progress.actor import ProgressActor, ProgressWriter
from chexseg.run.progress.counts import RunCounts
from chexseg.run.progress.display import ProgressDisplay, Publish
from chexseg.run.run_record import RunResult, StageResult
from chexseg.run.worker import Job, attempt, succeeded
from chexseg.search import journal
from chexseg.search.optuna_study import OptunaStudy
from chexseg.search.space_plan import Point, Search, describe
from chexseg.stages.api import StageContext
from chexseg.store.store import Store

if TYPE_CHECKING:
    import optuna


class PointReport(TypedDict, total=False):
    """A report of a trial to Tune: step and miou after an epoch, or results and fits at the end."""

    step: int
    miou: float
    results: list[StageResult]
    fits: list[str]


def run_search(
    search: Search,
    store: Store,
    data: Location,
    reporter: Reporter,
    limits: ClusterLimits = CURRENT_SIZE,
    publish: Publish | None = None,
) -> RunResult:
    """Try points until the study has as many as it asks for. Ray must be connected (`cluster`).

    Raises `UserError` for bad input, and while another process runs the same search. A point that
    fails is recorded and the others go on; the next start retries it.
    """
    started = time.monotonic()
    capacity = Capacity.of_cluster(limits)
    study = gpu_share.resolved(search.study, capacity.gpu_memory)
    capacity.cells_at_once(study.resources)
    # One point for each combination of choices is enough to build every network.
    middles = search.plan(list(search.middles()))
    start_checks.check_networks(middles.nodes.values(), capacity.workers(study.resources))
    search.check()
    optuna_study = OptunaStudy(search, store)
    with journal.acquire(store, optuna_study.name, wait=False) as acquired:
        if not acquired:
            raise UserError(
                f"search {search.study.name}: another process runs it in {store};"
                " expected one process at a time"
            )
        result = scheduler.run(search.upstream(), store, data, reporter, limits, publish)
        if not result.failed:
            if note := optuna_study.open():
                reporter.say(note)
            try:
                _run_points(optuna_study, study, capacity, data, reporter, result, publish)
            finally:
                optuna_study.flush()
            best = optuna_study.trial_counts().point
            if best is not None:  # so that a report can show it
                scores = scheduler.run(search.plan([best]), store, data, reporter, limits, publish)
                result.computed |= scores.computed
                result.failed |= scores.failed
    result.seconds = time.monotonic() - started
    return result


def _run_points(
    optuna_study: OptunaStudy,
    study: Study,
    capacity: Capacity,
    data: Location,
    reporter: Reporter,
    result: RunResult,
    publish: Publish | None,
) -> None:
    imported = optuna_study.import_finished()
    missing = optuna_study.resume()
    if imported:
        reporter.say(f"{imported} finished points imported for the sampler")
    if not missing:
        return
    search, counts = optuna_study.search, optuna_study.trial_counts()
    best = None
    if counts.value is not None and counts.point is not None:
        best = counts.value, describe(counts.point)
    total = search.options.points
    progress_actor = start_here(
        ProgressActor,
        RunCounts(total, total - missing, best=best, unit="points", study=search.study.name),
    )
    job = Job({}, optuna_study.store.uri, data.absolute(), progress_actor)
    points = _Points(optuna_study, job, missing, result)
    reporter.settings_of = points.settings_of
    with ProgressDisplay(progress_actor, reporter, publish=publish):
        tune_trials.run_trials(
            _trial,
            {"job": job, "search": search},
            capacity,
            study,
            points,
            points.stop,
        )
    if points.mistake:
        raise UserError(points.mistake)


def _trial(config: Mapping[str, Any], job: Job, search: Search, context: StageContext) -> None:
    """Run one point on a reused actor: the fits of its trials.

    Reports the selection mIoU after every epoch but the last, then the results of all fits.
    """
    from ray import tune

    # A pruned point ends at its next line of Python. Tune's default wait of 2 s is too short for
    # that on a busy machine.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
    name = _name(config)
    job.progress_actor.begin_cell.remote(name)
    ray_internals.set_process_title(name)
    plan = search.plan([config["point"]])
    job = replace(job, nodes=plan.nodes)
    first, epochs = 0, sum(plan.nodes[cell.fit].config["epochs"] for cell in plan.cells)
    results = []
    for cell in plan.cells:
        progress_writer = ProgressWriter(job.progress_actor, name, cell.fit, name, "fit")

        def progress(
            done: int,
            total: int,
            unit: str,
            note: ProgressNote | None = None,
            progress_writer: ProgressWriter = progress_writer,
            first: int = first,
        ) -> None:
            progress_writer(done, total, unit, note)
            miou = note.get("selection mIoU") if note else None
            if note and miou is not None and first + note["epoch"] < epochs:
                # In this call the function of a pruned point ends.
                tune.report({"step": first + note["epoch"] - 1, "miou": miou})
                ray_internals.set_process_title(name)

        result = attempt(
            job, cell.fit, name, replace(context, progress=progress, say=progress_writer.say)
        )
        results.append(result)
        if not succeeded(result):
            break
        first += plan.nodes[cell.fit].config["epochs"]
    tune.report({"results": results, "fits": [cell.fit for cell in plan.cells]})


class _Points(Searcher):
    """Give Tune the next point and record its results. `stop` is for Tune's RunConfig."""

    def __init__(
        self, optuna_study: OptunaStudy, job: Job, missing: int, result: RunResult
    ) -> None:
        super().__init__()
        self.optuna_study, self.job = optuna_study, job
        self.missing, self.result = missing, result
        self.trials: dict[str, optuna.Trial] = {}
        self.names: dict[str, str] = {}
        self.points: dict[str, Point] = {}  # by name
        self.steps: dict[str, set[int]] = {}
        self.pruned: set[str] = set()
        self.mistake: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles the searcher for its own resume, which is not used."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing, as `__getstate__`."""

    def suggest(self, trial_id: str) -> Any:
        if not self.missing or self.mistake:
            return Searcher.FINISHED
        self.missing -= 1
        trial, point = self.optuna_study.ask()
        config = {"name": f"point {trial.number}", "number": trial.number, "point": dict(point)}
        self.trials[trial_id], self.names[trial_id] = trial, _name(config)
        self.points[self.names[trial_id]] = point
        self.steps[trial_id] = set()
        return config

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the settings that the trials of the point with a name have in common."""
        if name not in self.points:
            return {}
        settings = relevant_settings(
            self.optuna_study.search.plan([self.points[name]]).cells[0].settings
        )
        return {key: value for key, value in settings.items() if key not in ("draw", "trial")}

    def stop(self, trial_id: str, report: Mapping[str, Any]) -> bool:
        """Record an epoch of a point, and return True if the point is to be pruned."""
        step, trial = report.get("step"), self.trials[trial_id]
        # A retry after a dead worker reports some epochs again.
        if "results" in report or step is None or step in self.steps[trial_id]:
            return False
        self.steps[trial_id].add(step)
        trial.report(report["miou"], step)
        if trial.should_prune():
            self.pruned.add(trial_id)
        return trial_id in self.pruned

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        trial, name = self.trials.pop(trial_id), self.names[trial_id]
        report = cast("PointReport", result or {})
        value, fault = None, None
        if trial_id in self.pruned:
            self.optuna_study.prune(trial)
            self.job.progress_actor.finish.remote(
                name, f"pruned after {len(self.steps[trial_id])} epochs"
            )
        elif error or "results" not in report:
            fault = f"its worker died more than {MAX_FAILURES} times"
        else:
            for stage in report["results"]:
                self.result.add(stage)
                if stage["state"] == "mistake":
                    self.mistake = stage["error"]
            if not succeeded(report["results"][-1]):
                self.optuna_study.fail(trial, report["results"][-1]["error"])
            else:
                value = self.optuna_study.complete(trial, report["fits"], self.steps[trial_id])
                fault = "no selection image shows a studied pathology" if value is None else None
        if fault:  # otherwise the worker has reported the failure
            self.optuna_study.fail(trial, fault)
            self.result.failed[name] = fault
            self.job.progress_actor.finish.remote(name, f"failed: {fault}")
        self.job.progress_actor.end_cell.remote(
            name, value is not None or trial_id in self.pruned, value
        )


def _name(config: Mapping[str, Any]) -> str:
    return f"point {config['number']} ({describe(config['point'])})"

"""Run a search on Ray: shared stages first, then its points as Tune trials on warm workers, then the best one's scores.

A point's cells are fitted one after another, just as a grid's are, into the same store. Optuna's storage and the store are the
ledger: every start makes a fresh Tuner, which goes on with whatever is missing there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher

from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.progress import Reporter
from chexseg.run.cluster import MAX_FAILURES, Capacity
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.progress_actor import (
    ProgressDisplay,
    ProgressWriter,
    RunCounts,
    start_progress_actor,
)
from chexseg.run.result import RunResult
from chexseg.run.scheduler import check_networks, run
from chexseg.run.tune_trials import run_trials, set_process_title
from chexseg.run.worker import Job, attempt, succeeded
from chexseg.search import journal
from chexseg.search.optuna_study import OptunaStudy
from chexseg.search.space_plan import Search, describe
from chexseg.stages.api import StageContext
from chexseg.store.store import Store


def run_search(
    search: Search,
    store: Store,
    data: Location,
    reporter: Reporter,
    limits: ClusterLimits = CURRENT_SIZE,
) -> RunResult:
    """Try points until the study has as many as it asks for. Ray must be initialised (`cluster.cluster`), and may
    grow as `limits` says.

    Raises `UserError` for a user's mistake, and while another process runs the same search. A point that fails is told to
    Optuna and recorded in the store, and the others go on; the next start tries it again.
    """
    started = time.monotonic()
    capacity = Capacity.of_cluster(limits)
    resources = search.study.resources
    capacity.cells_at_once(resources)
    middles = search.plan(
        list(search.middles())
    )  # of each choice one, to see whether its network can be built
    check_networks(middles.nodes.values(), resources, capacity)
    search.check()
    optuna_study = OptunaStudy(search, store)
    with journal.alone(store, optuna_study.name, wait=False) as mine:
        if not mine:
            raise UserError(
                f"search {search.study.name}: another process runs it in {store}; allowed: one at a time"
            )
        outcome = run(search.upstream(), store, data, reporter, limits)
        if not outcome.failed:
            _run_points(optuna_study, capacity, data, reporter, outcome)
            best = optuna_study.trial_counts().point
            if best is not None:  # so that a report can show it
                shown = run(search.plan([best]), store, data, reporter, limits)
                outcome.computed |= shown.computed
                outcome.failed |= shown.failed
    outcome.seconds = time.monotonic() - started
    return outcome


def _run_points(
    optuna_study: OptunaStudy,
    capacity: Capacity,
    data: Location,
    reporter: Reporter,
    outcome: RunResult,
) -> None:
    if note := optuna_study.open():
        reporter.say(note)
    try:
        _run_missing(optuna_study, capacity, data, reporter, outcome)
    finally:
        optuna_study.flush()


def _run_missing(
    optuna_study: OptunaStudy,
    capacity: Capacity,
    data: Location,
    reporter: Reporter,
    outcome: RunResult,
) -> None:
    told = optuna_study.tell_finished()
    missing = optuna_study.resume()
    if told:
        reporter.say(f"{told} finished settings told to the sampler")
    if not missing:
        return
    trial_counts, total = optuna_study.trial_counts(), optuna_study.search.study.search.points
    best = (
        None if trial_counts.value is None else (trial_counts.value, describe(trial_counts.point))
    )
    progress_actor = start_progress_actor(
        RunCounts(
            total, total - missing, best=best, unit="points", study=optuna_study.search.study.name
        )
    )
    job = Job({}, optuna_study.store.uri, data.absolute(), progress_actor)
    points = _Points(optuna_study, job, missing, outcome)
    with ProgressDisplay(progress_actor, reporter):
        run_trials(
            _trial,
            {"job": job, "search": optuna_study.search},
            capacity,
            optuna_study.search.study.resources,
            {},
            lambda config: f"point {config['number']}",
            points,
            points.stop,
        )
    if points.mistake:
        raise UserError(points.mistake)


def _trial(config: Mapping[str, Any], job: Job, search: Search, context: StageContext) -> None:
    """One point on a warm worker: the fits of its trials. Reports the selection mIoU of each epoch but the last, then all."""
    from ray import tune

    # A pruned point ends in its next line of Python; the 2 s that Tune would wait for that are few on a busy machine.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
    name = _name(config)
    job.progress_actor.begin_cell.remote(name)
    set_process_title(name)
    planned = search.plan([config["point"]])
    job = replace(job, nodes=planned.nodes)
    steps = [0]
    for cell in planned.cells:
        steps.append(steps[-1] + planned.nodes[cell.fit].config["epochs"])
    answers = []
    for first, cell in zip(steps, planned.cells, strict=False):
        progress_writer = ProgressWriter(job.progress_actor, name, name, "fit")

        def progress(
            done: int,
            total: int,
            unit: str,
            note: dict[str, Any] | None = None,
            progress_writer: ProgressWriter = progress_writer,
            first: int = first,
        ) -> None:
            progress_writer(done, total, unit, note)
            if (
                note
                and note.get("selection mIoU") is not None
                and first + note["epoch"] < steps[-1]
            ):
                # Here the function of a pruned point ends.
                tune.report({"step": first + note["epoch"] - 1, "miou": note["selection mIoU"]})
                set_process_title(name)

        answers.append(attempt(job, cell.fit, name, replace(context, progress=progress)))
        if not succeeded(answers[-1]):
            break
    tune.report({"answers": answers, "fits": [cell.fit for cell in planned.cells]})


class _Points(Searcher):
    """What Tune asks for the next point and tells of its results; `stop` is for its RunConfig."""

    def __init__(self, optuna_study: OptunaStudy, job: Job, missing: int, outcome: RunResult):
        super().__init__()
        self.optuna_study, self.job, self.missing, self.outcome = (
            optuna_study,
            job,
            missing,
            outcome,
        )
        self.asked: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.steps: dict[str, set[int]] = {}
        self.pruned: set[str] = set()
        self.mistake: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it for a resume of its own, which there never is."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def suggest(self, trial_id: str) -> Any:
        if not self.missing or self.mistake:
            return Searcher.FINISHED
        self.missing -= 1
        trial, point = self.optuna_study.ask()
        config = {"number": trial.number, "point": dict(point)}
        self.asked[trial_id], self.names[trial_id], self.steps[trial_id] = (
            trial,
            _name(config),
            set(),
        )
        return config

    def stop(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a point is to be pruned, after one more epoch has been told."""
        step, trial = result.get("step"), self.asked[trial_id]
        # A worker that died tells some epochs twice.
        if "answers" in result or step is None or step in self.steps[trial_id]:
            return False
        self.steps[trial_id].add(step)
        trial.report(result["miou"], step)
        if trial.should_prune():
            self.pruned.add(trial_id)
        return trial_id in self.pruned

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        trial, name, answers = (
            self.asked.pop(trial_id),
            self.names[trial_id],
            (result or {}).get("answers"),
        )
        value, fault = None, None
        if trial_id in self.pruned:
            self.optuna_study.prune(trial)
            self.job.progress_actor.finish.remote(
                name, f"pruned after {len(self.steps[trial_id])} epochs"
            )
        elif error or answers is None:
            fault = f"its worker died more than {MAX_FAILURES} times"
        else:
            for answer in answers:
                if answer["state"] == "mistake":
                    self.mistake = answer["error"]
                elif answer["state"] == "failed":
                    self.outcome.failed[answer["key"]] = answer["error"]
                elif answer["state"] == "computed":
                    self.outcome.computed[answer["key"]] = answer["seconds"]
            if not succeeded(answers[-1]):
                self.optuna_study.fail(trial, answers[-1]["error"])
            else:
                value = self.optuna_study.complete(trial, result["fits"], self.steps[trial_id])
                fault = "no image held back shows a studied pathology" if value is None else None
        if fault:  # else the worker has told what failed
            self.optuna_study.fail(trial, fault)
            self.outcome.failed[name] = fault
            self.job.progress_actor.finish.remote(name, f"failed: {fault}")
        self.job.progress_actor.end_cell.remote(
            name, value is not None or trial_id in self.pruned, value
        )


def _name(config: Mapping[str, Any]) -> str:
    return f"point {config['number']} ({describe(config['point'])})"

"""Trials of Ray Tune on reused actors: the cells of a run, and the points of a search."""

from __future__ import annotations

import functools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.search import Searcher

from chexseg.config.study import Study
from chexseg.plan.cells import Cell
from chexseg.plan.graph import Node
from chexseg.run import cluster, ray_internals
from chexseg.run.run_record import StageResult
from chexseg.run.worker import Job, attempt, record_lost_worker, succeeded
from chexseg.stages.api import StageContext
from chexseg.store.store import Store

#: Cells of one Tuner. Tune keeps every trial, so its memory grows with their number, and writes all
#: of them again and again. Each Tuner starts new processes.
CELLS_PER_TUNER = 1000
#: Cells whose nodes a worker reads at once.
CELLS_PER_CHUNK = 200

#: Nodes of some cells with their inputs.
Chunk = Mapping[str, Node]


class CellRun(Protocol):
    """The run whose cells are trials. begun: scores of the cells to start now."""

    study: Study
    job: Job
    capacity: cluster.Capacity
    begun: deque[str]
    mistake: str | None

    @property
    def cells(self) -> Mapping[str, Cell]: ...

    def advance(self) -> None:
        """Take note of what has ended, and start what there is room for."""

    def finish(self, unit: str, results: Sequence[StageResult]) -> None:
        """Record the results of a cell."""


class CellChunks:
    """The nodes of cells in Ray's object store, in chunks: a worker's share doesn't grow with them.

    references: of the chunks. of: score -> the number of its chunk.
    """

    def __init__(self, job: Job, cells: Sequence[Cell]) -> None:
        self.references: list[ray.ObjectRef[Chunk]] = []
        self.of: dict[str, int] = {}
        for start in range(0, len(cells), CELLS_PER_CHUNK):
            part = cells[start : start + CELLS_PER_CHUNK]
            subset = job.subset(key for cell in part for key in (cell.fit, cell.score))
            self.of |= dict.fromkeys((cell.score for cell in part), len(self.references))
            self.references.append(ray.put(subset.nodes))


def run_cells(run: CellRun, chunks: CellChunks) -> None:
    """Run the cells that have begun, and those that begin meanwhile.

    Returns when none is running and none can start.
    """
    run_trials(
        _cell_trial,
        {"job": replace(run.job, nodes={}), "chunks": chunks.references},
        run.capacity,
        run.study,
        _Cells(run, chunks),
        callbacks=[_Advance(run)],
    )


def _cell_trial(
    config: Mapping[str, Any],
    job: Job,
    chunks: Sequence[ray.ObjectRef[Chunk]],
    context: StageContext,
) -> None:
    """Run one cell on a reused actor: its fit, then its scores."""
    nodes = _chunk(chunks[config["chunk"]])
    job, score, cell = replace(job, nodes=nodes), config["score"], config["name"]
    job.progress_actor.begin_cell.remote(cell)
    ray_internals.set_process_title(cell)
    results: list[StageResult] = []
    for key in (nodes[score].inputs["segmenter"], score):
        progress_writer = job.cell_progress_writer(key, cell)
        shown = replace(context, progress=progress_writer, say=progress_writer.say)
        results.append(attempt(job, key, progress_writer.name, shown))
        if not succeeded(results[-1]):
            break
    job.progress_actor.end_cell.remote(cell, succeeded(results[-1]), results[0].get("miou"))
    tune.report({"results": results})


@functools.lru_cache(maxsize=1)
def _chunk(reference: ray.ObjectRef[Chunk]) -> Chunk:
    """Return a chunk; a reused worker reads it once for all of its cells."""
    return ray.get(reference)


class _Cells(Searcher):
    """Give Tune the cells that begin, and record their results."""

    def __init__(self, run: CellRun, chunks: CellChunks) -> None:
        super().__init__()
        self.run, self.chunks = run, chunks
        self.running: dict[str, str] = {}
        self.given = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles the searcher for its own resume, which is not used."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing, as `__getstate__`."""

    def suggest(self, trial_id: str) -> Any:
        self.run.advance()
        if self.run.mistake or self.given >= CELLS_PER_TUNER:
            return Searcher.FINISHED
        if not self.run.begun:
            # None: ask again. Without a running cell this Tuner would only hold its workers.
            return None if self.running else Searcher.FINISHED
        score = self.run.begun.popleft()
        self.running[trial_id] = score
        self.given += 1
        name = self.run.cells[score].name
        return {"name": name, "score": score, "chunk": self.chunks.of[score]}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        score = self.running.pop(trial_id)
        results = (result or {}).get("results")
        if error or results is None:
            cell, job = self.run.cells[score], self.run.job
            key = score if Store(job.store).find("fit", cell.fit) else cell.fit
            results = [record_lost_worker(job, key, None)]
            job.progress_actor.end_cell.remote(cell.name, False, None)
        self.run.finish(score, results)


class _Advance(tune.Callback):
    """Let a run go on with the stages beside its cells, about ten times a second."""

    def __init__(self, run: CellRun) -> None:
        self.run = run

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as `_Cells`."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.run.advance()


class _Retries(tune.Callback):
    """Show a line for each trial that lost its worker and is tried again."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as `_Cells`."""
        return {}

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.job.progress_actor.say.remote(trial.config["name"], "lost its worker; trying again")


# Tune pickles these two for every trial: by name, as functions of a module are, and without a run.
def _trial_name(trial: Any) -> str:
    return str(trial.config["name"]).replace(" ", "_")


def _trial_directory(trial: Any) -> str:
    return str(trial.trial_id)


def _unless_draining(
    config: Mapping[str, Any], trial: Callable[..., None], constants: Mapping[str, Any]
) -> None:
    cluster.raise_if_draining()  # a reused worker would accept trials until its node is gone
    trial(config, **constants)


def run_trials(
    trial: Callable[..., None],
    constants: Mapping[str, Any],
    capacity: cluster.Capacity,
    study: Study,
    searcher: Searcher,
    stop: Callable[[str, Mapping[str, Any]], bool] | None = None,
    callbacks: Sequence[tune.Callback] = (),
) -> None:
    """Run ``trial(config, context=.., **constants)`` for every config that the searcher gives.

    Actors are reused, so their processes keep imports and the shards they have read.
    constants: with the "job". searcher: each config has a "name", the trial's. stop, callbacks:
    Tune's.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune's own handler would end the trials as if they had finished, and the run would go on.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # `_Retries` has a line instead
    ray_internals.keep_credentials_local()
    ray_internals.skip_callback_tags()
    resources = study.resources
    gpu = capacity.gpus_of(resources)
    context = StageContext(
        device="cuda" if gpu else "cpu",
        threads=max(1, int(resources.cpu)),
        map_gpus=gpu,
        graphs=study.execution.graphs == "auto",
    )
    function: Any = tune.with_parameters(
        _unless_draining, trial=trial, constants={**constants, "context": context}
    )
    function.__name__ = "warm worker"  # its name in the dashboard
    with tempfile.TemporaryDirectory(prefix="chexseg-tune-", ignore_cleanup_errors=True) as scratch:
        tune.Tuner(
            tune.with_resources(function, {"cpu": resources.cpu, "gpu": gpu}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=capacity.cells_at_once(resources),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_directory,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                stop=stop,
                callbacks=[_Retries(constants["job"]), *callbacks],
                failure_config=tune.FailureConfig(max_failures=cluster.MAX_FAILURES),
            ),
        ).fit()

"""Run a plan on Ray: upstream stages as tasks, cells as Tune trials on warm workers, then what depends on cells.

The store is the ledger: a run starts with whatever is missing there, so the same command continues an interrupted one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray

from chexseg.data.location import Location
from chexseg.errors import UserError
from chexseg.progress import Reporter
from chexseg.stages.base import Execution
from chexseg.study.board import Pen, Tally, Watch, post
from chexseg.study.cluster import MAX_FAILURES, Capacity, going, largest_node, node_with_room, on_node
from chexseg.study.execute import check, execute
from chexseg.study.growth import NO_GROWTH, Growth
from chexseg.study.outcome import Outcome
from chexseg.study.plan import Cell, Node, Plan
from chexseg.study.spec import Resources
from chexseg.study.store import Store

#: Cells that Tune is given in one go. For each of its trials it copies the whole grid, and it keeps every trial: its time
#: grows with the square of their number, its memory with their number. What starts anew with each go is a worker's process.
CELLS_IN_ONE_GO = 2000


def run(plan: Plan, store: Store, data: Location, reporter: Reporter, growth: Growth = NO_GROWTH) -> Outcome:
    """Compute whatever of the plan is not in the store. Ray must be initialised (`cluster`), and may grow as `growth` says.

    Raises `UserError` for the first user's mistake that a stage finds. Any other failure is recorded in the store, and
    whatever doesn't depend on it goes on.
    """
    started = time.monotonic()
    outcome = Outcome()
    capacity = Capacity.of_cluster(growth)
    capacity.cells_at_once(plan.study.resources)  # refuse now, not after hours of upstream stages
    if plan.study.resources.workers > 1 and not store.backend.shared:
        capacity.check_one_node(plan.study.resources)
    done = store.cached(plan.nodes.values())
    outcome.cached = len(done)
    check(plan.needed(done), plan.study.resources.workers, capacity.gpus_of(plan.study.resources) > 0)
    cells = {cell.score: cell for cell in plan.cells}
    own = set(cells) | {cell.fit for cell in plan.cells}  # run inside the cells' trials
    board = post(_tally(plan, store, done))
    job = Job(plan.nodes, store.uri, data.absolute(), board, here=not store.backend.shared)
    with Watch(board, reporter):
        while True:
            hopeless = _hopeless(plan.nodes, outcome.failed)
            upstream = [node for node in plan.needed(done) if node.key not in own and node.key not in hopeless]
            ready = [node for node in upstream if set(node.inputs.values()) <= done]
            pending = [cell for key, cell in cells.items() if key not in done and key not in hopeless]
            pending = [cell for cell in pending if _cell_ready(cell, plan.nodes, done)]
            if ready:
                answers = _run_stages(ready, job, capacity)
            elif pending:
                run_cells = _run_cells if plan.study.resources.workers == 1 else _run_shared_cells
                answers = run_cells(pending[:CELLS_IN_ONE_GO], job, capacity, plan.study.resources)
            else:
                break
            _take_in(answers, done, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


def _tally(plan: Plan, store: Store, done: set[str]) -> Tally:
    """The cells as a run finds them."""
    found = store.find_all(plan.nodes[cell.fit] for cell in plan.cells if cell.score in done)
    fits = [(cell.name, found.get(cell.fit)) for cell in plan.cells if cell.score in done]
    best = [(fit.facts["selection_miou"], name) for name, fit in fits if fit and fit.facts["selection_miou"] is not None]
    return Tally(len(plan.cells), len(fits), best=max(best, default=None), study=plan.study.name)


def _cell_ready(cell: Cell, nodes: Mapping[str, Node], done: set[str]) -> bool:
    """Whether what a cell's trial must find in the store is there; a fit that is there needs nothing any more."""
    fitted = cell.fit in done or set(nodes[cell.fit].inputs.values()) <= done
    return fitted and set(nodes[cell.score].inputs.values()) - {cell.fit} <= done


def _hopeless(nodes: Mapping[str, Node], failed: Mapping[str, str]) -> set[str]:
    """Keys of what has failed in this run, and of all that needs it. `nodes` has each node after its inputs."""
    out: set[str] = set(failed)
    for key, node in nodes.items():
        if out.intersection(node.inputs.values()):
            out.add(key)
    return out


def _take_in(answers: Sequence[Mapping[str, Any]], done: set[str], outcome: Outcome) -> None:
    for answer in answers:
        if answer["state"] == "mistake":
            raise UserError(answer["error"])
        if answer["state"] == "failed":
            outcome.failed[answer["key"]] = answer["error"]
        else:
            done.add(answer["key"])
            if answer["state"] == "computed":
                outcome.computed[answer["key"]] = answer["seconds"]


@dataclass(frozen=True)
class Job:
    """What every worker needs to know. here: what a stage reads and writes lies on one node, that of its task alone."""

    nodes: Mapping[str, Node]
    store: str
    data: Location
    board: Any
    here: bool = False

    def pen(self, key: str, cell: str | None = None) -> Pen:
        """What a node's stage writes its progress with. cell: whose it is alone."""
        node = self.nodes[key]
        return Pen(self.board, f"{cell}, {node.stage}" if cell else node.label, cell or key[:12], node.stage)

    def part(self, keys: Iterable[str]) -> Job:
        """The job for workers that compute these nodes alone: with them and their inputs, whatever else a study has."""
        wanted = [self.nodes[key] for key in keys]
        return replace(self, nodes={key: self.nodes[key] for node in wanted for key in (node.key, *node.inputs.values())})


def attempt(job: Job, key: str, name: str, execution: Execution) -> dict[str, Any]:
    """Compute one node in a worker; never raises, so that one failure stops nothing else."""
    node, store = job.nodes[key], Store(job.store)
    if found := store.find(node.stage, key):
        return {"key": key, "state": "cached", "miou": found.facts.get("selection_miou")}
    started = time.monotonic()
    try:
        artifact, computed = execute(node, dict(job.nodes), store, job.data, execution)
    except UserError as error:
        job.board.finish.remote(name, f"refused: {error}")
        return {"key": key, "state": "mistake", "error": str(error)}
    except Exception as error:
        text = _first_line(error)
        store.record_failure(node, text, traceback.format_exc())
        job.board.finish.remote(name, f"failed: {text}")
        return {"key": key, "state": "failed", "error": text}
    finally:
        _return_memory()
    if not computed:  # by another driver, while this one waited
        job.board.finish.remote(name, "found: another run has computed it")
        return {"key": key, "state": "cached", "miou": artifact.facts.get("selection_miou")}
    seconds = time.monotonic() - started
    job.board.finish.remote(name, f"done in {seconds:.1f} s{_headline(artifact.facts)}")
    return {"key": key, "state": "computed", "seconds": seconds, "miou": artifact.facts.get("selection_miou")}


def _return_memory() -> None:
    """Give what the stage has freed back to the system: glibc keeps it, and warm workers live on beside each other."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def lost(job: Job, key: str, error: BaseException | None) -> dict[str, Any]:
    """The answer for a worker that died more often than MAX_FAILURES: it could not write down itself that it failed."""
    text = _first_line(error) if error else "its worker was lost"
    Store(job.store).record_failure(job.nodes[key], text, str(error))
    return {"key": key, "state": "failed", "error": text}


def _headline(facts: Mapping[str, Any]) -> str:
    """The one figure that tells how a stage went."""
    for name in ("mean_auroc", "selection_miou", "accuracy"):
        if facts.get(name) is not None:
            return f", {name.replace('_', ' ')} {facts[name]:.3f}"
    return f", {facts['images']} images" if isinstance(facts.get("images"), int) else ""


@ray.remote(num_cpus=0, max_retries=MAX_FAILURES)
def _stage_task(job: Job, key: str, pen: Pen, execution: Execution) -> dict[str, Any]:
    return attempt(job, key, pen.name, replace(execution, progress=pen))


def _run_stages(ready: Sequence[Node], job: Job, capacity: Capacity) -> list[dict[str, Any]]:
    """Upstream stages whose inputs are there. Side by side on GPUs; on CPUs one after another, each with all of them.

    The tasks themselves hold no CPU, so that the actors they start on Ray Data always find one.
    """
    gpu = capacity.gpus_in_reach >= 1
    execution = Execution(
        device="cuda" if gpu else "cpu",
        threads=max(1, min(capacity.cpus, capacity.node_cpus)),
        # Of the CPUs that are there: nodes with GPUs aren't rented to decode images.
        decode_workers=max(1, capacity.cpus),
        map_workers=max(1, int(capacity.gpus_in_reach)) if gpu else max(1, capacity.cpus),
        map_gpus=0.49 if gpu else 0,
        train_failures=MAX_FAILURES,
        here=job.here,
    )
    # Two stages never share a GPU, and each finds the rest of its own free to train or map there.
    share = 0.51 if gpu else 0
    place: Any = "SPREAD" if gpu else on_node(largest_node()) if job.here else "DEFAULT"
    # Each may hold a CPU in training, and Ray Data needs one.
    at_once = max(1, min(int(capacity.gpus_in_reach), capacity.cpus_in_reach)) if gpu else 1
    waiting, answers = list(ready), []
    running: dict[Any, Node] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            node = waiting.pop(0)
            pen, held = job.pen(node.key), 0 if node.stage == "ingest" else share
            task = _stage_task.options(name=pen.name, num_gpus=held, scheduling_strategy=place)
            running[task.remote(job.part([node.key]), node.key, pen, execution)] = node
        (finished,), _ = ray.wait(list(running), num_returns=1)
        node = running.pop(finished)
        try:
            answers.append(ray.get(finished))
        except ray.exceptions.RayError as error:
            answers.append(lost(job, node.key, error))
    return answers


def _trial(config: Mapping[str, Any], job: Job, names: Mapping[str, str], execution: Execution) -> None:
    """One cell on a warm worker: its fit, then its scores. names: score -> cell."""
    from ray import tune

    answers = []
    score = config["score"]
    cell = names[score]
    job.board.begin_cell.remote(cell)
    entitle(cell)
    for key in (job.nodes[score].inputs["segmenter"], score):
        pen = job.pen(key, cell)
        answers.append(attempt(job, key, pen.name, replace(execution, progress=pen)))
        if not whole(answers[-1]):
            break
    job.board.end_cell.remote(cell, whole(answers[-1]), answers[0].get("miou"))
    tune.report({"answers": answers})


def entitle(name: str) -> None:
    """Call this process so in the dashboard's cluster view and in `top`, until the next call of a method of its actor.

    Tune's actors are named once for all their trials. Nothing public of Ray's does it.
    """
    ray._raylet.setproctitle(f"ray::{name}")


def whole(answer: Mapping[str, Any]) -> bool:
    """Whether a node's result is in the store."""
    return answer["state"] in ("cached", "computed")


def _run_shared_cells(pending: Sequence[Cell], job: Job, capacity: Capacity, resources: Resources) -> list[dict[str, Any]]:
    """Cells whose fits several workers of Ray Train share: as upstream stages run, because these hold what a cell takes."""
    gpu = capacity.gpus_of(resources)
    execution = Execution(
        device="cuda" if gpu else "cpu",
        threads=max(1, int(resources.cpu)),
        map_gpus=gpu,
        train_workers=resources.workers,
        train_failures=MAX_FAILURES,
        here=job.here,
    )
    alone = {"num_cpus": execution.threads, "num_gpus": gpu}
    waiting, running, answers, mious = list(pending), {}, [], {}

    def start(cell: Cell, stage: str) -> None:
        key, options = (cell.fit, {}) if stage == "fit" else (cell.score, alone)
        if stage == "fit" and job.here:
            node = node_with_room({"CPU": execution.threads, "GPU": gpu}, resources.workers)
            options = {"scheduling_strategy": on_node(node)}
        job.board.begin_cell.remote(cell.name)
        pen = job.pen(key, cell.name)
        task = _stage_task.options(name=pen.name, **options)
        running[task.remote(job.part([key]), key, pen, replace(execution, title=pen.name))] = cell, key

    while waiting or running:
        while waiting and len(running) < capacity.cells_at_once(resources):
            start(waiting.pop(0), "fit")
        (finished,), _ = ray.wait(list(running), num_returns=1)
        cell, key = running.pop(finished)
        try:
            answers.append(ray.get(finished))
        except ray.exceptions.RayError as error:
            answers.append(lost(job, key, error))
        if key == cell.fit:
            mious[cell.name] = answers[-1].get("miou")
        if key == cell.fit and whole(answers[-1]):
            start(cell, "score")
        else:
            job.board.end_cell.remote(cell.name, whole(answers[-1]), mious[cell.name])
    return answers


def _run_cells(pending: Sequence[Cell], job: Job, capacity: Capacity, resources: Resources) -> list[dict[str, Any]]:
    """Cells as Tune trials."""
    from ray import tune

    cells = {cell.score: cell for cell in pending}
    names = {score: cell.name for score, cell in cells.items()}
    part = job.part(key for cell in pending for key in (cell.fit, cell.score))
    results = on_warm_workers(
        _trial,
        {"job": part, "names": names},
        capacity,
        resources,
        {"score": tune.grid_search(list(cells))},  # no more than a key, for all are copied for every trial
        lambda config: names[config["score"]],
    )
    answers = []
    for result in results:
        if result.metrics and "answers" in result.metrics:
            answers += result.metrics["answers"]
        else:
            cell = cells[result.config["score"]]
            fitted = Store(job.store).find("fit", cell.fit)
            answers.append(lost(job, cell.score if fitted else cell.fit, result.error))
            job.board.end_cell.remote(cell.name, False, None)
    return answers


def _on_a_node_that_stays(config: Mapping[str, Any], trial: Callable[..., None], constants: Mapping[str, Any]) -> None:
    """A warm worker would take trials until its node is gone. It ends instead, which Tune doesn't count as a failure."""
    if going():
        os._exit(0)
    trial(config, **constants)


def on_warm_workers(
    trial: Callable[..., None],
    constants: Mapping[str, Any],
    capacity: Capacity,
    resources: Resources,
    space: Mapping[str, Any],
    name: Callable[[Mapping[str, Any]], str],
    searcher: Any = None,
    stop: Callable[[str, Mapping[str, Any]], bool] | None = None,
) -> Any:
    """Tune's results of ``trial(config, execution=.., **constants)`` on reused actors, which keep their process and the
    shards they have read.

    name: what a trial with this config is called. searcher, stop: Tune's, for what is no grid.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune's own handler would end the phase as if it had finished, and the run would go on.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    from ray import tune

    gpu = capacity.gpus_of(resources)
    execution = Execution(device="cuda" if gpu else "cpu", threads=max(1, int(resources.cpu)), map_gpus=gpu)
    constants = {**constants, "execution": execution}
    function = tune.with_parameters(_on_a_node_that_stays, trial=trial, constants=constants)
    function.__name__ = "warm worker"  # so the dashboard tells it from other actors
    scratch = tempfile.mkdtemp(prefix="chexseg-tune-")
    try:
        return tune.Tuner(
            tune.with_resources(function, {"cpu": resources.cpu, "gpu": gpu}),
            param_space=dict(space),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1 if searcher else 1,
                max_concurrent_trials=capacity.cells_at_once(resources),
                reuse_actors=True,
                trial_name_creator=lambda trial: name(trial.config).replace(" ", "_"),
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                stop=stop,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

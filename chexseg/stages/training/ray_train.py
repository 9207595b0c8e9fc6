"""A training loop on workers of Ray Train: the one place where stages meet it.

The worker may die and is started again; the loop goes on from what it has saved itself (`stages.training.checkpoint`), just as it does
in a process of its own, so Ray Train keeps no checkpoints. Where a cluster has no room for the worker, Ray Train waits for
it: an autoscaling cluster may be about to grow.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from chexseg import code_version
from chexseg.data import ray_data
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.models import distributed
from chexseg.stages.api import StageContext, no_progress
from chexseg.stages.training import checkpoint

_ERRORS = {error.__name__: error for error in (UserError, DamagedArtifactError)}


def once(
    train: Callable[..., Mapping[str, Any]],
    config: Any,
    inputs: Mapping[str, Path],
    out: Path,
    weights: str,
    context: StageContext,
) -> dict[str, Any]:
    """``train(config, inputs, out, execution)`` by `run`, unless its result is there already (`resume.once`)."""
    loop = functools.partial(train, config, dict(inputs), out)
    name = context.title or f"{train.__module__.rpartition('.')[2]} with {config.architecture}"
    return checkpoint.once(out, weights, lambda: run(loop, name, out, context))


def run(
    loop: Callable[[StageContext], Mapping[str, Any]], name: str, out: Path, context: StageContext
) -> dict[str, Any]:
    """``loop(execution)`` in this process, or, where `context.train_failures` says so, on workers of Ray Train.

    `context.train_workers` workers run the loop in one process group; worker 0 returns what JSON can hold. Exceptions
    arrive here: a `UserError` as itself, others as RuntimeError with the worker's traceback; neither is tried again.
    Workers of which one dies are started again `train_failures` times.
    """
    if context.train_failures is None:
        return dict(loop(context))
    # The controller asks its workers this often whether they are done; and what Ray Train would tell them of a node that
    # is about to go, from a process of its own, no loop here listens to.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray import train
    from ray.train.torch import TorchTrainer

    scratch, answer = out / "ray-train", out / "answer.writing"
    shutil.rmtree(scratch, ignore_errors=True)
    answer.unlink(missing_ok=True)
    gpu = context.device != "cpu"
    several = (
        context.train_workers > 1
    )  # an upstream stage with a GPU leaves the CPUs to those beside it
    resources: dict[str, float] = {"CPU": context.threads if several or not gpu else 1}
    if gpu:
        resources["GPU"] = context.map_gpus
    trainer = TorchTrainer(
        functools.partial(
            _work,
            loop,
            str(answer),
            replace(context, train_failures=None),
            code_version.running(),
        ),
        scaling_config=train.ScalingConfig(
            num_workers=context.train_workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            label_selector=ray_data.node_label() if context.single_node else None,
        ),
        run_config=train.RunConfig(
            name=name,
            storage_path=str(scratch.absolute()),
            failure_config=train.FailureConfig(max_failures=context.train_failures),
        ),
    )
    try:
        try:
            trainer.fit()
        except train.TrainingFailedError:
            if not answer.exists():
                raise
        found = json.loads(answer.read_text())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        answer.unlink(missing_ok=True)
    if "error" in found:
        if found["kind"] in _ERRORS:
            raise _ERRORS[found["kind"]](found["error"])
        raise RuntimeError(f"{found['kind']}: {found['error']}\n{found['traceback']}")
    return found["facts"]


def _work(
    loop: Callable[[StageContext], Mapping[str, Any]],
    answer: str,
    context: StageContext,
    code: code_version.CodeVersion,
) -> None:
    """One worker's part. A loop that fails would fail again: the others end too, and a new group finds the answer there.

    A collective operation that fails says that another worker is gone: that is no answer, and a new group tries again.
    """
    if Path(answer).exists():
        return
    if distributed.rank() > 0:
        context = replace(context, progress=no_progress)
    try:
        code_version.require(code)
        found: dict[str, Any] = {"facts": loop(context)}
    except Exception as error:
        if distributed.lost_a_worker(error):
            raise
        kind = (
            "DamagedError"
            if isinstance(error, (pa.ArrowException, OSError))
            else type(error).__name__
        )
        found = {"kind": kind, "error": str(error), "traceback": traceback.format_exc()}
    alone = distributed.workers() == 1
    if "error" in found or distributed.rank() == 0:
        with (
            suppress(FileExistsError),
            open(answer, "x") as file,
        ):  # of several errors the first is the cause
            json.dump(found, file)
    if "error" in found and not alone:  # the others wait for this one in a collective operation
        raise RuntimeError(found["error"])

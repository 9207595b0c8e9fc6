"""Training loops on Ray Train workers; the only module of the stages that uses Ray Train.

A worker that dies is started again, and the loop resumes from the state it has saved itself
(`stages.training.checkpoint`), as it does without Ray. Ray Train therefore keeps no checkpoints. If
a cluster has no room for a worker, Ray Train waits, because an autoscaler may be adding nodes.
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
from typing import Any, cast

import pyarrow as pa

from chexseg import code_version
from chexseg.data import ray_data
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.models import distributed
from chexseg.stages import artifacts
from chexseg.stages.api import GPU_OF_ITS_OWN, StageContext, no_progress, say_nothing
from chexseg.stages.training import checkpoint

_ERRORS = {error.__name__: error for error in (UserError, DamagedArtifactError)}


def train_once(
    train: Callable[..., Mapping[str, Any]],
    config: Any,
    inputs: Mapping[str, Path],
    out: Path,
    context: StageContext,
) -> dict[str, Any]:
    """Return the facts of ``train(config, inputs, out, context)``, called by `run`.

    Training that has finished before is skipped (`checkpoint.train_once`).
    """
    loop = functools.partial(train, config, dict(inputs), out)
    name = context.title or f"{train.__module__.rpartition('.')[2]} with {config.architecture}"
    return checkpoint.train_once(out, lambda: run(loop, name, out, context))


def run(
    loop: Callable[[StageContext], Mapping[str, Any]], name: str, out: Path, context: StageContext
) -> dict[str, Any]:
    """Run ``loop(context)`` in this process, or on Ray Train workers if `train_failures` is set.

    `context.train_workers` workers run the loop in one process group; worker 0 returns the facts,
    which must be JSON. After a worker dies, all are restarted, at most `train_failures` times. An
    exception in the loop is not retried: a `UserError` or `DamagedArtifactError` is raised as it
    is, any other as a RuntimeError with the worker's traceback.
    """
    if context.train_failures is None:
        return dict(loop(context))
    # Poll the workers more often than Ray Train does by default, so that short runs end soon. The
    # preemption watcher is a process that warns loops before their node goes; no loop here listens.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray import train
    from ray.train.torch import TorchTrainer

    scratch, answer_file = out / "ray-train", out / "answer.writing"
    shutil.rmtree(scratch, ignore_errors=True)
    answer_file.unlink(missing_ok=True)
    gpu = context.device != "cpu"
    # A single worker with a GPU takes one CPU and leaves the others to stages that run beside it.
    single = gpu and context.train_workers == 1
    resources: dict[str, float] = {"CPU": 1 if single else context.threads}
    if gpu:
        resources["GPU"] = context.map_gpus if single else max(context.map_gpus, GPU_OF_ITS_OWN)
    trainer = TorchTrainer(
        functools.partial(
            _run_worker,
            loop,
            str(answer_file),
            replace(context, train_failures=None),
            code_version.running(),
        ),
        # mypy sees version 1 of Ray Train, which has no label_selector.
        scaling_config=train.ScalingConfig(  # type: ignore[call-arg]
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
            if not answer_file.exists():
                raise
        answer = json.loads(answer_file.read_text())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        answer_file.unlink(missing_ok=True)
    if "error" in answer:
        if answer["kind"] in _ERRORS:
            raise _ERRORS[answer["kind"]](answer["error"])
        raise RuntimeError(f"{answer['kind']}: {answer['error']}\n{answer['traceback']}")
    return cast(dict[str, Any], answer["facts"])


def _run_worker(
    loop: Callable[[StageContext], Mapping[str, Any]],
    answer_file: str,
    context: StageContext,
    code: code_version.CodeVersion,
) -> None:
    """Run the loop on one worker and write its facts, or its error, to `answer_file`.

    A loop that fails would fail again. Its error ends the other workers too, and a new group finds
    the file and stops. A failed collective operation means that another worker has died; it is
    not written, so that a new group tries again.
    """
    if Path(answer_file).exists():
        return
    if distributed.rank() > 0:
        context = replace(context, progress=no_progress, say=say_nothing)
    try:
        code_version.require(code)
        answer: dict[str, Any] = {"facts": loop(context)}
        distributed.wait_for_all(context.device)  # no facts of a group in which a worker failed
    except Exception as error:
        if distributed.lost_a_worker(error):
            raise
        damaged = isinstance(error, (pa.ArrowException, OSError))
        answer = {
            "kind": (DamagedArtifactError if damaged else type(error)).__name__,
            "error": str(error),
            "traceback": traceback.format_exc(),
        }
    if "error" in answer or distributed.rank() == 0:
        if name := context.gpu_name():
            Path(answer_file).with_name(artifacts.GPU).write_text(name)
        # Mode "x" keeps the first of several errors, which is the cause.
        with suppress(FileExistsError), open(answer_file, "x") as file:
            json.dump(answer, file)
    # End the other workers too, which wait for this one in a collective operation.
    if "error" in answer and distributed.workers() > 1:
        raise RuntimeError(answer["error"])

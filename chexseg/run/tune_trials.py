"""Trials of Ray Tune on workers that live on from one to the next."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import ray

from chexseg.config.study import Resources
from chexseg.run.cluster import MAX_FAILURES, Capacity, raise_if_draining
from chexseg.stages.api import StageContext

#: What Tune copies from the driver's environment into that of its actors, which Ray writes into its logs as it is.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
}


def set_process_title(name: str) -> None:
    """Call this process so in the dashboard's cluster view and in `top`, until the next call of a method of its actor.

    Tune's actors are named once for all their trials. Nothing public of Ray's does it.
    """
    ray._raylet.setproctitle(f"ray::{name}")


def _on_a_node_that_stays(
    config: Mapping[str, Any], trial: Callable[..., None], constants: Mapping[str, Any]
) -> None:
    raise_if_draining()  # a warm worker would take trials until its node is gone
    trial(config, **constants)


def run_trials(
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
    from ray.tune.execution import class_cache

    # Workers have those of their nodes. There is no setting for it.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    gpu = capacity.gpus_of(resources)
    context = StageContext(
        device="cuda" if gpu else "cpu", threads=max(1, int(resources.cpu)), map_gpus=gpu
    )
    constants = {**constants, "context": context}
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

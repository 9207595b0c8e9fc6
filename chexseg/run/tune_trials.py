"""Run trials of Ray Tune on reused actors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from chexseg.config.study import Study
from chexseg.run import cluster, ray_internals
from chexseg.stages.api import StageContext

if TYPE_CHECKING:
    from ray.tune import Result
    from ray.tune.search import Searcher


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
    space: Mapping[str, Any],
    name: Callable[[Mapping[str, Any]], str],
    searcher: Searcher | None = None,
    stop: Callable[[str, Mapping[str, Any]], bool] | None = None,
) -> list[Result]:
    """Run ``trial(config, context=.., **constants)`` for every config, and return Tune's results.

    Actors are reused, so their processes keep imports and the shards they have read.
    space: Tune's parameter space. name: config -> the trial's name. searcher, stop: Tune's, for
    trials that are not a grid.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune's own handler would end the trials as if they had finished, and the run would go on.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    from ray import tune

    ray_internals.keep_credentials_local()
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
        grid = tune.Tuner(
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
                failure_config=tune.FailureConfig(max_failures=cluster.MAX_FAILURES),
            ),
        ).fit()
        return [grid[number] for number in range(len(grid))]

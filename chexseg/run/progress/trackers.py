"""Report settings and figures of trainings to MLflow and Weights & Biases (`execution.trackers`).

Only the driver needs their packages. Servers and credentials come from each tool's environment
variables.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from chexseg.errors import reason
from chexseg.plan.checks.trackers import fault_here

if TYPE_CHECKING:
    import wandb

#: Seconds between two calls of a tracker, each with all figures since the last one.
SENT_EVERY = 2.0
#: Seconds that the end of a run waits for a tracker that doesn't answer.
LONGEST_WAIT = 60.0

#: Characters of a parameter: older servers of MLflow allow no more.
LONGEST_PARAM = 500

#: Name and password in a URI, such as that of MLflow's server.
_CREDENTIALS = re.compile(r"//[^/\s]*@")

#: Samples that a training has seen, and figure -> value.
Point = tuple[int, Mapping[str, float]]

#: Returns dotted setting -> value of the training with a name.
SettingsOf = Callable[[str], Mapping[str, Any]]


def _check_here(name: str) -> None:
    """Raise `RuntimeError` as `fault_here`: files may have come since the run was checked."""
    if fault := fault_here(name):
        raise RuntimeError(fault)


def _check_server(settings: wandb.Settings) -> None:
    """Raise `RuntimeError` if W&B has another server than this user's files and variables name.

    W&B reads the current directory's file too, which may have come since `_check_here`.
    """
    import wandb

    with tempfile.TemporaryDirectory() as empty:
        expected = wandb.Settings(root_dir=empty, settings_system=settings.settings_system)
        expected.update_from_system_settings()
        expected.update_from_env_vars(dict(os.environ))
    if settings.base_url != expected.base_url:
        raise RuntimeError(f"found the server {settings.base_url}; expected {expected.base_url}")


class Tracker(Protocol):
    """One tool. Each training is one of its runs."""

    def write(self, training: str, points: Iterable[Point]) -> None: ...

    def end(self, training: str, failed: bool) -> None: ...

    def close(self) -> None:
        """End the runs of the trainings that were interrupted."""


class Background:
    """Call a tracker from one thread, so that no server delays the run.

    open: returns the tracker. say: shows a line. The first error of the tracker is such a line, and
    its last call.
    """

    def __init__(self, name: str, open: Callable[[], Tracker], say: Callable[[str], None]) -> None:
        self.name, self.open, self.say = name, open, say
        self._points: dict[str, list[Point]] = {}
        self._ended: dict[str, bool] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def write(self, training: str, point: Point) -> None:
        with self._lock:
            if self._thread.is_alive():
                self._points.setdefault(training, []).append(point)

    def end(self, training: str, failed: bool) -> None:
        with self._lock:
            self._ended[training] = failed

    def close(self) -> None:
        self._over.set()
        self._thread.join(LONGEST_WAIT)
        if self._thread.is_alive():
            self.say(
                f"{self.name}: found no answer for {LONGEST_WAIT:g} s;"
                " its last figures may be missing"
            )

    def _run(self) -> None:
        tracker: Tracker | None = None
        over = False
        try:
            while not over:
                over = self._over.wait(SENT_EVERY)
                with self._lock:
                    points, self._points = self._points, {}
                    ended, self._ended = self._ended, {}
                if not points and tracker is None:
                    continue
                tracker = tracker or self.open()
                for training, batch in points.items():
                    tracker.write(training, batch)
                for training, failed in ended.items():
                    tracker.end(training, failed)
            if tracker:
                tracker.close()
        except Exception as error:  # whatever the tool or its server raises
            text = _CREDENTIALS.sub("//", reason(error))
            self.say(f"{self.name}: {text}; it gets no more figures, and the run goes on")


class MLflow:
    """Runs of MLflow, in the experiment of the study's name unless MLFLOW_EXPERIMENT_NAME is set.

    run: name of chexseg's run, a tag of each. settings_of: settings of a training, its parameters.
    """

    def __init__(self, study: str, run: str, settings_of: SettingsOf) -> None:
        from mlflow.tracking import MlflowClient

        _check_here("mlflow")
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells each step of a migration
        self.settings_of = settings_of
        self.client, self.tags = MlflowClient(), {"chexseg.study": study, "chexseg.run": run}
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", study)
        experiment = self.client.get_experiment_by_name(name)
        self.experiment = (
            experiment.experiment_id if experiment else self.client.create_experiment(name)
        )
        self.ids: dict[str, str] = {}
        self.running: set[str] = set()

    def write(self, training: str, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric, Param

        if training not in self.ids:
            created = self.client.create_run(
                self.experiment, tags=dict(self.tags), run_name=training
            )
            self.ids[training] = created.info.run_id
            params = [
                Param(name, str(value)[:LONGEST_PARAM])
                for name, value in self.settings_of(training).items()
            ]
            for start in range(0, len(params), 100):  # as many as a call may have
                self.client.log_batch(created.info.run_id, params=params[start : start + 100])
        self.running.add(training)
        now = time.time_ns() // 1_000_000
        metrics = [
            Metric(figure, value, now, done)
            for done, figures in points
            for figure, value in figures.items()
        ]
        for start in range(0, len(metrics), 1000):  # as many as a call may have
            self.client.log_batch(self.ids[training], metrics[start : start + 1000])

    def end(self, training: str, failed: bool) -> None:
        if training in self.running:
            self.running.remove(training)
            status = "FAILED" if failed else "FINISHED"
            self.client.set_terminated(self.ids[training], status)

    def close(self) -> None:
        for training in self.running:
            self.client.set_terminated(self.ids[training], "KILLED")


class WandB:
    """Runs of Weights & Biases, in the project of the study's name unless WANDB_PROJECT is set.

    run: name of chexseg's run, the group of its trainings. settings_of: settings of a training, its
    configuration. Raises `RuntimeError` without an API key, unless WANDB_MODE says that none is
    needed, and for files of others in the current directory (`fault_here`).
    """

    def __init__(self, study: str, run: str, settings_of: SettingsOf) -> None:
        import wandb

        _check_here("wandb")
        settings = wandb.setup().settings
        _check_server(settings)
        online = settings.mode in ("online", "shared", "run")
        if online and not wandb.login(prompt=False, verify=False):  # nobody could answer a question
            raise RuntimeError("found no API key; expected WANDB_API_KEY or WANDB_MODE=offline")
        self.project, self.group = os.environ.get("WANDB_PROJECT", study), run
        self.settings_of = settings_of
        self.runs: dict[str, wandb.Run] = {}

    def write(self, training: str, points: Iterable[Point]) -> None:
        if training not in self.runs:
            import wandb

            _check_here("wandb")  # files of the directory are read for each run
            # Without statistics of the driver, which trains nothing, and without its command, which
            # may have credentials in a URI, its user, and its checkout.
            quiet = wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                x_disable_meta=True,
                disable_git=True,
            )
            self.runs[training] = started = wandb.init(
                project=self.project,
                group=self.group,
                name=training,
                config=dict(self.settings_of(training)),
                reinit="create_new",  # several at once
                settings=quiet,
            )
            # Not W&B's own steps, which can't go back: a training that is retried may.
            started.define_metric("*", step_metric="samples")
        for done, figures in points:
            self.runs[training].log({**figures, "samples": done})

    def end(self, training: str, failed: bool) -> None:
        if training in self.runs:
            self.runs.pop(training).finish(exit_code=int(failed))

    def close(self) -> None:
        for training in list(self.runs):
            self.end(training, failed=True)


TRACKERS: Mapping[str, Callable[[str, str, SettingsOf], Tracker]] = {
    "mlflow": MLflow,
    "wandb": WandB,
}


def opened(
    names: Iterable[str],
    study: str,
    run: str,
    say: Callable[[str], None],
    settings_of: SettingsOf,
) -> list[Background]:
    """Return the trackers of a run. Nothing of them is imported before there is a figure."""

    def opener(name: str) -> Callable[[], Tracker]:
        return lambda: TRACKERS[name](study, run, settings_of)

    return [Background(name, opener(name), say) for name in dict.fromkeys(names)]

"""Wrap every private member of Ray that chexseg uses; no other module touches one.

Each function says why nothing public will do, and names the Ray issue that covers it, if any.
Written for Ray 2.60; `pyproject.toml` excludes the next minor version.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from chexseg.parallel import signals_deferred

#: Variables that Tune copies from the driver's environment into that of its actors.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
}


class WorkerPath(JobConfig):
    """Configure a Ray job whose workers import from `path`, in this order, before `sys.path`.

    By default Ray inserts the driver's current directory first, where a file could shadow an
    installed package (ray-project/ray#42863, and #17518 for the script's directory).
    """

    def __init__(self, path: Sequence[str] = ()) -> None:
        super().__init__()
        self.path = path

    def _serialize(self) -> str:  # bytes in fact; the hint is Ray's
        # By now Ray has added its directories. A worker inserts the entries one by one in front.
        self._py_driver_sys_path = [os.path.abspath(directory) for directory in reversed(self.path)]
        self._cached_pb = None
        return super()._serialize()


@contextmanager
def loopback_address() -> Iterator[None]:
    """Let `ray.init` use 127.0.0.1 as this node's address, so that its servers listen there only.

    Ray does so on macOS. On Linux it replaces a loopback address by one that other hosts reach,
    and has no argument against that (ray-project/ray#26293, closed as intended).
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def same_environment() -> Iterator[None]:
    """Let workers use the driver's environment, also if one of its parents is `uv run`.

    Ray would give its workers a copy of the current directory, from which they import first, and an
    environment that `uv` makes there. Its variable against that is read when it is imported.
    """
    from ray._private import ray_constants

    before = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    try:
        yield
    finally:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = before


@contextmanager
def no_log_monitor() -> Iterator[None]:
    """Let `ray.init` start no process that reads all logs.

    It sends them to drivers that show them (`log_to_driver`), and takes up to 3% of a core for it.
    `ray start` has an option against it, `ray.init` hasn't.
    """
    node: Any = importlib.import_module("ray._private.node").Node
    start = node.start_log_monitor
    node.start_log_monitor = lambda self: None
    try:
        yield
    finally:
        node.start_log_monitor = start


@contextmanager
def separate_processes(path: Path) -> Iterator[None]:
    """Let `ray.init` start its processes in a directory, each in a process group of its own.

    Ray starts them in the driver's directory, where the dynamic loader and others look for files
    before our code runs. Workers inherit the raylet's; the option `working_dir` of `runtime_env` is
    a copy of files for workers alone. A signal to the driver's group would end the raylet at once,
    and Ray then ends the driver, in the middle of what it does about the signal.
    """
    services: Any = importlib.import_module("ray._private.services")
    start = services.ConsolePopen

    def start_there(*arguments: Any, **options: Any) -> Any:
        options |= {"cwd": options.get("cwd") or str(path), "process_group": 0}
        return start(*arguments, **options)

    services.ConsolePopen = start_there
    try:
        yield
    finally:
        services.ConsolePopen = start


@contextmanager
def signals_after_start() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait while `ray.init` runs, and keep their handlers.

    `ray.init` gives SIGTERM a handler that exits with code 1, then one in C++ that prints a stack
    first; neither can be turned off. A start that is interrupted leaves processes behind. Off the
    main thread Python can't change handlers, so the one in C++ stays.
    """
    from ray._private import utils

    set_handler, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    try:
        with signals_deferred():
            yield
    finally:
        utils.set_sigterm_handler = set_handler


def read_environment() -> None:
    """Read Ray's variables for tokens again. Ray does so once per process."""
    ray._raylet.Config.initialize("")  # type: ignore[attr-defined]  # compiled
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def shutdown() -> None:
    """Call `ray.shutdown`, keep SIGTERM's handler, and end the GCS's clients before the GCS.

    Ray's C++ code resets the handler for good while the driver disconnects (0.2 s and more, in
    which SIGTERM kills this process). Then `ray.shutdown` waits seconds for its processes to end.
    Ray would end the GCS before the dashboard and others, which would call its port for a second,
    with the token, whoever has taken it.
    """
    handler = signal.getsignal(signal.SIGTERM)  # Python doesn't learn of the reset
    node = ray._private.worker._global_node
    on_main_thread = threading.current_thread() is threading.main_thread()
    if node is None or handler is None or not on_main_thread:
        ray.shutdown()
        return
    end_processes = node.kill_all_processes

    def after_reset(*arguments: object, **options: object) -> None:
        signal.signal(signal.SIGTERM, handler)
        for kind in sorted(set(node.all_processes) - {"raylet", "gcs_server", "reaper"}):
            node._kill_process_type(kind, allow_graceful=True, check_alive=False, wait=True)
        end_processes(*arguments, **options)

    node.kill_all_processes = after_reset
    try:
        ray.shutdown()
    finally:
        del node.kill_all_processes  # Ray calls it once more when Python exits


def session_directory(path: Path) -> dict[str, Any]:
    """Return the option of `ray.init` for the directory of Ray's logs and sockets.

    The public `RAY_TMPDIR` would also apply to every process that the driver starts.
    """
    return {"_temp_dir": str(path)}


def idle_worker_limit(workers: int) -> dict[str, Any]:
    """Return the option of `ray.init` for the number of idle workers that Ray keeps.

    By default it is the number of CPUs. Above it Ray stops workers idle for one second, and what
    they have imported is lost (ray-project/ray#27863).
    """
    return {"_system_config": {"num_workers_soft_limit": workers}}


def is_draining(node: str) -> bool:
    """Return True if Ray was notified that the node will go away, as after a spot notice.

    Only Ray Train reports this to its workers (ray-project/ray#63807), not Ray Core or Tune.
    """
    return node in ray._private.state.state.get_draining_nodes()


def set_process_title(name: str) -> None:
    """Set the name of this process in the dashboard and in `top`, until its next actor call.

    Tune names an actor once for all of its trials (ray-project/ray#24876).
    """
    ray._raylet.setproctitle(f"ray::{name}")  # type: ignore[attr-defined]  # compiled


def skip_usage_tags() -> None:
    """Stop Ray's libraries from recording in this process which of their features are used.

    They do so by a call to the GCS that has no time limit, even if usage statistics are turned off.
    Twice its answer was lost, and the process waited forever (ray-project/ray#55996 is alike).
    """
    from ray._common.usage import usage_lib

    def skip(*arguments: object, **options: object) -> None: ...

    usage_lib._put_extra_usage_tag = usage_lib._put_library_usage = skip


def skip_callback_tags() -> None:
    """Stop Tune from counting the kinds of callbacks, for which it imports MLflow and W&B.

    Where they are installed, MLflow then writes an id for its usage statistics into the user's home
    directory, also without `execution.trackers`.
    """
    from ray.air._internal import usage

    usage.tag_callbacks = lambda callbacks: False


def keep_credentials_local() -> None:
    """Stop Tune from copying AWS credentials into its actors' environments.

    Ray writes these into its logs in plain text. Workers have the credentials of their nodes.
    There is no setting, and we know of no issue.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)

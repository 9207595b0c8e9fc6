"""Check that one module uses Ray's private members, and that the installed Ray has them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

import chexseg

PRIVATE = re.compile(
    r"""\bray(\.\w+)*\._\w+              # ray._private, ray._raylet, ray.x._internal
    |from\ ray[\w.]*\ import\ _\w+
    |from\ ray\.[\w.]*\._\w+
    |ray\.tune\.execution|class_cache
    |_system_config|_temp_dir|_py_driver_sys_path
    """,
    re.VERBOSE,
)


def test_private_members_of_ray_are_used_in_one_module():
    package = Path(chexseg.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if PRIVATE.search(path.read_text())
    }
    assert users == {"run/ray_internals.py"}


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("ray._private.state.state.get_draining_nodes()", True),
        ("from ray._private import ray_constants", True),
        ("from ray.tune.execution import class_cache", True),
        ("from ray.train.v2._internal.execution import preemption", True),
        ("ray.init(_system_config={})", True),
        ("ray.util.placement_group([])", False),
        ("from ray.tune import Result", False),
    ],
)
def test_private_members_are_recognised(line, private):
    assert bool(PRIVATE.search(line)) == private


@pytest.mark.heavy  # it imports Ray
def test_signals_wait_while_ray_starts_and_their_handlers_stay():
    from ray._private import utils

    from chexseg.run import ray_internals

    seen, others = [], []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    handler, set_handler = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    try:
        with ray_internals.signals_after_start():
            utils.set_sigterm_handler(lambda number, frame: others.append(number))  # as `ray.init`
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
        assert (seen, others) == ([signal.SIGTERM], [])
        assert signal.getsignal(signal.SIGTERM) == handler
        assert utils.set_sigterm_handler == set_handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.heavy  # it imports Ray and Tune
def test_ray_has_the_members():
    import ray
    from ray._common.usage import usage_lib
    from ray._private import ray_constants
    from ray.air._internal import usage
    from ray.job_config import JobConfig
    from ray.tune import tune
    from ray.tune.execution import class_cache

    from chexseg.run import ray_internals

    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert hasattr(ray._private.state.state, "get_draining_nodes")
    assert hasattr(ray._raylet, "setproctitle")
    assert callable(ray._private.utils.set_sigterm_handler)
    assert callable(ray._private.node.Node.kill_all_processes)
    assert callable(ray._private.node.Node._kill_process_type)
    assert issubclass(ray._private.services.ConsolePopen, subprocess.Popen)
    assert callable(ray._raylet.Config.initialize)
    assert callable(ray._raylet.AuthenticationTokenLoader.instance().reset_cache)
    assert {"_py_driver_sys_path", "_cached_pb"} <= vars(JobConfig()).keys()
    assert callable(usage_lib._put_extra_usage_tag) and callable(usage_lib._put_library_usage)
    ray_internals.skip_usage_tags()
    gcs = Mock()
    usage_lib.record_extra_usage_tag(usage_lib.TagKey.DATA_LOGICAL_OPS, "{}", gcs)
    usage_lib.record_library_usage("no library")
    assert gcs.mock_calls == []
    assert callable(usage.tag_callbacks)
    ray_internals.skip_callback_tags()
    assert tune.air_usage.tag_callbacks([Mock()]) is False
    before = set(class_cache.ENV_VARS_TO_PROPAGATE)
    try:
        # An earlier test of this process may have taken them out.
        class_cache.ENV_VARS_TO_PROPAGATE.update(ray_internals.CREDENTIALS)
        ray_internals.keep_credentials_local()
        assert not class_cache.ENV_VARS_TO_PROPAGATE & ray_internals.CREDENTIALS
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE.clear()
        class_cache.ENV_VARS_TO_PROPAGATE.update(before)


@pytest.mark.heavy
def test_no_process_reads_all_logs(ray_session):
    names = " ".join(" ".join(child.cmdline()) for child in psutil.Process().children())
    assert "gcs_server" in names
    assert "log_monitor" not in names


@pytest.mark.heavy
def test_a_signal_to_the_drivers_group_is_for_the_driver(ray_session):
    """A raylet that ends first lets Ray end the driver."""
    servers = [
        child
        for child in psutil.Process().children()
        if re.search("gcs_server|raylet|dashboard|monitor", " ".join(child.cmdline()))
    ]
    assert len(servers) >= 3
    assert os.getpgrp() not in {os.getpgid(child.pid) for child in servers}


@pytest.mark.heavy  # it imports Ray
def test_the_servers_of_a_ray_end_after_their_clients(monkeypatch):
    """Who takes the port of a GCS that has ended would be called with the token by the others."""
    import ray

    from chexseg.run import ray_internals

    class Node:
        def __init__(self) -> None:
            kinds = ("reaper", "gcs_server", "monitor", "dashboard", "raylet", "log_monitor")
            self.all_processes, self.ended = dict.fromkeys(kinds, [None]), []

        def _kill_process_type(self, kind: str, **_: object) -> None:
            self.ended.append(kind)
            del self.all_processes[kind]

        def kill_all_processes(self) -> None:  # as Ray's does
            for kind in ("raylet", "gcs_server", *self.all_processes):
                if kind in self.all_processes:
                    self._kill_process_type(kind)

    node = Node()
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    monkeypatch.setattr(ray, "shutdown", lambda: node.kill_all_processes())
    ray_internals.shutdown()
    assert node.ended == ["dashboard", "log_monitor", "monitor", "raylet", "gcs_server", "reaper"]

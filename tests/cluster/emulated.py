"""Emulate a Ray cluster whose nodes are processes of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from ray._private import services
from ray.cluster_utils import Cluster

from tests import processes
from tests.cluster.standins import ROOT


class Nodes:
    """Run a head, whose driver is a separate process, and workers that may be killed."""

    def __init__(self, *cpus: int):
        self.top = Path(
            tempfile.mkdtemp(prefix="cxr-", dir="/tmp")
        )  # short: Ray puts its sockets below it
        # Drivers in other processes resolve it like this. In this process, the session's Ray may be
        # on loopback.
        common = {
            "object_store_memory": 100 * 2**20,
            "node_ip_address": services.node_ip_address_from_perspective(None),
        }
        head = {
            "num_cpus": cpus[0],
            "temp_dir": str(self.top),
            "include_dashboard": False,
            **common,
        }
        (self.top / "ray").mkdir()  # where Ray writes a head's address, whatever its temp_dir is
        with mock.patch.dict(os.environ, RAY_TMPDIR=str(self.top)):
            self.cluster = Cluster(initialize_head=True, shutdown_at_exit=True, head_node_args=head)
        for count in cpus[1:]:
            self.cluster.add_node(num_cpus=count, **common)

    @property
    def address(self) -> str:
        return self.cluster.address

    @property
    def head(self) -> str:
        """Return the head's node id; the driver connects to the head."""
        return self.cluster.head_node.node_id

    @property
    def workers(self) -> list[str]:
        """Return the ids of all nodes except the head."""
        return [node.node_id for node in self.cluster.worker_nodes]

    def count(self) -> int:
        """Return the number of live nodes, including those that have joined by themselves."""
        return sum(node["Alive"] for node in self.cluster.global_state.node_table())

    def node(self, node_id: str) -> Any:
        return next(node for node in self.cluster.worker_nodes if node.node_id == node_id)

    def kill(self, node_id: str) -> None:
        self.cluster.remove_node(self.node(node_id), allow_graceful=False)

    def drain(self, node_id: str, seconds: int) -> None:
        """Announce to Ray that a node ends in `seconds`, as a spot notice does."""
        words = (
            f"drain-node --address {self.address} --node-id {node_id} --deadline-remaining-seconds "
            f"{seconds}"
        )
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            *words.split(),
            "--reason",
            "DRAIN_NODE_REASON_PREEMPTION",
        ]
        command += ["--reason-message", "a spot warning"]
        environment = os.environ | {
            "RAY_ENABLE_AUTO_CONNECT": "1"
        }  # the command under test relies on it
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)

    def working(self, store: Path, node_id: str) -> set[str]:
        """Return the stages that processes of a node are running, as ``<stage>-<short key>``.

        These processes hold the stage's lock in a store in a directory.
        """
        raylet = self.node(node_id).all_processes["raylet"][0].process.pid
        held: set[str] = set()
        for process in processes.descendants(raylet):
            with suppress(psutil.Error):  # it has ended since
                held |= {file.path for file in process.open_files()}
        locks = (store / ".partial").glob("*.lock")
        return {lock.stem for lock in locks if str(lock) in held}

    def actors(self, name: str) -> set[str]:
        """Return the ids of the nodes on which an actor of this class is alive."""
        table = self.cluster.global_state.actor_table(None, actor_state_name="ALIVE")
        return {
            actor["Address"]["NodeID"]
            for actor in table.values()
            if actor["ActorClassName"] == name
        }

    def study(self, *words: object, first: str = "") -> subprocess.Popen[str]:
        """Start `chexseg study run` on this cluster, in a process that first runs some Python."""
        code = f"import runpy; {first}\nrunpy.run_module('chexseg', run_name='__main__')"
        command = [
            sys.executable,
            "-c",
            code,
            "study",
            "run",
            *map(str, words),
            "--address",
            self.address,
        ]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def close(self) -> None:
        self.cluster.shutdown()
        shutil.rmtree(self.top, ignore_errors=True)

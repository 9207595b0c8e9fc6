"""Open stores whose leases expire within seconds, in tests and processes; make nodes to store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.plan.graph import Node
from chexseg.store.lease import Timing
from chexseg.store.object_backend import ObjectBackend
from chexseg.store.store import Artifact, Store

FAST = Timing(settle=1.1, heartbeat=0.5, expiry=4, poll=0.5)
#: Stands for the digest of the inputs.
INPUTS = "1" * 64
DATA = {"train": "a", "valid": "b", "test": "c"}
NODE = next(iter(planner.plan(study_file.parse("name: s", "x.yaml"), DATA).nodes.values()))


def open_store(place: str, timing: Timing = FAST) -> Store:
    return Store(place, ObjectBackend(place, timing)) if "://" in place else Store(place)


def commit(
    store: Store, node: Node = NODE, content: bytes = b"0123456789", facts: dict | None = None
) -> Artifact:
    with store.working_on(node) as partial:
        (partial / "sub").mkdir(parents=True)
        (partial / "sub" / "values.bin").write_bytes(content)
        return store.commit(node, partial, facts or {"images": 3}, 1.5, {"inputs_sha256": INPUTS})


def name(node: Node = NODE) -> str:
    return f"{node.stage}/{node.key[:20]}"


#: A file of the result that `commit` writes.
VALUES = f"{name()}/sub/values.bin"


def result_path(store: Store, stage: str, key: str) -> Path:
    """Return the path of a result, complete or not, in a store in a directory."""
    return store.backend.local / stage / key[:20]


def another_host(code: str, place: str, cache: Path, *arguments: str) -> subprocess.Popen:
    """Stand for a process that shares neither copies nor their locks with this one."""
    return subprocess.Popen(
        [sys.executable, "-c", code, place, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "CHEXSEG_CACHE": str(cache)},
    )

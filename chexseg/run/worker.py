"""Run one node of a plan in a worker and return the outcome, failures included."""

from __future__ import annotations

import ctypes
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from chexseg import code_version
from chexseg.data.remote_path import Location
from chexseg.errors import UserError, counted
from chexseg.plan.graph import Node
from chexseg.run import ray_internals
from chexseg.run.cluster import raise_if_draining
from chexseg.run.execute import execute
from chexseg.run.progress.actor import ProgressWriter
from chexseg.stages.api import StageContext
from chexseg.store.store import Store

if TYPE_CHECKING:
    from chexseg.run.run_record import StageResult


@dataclass(frozen=True)
class Job:
    """The settings that every worker needs.

    single_node: the files that a stage reads and writes are on the node of its task alone.
    code: version of the driver's code, which the worker's must equal.
    """

    nodes: Mapping[str, Node]
    store: str
    data: Location
    progress_actor: Any
    single_node: bool = False
    code: code_version.CodeVersion = field(default_factory=code_version.running)

    def cell_progress_writer(self, key: str, cell: str) -> ProgressWriter:
        """Return the progress writer of a cell's fit or scores. cell: the cell's name."""
        stage = self.nodes[key].stage
        return ProgressWriter(self.progress_actor, f"{cell}, {stage}", key, cell, stage)

    def subset(self, keys: Iterable[str]) -> Job:
        """Return a job with these nodes and their inputs only."""
        return replace(
            self,
            nodes={
                needed: self.nodes[needed]
                for key in keys
                for needed in (key, *self.nodes[key].inputs.values())
            },
        )


def attempt(job: Job, key: str, name: str, context: StageContext) -> StageResult:
    """Run one stage. Errors are returned, not raised, so that one failure stops nothing else.

    Raises only if this node is being drained (`cluster.raise_if_draining`).
    """
    node, store = job.nodes[key], Store(job.store)
    if result := store.find(node.stage, key):
        return {"key": key, "state": "cached", "miou": result.facts.get("selection_miou")}
    started = time.monotonic()
    ray_internals.skip_usage_tags()
    try:
        code_version.require(job.code)
        artifact, computed = execute(node, job.nodes, store, job.data, context, job.code)
    except UserError as error:
        job.progress_actor.finish.remote(name, f"refused: {error}")
        return {"key": key, "state": "mistake", "error": str(error)}
    except Exception as error:
        raise_if_draining()  # the cause may be that Ray starts no more tasks on this node
        text = _first_line(error)
        with suppress(OSError, UserError):  # the store's disk may be full: the error counts
            store.record_failure(node, text, traceback.format_exc())
        job.progress_actor.finish.remote(name, f"failed: {text}")
        return {"key": key, "state": "failed", "error": text}
    finally:
        _return_memory()
    if not computed:  # another driver did, while this one waited
        job.progress_actor.finish.remote(name, "cached: another run has computed it")
        return {"key": key, "state": "cached", "miou": artifact.facts.get("selection_miou")}
    seconds = time.monotonic() - started
    job.progress_actor.finish.remote(name, f"done in {seconds:.1f} s{_headline(artifact.facts)}")
    return {
        "key": key,
        "state": "computed",
        "seconds": seconds,
        "miou": artifact.facts.get("selection_miou"),
    }


def _return_memory() -> None:
    """Return freed memory to the system: glibc keeps it, and reused workers share a machine."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    torch = sys.modules.get("torch")  # a stage that needs none hasn't imported it
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def record_lost_worker(job: Job, key: str, error: BaseException | None) -> StageResult:
    """Record the failure of a worker that died more often than MAX_FAILURES; return the outcome."""
    text = _first_line(error) if error else "its worker was lost"
    with suppress(OSError, UserError):  # as in `attempt`
        Store(job.store).record_failure(job.nodes[key], text, str(error))
    return {"key": key, "state": "failed", "error": text}


def _headline(facts: Mapping[str, Any]) -> str:
    """Return the most important figure of a stage's facts, as an addition to its message."""
    names = {"mean_auroc": "mean AUROC", "selection_miou": "selection mIoU", "accuracy": "accuracy"}
    for name, text in names.items():
        if facts.get(name) is not None:
            return f", {text} {facts[name]:.3f}"
    images = facts.get("images")
    return f", {counted(images, 'image')}" if isinstance(images, int) else ""


def succeeded(result: StageResult) -> bool:
    """Return whether a node's result is in the store."""
    return result["state"] in ("cached", "computed")

"""One stage of a plan in a worker: computed, found or failed, and no exception."""

from __future__ import annotations

import ctypes
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from chexseg import code_version
from chexseg.code_version import CodeVersion
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan.graph import Node
from chexseg.run.cluster import raise_if_draining
from chexseg.run.execute import execute
from chexseg.run.progress_actor import ProgressWriter
from chexseg.stages.api import StageContext
from chexseg.store.store import Store


@dataclass(frozen=True)
class Job:
    """The settings that every worker needs. here: what a stage reads and writes lies on one node, that of its task alone.

    code: what the driver runs, and workers must.
    """

    nodes: Mapping[str, Node]
    store: str
    data: Location
    progress_actor: Any
    single_node: bool = False
    code: CodeVersion = field(default_factory=code_version.running)

    def progress_writer(self, key: str, cell: str | None = None) -> ProgressWriter:
        """What a node's stage writes its progress with. cell: whose it is alone."""
        node = self.nodes[key]
        return ProgressWriter(
            self.progress_actor,
            f"{cell}, {node.stage}" if cell else node.label,
            cell or key[:12],
            node.stage,
        )

    def subset(self, keys: Iterable[str]) -> Job:
        """The job for workers that compute these nodes alone: with them and their inputs, whatever else a study has."""
        wanted = [self.nodes[key] for key in keys]
        return replace(
            self,
            nodes={
                key: self.nodes[key] for node in wanted for key in (node.key, *node.inputs.values())
            },
        )


def attempt(job: Job, key: str, name: str, context: StageContext) -> dict[str, Any]:
    """Compute one node in a worker; never raises, so that one failure stops nothing else, but to leave a place that will be
    gone (`cluster.raise_if_draining`)."""
    node, store = job.nodes[key], Store(job.store)
    if found := store.find(node.stage, key):
        return {"key": key, "state": "cached", "miou": found.facts.get("selection_miou")}
    started = time.monotonic()
    try:
        code_version.require(job.code)
        artifact, computed = execute(node, dict(job.nodes), store, job.data, context)
    except UserError as error:
        job.progress_actor.finish.remote(name, f"refused: {error}")
        return {"key": key, "state": "mistake", "error": str(error)}
    except Exception as error:
        raise_if_draining()  # Ray starts nothing there any more, which is no fault of the stage
        text = _first_line(error)
        store.record_failure(node, text, traceback.format_exc())
        job.progress_actor.finish.remote(name, f"failed: {text}")
        return {"key": key, "state": "failed", "error": text}
    finally:
        _return_memory()
    if not computed:  # by another driver, while this one waited
        job.progress_actor.finish.remote(name, "found: another run has computed it")
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
    """Give what the stage has freed back to the system: glibc keeps it, and warm workers live on beside each other."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    torch = sys.modules.get("torch")  # a stage that needs none hasn't imported it
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def record_lost_worker(job: Job, key: str, error: BaseException | None) -> dict[str, Any]:
    """The answer for a worker that died more often than MAX_FAILURES: it could not write down itself that it failed."""
    text = _first_line(error) if error else "its worker was lost"
    Store(job.store).record_failure(job.nodes[key], text, str(error))
    return {"key": key, "state": "failed", "error": text}


def _headline(facts: Mapping[str, Any]) -> str:
    """The one figure that tells how a stage went."""
    for name in ("mean_auroc", "selection_miou", "accuracy"):
        if facts.get(name) is not None:
            return f", {name.replace('_', ' ')} {facts[name]:.3f}"
    return f", {facts['images']} images" if isinstance(facts.get("images"), int) else ""


def succeeded(answer: Mapping[str, Any]) -> bool:
    """Whether a node's result is in the store."""
    return answer["state"] in ("cached", "computed")

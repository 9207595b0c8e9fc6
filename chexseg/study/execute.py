"""One node, from its inputs in the store to its result there. Knows stages and the store, not who calls it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from chexseg.data.location import Location
from chexseg.errors import DamagedError, UserError
from chexseg.manifest import MANIFEST, UnreadableManifestError
from chexseg.stages.api import Execution
from chexseg.stages.registry import STAGES
from chexseg.study.plan import Node
from chexseg.study.store import Artifact, Store

#: In a partial directory, the sizes and digests of the inputs that its files were made from.
INPUTS = ".inputs.json"
#: (stage, architecture) of common networks. A test builds each, so that a run need not.
KNOWN_TO_BUILD = frozenset(
    (stage, architecture)
    for stage, architectures in {
        "classify": ("densenet121", "resnet18"),
        "pretrain": ("resnet18",),
        "moco": ("resnet18",),
        "irnet": ("resnet50", "resnet18"),
        "fit": ("resnet18", "mobilenet_v2"),
    }.items()
    for architecture in architectures
)


def to_check(nodes: Iterable[Node], workers: int) -> list[Node]:
    """Return the nodes that `check`, which imports PyTorch, must look at before a run; of equal networks, one."""
    networks = {}
    for node in nodes:
        kind = node.stage, node.config.get("architecture")
        shared = workers > 1 and node.stage == "fit"
        if STAGES[node.stage].has_network and (shared or kind not in KNOWN_TO_BUILD):
            networks[kind, node.config.get("batch_size")] = node
    return list(networks.values())


def check(nodes: Iterable[Node], workers: int, on_gpu: bool) -> None:
    """Build each network that the nodes will train, without memory for it; fits are shared by so many workers.

    Raises `UserError` for one that can't be built or shared: now, and not after the hours of what comes before it.
    """
    import torch

    from chexseg.stages import fit

    nodes = list(nodes)
    for node in nodes:
        if node.stage == "fit" and workers > 1:
            fit.check_workers(STAGES["fit"].parse(node.config), workers, on_gpu)

    with torch.device("meta"):
        for node in {(node.stage, node.config.get("architecture")): node for node in nodes}.values():
            stage = STAGES[node.stage]
            if stage.has_network:
                stage.load().build(stage.parse(node.config))


def execute(node: Node, nodes: dict[str, Node], store: Store, data: Location, execution: Execution) -> tuple[Artifact, bool]:
    """The node's result, and whether it was computed now: it may be in the store by now. Inputs must be there.

    After a user's mistake nothing of it is left; after any other failure the partial directory stays for the next try.
    """
    with store.working_on(node) as partial:
        found = store.find(node.stage, node.key)
        if found:
            return found, False
        stage = STAGES[node.stage]
        artifacts = {}
        for role, key in node.inputs.items():
            artifact = store.find(nodes[key].stage, key)
            if artifact is None:
                raise RuntimeError(f"{node.stage}: its input {role} ({nodes[key].stage} {key[:12]}) is not in the store")
            artifacts[role] = artifact
        with _damage_dropped(store, artifacts.values(), DamagedError):
            inputs = {role: artifact.path for role, artifact in artifacts.items()}
        if node.data is not None:
            inputs["data"] = data
        store.salvage(node, partial)
        _begin(partial, artifacts)
        started = time.monotonic()
        try:
            with _damage_dropped(store, artifacts.values(), DamagedError, pa.ArrowException, OSError):
                facts = dict(stage.load().run(stage.parse(node.config), inputs, partial, execution))
            if node.data is not None and facts.get("data") != node.data:
                raise UserError(
                    f"data root {data}: what {node.label} has read isn't what this study was planned with; expected: data that"
                    " stays as it is during a run (hint: run again, to plan with the data of now)"
                )
        except UnreadableManifestError:  # of an input: no mistake in what has been made so far
            raise
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        where = {"device": execution.device, "threads": execution.threads}
        return store.commit(node, partial, facts, time.monotonic() - started, where), True


def _begin(partial: Path, inputs: Mapping[str, Artifact]) -> None:
    """Make a partial directory, or what is left in it fit to go on from."""
    made_from = json.dumps({role: artifact.manifest["files"] for role, artifact in inputs.items()}, sort_keys=True).encode()
    note = partial / INPUTS
    if note.is_file() and note.read_bytes() != made_from:  # an input was made again, with other last bits
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    note.write_bytes(made_from)
    # Of a process that was killed as it published: what the stage writes now would be compared with it.
    (partial / MANIFEST).unlink(missing_ok=True)


@contextmanager
def _damage_dropped(store: Store, artifacts: Iterable[Artifact], *signs: type[Exception]) -> Iterator[None]:
    """After an error that damaged inputs may have caused, delete what of them is damaged: the next run makes it again."""
    try:
        yield
    except signs as error:
        for artifact in artifacts:
            store.drop_damaged(artifact)
        raise RuntimeError(str(error)) from error

"""One node, from its inputs in the store to its result there. Knows stages and the store, not who calls it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from chexseg.data.remote_path import Location
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.plan.graph import Node
from chexseg.stages.api import StageContext
from chexseg.stages.registry import STAGES
from chexseg.store.manifest import MANIFEST, UnreadableManifestError
from chexseg.store.store import Artifact, Store

#: In a partial directory, the sizes and digests of the inputs that its files were made from.
INPUTS = ".inputs.json"


def execute(
    node: Node, nodes: dict[str, Node], store: Store, data: Location, context: StageContext
) -> tuple[Artifact, bool]:
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
                raise RuntimeError(
                    f"{node.stage}: its input {role} ({nodes[key].stage} {key[:12]}) is not in the store"
                )
            artifacts[role] = artifact
        with _damage_dropped(store, artifacts.values(), DamagedArtifactError):
            inputs = {role: artifact.path for role, artifact in artifacts.items()}
        if node.data is not None:
            inputs["data"] = data
        store.recover(node, partial)
        _begin(partial, artifacts)
        started = time.monotonic()
        try:
            with _damage_dropped(
                store, artifacts.values(), DamagedArtifactError, pa.ArrowException, OSError
            ):
                facts = dict(stage.load().run(stage.parse(node.config), inputs, partial, context))
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
        where = {"device": context.device, "threads": context.threads}
        return store.commit(node, partial, facts, time.monotonic() - started, where), True


def _begin(partial: Path, inputs: Mapping[str, Artifact]) -> None:
    """Make a partial directory, or what is left in it fit to go on from."""
    made_from = json.dumps(
        {role: artifact.manifest["files"] for role, artifact in inputs.items()}, sort_keys=True
    ).encode()
    note = partial / INPUTS
    if (
        note.is_file() and note.read_bytes() != made_from
    ):  # an input was made again, with other last bits
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    note.write_bytes(made_from)
    # Of a process that was killed as it published: what the stage writes now would be compared with it.
    (partial / MANIFEST).unlink(missing_ok=True)


@contextmanager
def _damage_dropped(
    store: Store, artifacts: Iterable[Artifact], *signs: type[Exception]
) -> Iterator[None]:
    """After an error that damaged inputs may have caused, delete what of them is damaged: the next run makes it again."""
    try:
        yield
    except signs as error:
        for artifact in artifacts:
            store.drop_damaged(artifact)
        raise RuntimeError(str(error)) from error

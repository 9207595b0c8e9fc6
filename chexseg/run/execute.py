"""Run one stage: read its inputs from the store, and commit its result there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from chexseg import code_version
from chexseg.code_version import CodeVersion
from chexseg.data.remote_path import Location
from chexseg.errors import DamagedArtifactError, UserError, naming, printable
from chexseg.plan.graph import Node
from chexseg.stages import artifacts
from chexseg.stages.api import StageContext
from chexseg.stages.registry import STAGES
from chexseg.store import links
from chexseg.store.manifest import INPUTS, MANIFEST, is_noted, note_digest, read_unfinished
from chexseg.store.store import Artifact, Store


def execute(
    node: Node,
    nodes: Mapping[str, Node],
    store: Store,
    data: Location,
    context: StageContext,
    code: CodeVersion | None = None,
) -> tuple[Artifact, bool]:
    """Return the node's result, and whether it was computed now. Its inputs must be in the store.

    code: the version that this process must have imported.
    The partial directory is deleted if an input changed while the stage ran, and after a
    `UserError` of a stage that reads raw data. After any other failure it stays for the next try.
    """
    with store.working_on(node) as partial:
        if result := store.find(node.stage, node.key):
            return result, False
        stage = STAGES[node.stage]
        inputs = _find_inputs(node, nodes, store)
        with _damage_deleted(store, inputs):
            paths: dict[str, Location] = {role: artifact.path for role, artifact in inputs.items()}
        if node.data is not None:
            paths["data"] = data
        made_from = json.dumps(
            {role: artifact.manifest["files"] for role, artifact in inputs.items()}, sort_keys=True
        )
        digest = hashlib.sha256(made_from.encode()).hexdigest()
        identity = f"{node.key} {made_from}"
        _remove_foreign(partial, identity)
        recovered = store.recover(node, partial, digest)
        _prepare(partial, identity, recovered)
        started = time.monotonic()
        with _damage_deleted(store, inputs), _inputs_unchanged(node, nodes, store, inputs, partial):
            try:
                run = stage.load().run
                if code is not None:  # the sources may have changed before they were imported
                    code_version.require(code)
                with _code_unchanged(code, partial), naming(partial):
                    facts = dict(run(stage.parse(node.config), paths, partial, context))
                if node.data is not None and facts.get("data") != node.data:
                    raise UserError(
                        f"data root {data}: found other data in {node.label} than this study was"
                        " planned with; expected: data that doesn't change during a run;"
                        " hint: run again, which plans with the current data"
                    )
            except UserError:
                # Files made from other data must go. Otherwise the work so far is valid: an input
                # may be unreadable just now, or a worker may have imported other code.
                if node.data is not None or _is_empty(partial):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
        # A damaged note must not make a training of days fail, at its end and each time.
        noted = (read_unfinished(partial / artifacts.GPU) or b"")[:1000].decode(errors="replace")
        gpu = printable(noted) or context.gpu_name()
        execution = {
            "device": context.device,
            **({"gpu": gpu} if gpu else {}),
            "threads": context.threads,
            "inputs_sha256": digest,
        }
        return store.commit(node, partial, facts, time.monotonic() - started, execution), True


def _find_inputs(node: Node, nodes: Mapping[str, Node], store: Store) -> dict[str, Artifact]:
    """Return role -> result of each input. Raises `RuntimeError` if one is missing."""
    artifacts = store.find_all(nodes[key] for key in node.inputs.values())
    for role, key in node.inputs.items():
        if key not in artifacts:
            raise RuntimeError(
                f"{node.stage}: input {role} ({nodes[key].stage} {key[:12]}) is not in the store"
            )
    return {role: artifacts[key] for role, key in node.inputs.items()}


def _remove_foreign(partial: Path, identity: str) -> None:
    """Delete a partial directory of another stage run, or one that was made from other inputs.

    An input may have been computed again with other last bits. A directory without a note goes too.
    Raises `UserError` for a note that can't be read.
    """
    if partial.exists() and read_unfinished(partial / INPUTS) != identity.encode():
        shutil.rmtree(partial)


def _prepare(partial: Path, identity: str, recovered: Mapping[str, str]) -> None:
    """Create the partial directory, or make an existing one ready to be resumed.

    recovered: file -> SHA-256 of the files in it that are from a damaged result. Deletes the files
    in subdirectories that this stage run hasn't noted, such as another run's: whatever lies there
    at the end belongs to the result.
    """
    partial.mkdir(exist_ok=True)
    (partial / INPUTS).write_text(identity)
    for file, digest in recovered.items():
        note_digest(partial / file, digest)
    for parent, _, files in links.walk(partial):
        for path in (Path(parent, file) for file in files if not file.startswith(".")):
            if path.parent != partial and not is_noted(path):
                path.unlink()
    # Left by a process that was killed in `publish`: the stage's own reads would be checked by it.
    (partial / MANIFEST).unlink(missing_ok=True)


def _is_empty(partial: Path) -> bool:
    """Return whether a partial directory has no files but hidden ones."""
    return not any(path.is_file() for path in partial.rglob("[!.]*"))


@contextmanager
def _code_unchanged(code: CodeVersion | None, partial: Path) -> Iterator[None]:
    """Raise `UserError` if a module was imported during the context and the sources have changed.

    What was made may be of other code, so the partial directory is deleted.
    """
    modules = code_version.loaded()
    try:
        yield
    finally:
        if code is not None and code_version.loaded() != modules:
            try:
                code_version.require(code)
            except UserError:
                shutil.rmtree(partial, ignore_errors=True)
                raise


@contextmanager
def _damage_deleted(store: Store, inputs: Mapping[str, Artifact]) -> Iterator[None]:
    """Delete the damaged files of the inputs after an error that they may have caused.

    The next run computes these files again. The error becomes a `RuntimeError`.
    """
    try:
        yield
    except (DamagedArtifactError, pa.ArrowException, OSError) as error:
        for artifact in inputs.values():
            store.drop_damaged(artifact)
        raise RuntimeError(str(error)) from error


@contextmanager
def _inputs_unchanged(
    node: Node,
    nodes: Mapping[str, Node],
    store: Store,
    inputs: Mapping[str, Artifact],
    partial: Path,
) -> Iterator[None]:
    """Raise `DamagedArtifactError` if an input was deleted or replaced during the context.

    Another cell may delete the damaged files of a shared input, and another run may compute it
    again. A stage that reads at that time gets half of it, or two versions. The partial directory
    is deleted.
    """
    before, failure = _file_times(inputs), None
    try:
        yield
    except Exception as error:
        failure = error
    unchanged = False
    with suppress(FileNotFoundError, NotADirectoryError):
        unchanged = _file_times(inputs) == before
    if unchanged and failure is None:  # as the store has them now, which may be another copy
        artifacts = store.find_all(nodes[key] for key in node.inputs.values())
        unchanged = {key: artifact.manifest["files"] for key, artifact in artifacts.items()} == {
            key: inputs[role].manifest["files"] for role, key in node.inputs.items()
        }
    if not unchanged:
        shutil.rmtree(partial, ignore_errors=True)
        raise DamagedArtifactError(
            f"{node.stage}: an input was deleted or computed again while this stage ran;"
            " hint: run again"
        ) from failure
    if failure is not None:
        raise failure


def _file_times(inputs: Mapping[str, Artifact]) -> dict[Path, tuple[int, int]]:
    """Return path -> (size, last write) of the inputs' files on this host, manifests included.

    A result that was computed again has a new manifest, even if its files are the same. Raises
    `FileNotFoundError` for a missing file.
    """
    paths = [
        artifact.path / file
        for artifact in inputs.values()
        for file in (*artifact.manifest["files"], MANIFEST)
    ]
    statuses = {path: path.stat() for path in paths}
    return {path: (status.st_size, status.st_mtime_ns) for path, status in statuses.items()}

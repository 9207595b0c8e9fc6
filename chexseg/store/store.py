"""Artifacts by content. An artifact is a result if, and only if, its manifest is there and its files are as it says.

Layout: ``<stage>/<key>/`` with ``manifest.json``; ``.failed/<key>.json`` for the traceback of one that failed. A stage that is
killed finds its partial directory again and may go on from there; so may one whose result was damaged, with the files that
are whole. Where all this is kept, and how one worker at a time is seen to, is a back end's: `store.local_backend`, `store.object_backend`.
"""

from __future__ import annotations

import datetime
import functools
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import chexseg
from chexseg.errors import LeaseLostError, UserError
from chexseg.store import manifest as manifests
from chexseg.store.backend import FAILED, Backend, Entry, encode, unfinished
from chexseg.store.local_backend import Directory
from chexseg.store.manifest import MANIFEST, UnreadableManifestError
from chexseg.store.uris import parse

#: Results that are hashed at once.
READ_AT_ONCE = 8
#: The folders of a store, one a stage (stages.registry).
STAGE_FOLDERS = (
    "ingest",
    "classify",
    "pretrain",
    "moco",
    "imported",
    "saliency",
    "irnet",
    "fit",
    "distil",
    "score",
)
#: Packages whose versions can change a result.
PACKAGES = (
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "ray",
    "numpy",
    "scipy",
    "pillow",
    "pyarrow",
)


class StageRun(Protocol):
    """One run of one stage, as a store must know it (plan.graph.Node)."""

    @property
    def stage(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def inputs(self) -> Mapping[str, str]: ...
    @property
    def data(self) -> str | None: ...
    @property
    def key(self) -> str: ...


@dataclass(frozen=True)
class Artifact:
    """A finished result. name: in its store; place: for people. `path` may have to be fetched first, which is done once."""

    name: str
    place: str
    manifest: Mapping[str, Any]
    fetch: Callable[[], Path]

    @cached_property
    def path(self) -> Path:
        """The directory with its files on this host. Raises `DamagedArtifactError` where fetching finds them damaged."""
        return self.fetch()

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.manifest["facts"]


class Store:
    """Artifacts in a directory or an object store. Reading never creates anything there.

    place: a directory, or a URI that pyarrow's file systems know. Raises `UserError` for what can be neither.
    """

    def __init__(self, place: str | Path, backend: Backend | None = None):
        self.backend = backend or _backend(place)

    @property
    def uri(self) -> str:
        """What finds this store from anywhere on this host; it may hold credentials."""
        return self.backend.uri

    def __str__(self) -> str:
        return self.backend.title

    @property
    def root(self) -> Path:
        """Of a store in a directory."""
        return self.backend.root

    def path(self, stage: str, key: str) -> Path:
        """Where a result is, or would be, in a store in a directory."""
        return self.root / _name(stage, key)

    def find(self, stage: str, key: str) -> Artifact | None:
        """The result of a key, or None where it's missing or incomplete: a file gone, or of another size.

        key: all of it, or the first 20 digits, by which the result is named. Raises `UnreadableManifestError`.
        """
        name = _name(stage, key)
        return self._whole({name: key}).get(key)

    def find_all(self, nodes: Iterable[StageRun]) -> dict[str, Artifact]:
        """The results of nodes by key, those that `find` would find; few requests for many nodes."""
        return self._whole({_name(node.stage, node.key): node.key for node in nodes})

    def _whole(self, keys: Mapping[str, str]) -> dict[str, Artifact]:
        trees = self.backend.list_many(keys)
        found = self._manifests(trees).items()
        return {
            keys[name]: self._artifact(name, about)
            for name, about in found
            if _is_whole(keys[name], trees[name], about)
        }

    def _manifests(self, trees: Mapping[str, Mapping[str, Entry]]) -> dict[str, dict[str, Any]]:
        """Name -> manifest of the artifacts of which these are the files, where it's there.

        Raises `UnreadableManifestError`: taken for missing, days of work would be computed anew.
        """
        parsed = self._parsed(trees)
        for manifest in parsed.values():
            if isinstance(manifest, UnreadableManifestError):
                raise manifest
        return parsed

    def _parsed(self, trees: Mapping[str, Mapping[str, Entry]]) -> dict[str, Any]:
        """`_manifests`, with the error in place of a manifest that can't be read."""
        files = {
            f"{name}/{MANIFEST}": tree[MANIFEST] for name, tree in trees.items() if MANIFEST in tree
        }
        out: dict[str, Any] = {}
        for file, content in self.backend.read(files).items():
            try:
                manifest = manifests.parse(content, f"{self}/{file}")
            except UnreadableManifestError as error:
                manifest = error
            out[file.removesuffix(f"/{MANIFEST}")] = manifest
        return out

    def _artifact(self, name: str, manifest: Mapping[str, Any]) -> Artifact:
        return Artifact(
            name, f"{self}/{name}", manifest, lambda: self.backend.fetch(name, manifest)
        )

    def cached(self, nodes: Iterable[StageRun]) -> set[str]:
        """Keys of those nodes whose results are here."""
        return set(self.find_all(nodes))

    def scan(self, stage: str = "") -> dict[str, tuple[dict[str, Entry], Any]]:
        """Name -> files, manifest of all that's there, of one stage or of all, whole or not.

        The manifest is None where there is none, and an `UnreadableManifestError` where it can't be read.
        """
        trees = self._trees(stage)
        parsed = self._parsed(trees)
        return {name: (tree, parsed.get(name)) for name, tree in trees.items()}

    def _trees(self, stage: str) -> dict[str, dict[str, Entry]]:
        """Name -> files of all that's there, of one stage or of all, by name."""
        trees: dict[str, dict[str, Entry]] = {}
        # A directory may have others' folders beside the stages' (lost+found); of an object store one listing has it all.
        for top in STAGE_FOLDERS if self.backend.shared and not stage else (stage,):
            for file, entry in self.backend.tree(top).items():
                parts = f"{top}/{file}".lstrip("/").split("/")
                if parts[0] in STAGE_FOLDERS and len(parts) > 2:
                    trees.setdefault("/".join(parts[:2]), {})["/".join(parts[2:])] = entry
        return dict(sorted(trees.items()))

    def artifacts(self, stage: str = "") -> list[Artifact]:
        """Everything that is whole, of one stage or of all. Raises `UnreadableManifestError`."""
        trees = self._trees(stage)
        there = self._manifests(trees).items()
        return [
            self._artifact(name, about)
            for name, about in there
            if _is_whole(_short(name), trees[name], about)
        ]

    def manifests(self) -> list[Mapping[str, Any]]:
        """Of all that's there, whole or not."""
        return [manifest for _, manifest in self.scan().values() if isinstance(manifest, dict)]

    def in_progress(self, nodes: Iterable[StageRun]) -> set[str]:
        """Keys of those nodes that some process works on now."""
        names = self.backend.in_progress()
        return {
            node.key for node in nodes if names and unfinished(_name(node.stage, node.key)) in names
        }

    def write(self, name: str, document: Mapping[str, Any]) -> str:
        """Keep a JSON document beside the artifacts; its place, for people."""
        self.backend.write(name, encode(document))
        return f"{self}/{name}"

    def imported(self) -> dict[tuple[str, str], str]:
        """(kind, architecture) -> sha256 of the weights of every imported encoder; of several the one imported last.

        One that is damaged stays the last: its study waits for the same weights to be imported again. Raises
        `UnreadableManifestError`: what can't be read might be the last.
        """
        found = []
        for tree, manifest in self.scan("imported").values():
            if isinstance(manifest, UnreadableManifestError):
                raise manifest
            if manifest is not None:  # times are whole seconds; two imports can share one
                found.append((manifest["finished"], tree[MANIFEST].modified_ns, manifest["config"]))
        found.sort(key=lambda entry: entry[:2])
        return {(config["kind"], config["architecture"]): config["sha256"] for *_, config in found}

    def failure(self, key: str) -> Mapping[str, Any] | None:
        """What went wrong when a node last ran: error and traceback."""
        return self.failures([key]).get(key)

    def failures(self, keys: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """`failure` of many nodes, by key."""
        names = {f"{key[:20]}.json": key for key in keys}
        there = self.backend.tree(FAILED) if names else {}
        files = {f"{FAILED}/{name}": there[name] for name in names if name in there}
        out = {}
        try:
            contents = self.backend.read(files)
        except UserError:  # they are hints
            return out
        for file, content in contents.items():
            with suppress(ValueError, RecursionError):
                record = json.loads(content)
                if isinstance(record, dict) and all(
                    isinstance(record.get(part), str) for part in ("error", "traceback")
                ):
                    out[names[file.removeprefix(f"{FAILED}/")]] = record
        return out

    def record_failure(self, node: StageRun, error: str, traceback: str) -> None:
        about = {
            "stage": node.stage,
            "key": node.key,
            "error": error,
            "traceback": traceback,
            "time": _now(),
        }
        self.backend.write(f"{FAILED}/{node.key[:20]}.json", encode(about))

    def working_on(self, node: StageRun) -> AbstractContextManager[Path]:
        """The partial directory of a node, for this process alone; a process that dies keeps nobody waiting for ever."""
        return self.backend.exclusive(_name(node.stage, node.key))

    def recover(self, node: StageRun, partial: Path) -> None:
        """Make what is whole of a damaged result the partial directory, so that only the rest is computed again.

        To be called within `working_on`. A partial directory that is there already is newer, and stays as it is.
        """
        name = _name(node.stage, node.key)
        if partial.exists():
            return
        trees = self.backend.list_many([name])
        manifest = self._manifests(trees).get(name)
        if _is_whole(node.key, trees[name], manifest):
            return
        if manifest is not None and manifest["key"] == node.key:
            self.drop_damaged(self._artifact(name, manifest))
            self.backend.reopen(name, partial, manifest["files"])
            for file, entry in manifest["files"].items():
                if (partial / file).is_file():
                    manifests.note_digest(partial / file, entry["sha256"])

    def drop_damaged(self, artifact: Artifact) -> list[str]:
        """Delete the files of a result that aren't what its manifest says, and return their names.

        Without them the result is found no more.
        """
        # As it is now: another run may have made the result again, with other last bits.
        manifest = self._manifests(self.backend.list_many([artifact.name])).get(artifact.name)
        dropped = []
        for file, entry in manifest["files"].items() if manifest else ():
            if self.backend.sha256(f"{artifact.name}/{file}") not in (None, entry["sha256"]):
                self.backend.delete(f"{artifact.name}/{file}")
                dropped.append(f"{artifact.name}/{file}")
        for known in filter(None, (manifest, artifact.manifest)):
            self.backend.evict(artifact.name, known)
        return dropped

    def drop_damaged_scores(self, nodes: Iterable[StageRun]) -> list[str]:
        """Do so for the finished scores among some nodes: nothing reads these in a run, which would find the damage.

        Only of a store in a directory: an object store has checksums of its own, and reading all of it takes long.
        """
        if not self.backend.shared:
            return []
        scores = self.find_all(node for node in nodes if node.stage == "score").values()
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            return list(chain.from_iterable(pool.map(self.drop_damaged, scores)))

    def commit(
        self,
        node: StageRun,
        partial: Path,
        facts: Mapping[str, Any],
        seconds: float,
        where: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Make a partial directory a result: the manifest is written last, and all counts from then on.

        To be called within `working_on`. where: what the manifest should say of the execution (device, threads).
        Raises `LeaseLostError` if another process took this one for dead and hasn't finished the work; if it has, the result is its.
        """
        for stale in (
            partial / MANIFEST,
            *partial.rglob("*.writing"),
        ):  # of a writer that was killed
            stale.unlink(missing_ok=True)
        files = {
            path.relative_to(partial).as_posix(): {
                "size": path.stat().st_size,
                "sha256": _sha256(path),
            }
            for path in sorted(partial.rglob("*"))
            if path.is_file()
            and not path.is_symlink()
            and not _is_hidden(path.relative_to(partial))
        }
        document = {
            "key": node.key,
            "stage": node.stage,
            "version": node.version,
            "config": dict(node.config),
            "inputs": dict(node.inputs),
            "data": node.data,
            "files": files,
            "facts": dict(facts),
            "seconds": round(seconds, 3),
            "finished": _now(),
            "host": platform.node(),
            **(where or {}),
            "python": sys.version.split()[0],
            "packages": {"chexseg": chexseg.__version__, **_versions()},
        }
        manifest = manifests.seal(document)
        name = _name(node.stage, node.key)
        try:
            self.backend.publish(name, partial, manifest)
        except LeaseLostError:
            found = self.find(node.stage, node.key)
            if found is None:
                raise
            return found
        self.backend.delete(f"{FAILED}/{node.key[:20]}.json")
        return self._artifact(name, manifest)


def _backend(place: str | Path) -> Backend:
    given = parse(place)
    if isinstance(given, Path):
        return Directory(given)
    from chexseg.store.object_backend import Bucket

    return Bucket(given)


@functools.cache
def _versions() -> dict[str, str]:
    """Of `PACKAGES`, read once in a process: looking them up takes longer than all else that a manifest tells."""
    return {name: metadata.version(name) for name in PACKAGES}


def _name(stage: str, key: str) -> str:
    """What an artifact is called in its store."""
    return f"{stage}/{key[:20]}"


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _is_whole(key: str, tree: Mapping[str, Entry], manifest: Mapping[str, Any] | None) -> bool:
    """Whether a manifest is that of a key, or of one that begins so, and every file is there with its size."""
    if manifest is None or not manifest["key"].startswith(key):
        return False
    return all(
        file in tree and tree[file].size == entry["size"]
        for file, entry in manifest["files"].items()
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return manifests.sha256(file)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

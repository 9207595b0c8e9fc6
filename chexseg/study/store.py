"""Artifacts by content. An artifact is a result if, and only if, its manifest is there and its files are as it says.

Layout: ``<stage>/<key>/`` with ``manifest.json``; ``.failed/<key>.json`` for the traceback of one that failed. A stage that is
killed finds its partial directory again and may go on from there; so may one whose result was damaged, with the files that
are whole. Where all this is kept, and how one worker at a time is seen to, is a back end's: `study.directory`, `study.bucket`.
"""

from __future__ import annotations

import datetime
import functools
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import chexseg
from chexseg.object_store import parse
from chexseg.study.backend import FAILED, MANIFEST, Backend, Entry, LostError, digest, encode, unfinished
from chexseg.study.directory import Directory
from chexseg.study.plan import STAGES, Node

#: Packages whose versions can change a result.
PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "ray", "numpy", "scipy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Artifact:
    """A finished result. name: in its store; place: for people. `path` may have to be fetched first, which is done once."""

    name: str
    place: str
    manifest: Mapping[str, Any]
    fetch: Callable[[], Path]

    @cached_property
    def path(self) -> Path:
        """The directory with its files on this host. Raises `DamagedError` where fetching finds them damaged."""
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

        key: all of it, or the first 20 digits, by which the result is named.
        """
        name = _name(stage, key)
        return self._whole({name: key}).get(key)

    def find_all(self, nodes: Iterable[Node]) -> dict[str, Artifact]:
        """The results of nodes by key, those that `find` would find; few requests for many nodes."""
        return self._whole({_name(node.stage, node.key): node.key for node in nodes})

    def _whole(self, keys: Mapping[str, str]) -> dict[str, Artifact]:
        trees = self.backend.trees(keys)
        found = self._manifests(trees).items()
        return {keys[name]: self._artifact(name, about) for name, about in found if _is_whole(keys[name], trees[name], about)}

    def _manifests(self, trees: Mapping[str, Mapping[str, Entry]]) -> dict[str, Any]:
        """Name -> manifest of the artifacts of which these are the files, where it's there and JSON."""
        files = {f"{name}/{MANIFEST}": tree[MANIFEST] for name, tree in trees.items() if MANIFEST in tree}
        out = {}
        for file, content in self.backend.read(files).items():
            with suppress(ValueError):
                out[file.removesuffix(f"/{MANIFEST}")] = json.loads(content)
        return out

    def _artifact(self, name: str, manifest: Mapping[str, Any]) -> Artifact:
        return Artifact(name, f"{self}/{name}", manifest, lambda: self.backend.fetch(name, manifest))

    def cached(self, nodes: Iterable[Node]) -> set[str]:
        """Keys of those nodes whose results are here."""
        return set(self.find_all(nodes))

    def everything(self, stage: str = "") -> dict[str, tuple[dict[str, Entry], Any]]:
        """Name -> files, manifest (None: none that can be read) of all that's there, of one stage or of all, whole or not."""
        trees: dict[str, dict[str, Entry]] = {}
        for file, entry in self.backend.tree(stage).items():
            parts = f"{stage}/{file}".lstrip("/").split("/")
            if parts[0] in STAGES and len(parts) > 2:
                trees.setdefault("/".join(parts[:2]), {})["/".join(parts[2:])] = entry
        manifests = self._manifests(trees)
        return {name: (tree, manifests.get(name)) for name, tree in sorted(trees.items())}

    def artifacts(self, stage: str = "") -> list[Artifact]:
        """Everything that is whole, of one stage or of all."""
        there = self.everything(stage).items()
        return [self._artifact(name, about) for name, (tree, about) in there if _is_whole(_short(name), tree, about)]

    def manifests(self) -> list[Mapping[str, Any]]:
        """Of all that's there, whole or not."""
        return [manifest for _, manifest in self.everything().values() if isinstance(manifest, dict)]

    def busy(self, nodes: Iterable[Node]) -> set[str]:
        """Keys of those nodes that some process works on now."""
        names = self.backend.busy()
        return {node.key for node in nodes if names and unfinished(_name(node.stage, node.key)) in names}

    def write(self, name: str, document: Mapping[str, Any]) -> str:
        """Keep a JSON document beside the artifacts; its place, for people."""
        self.backend.write(name, encode(document))
        return f"{self}/{name}"

    def imported(self) -> dict[tuple[str, str], str]:
        """(kind, architecture) -> sha256 of the weights of every imported encoder; of several the one imported last."""
        found = [
            # Times are whole seconds; two imports can share one.
            (about["finished"], tree[MANIFEST].modified_ns, about["config"])
            for name, (tree, about) in self.everything("imported").items()
            if _is_whole(_short(name), tree, about)
        ]
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
        for file, content in self.backend.read(files).items():
            with suppress(ValueError):
                out[names[file.removeprefix(f"{FAILED}/")]] = json.loads(content)
        return out

    def record_failure(self, node: Node, error: str, traceback: str) -> None:
        about = {"stage": node.stage, "key": node.key, "error": error, "traceback": traceback, "time": _now()}
        self.backend.write(f"{FAILED}/{node.key[:20]}.json", encode(about))

    def working_on(self, node: Node) -> AbstractContextManager[Path]:
        """The partial directory of a node, for this process alone; a process that dies keeps nobody waiting for ever."""
        return self.backend.exclusive(_name(node.stage, node.key))

    def salvage(self, node: Node, partial: Path) -> None:
        """Make what is whole of a damaged result the partial directory, so that only the rest is computed again.

        To be called within `working_on`. A partial directory that is there already is newer, and stays as it is.
        """
        name = _name(node.stage, node.key)
        if partial.exists():
            return
        trees = self.backend.trees([name])
        manifest = self._manifests(trees).get(name)
        if _is_whole(node.key, trees[name], manifest):
            return
        try:
            known = manifest["key"] == node.key and all(entry["sha256"] for entry in manifest["files"].values())
        except (KeyError, TypeError, AttributeError):
            return
        if known:
            self.drop_damaged(self._artifact(name, manifest))
            self.backend.reclaim(name, partial)

    def drop_damaged(self, artifact: Artifact) -> None:
        """Delete the files of a result that aren't what its manifest says; without them it is found no more."""
        for file, entry in artifact.manifest["files"].items():
            if self.backend.sha256(f"{artifact.name}/{file}") not in (None, entry["sha256"]):
                self.backend.delete(f"{artifact.name}/{file}")
        self.backend.drop_copies(artifact.name, artifact.manifest)

    def commit(
        self, node: Node, partial: Path, facts: Mapping[str, Any], seconds: float, where: Mapping[str, Any] | None = None
    ) -> Artifact:
        """Make a partial directory a result: the manifest is written last, and all counts from then on.

        To be called within `working_on`. where: what the manifest should say of the execution (device, threads).
        Raises `LostError` if another process took this one for dead and hasn't finished the work; if it has, the result is its.
        """
        for stale in (partial / MANIFEST, *partial.rglob(".*"), *partial.rglob("*.writing")):  # of a writer that was killed
            stale.unlink(missing_ok=True)
        files = {
            path.relative_to(partial).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        manifest = {
            "key": node.key,
            "stage": node.stage,
            "version": STAGES[node.stage].VERSION,
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
        name = _name(node.stage, node.key)
        try:
            self.backend.publish(name, partial, manifest)
        except LostError:
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
    from chexseg.study.bucket import Bucket

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


def _is_whole(key: str, tree: Mapping[str, Entry], manifest: Any) -> bool:
    """Whether a manifest is that of a key, or of one that begins so, and every file is there with its size."""
    try:
        sizes = {file: entry["size"] for file, entry in manifest["files"].items()}
        return manifest["key"].startswith(key) and all(file in tree and tree[file].size == sizes[file] for file in sizes)
    except (KeyError, TypeError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return digest(file)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

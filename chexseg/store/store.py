"""Results of stages by key, in a directory or an object store.

Layout: ``<stage>/<first 20 digits of the key>/`` with the stage's files and ``manifest.json``;
``.failed/<key>.json`` with the traceback of a failed run. An artifact is a result if, and only if,
its manifest exists and its files match it.

A killed stage resumes from its partial directory, and a damaged result from its intact files.
Storage and locks are up to a backend: `local_backend` or `object_backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from chexseg.errors import LeaseLostError, UserError, printable
from chexseg.store import manifest as manifests
from chexseg.store.backend import (
    FAILED,
    STAGE_FOLDERS,
    Backend,
    Entry,
    encode,
    is_artifact,
    unfinished,
)
from chexseg.store.facts import Facts
from chexseg.store.local_backend import LocalBackend
from chexseg.store.manifest import MANIFEST, UnreadableManifestError
from chexseg.store.provenance import StageRun, describe, timestamp
from chexseg.store.uris import parse
from chexseg.untrusted import bounded_json

#: Results that are hashed concurrently.
READ_AT_ONCE = 8
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Artifact:
    """A finished result.

    name: in its store. place: its location in messages. fetch: returns `path`, copied if need be.
    """

    name: str
    place: str
    manifest: Mapping[str, Any]
    fetch: Callable[[], Path]

    @cached_property
    def path(self) -> Path:
        """Return the directory of this host that has the files.

        Raises `DamagedArtifactError` if a file has to be copied and is damaged.
        """
        return self.fetch()

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the figures of a result. Raises `UnreadableManifestError` for one it lacks."""
        return Facts(f"{self.place}/{MANIFEST}", self.manifest["facts"])


class Store:
    """Artifacts in a directory or an object store. Reading creates nothing there.

    place: a directory, or a URI that pyarrow's file systems support. Raises `UserError` for others.
    """

    def __init__(self, place: str | Path, backend: Backend | None = None):
        self.backend = backend or _backend(place)

    @property
    def uri(self) -> str:
        """Return the address of this store on this host; it may contain credentials."""
        return self.backend.uri

    def __str__(self) -> str:
        return self.backend.title

    def find(self, stage: str, key: str) -> Artifact | None:
        """Return the result of a key, or None if a file is missing or has another size.

        key: the whole key or its first 20 digits. Raises `UnreadableManifestError`.
        """
        name = _name(stage, key)
        return self._complete({name: key}).get(key)

    def find_all(self, nodes: Iterable[StageRun]) -> dict[str, Artifact]:
        """Return the results of `find` by key, with few requests for many nodes."""
        return self._complete({_name(node.stage, node.key): node.key for node in nodes})

    def _complete(self, keys: Mapping[str, str]) -> dict[str, Artifact]:
        trees = self.backend.list_many(keys)
        return {
            keys[name]: self._artifact(name, manifest)
            for name, manifest in self._manifests(trees).items()
            if _is_complete(keys[name], trees[name], manifest)
        }

    def _manifests(self, trees: Mapping[str, Mapping[str, Entry]]) -> dict[str, Manifest]:
        """Return name -> manifest, without artifacts that have none.

        Raises `UnreadableManifestError`: taken for missing, days of work would be computed anew.
        """
        manifests_by_name = {}
        for name, manifest in self._parsed(trees).items():
            if isinstance(manifest, UnreadableManifestError):
                raise manifest
            manifests_by_name[name] = manifest
        return manifests_by_name

    def _parsed(
        self, trees: Mapping[str, Mapping[str, Entry]]
    ) -> dict[str, Manifest | UnreadableManifestError]:
        """Return `_manifests`, with an error in place of a manifest that can't be read."""
        files = {
            f"{name}/{MANIFEST}": tree[MANIFEST]
            for name, tree in trees.items()
            if MANIFEST in tree and is_artifact(name)
        }
        parsed: dict[str, Manifest | UnreadableManifestError] = {}
        for file, content in self.backend.read(files).items():
            name = file.removesuffix(f"/{MANIFEST}")
            try:
                parsed[name] = manifests.parse(content, f"{self}/{file}")
            except UnreadableManifestError as error:
                parsed[name] = error
        return parsed

    def _artifact(self, name: str, manifest: Mapping[str, Any]) -> Artifact:
        return Artifact(
            name, f"{self}/{name}", manifest, lambda: self.backend.fetch(name, manifest)
        )

    def cached(self, nodes: Iterable[StageRun]) -> set[str]:
        """Return the keys of the nodes that have a result here."""
        return set(self.find_all(nodes))

    def scan(
        self, stage: str = ""
    ) -> dict[str, tuple[dict[str, Entry], Manifest | UnreadableManifestError | None]]:
        """Return name -> (files, manifest) of all folders of one stage or of all, complete or not.

        The manifest is None if missing, and an `UnreadableManifestError` if it can't be read.
        """
        trees = self._trees(stage)
        parsed = self._parsed(trees)
        return {name: (tree, parsed.get(name)) for name, tree in trees.items()}

    def _trees(self, stage: str) -> dict[str, dict[str, Entry]]:
        """Return name -> files of all folders of one stage or of all, sorted by name."""
        trees: dict[str, dict[str, Entry]] = {}
        # A directory may contain unrelated folders (lost+found). An object store needs one listing.
        for top in STAGE_FOLDERS if self.backend.shared and not stage else (stage,):
            for file, entry in self.backend.tree(top).items():
                parts = f"{top}/{file}".lstrip("/").split("/")
                if parts[0] in STAGE_FOLDERS and len(parts) > 2:
                    trees.setdefault("/".join(parts[:2]), {})["/".join(parts[2:])] = entry
        return dict(sorted(trees.items()))

    def artifacts(self, stage: str = "") -> list[Artifact]:
        """Return all results of one stage or of all. Raises `UnreadableManifestError`."""
        trees = self._trees(stage)
        return [
            self._artifact(name, manifest)
            for name, manifest in self._manifests(trees).items()
            if _is_complete(name.rpartition("/")[2], trees[name], manifest)
        ]

    def manifests(self) -> list[Mapping[str, Any]]:
        """Return all manifests that can be read, those of incomplete results included."""
        return [manifest for _, manifest in self.scan().values() if isinstance(manifest, dict)]

    def in_progress(self, nodes: Iterable[StageRun]) -> set[str]:
        """Return the keys of the nodes that a process is computing now."""
        names = self.backend.in_progress()
        return {
            node.key for node in nodes if names and unfinished(_name(node.stage, node.key)) in names
        }

    def write(self, name: str, document: Mapping[str, Any]) -> str:
        """Write a JSON document beside the artifacts, and return its location for messages."""
        self.backend.write(name, encode(document))
        return f"{self}/{name}"

    def imported(self) -> dict[tuple[str, str], str]:
        """Return (kind, architecture) -> SHA-256 of the weights of the encoder imported last.

        Raises `UnreadableManifestError`: an unreadable one might be the last. A damaged one stays
        the last: its study waits until the same weights are imported again.
        """
        imports = []
        for name, (tree, manifest) in self.scan("imported").items():
            if isinstance(manifest, UnreadableManifestError):
                raise manifest
            if manifest is None:
                continue
            config = [manifest["config"].get(part) for part in ("kind", "architecture", "sha256")]
            if not all(isinstance(value, str) for value in config):
                raise UnreadableManifestError(
                    f"{self}/{name}/{MANIFEST}", f"config: found {manifest['config']!r:.60}"
                )
            # `finished` is in whole seconds, which two imports can share.
            imports.append((manifest["finished"], tree[MANIFEST].modified_ns, config))
        imports.sort(key=lambda entry: entry[:2])
        return {(kind, architecture): sha256 for *_, (kind, architecture, sha256) in imports}

    def failures(self, keys: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return key -> error and traceback of the last run, for those nodes whose run failed."""
        names = {f"{key[:20]}.json": key for key in keys}
        tree = self.backend.tree(FAILED) if names else {}
        files = {f"{FAILED}/{name}": tree[name] for name in names if name in tree}
        failures: dict[str, Mapping[str, Any]] = {}
        with suppress(UserError):  # these records are hints
            for file, content in self.backend.read(files).items():
                with suppress(ValueError, KeyError, TypeError):  # damaged
                    record = bounded_json.loads(content)
                    texts = {
                        field: printable(record[field], "\n\t") for field in ("error", "traceback")
                    }
                    failures[names[file.removeprefix(f"{FAILED}/")]] = record | texts
        return failures

    def record_failure(self, node: StageRun, error: str, traceback: str) -> None:
        """Write error and traceback of a node; `commit` deletes them."""
        record = {
            "stage": node.stage,
            "key": node.key,
            "error": error,
            "traceback": traceback,
            "time": timestamp(),
        }
        self.write(f"{FAILED}/{node.key[:20]}.json", record)

    def working_on(self, node: StageRun) -> AbstractContextManager[Path]:
        """Lock a node and yield its partial directory. The lock ends with the process."""
        return self.backend.exclusive(_name(node.stage, node.key))

    def recover(self, node: StageRun, partial: Path, inputs_sha256: str) -> dict[str, str]:
        """Move the intact files of a damaged result to the partial directory, to be reused.

        Returns file -> SHA-256. Nothing is reused if the result was made from other inputs, or by
        a version that didn't record `inputs_sha256`, or if a newer partial directory exists. Needs
        `working_on`.
        """
        name = _name(node.stage, node.key)
        trees = self.backend.list_many([name])
        manifest = None if partial.exists() else self._manifests(trees).get(name)
        if (
            manifest is None
            or manifest["key"] != node.key
            or manifest.get("inputs_sha256") != inputs_sha256
            or _is_complete(node.key, trees[name], manifest)
        ):
            return {}
        self.drop_damaged(self._artifact(name, manifest))
        self.backend.reopen(name, partial, manifest["files"])
        return {
            file: entry["sha256"]
            for file, entry in manifest["files"].items()
            if (partial / file).is_file()
        }

    def drop_damaged(self, artifact: Artifact) -> list[str]:
        """Delete the files of a result that differ from its manifest, and return their names.

        A result without them counts as missing.
        """
        # The manifest as it is now: another run may have computed the result again.
        manifest = self._manifests(self.backend.list_many([artifact.name])).get(artifact.name)
        dropped = []
        for file, entry in manifest["files"].items() if manifest else ():
            if self.backend.sha256(f"{artifact.name}/{file}") not in (None, entry["sha256"]):
                self.backend.delete(f"{artifact.name}/{file}")
                dropped.append(f"{artifact.name}/{file}")
        for version in filter(None, (manifest, artifact.manifest)):
            self.backend.evict(artifact.name, version)
        return dropped

    def drop_damaged_scores(self, nodes: Iterable[StageRun]) -> list[str]:
        """Apply `drop_damaged` to the finished scores: no stage reads these and finds the damage.

        Skipped on an object store, which has its own checksums and is slow to read as a whole.
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
        execution: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Turn a partial directory into a result: the manifest is written last. Needs `working_on`.

        execution: additional fields of the manifest (device, threads, inputs_sha256). If another
        process has taken over, returns its result; raises `LeaseLostError` if there is none yet.
        """
        manifest = describe(node, partial, facts, seconds, execution or {})
        name = _name(node.stage, node.key)
        try:
            self.backend.publish(name, partial, manifest)
        except LeaseLostError:
            artifact = self.find(node.stage, node.key)
            if artifact is None:
                raise
            return artifact
        self.backend.delete(f"{FAILED}/{node.key[:20]}.json")
        return self._artifact(name, manifest)


def _backend(place: str | Path) -> Backend:
    location = parse(place)
    if isinstance(location, Path):
        return LocalBackend(location)
    from chexseg.store.object_backend import ObjectBackend

    return ObjectBackend(location)


def _name(stage: str, key: str) -> str:
    return f"{stage}/{key[:20]}"


def _is_complete(key: str, tree: Mapping[str, Entry], manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest's key begins with `key` and all files exist with their sizes."""
    return manifest["key"].startswith(key) and all(
        file in tree and tree[file].size == entry["size"]
        for file, entry in manifest["files"].items()
    )

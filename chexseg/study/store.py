"""Artifacts by content. A directory is a result if, and only if, its manifest is there and its files are as it says.

Layout: ``<stage>/<key>/`` with ``manifest.json``; ``.partial/<stage>-<key>/`` while a stage runs; ``.failed/<key>.json`` for
the traceback of one that failed. A stage that is killed finds its partial directory again and may go on from there; so
may one whose result was damaged, with the files that are whole.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import chexseg
from chexseg.errors import UserError
from chexseg.study.plan import STAGES, Node

MANIFEST = "manifest.json"
#: Packages whose versions can change a result.
PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "ray", "numpy", "scipy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Artifact:
    """A finished result."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.manifest["facts"]


class Store:
    """Artifacts in a directory. Reading never creates anything."""

    def __init__(self, root: Path):
        self.root = Path(root)
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(root)):  # pathlib has made one slash of the two
            raise UserError(f"--store {root}: object stores come with a later version; allowed now: a directory")
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"--store {root}: is a file; allowed: a directory")

    def path(self, stage: str, key: str) -> Path:
        return self.root / stage / key[:20]

    def find(self, stage: str, key: str) -> Artifact | None:
        """The result of a key, or None where it's missing or incomplete: a file gone, or of another size."""
        path = self.path(stage, key)
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            whole = manifest["key"] == key and all(
                (path / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items()
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Artifact(path, manifest) if whole else None

    def cached(self, nodes: Iterable[Node]) -> set[str]:
        """Keys of those nodes whose results are here."""
        return {node.key for node in nodes if self.find(node.stage, node.key)}

    def artifacts(self) -> Iterator[Artifact]:
        """Everything that is whole."""
        for path in sorted(self.root.glob(f"[!.]*/*/{MANIFEST}")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                artifact = self.find(path.parent.parent.name, json.loads(path.read_text())["key"])
                if artifact:
                    yield artifact

    def imported(self) -> dict[tuple[str, str], str]:
        """(kind, architecture) -> sha256 of the weights of every imported encoder; of several the one imported last."""
        found = []
        for path in (self.root / "imported").glob(f"*/{MANIFEST}"):
            try:
                artifact = self.find("imported", json.loads(path.read_text())["key"])
                # Times are whole seconds; two imports can share one.
                order = artifact and (artifact.manifest["finished"], path.stat().st_mtime_ns)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if artifact:
                found.append((order, artifact.manifest["config"]))
        return {(c["kind"], c["architecture"]): c["sha256"] for _, c in sorted(found, key=lambda entry: entry[0])}

    def failure(self, key: str) -> Mapping[str, Any] | None:
        """What went wrong when a node last ran: error and traceback."""
        try:
            return json.loads((self.root / ".failed" / f"{key[:20]}.json").read_text())
        except (OSError, ValueError):
            return None

    def record_failure(self, node: Node, error: str, traceback: str) -> None:
        path = self.root / ".failed" / f"{node.key[:20]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, {"stage": node.stage, "key": node.key, "error": error, "traceback": traceback, "time": _now()})

    @contextmanager
    def working_on(self, node: Node) -> Iterator[Path]:
        """The partial directory of a node, for this process alone; a process that dies leaves no lock behind."""
        partial = self.root / ".partial" / f"{node.stage}-{node.key[:20]}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        path = partial.parent / f"{partial.name}.lock"
        while True:
            with path.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Whoever had the lock before took the file away; then this is a lock on nothing.
                try:
                    current = os.fstat(lock.fileno()).st_ino == path.stat().st_ino
                except FileNotFoundError:
                    current = False
                if current:
                    try:
                        yield partial
                    finally:
                        path.unlink(missing_ok=True)
                    return

    def salvage(self, node: Node, partial: Path) -> None:
        """Make what is whole of a damaged result the partial directory, so that only the rest is computed again.

        To be called within `working_on`. A partial directory that is there already is newer, and stays as it is.
        """
        path = self.path(node.stage, node.key)
        if partial.exists() or self.find(node.stage, node.key):
            return
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            known = manifest["key"] == node.key and all(entry["sha256"] for entry in manifest["files"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        if not known:
            return
        self.drop_damaged(Artifact(path, manifest))
        (path / MANIFEST).unlink()
        path.rename(partial)

    def drop_damaged(self, artifact: Artifact) -> None:
        """Delete the files of a result that aren't what its manifest says; without them it is found no more."""
        for name, entry in artifact.manifest["files"].items():
            file = artifact.path / name
            if file.is_file() and _sha256(file) != entry["sha256"]:
                file.unlink()

    def commit(
        self, node: Node, partial: Path, facts: Mapping[str, Any], seconds: float, where: Mapping[str, Any] | None = None
    ) -> Artifact:
        """Make a partial directory a result: the manifest is written last, then all becomes visible at once.

        where: what the manifest should say of the execution (device, threads).
        """
        for stale in (partial / MANIFEST, *partial.rglob(".*"), *partial.rglob("*.writing")):  # of a writer that was killed
            stale.unlink(missing_ok=True)
        files = {
            str(path.relative_to(partial)): {"size": path.stat().st_size, "sha256": _sha256(path)}
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
            "packages": {"chexseg": chexseg.__version__, **{name: metadata.version(name) for name in PACKAGES}},
        }
        _write(partial / MANIFEST, manifest)
        path = self.path(node.stage, node.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # incomplete, or it would have been found
            shutil.rmtree(path)
        partial.rename(path)
        (self.root / ".failed" / f"{node.key[:20]}.json").unlink(missing_ok=True)
        return Artifact(path, manifest)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """JSON to a temporary name, onto the disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(document, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

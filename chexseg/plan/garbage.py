"""Garbage collection: find what no study needs in a store, move it to the trash, and empty that.

Only partial directories, manifests and the files that they name are moved; other files are the
user's. Nothing is moved that a running study protects (`live_runs`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chexseg.errors import printable
from chexseg.plan.graph import Plan
from chexseg.store import live_runs
from chexseg.store.backend import FAILED, TRASH, is_artifact, new_collection
from chexseg.store.links import LinkError, walk
from chexseg.store.manifest import MANIFEST
from chexseg.store.store import Store

Progress = Callable[[int, int, str], None]
_COLLECTION = re.compile(r"\d{8}T\d{6}")


@dataclass(frozen=True)
class Waste:
    """The parts of an artifact that no study needs.

    why: finished or unfinished. files: paths below the artifact, the manifest last. bytes: size of
    the files and of the partial directory on this host.
    """

    name: str
    why: str
    bytes: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """The result of `survey`.

    kept: a line for everything that no study needs and that stays nevertheless. unrecorded: splits
    whose data the studies need, and from which no result of the store was made.
    """

    waste: list[Waste]
    kept: list[str]
    unrecorded: list[str]


def survey(
    store: Store, plans: Sequence[Plan], imported: bool = False, searched: bool = False
) -> Survey:
    """Return what none of these plans needs; imported encoders only with `imported`.

    searched: some plans are of searches. Unfinished fits stay then: if a search's journal is lost,
    its points are unknown.
    """
    needed = {f"{node.stage}/{key[:20]}" for plan in plans for key, node in plan.nodes.items()}
    contents, partials = store.scan(), _partials(store)
    manifests = _manifests(contents)
    protected = live_runs.protected(live_runs.live_runs(store), manifests, partials)
    waste: dict[str, Waste] = {}
    kept = []
    protected_waste: dict[str, list[str]] = {}

    def stays(name: str) -> bool:
        if name in needed or (name.startswith("imported/") and not imported):
            return True
        if name in protected:
            protected_waste.setdefault(protected[name], []).append(name)
        return name in protected

    for name, (tree, _) in contents.items():
        if stays(name):
            continue
        files = _named_files(name, tree, manifests.get(name))
        if others := sorted(tree.keys() - files):
            kept.append(f"{name}: {_few(others)}, which no manifest of chexseg names")
        if files:
            size = sum(tree[file].size for file in files)
            waste[name] = Waste(name, "finished", size, tuple(files))
    for path in store.backend.partials().values():
        if path not in partials.values():
            name = printable(path.name)
            kept.append(f".partial/{name}, which is no partial directory of chexseg")
    for name, path in partials.items():
        if searched and name.startswith("fit/") and name not in needed:
            kept.append(f".partial/{path.name}, which may be a point of a search")
        elif not stays(name):
            before = waste.get(name, Waste(name, "unfinished", 0))
            waste[name] = replace(before, bytes=before.bytes + _bytes(path))
    kept += [
        f"{_few(sorted({*names}))}, which the run of {title} holds"
        for title, names in protected_waste.items()
    ]
    return Survey(list(waste.values()), kept, _unrecorded(plans, manifests.values()))


def collect(store: Store, waste: Sequence[Waste], progress: Progress) -> tuple[str, list[str]]:
    """Move waste to the trash and delete its failure records.

    Returns the folder in the trash, and a line for everything that was kept because a run protects
    it by now. Runs that start in the meantime wait.
    """
    kept = []
    with live_runs.collecting(store) as runs:
        folder = new_collection(store.backend.tree)
        contents = store.scan() if any(run.searches for run in runs) else {}
        protected = live_runs.protected(runs, _manifests(contents), _partials(store))
        for done, item in enumerate(waste, 1):
            if item.name in protected:
                kept.append(f"{item.name}, which the run of {protected[item.name]} holds")
            else:
                try:
                    if store.backend.retire(item.name, item.files, folder):
                        store.backend.delete(f"{FAILED}/{item.name.rpartition('/')[2]}.json")
                    else:
                        kept.append(f"{item.name}, which a process is computing")
                except LinkError as error:
                    kept.append(f"{item.name}: {error}")
            progress(done, len(waste), "artifacts")
    return folder, kept


def collections(store: Store) -> dict[str, int]:
    """Return folder -> bytes of each collection in the trash."""
    sizes: dict[str, int] = {}
    for file, entry in store.backend.tree(TRASH).items():
        collection = file.partition("/")[0]
        sizes[collection] = sizes.get(collection, 0) + entry.size
    if not store.backend.shared:  # unfinished work is on this host
        for path in (store.backend.local / TRASH).glob("*"):
            sizes[path.name] = sizes.get(path.name, 0) + _bytes(path)
    return {
        f"{TRASH}/{name}": size
        for name, size in sorted(sizes.items())
        if _COLLECTION.fullmatch(name)
    }


def empty_trash(store: Store, folders: Iterable[str]) -> None:
    """Delete these folders of the trash for good."""
    for folder in folders:
        store.backend.delete_all(folder)


def _manifests(contents: Mapping[str, tuple[Any, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return name -> manifest from `Store.scan`, without those that are missing or unreadable."""
    return {
        name: manifest for name, (_, manifest) in contents.items() if isinstance(manifest, dict)
    }


def _partials(store: Store) -> dict[str, Path]:
    """Return name of the artifact -> partial directory of chexseg on this host."""
    return {
        name: path
        for directory, path in store.backend.partials().items()
        if is_artifact(name := directory.replace("-", "/"))
    }


def _named_files(name: str, tree: Collection[str], manifest: Mapping[str, Any] | None) -> list[str]:
    """Return the files of an artifact that its manifest names, then the manifest.

    Returns none if the manifest is missing or another artifact's.
    """
    stage, _, short = name.partition("/")
    if manifest is None or manifest["stage"] != stage or not manifest["key"].startswith(short):
        return []
    return [*(file for file in manifest["files"] if file in tree), MANIFEST]


def _unrecorded(plans: Sequence[Plan], manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    recorded = {manifest["data"] for manifest in manifests}
    read = {node.data for plan in plans for node in plan.needed(()) if node.data}
    return sorted(
        {split for plan in plans for split, data in plan.data.items() if data in read - recorded}
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _bytes(directory: Path) -> int:
    """Return the size of all files below a directory. Links aren't followed."""
    return sum(
        os.lstat(os.path.join(folder, file)).st_size
        for folder, _, files in walk(directory)
        for file in files
    )

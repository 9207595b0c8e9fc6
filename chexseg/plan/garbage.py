"""Find what no study needs of a store, move it to the trash, and empty that.

Only files that a manifest names are moved, with the manifest, and partial directories. Whatever else lies in a store is
somebody's own. Nothing is moved that a running study holds (`live_runs`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chexseg.plan.graph import Plan
from chexseg.stages.registry import STAGES
from chexseg.store import live_runs
from chexseg.store.backend import FAILED, TRASH, now
from chexseg.store.links import LinkError
from chexseg.store.manifest import MANIFEST
from chexseg.store.store import Store

Progress = Callable[[int, int, str], None]
_COLLECTION = re.compile(r"\d{8}T\d{6}")
_SHORT_KEY = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class Waste:
    """What no study needs of an artifact. files: below it, the manifest last. bytes: also of what is unfinished on this host.

    why: for people.
    """

    name: str
    why: str
    bytes: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """kept: a line for everything that no study needs and that stays all the same.

    unrecorded: splits whose data the studies need, and which no result of the store was made from.
    """

    waste: list[Waste]
    kept: list[str]
    unrecorded: list[str]


def survey(
    store: Store, plans: Sequence[Plan], imported: bool = False, searched: bool = False
) -> Survey:
    """Find what none of these plans needs; imported encoders only with `imported`.

    searched: some plans are of searches. If a search's journal is lost, nothing tells its unfinished fits from others'.
    """
    needed = {f"{node.stage}/{key[:20]}" for plan in plans for key, node in plan.nodes.items()}
    everything = store.scan()
    manifests = {
        name: manifest for name, (_, manifest) in everything.items() if isinstance(manifest, dict)
    }
    held = live_runs.held(live_runs.live_runs(store), manifests, _partials(store))
    waste: dict[str, Waste] = {}
    kept = []
    held_waste: dict[str, list[str]] = {}

    def stays(name: str) -> bool:
        if name in needed or (name.startswith("imported/") and not imported):
            return True
        if name in held:
            held_waste.setdefault(held[name], []).append(name)
        return name in held

    for name, (tree, _) in everything.items():
        if stays(name):
            continue
        files = _our_files(name, tree, manifests.get(name))
        if unknown := sorted(tree.keys() - files):
            kept.append(f"{name}: {_few(unknown)}, which no manifest of chexseg names")
        if files:
            waste[name] = Waste(
                name, "finished", sum(tree[file].size for file in files), tuple(files)
            )
    ours = _partials(store)
    for path in store.backend.partials().values():
        if path not in ours.values():
            kept.append(f".partial/{path.name}, which is no partial directory of chexseg")
    for name, path in ours.items():
        if searched and name.startswith("fit/") and name not in needed:
            kept.append(f".partial/{path.name}, which may be a point of a search")
        elif not stays(name):
            before = waste.get(name, Waste(name, "unfinished", 0))
            waste[name] = replace(before, bytes=before.bytes + _bytes(path))
    kept += [
        f"{_few(sorted({*names}))}, which the run of {title} holds"
        for title, names in held_waste.items()
    ]
    return Survey(list(waste.values()), kept, _unrecorded(plans, manifests.values()))


def collect(store: Store, waste: Sequence[Waste], progress: Progress) -> tuple[str, list[str]]:
    """Move waste to the trash, and forget its failures. Returns the folder of the trash, and a line for whatever was kept.

    Runs that start meanwhile wait. What a run holds by now is kept.
    """
    folder, kept = f"{TRASH}/{now()}", []
    with live_runs.collecting(store) as runs:
        everything = store.scan() if any(run.searches for run in runs) else {}
        manifests = {
            name: manifest
            for name, (_, manifest) in everything.items()
            if isinstance(manifest, dict)
        }
        held = live_runs.held(runs, manifests, _partials(store))
        for done, one in enumerate(waste, 1):
            if one.name in held:
                kept.append(f"{one.name}, which the run of {held[one.name]} holds")
            else:
                try:
                    if store.backend.retire(one.name, one.files, folder):
                        store.backend.delete(f"{FAILED}/{one.name.rpartition('/')[2]}.json")
                    else:
                        kept.append(f"{one.name}, on which someone works")
                except LinkError as error:
                    kept.append(f"{one.name}: {error}")
            progress(done, len(waste), "artifacts")
    return folder, kept


def collections(store: Store) -> dict[str, int]:
    """Folder -> bytes of each collection in the trash."""
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


def _partials(store: Store) -> dict[str, Path]:
    """Name of the artifact -> partial directory of chexseg on this host."""
    out = {}
    for partial, path in store.backend.partials().items():
        stage, _, short = partial.rpartition("-")
        if stage in STAGES and _SHORT_KEY.fullmatch(short):
            out[f"{stage}/{short}"] = path
    return out


def _our_files(name: str, tree: Collection[str], manifest: Mapping[str, Any] | None) -> list[str]:
    """Those files of an artifact that its manifest names, and the manifest last; none without a manifest of its own."""
    stage, _, short = name.partition("/")
    if manifest is None or manifest["stage"] != stage or not _SHORT_KEY.fullmatch(short):
        return []
    if not manifest["key"].startswith(short):
        return []
    return [*(file for file in manifest["files"] if file in tree), MANIFEST]


def _unrecorded(plans: Sequence[Plan], manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    recorded = {manifest["data"] for manifest in manifests if isinstance(manifest.get("data"), str)}
    read = {node.data for plan in plans for node in plan.needed(()) if node.data}
    return sorted(
        {split for plan in plans for split, data in plan.data.items() if data in read - recorded}
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())

"""List what a store holds, and check that it's whole. What of it nothing needs is for `garbage`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from chexseg.store.manifest import UnreadableManifestError
from chexseg.store.store import Store

Progress = Callable[[int, int, str], None]
#: Files that are read at once.
AT_ONCE = 8


@dataclass(frozen=True)
class Content:
    """One artifact. key: None without a readable manifest. bytes: of all its files. seconds: it took to compute. host: where.

    fault: why its manifest can't be read, or None.
    """

    name: str
    stage: str
    key: str | None
    bytes: int
    finished: str | None
    seconds: float | None
    host: str | None
    fault: str | None
    #: What its manifest says of its files: name -> size and sha256.
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def state(self) -> str:
        """finished, unreadable manifest or no manifest."""
        return "finished" if self.key else "unreadable manifest" if self.fault else "no manifest"

    def row(self) -> dict[str, Any]:
        """The object of ``store list --json``."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("name", "fault", "files")
        } | {"state": self.state}


def contents(store: Store) -> list[Content]:
    """Everything that lies where artifacts lie, by stage and then by age."""
    found = []
    for name, (tree, manifest) in store.scan().items():
        fault = str(manifest) if isinstance(manifest, UnreadableManifestError) else None
        parts = manifest if isinstance(manifest, dict) else {}
        size = sum(entry.size for entry in tree.values())
        told = [parts.get(part) for part in ("finished", "seconds", "host")]
        found.append(
            Content(
                name,
                name.partition("/")[0],
                parts.get("key"),
                size,
                *told,
                fault,
                parts.get("files", {}),
            )
        )
    return sorted(found, key=lambda content: (content.stage, content.finished or ""))


@dataclass(frozen=True)
class Verification:
    """damaged: one line a fault. unfinished: what has no manifest: being made, or left by a run that was killed."""

    artifacts: int
    files: int
    bytes: int
    damaged: list[str]
    unfinished: list[str]

    def text(self) -> str:
        lines = [f"damaged: {line}" for line in self.damaged]
        lines += [
            f"without a manifest (being made, or left by a run that was killed): {name}"
            for name in self.unfinished
        ]
        lines.append(
            f"{self.artifacts} artifacts, {self.files} files, {size(self.bytes)} read; {len(self.damaged)} damaged,"
            f" {len(self.unfinished)} without a manifest"
        )
        return "\n".join(lines)


def verify(store: Store, progress: Progress) -> Verification:
    """Read every file of every artifact, and compare its sha256 with the manifest's. progress: bytes done, of all, unit."""
    there = contents(store)
    finished = [content for content in there if content.key]
    total = sum(entry["size"] for content in finished for entry in content.files.values())
    damaged = [
        f"{content.name}: its manifest is of another key, {content.key[:20]}"
        for content in finished
        if content.name != f"{content.stage}/{content.key[:20]}"
    ]
    damaged += [content.fault for content in there if content.fault]
    files = {
        f"{content.name}/{file}": entry
        for content in finished
        for file, entry in content.files.items()
    }
    done = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (name, entry), sha256 in zip(
            files.items(), pool.map(store.backend.sha256, files), strict=True
        ):
            if sha256 != entry["sha256"]:
                damaged.append(
                    f"{name}: {'gone' if sha256 is None else 'not what its manifest says'}"
                )
            done += entry["size"]
            progress(done, total, "bytes")
    left = [content.name for content in there if content.state == "no manifest"] + [
        str(path) for path in store.backend.partials().values()
    ]
    return Verification(len(finished), len(files), done, damaged, left)


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{count} B"
        value /= 1000
    return f"{value:.3g} TB"


def table(rows: Iterable[Content]) -> str:
    """The lines of ``store list``."""
    lines = [f"{'stage':<10} {'key':<20} {'size':>8} {'seconds':>8} {'finished':<25} host"]
    total = 0
    for row in rows:
        total += row.bytes
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        key = row.name.partition("/")[2]
        lines.append(
            f"{row.stage:<10} {key:<20} {size(row.bytes):>8} {seconds:>8} {row.finished or row.state:<25} {row.host or ''}"
        )
    lines.append(f"{len(lines) - 1} artifacts, {size(total)}")
    return "\n".join(lines)

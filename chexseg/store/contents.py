"""Listing of a store's artifacts, and verification of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.filesize import decimal

from chexseg.errors import counted, printable
from chexseg.store.backend import is_artifact
from chexseg.store.manifest import UnreadableManifestError
from chexseg.store.store import Store

Progress = Callable[[int, int, str], None]
#: Files that are hashed concurrently.
AT_ONCE = 8


@dataclass(frozen=True)
class Content:
    """One artifact.

    key: None without a readable manifest. bytes: size of all its files. seconds: computing time.
    fault: why its manifest can't be read, or None. files: name -> size and sha256 in the manifest.
    """

    name: str
    stage: str
    key: str | None
    bytes: int
    finished: str | None
    seconds: float | None
    host: str | None
    fault: str | None
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def state(self) -> str:
        """Return finished, unreadable manifest or no manifest."""
        return "finished" if self.key else "unreadable manifest" if self.fault else "no manifest"

    def row(self) -> dict[str, Any]:
        """Return the object of ``store list --json``."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("name", "fault", "files")
        } | {"state": self.state}


def contents(store: Store) -> list[Content]:
    """Return all artifacts, complete or not, by stage and then by age.

    Folders whose names can't be an artifact's are left out.
    """
    artifacts = []
    for name, (tree, manifest) in store.scan().items():
        if not is_artifact(name):
            continue
        fields = manifest if isinstance(manifest, dict) else {}
        finished, host = (
            printable(fields[field]) if field in fields else None for field in ("finished", "host")
        )
        artifacts.append(
            Content(
                name=name,
                stage=name.partition("/")[0],
                key=fields.get("key"),
                bytes=sum(entry.size for entry in tree.values()),
                finished=finished,
                seconds=fields.get("seconds"),
                host=host,
                fault=str(manifest) if isinstance(manifest, UnreadableManifestError) else None,
                files=fields.get("files", {}),
            )
        )
    return sorted(artifacts, key=lambda content: (content.stage, content.finished or ""))


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    artifacts, files, bytes: number and size of what was read. damaged: one line for each fault.
    unfinished: names without a manifest.
    """

    artifacts: int
    files: int
    bytes: int
    damaged: list[str]
    unfinished: list[str]

    def text(self) -> str:
        """Return the lines of ``store verify``."""
        return "\n".join(
            [
                *(f"damaged: {line}" for line in self.damaged),
                *(
                    f"without a manifest (in progress, or left by a run that was killed): {name}"
                    for name in self.unfinished
                ),
                f"{counted(self.artifacts, 'artifact')}, {counted(self.files, 'file')},"
                f" {decimal(self.bytes)} read;"
                f" {len(self.damaged)} damaged, {len(self.unfinished)} without a manifest",
            ]
        )


def verify(store: Store, progress: Progress) -> Verification:
    """Read every file of every artifact and compare its SHA-256 with the manifest's.

    progress: called with bytes done, bytes in all, and the unit.
    """
    artifacts = contents(store)
    keys = {content.name: content.key for content in artifacts if content.key}
    damaged = [
        f"{name}: its manifest is of another key, {key[:20]}"
        for name, key in keys.items()
        if name.rpartition("/")[2] != key[:20]
    ]
    damaged += [content.fault for content in artifacts if content.fault]
    files = {
        f"{content.name}/{file}": entry
        for content in artifacts
        for file, entry in content.files.items()
    }
    done, total = 0, sum(entry["size"] for entry in files.values())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        digests = pool.map(store.backend.sha256, files)
        for (name, entry), sha256 in zip(files.items(), digests, strict=True):
            if sha256 != entry["sha256"]:
                fault = "gone" if sha256 is None else "not what its manifest says"
                damaged.append(f"{name}: {fault}")
            done += entry["size"]
            progress(done, total, "bytes")
    unfinished = [content.name for content in artifacts if content.state == "no manifest"] + [
        str(path) for path in store.backend.partials().values()
    ]
    return Verification(len(keys), len(files), done, damaged, unfinished)


def table(rows: Sequence[Content]) -> str:
    """Return the lines of ``store list``."""
    lines = [f"{'stage':<10} {'key':<20} {'size':>10} {'seconds':>8} {'finished':<25} host"]
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        key = row.name.partition("/")[2]
        lines.append(
            f"{row.stage:<10} {key:<20} {decimal(row.bytes):>10} {seconds:>8}"
            f" {row.finished or row.state:<25} {row.host or ''}"
        )
    lines.append(f"{len(rows)} artifacts, {decimal(sum(row.bytes for row in rows))}")
    return "\n".join(lines)

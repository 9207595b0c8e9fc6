"""The manifest of a new result: its files, and where, when and with what it was computed."""

from __future__ import annotations

import datetime
import functools
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import chexseg
from chexseg.errors import printable
from chexseg.store import manifest

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


@dataclass(frozen=True)
class StageRun:
    """One run of one stage. inputs: role -> key of a run. data: raw data's fingerprint."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    data: str | None
    key: str
    #: Version of the stage. Looking up a result doesn't need it.
    version: int = 0


def describe(
    node: StageRun,
    partial: Path,
    facts: Mapping[str, Any],
    seconds: float,
    execution: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the sealed manifest of the files in a partial directory, hidden ones left out.

    Deletes the leftovers of a writer that was killed. execution: additional fields.
    """
    for leftover in (partial / manifest.MANIFEST, *partial.rglob("*.writing")):
        leftover.unlink(missing_ok=True)
    files = {
        path.relative_to(partial).as_posix(): {
            "size": path.stat().st_size,
            "sha256": manifest.sha256_of(path),
        }
        for path in sorted(partial.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(partial).parts)
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
        "finished": timestamp(),
        "host": platform.node(),
        "cpu": _cpu(),
        **execution,
        "python": sys.version.split()[0],
        "packages": {"chexseg": chexseg.__version__, **_versions()},
    }
    return manifest.seal(document)


def timestamp() -> str:
    """Return the time (UTC) in ISO 8601, in whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@functools.cache
def _cpu() -> str:
    """Return the model of this machine's processor; without a name, its instruction set."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name" and model.strip():
                return printable(model.strip())
    return platform.processor() or platform.machine()


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of `PACKAGES`, cached: the lookup takes longer than the rest."""
    return {name: metadata.version(name) for name in PACKAGES}

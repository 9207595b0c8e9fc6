"""What can happen to a file."""

from __future__ import annotations

import csv
import ctypes
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file

from chexseg.store import manifest
from tests.damage.kinds import Kind
from tests.damage.place import Place


def truncated(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path, other: Path) -> None:
    """Change one bit in the middle; the size stays."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def deleted(path: Path, other: Path) -> None:
    path.unlink()


def unreadable(path: Path, other: Path) -> None:
    path.chmod(0)


def folder(path: Path, other: Path) -> None:
    """Put a folder with a file in the file's place."""
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / "file").write_bytes(content)


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def older(path: Path, other: Path) -> None:
    """Write what an earlier version without one of its fields would have written.

    The manifest of a result fits the file. A manifest is as before it had digests.
    """
    if path.name == manifest.MANIFEST:
        document = json.loads(path.read_bytes())
        for name in ("sha256", "inputs_sha256", "device", "threads", "cpu"):
            document.pop(name, None)
        path.write_text(json.dumps(document))
        return
    _SCHEMAS.get(path.suffix, _text_without_its_end)(path)
    directory = manifest.result_directory(path)
    if directory is not None:
        document = json.loads((directory / manifest.MANIFEST).read_bytes())
        document["files"][path.relative_to(directory).as_posix()] = {
            "size": path.stat().st_size,
            "sha256": manifest.sha256_of(path),
        }
        document.pop("sha256", None)
        (directory / manifest.MANIFEST).write_text(json.dumps(manifest.seal(document)))


def another(path: Path, other: Path) -> None:
    """Copy another artifact's file to the file's place, filled up or cut to the same size."""
    size, content = path.stat().st_size, other.read_bytes()
    path.write_bytes(content[:size].ljust(size, b" "))


def link(path: Path, other: Path) -> None:
    """Move the file to another place, and leave a symbolic link to it."""
    other.parent.mkdir(exist_ok=True)
    path.rename(other)
    path.symlink_to(other)


def _json_without_a_field(path: Path) -> None:
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        return _text_without_its_end(path)
    for fields in document if isinstance(document, list) else [document]:
        fields.pop(max(fields))
    path.write_text(json.dumps(document))


def _shard_without_a_column(path: Path) -> None:
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"chexseg"])
    column = table.column_names[-1]
    metadata["arrays"].pop(column, None)
    table = table.drop_columns([column])
    pq.write_table(table.replace_schema_metadata({b"chexseg": json.dumps(metadata)}), path)


def _weights_without_a_tensor(path: Path) -> None:
    weights = load_file(path)
    weights.pop(max(weights))
    save_file(weights, path)


def _csv_without_a_column(path: Path) -> None:
    rows = list(csv.reader(io.StringIO(path.read_text())))
    path.write_text("".join(",".join(row[:-1]) + "\n" for row in rows))


def _journal_without_a_field(path: Path) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record.pop(max(record))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _text_without_its_end(path: Path) -> None:
    """Drop the last 10 bytes, of files without fields."""
    os.truncate(path, max(0, path.stat().st_size - 10))


_SCHEMAS: dict[str, Callable[[Path], None]] = {
    ".json": _json_without_a_field,
    ".parquet": _shard_without_a_column,
    ".safetensors": _weights_without_a_tensor,
    ".csv": _csv_without_a_column,
    ".log": _journal_without_a_field,
}

OLDER = "older schema"
DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "truncated": truncated,
    "one bit flipped": flipped,
    "deleted": deleted,
    "unreadable": unreadable,
    "a folder": folder,
    "empty": empty,
    OLDER: older,
    "another file": another,
    "a link": link,
}


def damage(place: Place, kinds: Sequence[Kind], name: str) -> list[Path]:
    """Damage the files of these kinds, and return their paths."""
    paths = [kind.path(place) for kind in kinds]
    others = [kind.other(place) for kind in kinds]
    if name == "a link":
        others = [place.root / "elsewhere" / str(number) for number in range(len(kinds))]
    elif name == "another file":
        others = [Path(shutil.copy(other, place.aside / f"{n}")) for n, other in enumerate(others)]
    for path, other in zip(paths, others, strict=True):
        DAMAGES[name](path, other)
    return paths


# ---- files that root can't read ------------------------------------------------------------------

_HEADER = 0x20080522, 0  # version 3, of this thread
_READ_ANYTHING = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def modes_respected() -> Iterator[None]:
    """Let files' modes hold for this thread and those that it starts, also as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(*_HEADER), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    before = sets[0]
    sets[0] = before & ~_READ_ANYTHING
    libc.capset(header, sets)
    try:
        yield
    finally:
        sets[0] = before
        libc.capset(header, sets)

"""The lines of Optuna's journal, in a file or in an object: every complete record counts, whatever was torn beside it.

A disk that runs full tears a line, and older writers went on in that line. So a line may hold torn pieces and records.
The classes are back ends of `optuna.storages.JournalStorage`, which numbers the records.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from chexseg.errors import UserError, reason
from chexseg.store.backend import Backend, Entry
from chexseg.store.file_lock import locked
from chexseg.store.links import refuse_links, replacing

#: How every record begins.
START = '{"op_code"'
#: Optuna's operations.
OPERATIONS = range(11)
#: Seconds after a change until an object is put.
EVERY = 10.0
_DECODER = json.JSONDecoder()


def parse(content: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """(the records of some whole lines, the torn pieces beside them)."""
    records, torn = [], []
    for line in content.decode("utf-8", "replace").replace("\r", "").split("\n"):
        place = 0
        while place < len(line):
            try:
                record, end = _DECODER.raw_decode(line, place)
                if record["op_code"] not in OPERATIONS or not isinstance(record["worker_id"], str):
                    raise ValueError
                records.append(record)
            except (ValueError, KeyError, TypeError, IndexError):
                end = line.find(START, place + 1)
                end = len(line) if end < 0 else end
                torn.append(line[place:end])
            place = end
    return records, torn


def encode_records(records: Sequence[dict[str, Any]]) -> bytes:
    """The lines of some records."""
    return "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records).encode()


def count_torn(torn: int) -> str:
    """Return "1 torn line" and the like."""
    return f"{torn} torn line{'s' * (torn != 1)}"


class FileLines:
    """A journal in a file of a store in the directory `root`; any number of processes may read and append."""

    def __init__(self, root: Path, path: Path):
        self.root, self.path = root, path
        #: Torn pieces among what was read.
        self.torn = 0
        #: The file that was read, and how far: bytes and records.
        self._inode, self._offset, self._count = -1, 0, 0

    @property
    def title(self) -> str:
        """Where it is, for people."""
        return str(self.path)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        try:
            descriptor = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return []
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if (about.st_ino, log_number_from) != (
                self._inode,
                self._count,
            ) or about.st_size < self._offset:
                self._inode, self._offset, self._count, self.torn = about.st_ino, 0, 0, 0
            file.seek(self._offset)
            content = file.read()
        content = content[
            : content.rfind(b"\n") + 1
        ]  # another process may be in the middle of its line
        records, torn = parse(content)
        skipped = log_number_from - self._count
        self._offset, self._count, self.torn = (
            self._offset + len(content),
            self._count + len(records),
            self.torn + len(torn),
        )
        return records[skipped:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, on disk when this returns. Raises `UserError`, and appends nothing, where there is no room."""
        with self._locked():
            try:
                descriptor = self._open(os.O_RDWR | os.O_CREAT | os.O_APPEND)
                with os.fdopen(descriptor, "r+b", buffering=0) as file:
                    size = os.fstat(descriptor).st_size
                    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                    try:
                        _write_all(descriptor, b"\n" * torn + encode_records(logs))
                        os.fsync(descriptor)
                    except OSError:
                        file.truncate(size)
                        raise
            except OSError as error:
                raise UserError(
                    f"{self.path}: can't be written ({reason(error)}); hint: make room, then run the same command again"
                ) from None

    def set_torn_aside(self) -> str | None:
        """Move torn pieces to another file, so that Optuna's own tools can open the journal; a line that says so."""
        lock = self.path.with_name(
            f"{self.path.name}.lock"
        )  # Optuna's, which chexseg no longer uses
        if (
            lock.is_symlink() and not lock.exists()
        ):  # its process is dead, and waiting for it would never end
            lock.unlink(missing_ok=True)
        aside = self.path.with_name(f"{self.path.stem}.torn.log")
        with suppress(FileNotFoundError), self._locked():
            with os.fdopen(self._open(os.O_RDONLY), "rb") as file:
                content = file.read()
            records, torn = parse(content)
            if not torn:
                return None
            note = (
                f"{self.path}: {count_torn(len(torn))}; every complete line counts; the torn ones"
            )
            try:
                with os.fdopen(
                    self._open(os.O_WRONLY | os.O_CREAT | os.O_APPEND, aside), "wb"
                ) as file:
                    file.write("".join(f"{piece}\n" for piece in torn).encode())
                with replacing(self.path) as file:
                    file.write(encode_records(records))
            except OSError as error:
                return f"{note} stay there ({reason(error)})"
            return f"{note} are in {aside.name} now"
        return None

    def flush(self) -> None:
        """Return at once: every record is on disk already."""

    def _locked(self) -> Any:
        refuse_links(self.root, self.path)
        return locked(self.path.with_name(f"{self.path.stem}.flock"))

    def _open(self, flags: int, path: Path | None = None) -> int:
        refuse_links(self.root, path or self.path)
        return os.open(path or self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


class ObjectLines:
    """A journal in an object, which can only be put as a whole: a copy in memory for one writer at a time.

    The object is put `every` seconds after a change, and by `flush`.
    """

    def __init__(self, backend: Backend, name: str, every: float = EVERY):
        self.backend, self.name, self.every = backend, name, every
        self._entry = self._stored()
        content = backend.read({name: self._entry}) if self._entry else {}
        self._records, torn = parse(content.get(name, b""))
        self.torn = len(torn)
        self._changed, self._lock = False, threading.Lock()
        self._timer: threading.Timer | None = None

    @property
    def title(self) -> str:
        """Where it is, for people."""
        return f"{self.backend.title}/{self.name}"

    @property
    def exists(self) -> bool:
        """Whether the object was there."""
        return self._entry is not None

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._lock:
            self._records += json.loads(json.dumps(logs))  # as another process would read them
            self._changed = True
            if self._timer is None:
                self._timer = threading.Timer(self.every, self._put_later)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Put what has changed. Raises `UserError` where the store doesn't answer or another host has gone on."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self._changed:
                return
            if self._stored() != self._entry:
                raise UserError(
                    f"{self.backend.title}/{self.name}: another host has gone on with it;"
                    " hint: the same command goes on from there, with the results of both"
                )
            self.backend.write(self.name, encode_records(self._records))
            self._entry, self._changed = self._stored(), False

    def set_torn_aside(self) -> str | None:
        """Return a line that tells of torn pieces, which the next put leaves out."""
        return (
            f"{self.backend.title}/{self.name}: {count_torn(self.torn)}; every complete line counts"
            if self.torn
            else None
        )

    def _put_later(self) -> None:
        with self._lock:
            self._timer = None
        with suppress(UserError):  # the next change or the end of the run tries again
            self.flush()

    def _stored(self) -> Entry | None:
        folder, _, file = self.name.rpartition("/")
        return self.backend.tree(folder).get(file)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]

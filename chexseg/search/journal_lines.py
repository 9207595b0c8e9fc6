"""Read and append the lines of Optuna's journal, in a file or an object, also if some are torn.

A full disk tears a line, and older versions appended to the torn line. So a line may hold torn
pieces and complete records; every complete record counts. Both classes are back ends of
`optuna.storages.JournalStorage`, which numbers the records.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from chexseg.errors import UserError, counted, reason
from chexseg.store import file_lock, links
from chexseg.store.backend import Backend, Entry
from chexseg.untrusted import bounded_json

#: The first characters of every record.
START = '{"op_code"'
#: Optuna's operations.
OPERATIONS = range(11)
#: Seconds between a change and the next upload of an object.
UPLOAD_DELAY = 10.0
_DECODER = json.JSONDecoder(parse_int=bounded_json.integer)
#: A record begins after each split. No string in one contains its quotation marks unescaped.
_PIECES = re.compile(f"(?={re.escape(START)})")


def parse(content: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the complete records of whole lines, and the torn pieces between them."""
    records, torn = [], []
    for line in content.decode("utf-8", "replace").replace("\r", "").split("\n"):
        # Each piece is decoded on its own: the time of an error grows with the text before it.
        for piece in _PIECES.split(line):
            start = 0
            while start < len(piece):
                try:
                    record, start = _record(piece, start)
                    records.append(record)
                except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                    torn.append(piece[start:])
                    break
    return records, torn


def _record(text: str, start: int) -> tuple[dict[str, Any], int]:
    """Return the record at a position and its end; raise almost any exception if there is none."""
    record, end = _DECODER.raw_decode(text, start)
    if record["op_code"] not in OPERATIONS or not isinstance(record["worker_id"], str):
        raise ValueError
    bounded_json.check_levels(record)
    return record, end


def encode_records(records: Sequence[dict[str, Any]]) -> bytes:
    """Return records as lines."""
    return "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records).encode()


class FileLines:
    """A journal in a file below the store directory `root`, shared by any number of processes."""

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path = root, path
        #: Number of torn pieces that were read.
        self.torn = 0
        #: The file that was read, and the position in it: bytes and records.
        self._inode, self._offset, self._count = -1, 0, 0

    @property
    def title(self) -> str:
        """Return the journal's location, for people."""
        return str(self.path)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the records from this number on. Read only what was appended since."""
        try:
            descriptor = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return []
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            continued = (status.st_ino, log_number_from) == (self._inode, self._count)
            if not continued or status.st_size < self._offset:
                self._inode, self._offset, self._count, self.torn = status.st_ino, 0, 0, 0
            file.seek(self._offset)
            content = file.read()
        # Another process may be in the middle of writing the last line.
        content = content[: content.rfind(b"\n") + 1]
        records, torn = parse(content)
        skipped = log_number_from - self._count
        self._offset += len(content)
        self._count += len(records)
        self.torn += len(torn)
        return records[skipped:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records; they are on disk when this returns.

        Raises `UserError`, and appends nothing, if the disk is full.
        """
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
                    f"{self.path}: can't be written ({reason(error)});"
                    " hint: make room, then run the same command again"
                ) from None

    def set_torn_aside(self) -> str | None:
        """Move torn pieces to another file, so that Optuna's own tools can open the journal.

        Returns a line for people, or None if nothing was torn.
        """
        # Optuna's lock, which chexseg no longer uses. If it dangles, its process is dead, and
        # waiting for it would never end.
        lock = self.path.with_name(f"{self.path.name}.lock")
        links.refuse_links(self.root, self.path)
        if lock.is_symlink() and not lock.exists():
            lock.unlink(missing_ok=True)
        aside = self.path.with_name(f"{self.path.stem}.torn.log")
        with suppress(FileNotFoundError), self._locked():
            with os.fdopen(self._open(os.O_RDONLY), "rb") as file:
                records, torn = parse(file.read())
            if not torn:
                return None
            number = counted(len(torn), "torn line")
            note = f"{self.path}: {number}; every complete line counts; torn lines"
            try:
                with os.fdopen(
                    self._open(os.O_WRONLY | os.O_CREAT | os.O_APPEND, aside), "wb"
                ) as file:
                    file.write("".join(f"{piece}\n" for piece in torn).encode())
                with links.replacing(self.path) as file:
                    file.write(encode_records(records))
            except OSError as error:
                return f"{note} remain there ({reason(error)})"
            return f"{note} were moved to {aside.name}"
        return None

    def flush(self) -> None:
        """Do nothing: every record is on disk already."""

    def _locked(self) -> AbstractContextManager[Any]:
        links.refuse_links(self.root, self.path)
        return file_lock.locked(self.path.with_name(f"{self.path.stem}.flock"))

    def _open(self, flags: int, path: Path | None = None) -> int:
        links.refuse_links(self.root, path or self.path)
        try:
            descriptor = links.open_descriptor(path or self.path, flags | os.O_NOFOLLOW)
            try:
                links.check_size(descriptor, path or self.path)
            except OSError:
                os.close(descriptor)
                raise
            return descriptor
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(
                f"{path or self.path}: can't be opened ({reason(error)});"
                " expected: a file that this user can read and write"
            ) from None


class ObjectLines:
    """A journal in an object, which can only be replaced as a whole, for one writer at a time.

    Records are kept in memory. The object is uploaded `delay` seconds after a change, and by
    `flush`. Raises `UserError` if the store lists the object and then doesn't have it.
    """

    def __init__(self, backend: Backend, name: str, delay: float = UPLOAD_DELAY) -> None:
        self.backend, self.name, self.delay = backend, name, delay
        self._entry = self._stored()
        content = backend.read({name: self._entry}) if self._entry else {name: b""}
        if name not in content:  # `flush` would replace it by what comes now
            raise UserError(
                f"{self.title}: found in the store's list, but not to be read; expected both or"
                " neither; hint: run the same command again"
            )
        self._records, torn = parse(content[name])
        self.torn = len(torn)
        self._changed, self._lock = False, threading.Lock()
        self._timer: threading.Timer | None = None

    @property
    def title(self) -> str:
        """Return the journal's location, for people."""
        return f"{self.backend.title}/{self.name}"

    @property
    def exists(self) -> bool:
        """Return True if the object existed at the start."""
        return self._entry is not None

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._lock:
            self._records += json.loads(json.dumps(logs))  # as another process would read them
            self._changed = True
            if self._timer is None:
                self._timer = threading.Timer(self.delay, self._upload_later)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Upload the changes.

        Raises `UserError` if the store doesn't answer or another host has changed the object.
        """
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self._changed:
                return
            if self._stored() != self._entry:
                raise UserError(
                    f"{self.title}: another host has changed it;"
                    " hint: run the same command again, to resume with the results of both"
                )
            self.backend.write(self.name, encode_records(self._records))
            self._entry, self._changed = self._stored(), False

    def set_torn_aside(self) -> str | None:
        """Return a line about torn pieces, which the next upload leaves out; None without any."""
        note = f"{self.title}: {counted(self.torn, 'torn line')}; every complete line counts"
        return note if self.torn else None

    def _upload_later(self) -> None:
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

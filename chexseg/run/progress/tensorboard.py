"""Write the figures of running trainings as TensorBoard's scalars, and pass them to trackers."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexseg.errors import UserError
from chexseg.run.progress.trackers import Background
from chexseg.store.links import refuse_links

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

#: Figures of a training (`chexseg.progress.ProgressNote`) that are scalars.
FIGURES = ("loss", "accuracy", "selection mIoU")
#: Bytes of a folder's name; file systems allow 255.
_LONGEST_NAME = 200


class Scalars:
    """One folder of TensorBoard for each training; the steps are the samples that it has seen.

    A folder that can't be made, or a file that can't be written, doesn't stop the run: its training
    has no curves from then on.

    root: the store's directory on this host, below which no link is followed. folder: of all
    trainings of a run, relative to it. It is made with the first scalar; one that exists isn't used
    because links may wait in it. trackers: get the same figures, each at once.
    """

    trackers: Sequence[Background] = ()

    def __init__(self, root: Path, folder: str) -> None:
        self.root, self.folder = root, root / folder
        self._made = False
        #: None: its file can't be written.
        self._writers: dict[str, EventsWriter | None] = {}
        self._written: dict[str, Mapping[str, float]] = {}

    def add(self, name: str, done: int, note: Mapping[str, Any]) -> None:
        """Add the figures of a training that has seen `done` samples, if they have changed."""
        figures = {figure: note[figure] for figure in FIGURES if note.get(figure) is not None}
        if not figures or self._written.get(name) == figures:
            return
        self._written[name] = figures
        try:
            if name not in self._writers:
                self._writers[name] = self._opened(name)
            if writer := self._writers[name]:
                _write(writer, figures, done)
        except (OSError, UserError):
            # After a torn record nothing else in the file could be read.
            self._writers[name] = None
        for tracker in self.trackers:
            tracker.write(name, (done, figures))

    def end(self, name: str, failed: bool = False) -> None:
        """Close the files of a training."""
        for tracker in self.trackers if name in self._written else ():
            tracker.end(name, failed)
        self._close(name)

    def close(self) -> None:
        for name in list(self._writers):
            self._close(name)
        for tracker in self.trackers:
            tracker.close()

    def _close(self, name: str) -> None:
        self._written.pop(name, None)
        if writer := self._writers.pop(name, None):
            with suppress(OSError):
                writer.close()

    def _opened(self, name: str) -> EventsWriter:
        # Not SummaryWriter: its thread ends when the disk is full, and then adding to it, or
        # closing it, waits forever.
        from tensorboardX.event_file_writer import EventsWriter

        folder = self.folder / _folder_name(name)
        refuse_links(self.root, folder)
        if not self._made:
            self.folder.mkdir(parents=True)
            self._made = True
        folder.mkdir(exist_ok=True)
        return EventsWriter(os.fspath(folder / "events"))


def _write(writer: EventsWriter, figures: Mapping[str, float], step: int) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    for figure, value in figures.items():
        writer.write_event(
            Event(wall_time=time.time(), step=step, summary=scalar(figure, float(value)))
        )
    writer.flush()


def _folder_name(name: str) -> str:
    """Return a training's name as one path component; a long one ends in a digest."""
    component = name.replace("/", "_")
    if len(component.encode()) <= _LONGEST_NAME:
        return component
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    start = component.encode()[: _LONGEST_NAME - len(digest) - 1].decode(errors="ignore")
    return f"{start}-{digest}"

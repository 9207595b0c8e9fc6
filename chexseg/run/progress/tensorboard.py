"""Write the figures of running trainings as TensorBoard's scalars, and pass them to trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexseg.run.progress.trackers import Background

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

#: Figures of a training (`chexseg.progress.ProgressNote`) that are scalars.
FIGURES = ("loss", "accuracy", "selection mIoU")


class Scalars:
    """One folder of TensorBoard for each training; the steps are the samples that it has seen.

    folder: of all trainings of a run. It is made with the first scalar. trackers: get the same
    figures, each at once.
    """

    trackers: Sequence[Background] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, SummaryWriter] = {}
        self._written: dict[str, Mapping[str, float]] = {}

    def add(self, name: str, done: int, note: Mapping[str, Any]) -> None:
        """Add the figures of a training that has seen `done` samples, if they have changed."""
        figures = {figure: note[figure] for figure in FIGURES if note.get(figure) is not None}
        if not figures or self._written.get(name) == figures:
            return
        self._written[name] = figures
        for figure, value in figures.items():
            self._writer(name).add_scalar(figure, value, done)
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
            writer.close()

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            from tensorboardX import SummaryWriter  # a dependency of Ray Tune

            folder = self.folder / name.replace("/", "_")
            self._writers[name] = SummaryWriter(str(folder), flush_secs=5)
        return self._writers[name]

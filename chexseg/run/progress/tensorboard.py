"""Write the figures of running trainings as TensorBoard's scalars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

#: Figures of a training (`chexseg.progress.ProgressNote`) that are scalars.
FIGURES = ("loss", "accuracy", "selection mIoU")


class Scalars:
    """One folder of TensorBoard for each training; the steps are the samples that it has seen.

    folder: of all trainings of a run. It is made with the first scalar.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, SummaryWriter] = {}
        self._written: dict[str, int] = {}

    def add(self, name: str, done: int, note: Mapping[str, Any]) -> None:
        """Add the figures of a training that has seen `done` samples, once for each `done`."""
        figures = {figure: note[figure] for figure in FIGURES if note.get(figure) is not None}
        if not figures or self._written.get(name) == done:
            return
        self._written[name] = done
        for figure, value in figures.items():
            self._writer(name).add_scalar(figure, value, done)

    def end(self, name: str) -> None:
        """Close the files of a training."""
        self._written.pop(name, None)
        if writer := self._writers.pop(name, None):
            writer.close()

    def close(self) -> None:
        for name in list(self._writers):
            self.end(name)

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            from tensorboardX import SummaryWriter  # a dependency of Ray Tune

            folder = self.folder / name.replace("/", "_")
            self._writers[name] = SummaryWriter(str(folder), flush_secs=5)
        return self._writers[name]

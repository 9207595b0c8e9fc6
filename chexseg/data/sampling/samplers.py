"""Endless, seeded streams of training samples: resident on the device, or streamed.

Both return dictionaries of tensors with one row per sample. They reshuffle in each pass by a
generator derived from the seed and the number of the pass, never by the order in which Ray delivers
blocks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from chexseg.data.sampling import read_ahead
from chexseg.data.transfer import to_device
from chexseg.seeds import derive

Columns = Mapping[str, torch.Tensor]


class Source(Protocol):
    """An endless source of samples. `taken` counts those so far; `skip` omits some, to resume.

    length: number of samples of a pass.
    """

    length: int
    taken: int = 0

    def __len__(self) -> int:
        return self.length

    def take(self, count: int) -> dict[str, torch.Tensor]: ...

    def skip(self, count: int) -> None:
        self.taken += count

    def once(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield each row once, in batches of `size`, the last smaller; `take` isn't affected."""
        ...


class Resident(Source):
    """A set of tensors on the device, sorted by image id so that the order depends on the seed."""

    def __init__(self, columns: Columns, seed: int):
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"columns: found lengths {sorted(lengths)}; expected one length, at least 1"
            )
        self.columns, self.seed, self.length = dict(columns), seed, lengths.pop()
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def take(self, count: int) -> dict[str, torch.Tensor]:
        rows = np.empty(count, dtype=np.int64)
        for position in range(count):
            number, offset = divmod(self.taken + position, self.length)
            if number != self._pass:
                self._pass = number
                self._order = np.random.default_rng(derive(self.seed, "pass", number)).permutation(
                    self.length
                )
            rows[position] = self._order[offset]
        self.taken += count
        return self.at(rows)

    def at(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return these rows; `take` isn't affected."""
        index = to_device(torch.from_numpy(rows), next(iter(self.columns.values())).device)
        return {name: values[index] for name, values in self.columns.items()}

    def once(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, self.length, size):
            yield {name: values[start : start + size] for name, values in self.columns.items()}


class Streamed(Source):
    """A set too large for memory: `open_pass` yields each pass, shuffled in a buffer of rows.

    A thread reads ahead of `take` (`read_ahead`): the buffer and a few chunks of rows are in host
    memory. `taken` counts only what was taken.

    open_pass: number of the pass -> batches of arrays, `length` rows in total, in an order that
    depends only on that number. It is called in the thread.
    """

    def __init__(
        self,
        open_pass: read_ahead.OpenPass,
        length: int,
        seed: int,
        device: str | torch.device = "cpu",
        buffer: int = 4096,
    ):
        if length < 1:
            raise ValueError("length: found 0 rows; expected at least one row")
        self.open_pass, self.seed, self.device, self.buffer = open_pass, seed, device, buffer
        self.length = length
        self._reader: read_ahead.Reader | None = None
        self._stop: Callable[[], object] = lambda: None

    def skip(self, count: int) -> None:
        super().skip(count)
        if count:
            self._close()

    def take(self, count: int) -> dict[str, torch.Tensor]:
        if self._reader is None:
            rows = read_ahead.shuffled(
                self.open_pass, self.length, self.seed, self.buffer, skip=self.taken
            )
            self._reader = read_ahead.Reader(rows, self.device)
            self._stop = weakref.finalize(self, self._reader.stop)
        try:
            batch = self._reader.take(count)
        except BaseException:
            self._close()  # some of these rows are lost
            raise
        self.taken += count
        return batch

    def once(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        rows = _rows(self.open_pass(0))
        while batch := list(islice(rows, size)):
            yield {
                name: torch.from_numpy(np.stack([row[name] for row in batch])).to(self.device)
                for name in batch[0]
            }

    def _close(self) -> None:
        self._stop()
        self._reader = None


def _rows(batches: Iterator[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        names = list(batch)
        for values in zip(*(batch[name] for name in names), strict=True):
            # Copied, because a view would keep its whole batch in memory.
            yield {name: np.array(value) for name, value in zip(names, values, strict=True)}

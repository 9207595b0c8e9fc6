"""Endless, seeded streams of training samples: kept on the device where the set fits, from Ray Data where it doesn't.

Both give the same kind of thing, a dictionary of tensors with one row a sample, and reshuffle at every pass by a generator
derived from the seed and the number of the pass, never by the order in which Ray delivers blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from chexseg.seeds import derive

Columns = Mapping[str, torch.Tensor]


class Source(Protocol):
    """Samples without end. `taken` counts those given so far; `skip` moves on without giving any (resuming)."""

    taken: int

    def __len__(self) -> int: ...

    def take(self, count: int) -> dict[str, torch.Tensor]: ...

    def skip(self, count: int) -> None: ...

    def once(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        """Every row once, in batches of `size`, the last one smaller; what `take` gives next stays the same."""
        ...


class Resident:
    """A set that fits, as tensors on the device; its rows must be sorted by image id, so that the seed alone decides."""

    def __init__(self, columns: Columns, seed: int):
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"a source needs columns of one length, at least 1; found lengths {sorted(lengths)}"
            )
        self.columns, self.seed, self.taken = dict(columns), seed, 0
        self._length = lengths.pop()
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._length

    def skip(self, count: int) -> None:
        self.taken += count

    def take(self, count: int) -> dict[str, torch.Tensor]:
        rows = np.empty(count, dtype=np.int64)
        for position in range(count):
            number, offset = divmod(self.taken + position, self._length)
            if number != self._pass:
                self._pass = number
                self._order = np.random.default_rng(derive(self.seed, "pass", number)).permutation(
                    self._length
                )
            rows[position] = self._order[offset]
        self.taken += count
        index = torch.from_numpy(rows)
        return {name: values[index.to(values.device)] for name, values in self.columns.items()}

    def once(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, self._length, size):
            yield {name: values[start : start + size] for name, values in self.columns.items()}


class Streamed:
    """A set that doesn't fit: every pass comes anew from `open_pass` and through a shuffle buffer of `buffer` rows.

    open_pass: number of the pass -> batches of arrays, `length` rows in all, in an order that depends on that number alone.
    """

    def __init__(
        self,
        open_pass: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
        length: int,
        seed: int,
        device: str | torch.device = "cpu",
        buffer: int = 4096,
    ):
        if length < 1:
            raise ValueError("a streamed source needs at least one row")
        self.open_pass, self.seed, self.device, self.buffer = open_pass, seed, device, buffer
        self.taken, self._length = 0, length
        self._rows: Iterator[dict[str, np.ndarray]] | None = None

    def __len__(self) -> int:
        return self._length

    def skip(self, count: int) -> None:
        self.taken += count
        self._rows = None

    def take(self, count: int) -> dict[str, torch.Tensor]:
        if self._rows is None:
            number, offset = divmod(self.taken, self._length)  # whole passes are skipped unread
            self._rows = islice(self._shuffled(number), offset, None)
        rows = [next(self._rows) for _ in range(count)]
        self.taken += count
        return self._batch(rows)

    def once(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        rows = _rows(self.open_pass(0))
        while batch := list(islice(rows, size)):
            yield self._batch(batch)

    def _batch(self, rows: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(np.stack([row[name] for row in rows])).to(
                self.device, non_blocking=True
            )
            for name in rows[0]
        }

    def _shuffled(self, number: int) -> Iterator[dict[str, np.ndarray]]:
        while True:
            generator = np.random.default_rng(derive(self.seed, "pass", number))
            held: list[dict[str, np.ndarray]] = []
            given = 0
            for row in _rows(self.open_pass(number)):
                held.append(row)
                if len(held) > self.buffer:
                    given += 1
                    yield _pop(held, generator)
            while held:
                given += 1
                yield _pop(held, generator)
            if given != self._length:
                raise ValueError(
                    f"a streamed source gave {given} rows in pass {number}; allowed: {self._length}, its length"
                )
            number += 1


def _rows(batches: Iterator[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        names = list(batch)
        for values in zip(*(batch[name] for name in names), strict=True):
            # A view would keep its whole batch in memory for as long as the row is held.
            yield {name: np.array(value) for name, value in zip(names, values, strict=True)}


def _pop(
    held: list[dict[str, np.ndarray]], generator: np.random.Generator
) -> dict[str, np.ndarray]:
    chosen = int(generator.integers(len(held)))
    held[chosen], held[-1] = held[-1], held[chosen]
    return held.pop()

"""Read the shuffled rows of a streamed set ahead of training, in a thread and in pinned memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import prod
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np
import torch

from chexseg.seeds import derive

#: Number of a pass -> its batches of arrays.
OpenPass: TypeAlias = Callable[[int], Iterator[Mapping[str, np.ndarray]]]
#: Rows by column, and the positions of those that come next; valid until the next item.
Selected: TypeAlias = tuple[Mapping[str, np.ndarray], Sequence[int]]

#: A chunk holds as many rows as fit in `CHUNK_BYTES`, at most `CHUNK_ROWS` and at least one.
CHUNK_BYTES, CHUNK_ROWS = 16 * 2**20, 64
#: Chunks of a reader: one in use, one being copied to the GPU, one ready and one being filled.
CHUNKS = 4


def shuffled(
    open_pass: OpenPass, length: int, seed: int, buffer: int, skip: int = 0
) -> Generator[Selected, None, None]:
    """Yield the rows of all passes from row `skip` on, shuffled by a buffer of that many rows.

    Passes before that row aren't read. Each row that comes in beyond the buffer sends out one at
    random. Raises ValueError if a pass doesn't have `length` rows.
    """
    number, skip = divmod(skip, length)
    store: dict[str, np.ndarray] = {}
    free: list[int] = []
    while True:
        generator = np.random.default_rng(derive(seed, "pass", number))
        buffered: list[int] = []
        count = 0
        for piece in _pieces(open_pass(number)):
            rows = len(next(iter(piece.values())))
            count += rows
            if not store:
                store = _rows_like(piece, min(buffer, length) + CHUNK_ROWS)
                free = list(range(min(buffer, length) + CHUNK_ROWS))
            incoming, free = free[:rows], free[rows:]
            for name, values in piece.items():
                store[name][incoming] = values
            outgoing = []
            for position in incoming:
                buffered.append(position)
                if len(buffered) > buffer:
                    outgoing.append(_pop(buffered, generator))
            free += outgoing
            if outgoing[skip:]:
                yield store, outgoing[skip:]
            skip = max(0, skip - len(outgoing))
        outgoing = [_pop(buffered, generator) for _ in range(len(buffered))]
        free += outgoing
        if outgoing[skip:]:
            yield store, outgoing[skip:]
        skip = 0
        if count != length:
            raise ValueError(
                f"pass {number}: found {count} rows; expected {length}, the set's length"
            )
        number += 1


def _pieces(batches: Iterator[Mapping[str, np.ndarray]]) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the rows of the batches in pieces that aren't empty, of at most `CHUNK_ROWS` rows."""
    for batch in batches:
        (rows,) = {len(values) for values in batch.values()}
        for start in range(0, rows, CHUNK_ROWS):
            yield {name: values[start : start + CHUNK_ROWS] for name, values in batch.items()}


def _pop(buffered: list[int], generator: np.random.Generator) -> int:
    position = int(generator.integers(len(buffered)))
    buffered[position], buffered[-1] = buffered[-1], buffered[position]
    return buffered.pop()


def _rows_like(batch: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {name: np.empty((rows, *a.shape[1:]), a.dtype) for name, a in batch.items()}


@dataclass
class Chunk:
    """Consecutive rows in host memory.

    filled: rows that are set. copied: recorded after each copy to a GPU; None on a CPU.
    """

    columns: Mapping[str, torch.Tensor]
    copied: torch.cuda.Event | None
    filled: int = 0
    arrays: Mapping[str, np.ndarray] = field(init=False)  # the columns' memory

    def __post_init__(self) -> None:
        self.arrays = {name: values.numpy() for name, values in self.columns.items()}

    @property
    def rows(self) -> int:
        return len(next(iter(self.arrays.values())))

    @classmethod
    def like(cls, store: Mapping[str, np.ndarray], pinned: bool) -> Chunk:
        """Return an empty chunk for rows of this store."""
        row_bytes = sum(prod(values.shape[1:]) * values.itemsize for values in store.values())
        rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, row_bytes)))
        columns = {
            name: torch.empty(
                (rows, *values.shape[1:]),
                dtype=torch.from_numpy(values[:0]).dtype,
                pin_memory=pinned,
            )
            for name, values in store.items()
        }
        return cls(columns, torch.cuda.Event() if pinned else None)

    def add(self, store: Mapping[str, np.ndarray], positions: Sequence[int]) -> int:
        """Append the rows at these positions of the store that fit; return their number."""
        part = positions[: self.rows - self.filled]
        for name, values in store.items():
            out = self.arrays[name][self.filled : self.filled + len(part)]
            # The mode "raise" would copy the rows twice. No position is out of range.
            np.take(values, part, axis=0, out=out, mode="clip")
        self.filled += len(part)
        return len(part)


class Reader:
    """Takes rows from `selected`, which a thread reads a few chunks ahead.

    The thread copies rows to chunks by numpy, which lets other threads run meanwhile. It calls CUDA
    only before the first rows are ready, to allocate pinned memory: calls would spoil a CUDA graph
    that the caller captures. Call `stop` when no more rows are needed.
    """

    def __init__(self, selected: Generator[Selected, None, None], device: str | torch.device):
        self.device = torch.device(device)
        self._ready: SimpleQueue[Chunk | BaseException] = SimpleQueue()
        self._free: SimpleQueue[Chunk | None] = SimpleQueue()  # None: stop
        self._stopped = threading.Event()
        self._chunk: Chunk | None = None
        self._position = 0  # of the next row in the chunk
        self._copying: deque[Chunk] = deque()
        self.thread = threading.Thread(
            target=self._run, args=(selected,), name="read-ahead", daemon=True
        )
        self.thread.start()

    def stop(self) -> None:
        """Let the thread end once it has read the batch that it is reading; wait at most 1 s."""
        self._stopped.set()
        self._free.put(None)
        # The garbage collector may call this in the thread itself.
        if threading.current_thread() is not self.thread:
            self.thread.join(timeout=1)

    def take(self, count: int) -> dict[str, torch.Tensor]:
        """Return the next rows on the device; raises what the thread has raised after them.

        To a GPU they are copied on the current stream, without waiting for it.
        """
        batch: dict[str, torch.Tensor] = {}
        done = 0
        while done < count:
            chunk = self._chunk
            if chunk is None or self._position == chunk.filled:
                chunk = self._next_chunk()
            if not batch:
                batch = {
                    name: torch.empty(
                        (count, *values.shape[1:]), dtype=values.dtype, device=self.device
                    )
                    for name, values in chunk.columns.items()
                }
            rows = min(count - done, chunk.filled - self._position)
            for name, values in chunk.columns.items():
                batch[name][done : done + rows].copy_(
                    values[self._position : self._position + rows], non_blocking=True
                )
            if chunk.copied is not None:
                chunk.copied.record(torch.cuda.current_stream(self.device))
            self._position += rows
            done += rows
        return batch

    def _next_chunk(self) -> Chunk:
        if self._chunk is not None:
            self._copying.append(self._chunk)
            self._chunk = None
        # The copies from the last chunk may not be over. Waiting for those before takes no time.
        while self._copying and (len(self._copying) > 1 or self._copying[0].copied is None):
            used = self._copying.popleft()
            if used.copied is not None:
                used.copied.synchronize()
            self._free.put(used)
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        self._chunk, self._position = item, 0
        return item

    def _run(self, selected: Generator[Selected, None, None]) -> None:
        chunk: Chunk | None = None
        try:
            with closing(selected):
                for store, positions in selected:
                    if chunk is None:
                        for _ in range(CHUNKS):
                            self._free.put(Chunk.like(store, self.device.type == "cuda"))
                        chunk = self._empty_chunk()
                    while positions:
                        count = chunk.add(store, positions)
                        positions = positions[count:]
                        if chunk.filled == chunk.rows:
                            self._ready.put(chunk)
                            chunk = self._empty_chunk()
                    if self._stopped.is_set():
                        raise _Stopped
        except _Stopped:
            pass
        except BaseException as error:  # all of them are the caller's
            if chunk is not None and chunk.filled:
                self._ready.put(chunk)
            self._ready.put(error)

    def _empty_chunk(self) -> Chunk:
        chunk = self._free.get()
        if chunk is None:
            raise _Stopped
        chunk.filled = 0
        return chunk


class _Stopped(Exception):
    """No more rows are needed."""

"""Test samplers: each pass gives every sample once, and the seed alone decides the order."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count, islice
from time import monotonic, sleep

import numpy as np
import pytest
import torch

from chexseg.data.sampling import read_ahead
from chexseg.data.sampling.samplers import Resident, Source, Streamed
from chexseg.errors import DamagedArtifactError
from chexseg.seeds import derive

LENGTH = 23


def resident(seed: int) -> Resident:
    return Resident(
        {"row": torch.arange(LENGTH), "image": torch.arange(LENGTH * 4).reshape(LENGTH, 2, 2)}, seed
    )


def streamed(seed: int, batch: int = 5, buffer: int = 7) -> Streamed:
    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        order = np.random.default_rng([seed, number]).permutation(LENGTH)
        for start in range(0, LENGTH, batch):
            rows = order[start : start + batch]
            yield {"row": rows, "image": np.arange(LENGTH * 4).reshape(LENGTH, 2, 2)[rows]}

    return Streamed(open_pass, LENGTH, seed, buffer=buffer)


KINDS = [
    resident,
    streamed,
    lambda seed: streamed(seed, batch=1),
    lambda seed: streamed(seed, buffer=0),
    lambda seed: streamed(seed, buffer=1000),
]
Make = Callable[[int], Source]
each_kind = pytest.mark.parametrize("make", KINDS)


def rows(source: Source, *counts: int) -> list[int]:
    return [row for count in counts for row in source.take(count)["row"].tolist()]


@each_kind
def test_every_pass_gives_every_sample_once(make: Make):
    source = make(3)
    assert len(source) == LENGTH
    taken = rows(source, 10, 13, 1, 22, 5, 18)
    assert source.taken == len(taken) == 3 * LENGTH
    for number in range(3):
        assert sorted(taken[number * LENGTH : (number + 1) * LENGTH]) == list(range(LENGTH))


@each_kind
def test_columns_stay_together_and_keep_shape_and_type(make: Make):
    batch = make(0).take(9)
    assert batch["image"].shape == (9, 2, 2) and batch["image"].dtype == torch.int64
    assert torch.equal(batch["image"][:, 0, 0], batch["row"] * 4)


@each_kind
def test_the_seed_decides_and_passes_differ(make: Make):
    first = rows(make(1), 2 * LENGTH)
    assert first == rows(make(1), 2 * LENGTH) != rows(make(2), 2 * LENGTH)
    assert first[:LENGTH] != first[LENGTH:] and first[:LENGTH] != list(range(LENGTH))


@each_kind
def test_the_size_of_batches_does_not_matter(make: Make):
    assert rows(make(1), 2 * LENGTH) == rows(make(1), *[1] * LENGTH, 20, LENGTH - 20)


@each_kind
@pytest.mark.parametrize("skipped", [0, 1, 11, LENGTH, 2 * LENGTH + 4])
def test_skipping_is_taking_without_looking(make: Make, skipped: int):
    source, other = make(5), make(5)
    source.take(3), other.take(3)
    source.skip(skipped)
    if skipped:
        other.take(skipped)
    assert source.taken == other.taken == 3 + skipped
    assert rows(source, 30) == rows(other, 30)


@pytest.mark.parametrize("buffer", [0, 6, 1000])
def test_how_a_stream_is_cut_into_blocks_does_not_matter(buffer):
    expected = rows(streamed(4, 5, buffer), 2 * LENGTH)
    for batch in (1, 8, LENGTH):
        assert rows(streamed(4, batch, buffer), 2 * LENGTH) == expected


def test_a_stream_is_shuffled_within_its_buffer():
    source = Streamed(lambda number: iter([{"row": np.arange(100)}]), 100, 0, buffer=10)
    taken = rows(source, 100)
    assert sorted(taken) == list(range(100)) != taken
    assert all(
        row <= position + 10 for position, row in enumerate(taken)
    )  # nothing from beyond the buffer
    assert rows(source, 100) != taken  # the same blocks, another pass


def naive_rows(
    open_pass: read_ahead.OpenPass, seed: int, buffer: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of a stream one by one: a row beyond the buffer replaces a random one."""
    for number in count():
        generator = np.random.default_rng(derive(seed, "pass", number))
        buffered: list[dict[str, np.ndarray]] = []
        rows = [
            {name: values[row] for name, values in batch.items()}
            for batch in open_pass(number)
            for row in range(len(batch["row"]))
        ]
        for row in [*rows, *[None] * len(rows)]:
            if row is not None:
                buffered.append(row)
            if buffered and (row is None or len(buffered) > buffer):
                position = int(generator.integers(len(buffered)))
                buffered[position], buffered[-1] = buffered[-1], buffered[position]
                yield buffered.pop()


@pytest.mark.parametrize("length", [1, 5, 64, 300])
@pytest.mark.parametrize("buffer", [0, 7, 63, 64, 299, 1000])
def test_a_stream_has_the_rows_of_the_naive_one_in_its_order(length, buffer):
    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        order = np.random.default_rng(number).permutation(length)
        for start in range(0, length, 100):
            rows = order[start : start + 100]
            yield {"row": rows, "half": rows[:, None].astype(np.float16), "bool": rows % 2 == 0}

    source = Streamed(open_pass, length, 3, buffer=buffer)
    expected = naive_rows(open_pass, 3, buffer)
    for size in (1, 16, length, 70):
        batch = source.take(size)
        naive = list(islice(expected, size))
        for name, values in batch.items():
            wanted = np.stack([row[name] for row in naive])
            assert values.numpy().dtype == wanted.dtype and np.array_equal(values, wanted)


def test_a_stream_reads_ahead_no_further_than_its_chunks(monkeypatch):
    monkeypatch.setattr(read_ahead, "CHUNK_ROWS", 4)
    read = []

    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        for row in range(1000):
            read.append(row)
            yield {"row": np.array([row])}

    source = Streamed(open_pass, 1000, 0, buffer=10)
    for taken in (5, 100):
        source.take(taken)
        # The buffer, the chunks, and one row to find that all chunks are full.
        wait_for(lambda: len(read) >= source.taken + 10 + 4)
        assert len(read) <= source.taken + 10 + 4 * read_ahead.CHUNKS + 1


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        sleep(0.001)


def test_a_stream_holds_its_buffer_and_no_more():
    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        for _ in range(100):
            yield {"row": np.zeros((64, 10_000), dtype=np.uint8)}

    tracemalloc.start()
    try:
        Streamed(open_pass, 6400, 0, buffer=100).take(3000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A hundred rows, those that come in meanwhile, and two batches. PyTorch's memory isn't traced:
    # the chunks and what is taken. Views would keep dozens of batches alive.
    assert peak < 10_000 * (100 + 64 + 2 * 64 + 20)


def test_an_error_of_the_thread_comes_after_the_rows_before_it():
    failing = True

    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        yield {"row": np.arange(6)}
        if failing:
            raise DamagedArtifactError("part-00001.parquet: damaged")
        yield {"row": np.arange(6, 10)}

    source = Streamed(open_pass, 10, 0, buffer=1)
    before = rows(source, 5)
    for _ in range(2):
        with pytest.raises(DamagedArtifactError, match="part-00001.parquet: damaged"):
            source.take(1)
    assert source.taken == 5
    failing = False
    assert sorted(before + rows(source, 5)) == list(range(10))


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_the_thread_of_a_stream_ends_with_its_use():
    source, others = streamed(0), set(readers())
    assert set(readers()) == others  # it starts with the first batch
    source.take(3)
    (first,) = set(readers()) - others
    source.skip(0)
    assert set(readers()) - others == {first}
    source.skip(4)
    first.join(timeout=60)
    assert not first.is_alive()
    source.take(3)
    (second,) = set(readers()) - others
    del source
    second.join(timeout=60)
    assert not second.is_alive()


def test_a_stream_whose_pass_is_short_says_so():
    source = Streamed(lambda number: iter([{"row": np.arange(3)}]), 4, 0)
    with pytest.raises(ValueError, match="pass 0: found 3 rows; expected 4"):
        source.take(4)


def test_sources_without_samples_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Resident({"row": torch.arange(0)}, 0)
    with pytest.raises(ValueError, match="one length"):
        Resident({"row": torch.arange(3), "other": torch.arange(4)}, 0)
    with pytest.raises(ValueError, match="at least one row"):
        Streamed(lambda number: iter([]), 0, 0).take(1)

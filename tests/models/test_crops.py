"""Test crops of strips against loops over their pixels."""

from __future__ import annotations

from collections import Counter

import torch

from chexseg.models import crops


def test_crops_are_upright_squares_from_their_start_on():
    strips = torch.arange(3 * 4 * 8).reshape(3, 4, 8)
    starts, portrait = torch.tensor([0, 3, 4]), torch.tensor([False, True, False])
    squares = crops.squares(strips, starts, portrait)
    for n in range(3):
        for row in range(4):
            for column in range(4):
                short, long = (column, row) if portrait[n] else (row, column)
                assert squares[n, row, column] == strips[n, short, starts[n] + long]


def test_random_starts_reach_every_place_of_the_image_equally_often_and_no_other():
    lengths = torch.tensor([4, 6, 8]).repeat_interleave(3000)
    draws = crops.start_draws(len(lengths), torch.Generator().manual_seed(0))
    starts = crops.random_starts(lengths, 4, draws)
    for length, part in zip((4, 6, 8), starts.split(3000), strict=True):
        counts = Counter(part.tolist())
        assert set(counts) == set(range(length - 4 + 1))
        expected = 3000 / (length - 3)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())

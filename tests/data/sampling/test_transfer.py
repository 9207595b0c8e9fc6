"""Test copies between the host and a device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from chexseg.data.sampling import transfer


def test_results_reach_the_host_with_their_items():
    batches = [(number, {"a": torch.full((2,), number), "b": torch.ones(1)}) for number in range(3)]
    found = list(transfer.to_host(iter(batches)))
    assert [item for item, _ in found] == [0, 1, 2]
    for item, arrays in found:
        np.testing.assert_array_equal(arrays["a"], [item, item])
        np.testing.assert_array_equal(arrays["b"], [1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_results_of_a_gpu_come_once_the_next_batch_is_launched():
    launched = []

    def batches() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        for number in range(3):
            values = transfer.to_device(torch.full((1000,), number), "cuda")
            launched.append(number)
            yield number, {"a": values + 1}

    for item, arrays in transfer.to_host(batches()):
        assert len(launched) == min(3, item + 2)
        np.testing.assert_array_equal(arrays["a"], np.full(1000, item + 1))

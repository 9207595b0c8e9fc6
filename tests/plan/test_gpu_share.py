"""The number of cells that share a GPU with `resources.gpu: auto`."""

from __future__ import annotations

import pytest

from chexseg.config import study_file
from chexseg.plan import gpu_share

GIB = 2**30


def study(text: str):
    return study_file.parse(f"name: s\nresources: {{gpu: auto}}\n{text}", "s.yaml")


@pytest.mark.parametrize(
    ("text", "memory", "cells"),
    [
        ("", 80 * GIB, 2),
        ("execution: {graphs: off}", 80 * GIB, 4),
        ("execution: {graphs: off}", 13 * GIB, 3),
        ("", 8 * GIB, 2),
        ("", 7 * GIB, 1),
        ("", 2 * GIB, 1),
        ("", None, 2),
        ("settings: {size: 1280}", 80 * GIB, 1),
        ("axes: {fit.batch_size: [8, 256]}", 80 * GIB, 1),
    ],
)
def test_cells_on_a_gpu_are_as_many_as_are_fast_and_fit_into_its_memory(text, memory, cells):
    assert gpu_share.cells(study(text), memory) == cells


def test_a_study_gets_the_share_as_a_number_and_asks_for_the_memory_only_if_needed():
    def no_memory() -> int:
        raise AssertionError("not needed")

    assert gpu_share.resolved(study(""), lambda: 80 * GIB).resources.gpu == 0.5
    whole = study_file.parse("name: s\nresources: {gpu: auto, workers: 2}", "s.yaml")
    assert gpu_share.resolved(whole, no_memory).resources.gpu == 1
    given = study_file.parse("name: s\nresources: {gpu: 0.25}", "s.yaml")
    assert gpu_share.resolved(given, no_memory) is given

"""The GPU benchmark's dry run on the CPU, in which a fake stands in for CUDA graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Those with something to run on a CPU.
PARTS = ("inputs", "correctness", "steps", "upstream", "cells", "inference", "host")


@pytest.mark.slow
def test_a_dry_run_measures_every_part_and_nothing_fails(tmp_path):
    command = [ROOT / "benchmarks/gpu/run.sh", "--dry", "--out", tmp_path]
    ended = subprocess.run(
        [*command, "--parts", ",".join(PARTS)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    log = (tmp_path / "log.txt").read_text()
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}\n{log}"
    rows = (tmp_path / "table.md").read_text().splitlines()[2:]
    assert {row.split(" | ")[0] for row in rows} == {f"| {part}" for part in PARTS}
    assert not any(" | skipped" in row for row in rows)
    assert sum("the same bits" in row for row in rows) == 7

"""Test the readers of results' shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from chexseg.analysis.stored import stored_shards
from chexseg.data import chexlocalize, shards
from chexseg.stages.artifacts import PREDICTIONS
from chexseg.store import manifest
from tests.store.test_manifest import document


def commit(result: Path, mask_HW: np.ndarray) -> None:
    """Write a result with one predicted mask in place of an earlier one."""
    result.mkdir(parents=True, exist_ok=True)
    runs = chexlocalize.encode(mask_HW)["counts"]
    rows = {"image_id": ["a"], "pathology": ["Edema"], "counts": [runs]}
    shards.write(result / PREDICTIONS, shards.table(rows, {}, size=4))
    entry = {
        "size": (result / PREDICTIONS).stat().st_size,
        "sha256": manifest.sha256_of(result / PREDICTIONS),
    }
    sealed = manifest.seal(document(files={PREDICTIONS: entry}))
    (result / "new").write_text(json.dumps(sealed))
    (result / "new").replace(result / manifest.MANIFEST)


def test_a_result_that_is_computed_again_has_its_new_masks(tmp_path):
    """`study watch` showed those of the first look for as long as it lived."""
    result = tmp_path / "score" / ("a" * 20)
    for mask_HW in (np.eye(4, dtype=bool), ~np.eye(4, dtype=bool)):
        commit(result, mask_HW)
        (read_HW,) = stored_shards.predictions(result, "a", ("Edema",))
        assert np.array_equal(read_HW, mask_HW)

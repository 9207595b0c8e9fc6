"""Test `evaluate` on the masks of a segmenter of three pathologies, with all its images."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.data import chexlocalize, chexpert
from chexseg.evaluation.evaluate import evaluate
from chexseg.pathologies import PATHOLOGIES
from chexseg.predict import image_files, segment
from chexseg.progress import Quiet

from .conftest import NAMES


def test_the_masks_of_a_model_of_three_pathologies_are_scored_on_these(
    phantom_root, model, tmp_path
):
    _, folder = chexpert.locate(phantom_root, "test")
    segmenter = segment.load(model)
    segmenter.thresholds_K[1:] = 1  # no pixel is above: empty masks are written and scored too
    files, _ = image_files.find([folder])
    segment.run(segmenter, files, tmp_path / "out", Quiet())
    truth = phantom_root / chexlocalize.FILES["test"]
    evaluation = evaluate(truth, tmp_path / "out" / segment.MASKS)
    table = evaluation.table.set_index("pathology")
    true_masks, masks = (
        chexlocalize.read(truth),
        chexlocalize.read(tmp_path / "out" / segment.MASKS),
    )
    assert set(masks) == set(true_masks) and masks.pathologies == NAMES
    for name in NAMES:
        pairs = [
            (masks.masks(image_id, [name]), true_masks.masks(image_id, [name]))
            for image_id in true_masks
        ]
        shared, either = (
            sum(int(rule(*pair).sum()) for pair in pairs)
            for rule in (np.logical_and, np.logical_or)
        )
        expected = shared / either if any(true_HW.any() for _, true_HW in pairs) else np.nan
        assert table["iou"][name] == pytest.approx(expected, nan_ok=True)
    assert table["iou"]["mean"] == pytest.approx(table.loc[list(NAMES), "iou"].mean())
    assert (
        table["iou"][NAMES[2]] == 0 < table["iou"][NAMES[0]]
        and not evaluation.left_out.missing_images
    )
    assert evaluation.left_out.not_predicted == tuple(
        name for name in PATHOLOGIES if name not in NAMES
    )

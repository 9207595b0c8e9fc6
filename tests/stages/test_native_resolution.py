"""Masks at each image's own size: what a plain loop over pixels gives, and what the training size gives where both are one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from chexseg.data import chexlocalize, chexpert, images, shards
from chexseg.data.images import Frame
from chexseg.data.raw_split import RawSplit
from chexseg.models import encoders
from chexseg.pathologies import PATHOLOGIES
from chexseg.phantom.radiograph import radiograph
from chexseg.stages import ingest, score
from chexseg.stages.artifacts import COUNTS, PREDICTIONS
from chexseg.stages.configs import IngestConfig, ScoreConfig
from chexseg.stages.scoring import native_resolution

from .conftest import CONTEXT, SIZE


def reference(logits_SS: np.ndarray, frame: Frame, y: int, x: int) -> float:
    """The probability of one pixel: its four neighbours inside the frame, weighted by how close their centres are."""
    (top, left), (height, width) = frame.corner, frame.inner
    value = 0.0
    row = min(max((y + 0.5) * height / frame.height - 0.5, 0), height - 1)
    column = min(max((x + 0.5) * width / frame.width - 0.5, 0), width - 1)
    for i in {int(row), min(int(row) + 1, height - 1)}:
        for j in {int(column), min(int(column) + 1, width - 1)}:
            value += (
                (1 - abs(row - i)) * (1 - abs(column - j)) * float(logits_SS[top + i, left + j])
            )
    return 1 / (1 + np.exp(-value))


@pytest.mark.parametrize("size", [(33, 20), (20, 33), (12, 9), (16, 16), (5, 16)])
def test_a_plain_loop_gives_the_same_masks(size):
    frame = Frame(*size, 16)
    random = np.random.default_rng(1)
    logits_KSS, thresholds_K = random.normal(size=(2, 16, 16)).astype(np.float32), (0.4, 0.65)
    found_KHW = native_resolution.masks(
        torch.from_numpy(logits_KSS), torch.tensor(thresholds_K), frame
    ).numpy()
    assert found_KHW.shape == (2, *size) and found_KHW.dtype == bool
    for k, threshold in enumerate(thresholds_K):
        for y, x in np.ndindex(size):
            probability = reference(logits_KSS[k], frame, y, x)
            assert abs(probability - threshold) < 1e-6 or found_KHW[k, y, x] == (
                probability > threshold
            )


def test_a_probability_at_its_threshold_is_negative():
    frame = Frame(8, 4, 16)
    for threshold, positive in ((0.5, False), (0.4999, True)):
        found_KHW = native_resolution.masks(
            torch.zeros(1, 16, 16), torch.tensor([threshold]), frame
        )
        assert found_KHW.all() == found_KHW.any() == positive


def counts(results, root, out, resolution, **given):
    out.mkdir()
    inputs = {
        "test": results.paths["test"],
        "segmenter": results.paths["fit"],
        "data": root,
        **given,
    }
    facts = score.run(ScoreConfig(resolution=resolution), inputs, out, CONTEXT)
    return facts, shards.read(out / COUNTS).to_pandas()


def test_an_image_that_is_not_square_is_counted_against_its_published_masks(
    results, phantom_root, tmp_path
):
    _, table = counts(results, phantom_root, tmp_path / "own", "own")
    csv = chexpert.read(phantom_root, "test").set_index("image_id")
    truth = chexlocalize.read(phantom_root / chexlocalize.FILES["test"])
    image_id = next(name for name in sorted(truth) if truth.size(name)[0] != truth.size(name)[1])
    pixels_HW = images.decode(csv.loc[image_id, "path"])
    frame = Frame(*pixels_HW.shape, SIZE)
    model, about = score.load_segmenter(results.paths["fit"], "cpu")
    with torch.inference_mode():
        logits_KSS = model(
            encoders.prepare(torch.from_numpy(frame.image(pixels_HW))[None], about["init"])
        )[0].numpy()
    rows = table[table["image_id"] == image_id].set_index("pathology")
    true_KHW = truth.masks(image_id)
    for k in (1, 5, 9):
        name = PATHOLOGIES[k]
        close, predicted_HW = 0, np.zeros(pixels_HW.shape, dtype=bool)
        for y, x in np.ndindex(pixels_HW.shape):
            probability = reference(logits_KSS[k], frame, y, x)
            predicted_HW[y, x] = probability > about["thresholds"][k]
            close += abs(probability - about["thresholds"][k]) < 1e-5
        expected = (predicted_HW & true_KHW[k]).sum(), predicted_HW.sum(), true_KHW[k].sum()
        found = rows.loc[name, ["intersection", "predicted", "true"]].to_numpy(dtype=int)
        assert np.abs(found - expected).max() <= close, name


def test_where_both_sizes_are_one_the_counts_are_the_same(results, phantom_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(phantom_root, root)
    masks = {}
    for number, row in enumerate(chexpert.read(root, "test").itertuples()):
        pixels_HW, masks[row.image_id] = radiograph(
            number, SIZE, SIZE, ["Cardiomegaly", "Pleural Effusion", "Support Devices"]
        )
        images.Image.fromarray(pixels_HW).save(row.path)
    chexlocalize.write(root / chexlocalize.FILES["test"], masks)
    (tmp_path / "test").mkdir()
    ingest.run(IngestConfig(split="test", size=SIZE), {"data": root}, tmp_path / "test", CONTEXT)
    facts, training = counts(
        results, root, tmp_path / "training", "training", test=tmp_path / "test"
    )
    again, own = counts(results, root, tmp_path / "own", "own", test=tmp_path / "test")
    assert training.equals(own) and again == facts | {"data": RawSplit(root, "test").fingerprint()}
    assert (training[["predicted", "true"]].groupby(training["pathology"]).sum().max() > 0).all()


def test_predictions_stay_at_the_training_size(results, phantom_root, tmp_path):
    _, training = counts(results, phantom_root, tmp_path / "training", "training")
    _, own = counts(results, phantom_root, tmp_path / "own", "own")
    assert not training.equals(own)
    kept = [(tmp_path / name / PREDICTIONS).read_bytes() for name in ("training", "own")]
    assert kept[0] == kept[1]

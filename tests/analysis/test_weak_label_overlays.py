"""Test the overlays of weak labels: which images are shown, their colours, and the page."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from chexseg.analysis import load
from chexseg.report.page import weak_label_overlays
from chexseg.saliency import weak_masks
from chexseg.store.store import Store
from tests.analysis.weak_label_store import STAGES, a_plan, a_store, in_memory
from tests.report.rendered import page_text, publish

# ---- overlays


def positions(hits: list[int]) -> dict[str, int]:
    return weak_label_overlays.choose(in_memory({"cam": hits}), 0)


def test_best_median_and_worst_with_ties_by_id():
    assert positions([3, 9, 5, 1, 7]) == {"best": 1, "median": 2, "worst": 3}
    assert positions([3, 9, 5, 1]) == {"best": 1, "median": 2, "worst": 3}, (
        "of two in the middle, the higher"
    )
    assert positions([4, 4, 4]) == {"best": 0, "median": 1, "worst": 2}
    assert positions([4, 2]) == {"best": 0, "worst": 1}
    assert positions([4]) == {"only image": 0}
    both = in_memory({"cam": [8, 6, 0], "irnet": [0, 6, 8]})
    assert weak_label_overlays.choose(both, 0) == {"best": 1, "median": 0, "worst": 2}, (
        "by the mean of the kinds"
    )


def test_images_without_an_expert_pixel_are_never_chosen():
    labels = in_memory({"cam": [9, 5, 1]})
    counts_IK3 = labels.labels[0].counts.counts_IK3
    counts_IK3[1, 0] = (0, 20, 0)
    assert weak_label_overlays.choose(labels, 0) == {"best": 0, "worst": 2}
    counts_IK3[:, 0] = (0, 20, 0)
    assert weak_label_overlays.choose(labels, 0) == {}


@pytest.mark.parametrize(("native", "size"), [(4, 128), (10, 320), (3, 50), (10, 176), (7, 7)])
def test_upsampling_is_the_stages(native, size):
    scores_hw = np.random.default_rng(0).random((native, native)).astype(np.float16)
    wanted = weak_masks.upsample(torch.from_numpy(scores_hw)[None, None], size)[0, 0].numpy()
    assert weak_label_overlays.upsampled(scores_hw.astype(np.float32), size) == pytest.approx(
        wanted, abs=1e-6
    )


def test_heat_is_clear_at_zero_and_lighter_where_there_is_more():
    scores_hw = np.linspace(0, 1, 176, dtype=np.float32)[None].repeat(176, axis=0)
    heat = np.asarray(
        Image.open(io.BytesIO(weak_label_overlays.heat_png(scores_hw))).convert("RGBA"), dtype=float
    )[0]
    assert heat[0, 3] == 0 and heat[-1, 3] == weak_label_overlays.OPACITY
    assert (np.diff(heat[:, 3]) >= 0).all()
    luminance = heat[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1).all() and luminance[-1] - luminance[0] > 150


def test_outline_shows_on_black_and_on_white():
    mask_HW = np.zeros((64, 64), dtype=bool)
    mask_HW[20:40, 20:40] = True
    layer = Image.open(io.BytesIO(weak_label_overlays.outline_png(mask_HW))).convert("RGBA")
    for ground in ("black", "white"):
        film = Image.new("RGBA", layer.size, ground)
        before = np.asarray(film.convert("L"), dtype=int)
        film.alpha_composite(layer)
        assert np.abs(np.asarray(film.convert("L"), dtype=int) - before).max() > 100


# ---- the page


def test_page_shows_figures_and_overlays(loaded, tmp_path):
    written = publish([loaded], tmp_path)
    text = written.page.read_text()
    assert "On the 2 held-out images, IRNet improves" in text and "Random box" in text
    # Edema on two images, Consolidation on one; six panels each.
    assert len(re.findall('<div class="film[ "]', text)) == 6 * 3
    assert text.count("<details open>") == 1 and "only 1 patient" in text
    assert "CAM thresholds were chosen on it" in text and "held out" in text
    names = {path.name for path in written.files}
    assert {"weak-weak-labels.csv", "weak-auroc.csv", "weak-classifiers.csv"} <= names


def test_cams_alone_have_no_panels_of_irnet(tmp_path):
    planned = a_plan("axes: {labels.weak: [cam], labels.p: [0]}")
    results = load.study_results(planned, a_store(tmp_path, planned))
    text = page_text(results)
    assert len(re.findall('<div class="film[ "]', text)) == 4 * 3 and "Boundary map" not in text
    assert "On the 2 held-out images, CAM beats" in text


def test_thresholds_of_otsu_were_chosen_on_no_image(tmp_path):
    planned = a_plan("axes: {labels.weak: [cam, irnet], labels.p: [0], saliency.threshold: [otsu]}")
    text = page_text(load.study_results(planned, a_store(tmp_path, planned)))
    assert "CAM mask above\nOtsu’s threshold of each map,\n" in text
    assert "IRNet mask above\n0.60\n" in text and "left:nan" not in text
    assert "thresholds were chosen on it" not in text and "expert training image" in text
    assert "of which CAM thresholds were chosen" not in text and "On all 3 masked images" in text


def test_unmade_artifacts_are_said_to_be_so(tmp_path):
    planned = a_plan()
    half = load.study_results(planned, a_store(tmp_path / "half", planned, STAGES[:-1]))
    text = page_text(half)
    assert (
        "No scores for the study’s IRNet labels: not finished yet" in text
        and "CAM beats the location prior" in text
    )
    nothing = page_text(load.study_results(planned, Store(tmp_path / "nothing")))
    assert "CAM labels: not finished yet" in nothing and "<h2>Classifiers" not in nothing


def test_without_the_images_and_with_unreadable_maps(loaded):
    bare = [dataclasses.replace(labels, image=None) for labels in loaded.weak_labels]
    assert "the images aren’t available" in page_text(
        dataclasses.replace(loaded, weak_labels=tuple(bare))
    )

    def unreadable(image_id: str):
        raise KeyError(f"<{image_id}>")

    damaged = [dataclasses.replace(labels, maps=unreadable) for labels in loaded.weak_labels]
    text = page_text(dataclasses.replace(loaded, weak_labels=tuple(damaged)))
    assert "IRNet can&#39;t be read" in text and "<patient1" not in text

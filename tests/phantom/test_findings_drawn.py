"""Test synthetic radiographs: masks where pixels change, and findings where they occur."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chexseg.errors import UserError
from chexseg.pathologies import PATHOLOGIES
from chexseg.phantom import dataset as phantom
from chexseg.phantom.radiograph import radiograph

GREW = (
    "Cardiomegaly",
    "Enlarged Cardiomediastinum",
)  # the mask is the whole organ, the change only its new rim
SEEDS = range(6)


def dilate(mask_HW: np.ndarray, pixels: int) -> np.ndarray:
    image = Image.fromarray(mask_HW.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * pixels + 1))
    return np.asarray(image).astype(bool)


def with_and_without(seed: int, pathology: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (difference_HW in grey levels, mask_HW, pixels_HW without the pathology).

    A consolidation is compared with its haze alone.
    """
    others = ["Airspace Opacity"] if pathology == "Consolidation" else []
    kind = {"projection": ("PA", "AP")[seed % 2], "sex": ("Female", "Male")[seed // 2 % 2]}
    before_HW, masks_before = radiograph(seed, 320, 380, others, **kind)
    after_HW, masks = radiograph(seed, 320, 380, [*others, pathology], **kind)
    assert not masks_before[pathology].any()
    return np.abs(after_HW.astype(int) - before_HW), masks[pathology], before_HW


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_pixels_change_inside_the_mask_and_nowhere_else(pathology):
    inside = []
    for seed in SEEDS:
        difference_HW, mask_HW, _ = with_and_without(seed, pathology)
        assert mask_HW.any()
        clear_HW = difference_HW > 20
        assert clear_HW.any()
        assert (clear_HW & dilate(mask_HW, 5)).sum() > 0.98 * clear_HW.sum()
        if pathology not in GREW:
            inside.append((difference_HW[mask_HW] > 3).mean())
    assert not inside or np.mean(inside) > 0.85


@pytest.mark.parametrize("pathology", GREW)
def test_a_grown_heart_or_mediastinum_changes_its_own_rim(pathology):
    for seed in SEEDS:
        difference_HW, mask_HW, _ = with_and_without(seed, pathology)
        rim_HW = (difference_HW > 20) & mask_HW
        assert 0.02 * mask_HW.sum() < rim_HW.sum() < 0.7 * mask_HW.sum()


def test_findings_stand_where_they_occur():
    for seed in SEEDS:
        middle = 380 / 2
        _, effusion_HW, _ = with_and_without(seed, "Pleural Effusion")
        _, pneumothorax_HW, _ = with_and_without(seed, "Pneumothorax")
        _, edema_HW, _ = with_and_without(seed, "Edema")
        _, heart_HW, _ = with_and_without(seed, "Cardiomegaly")
        rows = {
            name: np.nonzero(mask)[0].mean()
            for name, mask in (("effusion", effusion_HW), ("air", pneumothorax_HW))
        }
        assert rows["effusion"] > 160 > rows["air"]
        assert edema_HW[:, : int(middle)].any() and edema_HW[:, int(middle) :].any()
        columns = np.nonzero(heart_HW)[1]
        assert (
            columns.max() - middle > middle - columns.min()
        )  # the apex points to the patient's left


def test_a_pneumothorax_is_darker_and_fluid_lighter_than_lung():
    for seed in SEEDS:
        kind = {"projection": ("PA", "AP")[seed % 2], "sex": ("Female", "Male")[seed // 2 % 2]}
        for pathology, sign in (("Pneumothorax", -1), ("Pleural Effusion", 1), ("Lung Lesion", 1)):
            _, mask_HW, before_HW = with_and_without(seed, pathology)
            after_HW, _ = radiograph(seed, 320, 380, [pathology], **kind)
            assert sign * (after_HW[mask_HW].mean() - before_HW[mask_HW].mean()) > 3


def test_airspace_opacity_includes_consolidation_and_edema():
    for seed in SEEDS:
        _, masks = radiograph(seed, 320, 320, ["Consolidation", "Edema"])
        opacity_HW = masks["Airspace Opacity"]
        for part in ("Consolidation", "Edema"):
            assert masks[part].any()
            assert not (masks[part] & ~opacity_HW).any()


def test_no_finding_moves_another():
    everything = [name for name in PATHOLOGIES if name not in GREW]
    for seed in SEEDS:
        _, together = radiograph(seed, 320, 320, everything)
        for name in (
            "Atelectasis",
            "Edema",
            "Lung Lesion",
            "Pleural Effusion",
            "Pneumothorax",
            "Support Devices",
        ):
            _, alone = radiograph(seed, 320, 320, [name])
            assert np.array_equal(together[name], alone[name])


@pytest.mark.parametrize("shape", [(64, 78), (390, 320), (512, 512)])
def test_any_size_has_all_masks(shape):
    pixels_HW, masks = radiograph(3, *shape, PATHOLOGIES)
    assert pixels_HW.shape == shape and pixels_HW.dtype == np.uint8 and pixels_HW.std() > 20
    assert list(masks) == list(PATHOLOGIES)
    assert all(
        mask_HW.shape == shape and mask_HW.dtype == bool and mask_HW.any()
        for mask_HW in masks.values()
    )


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="Lung Opacity"):
        radiograph(0, 64, 64, ["Lung Opacity"])
    with pytest.raises(UserError, match="projection"):
        radiograph(0, 64, 64, [], projection="LL")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ((-1, 1, 1), "train"),
        ((1, 1, 1, 0, 64, 1.0), "prevalence"),
        ((1, 1.5, 1), "valid"),
        ((0, 0, 0), "images"),
        ((1, 1, 1, -2), "seed"),
        ((1, 1, 1, 0, 32), "size"),
    ],
)
def test_config_names_the_wrong_field(values, field):
    with pytest.raises(UserError, match=field) as caught:
        phantom.Config(*values)
    assert "\n" not in str(caught.value)

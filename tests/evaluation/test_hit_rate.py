"""Test the pointing game by hand: points, heat maps as published and as .npy, unsafe pickles."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.evaluation import heat_maps, hit_rate
from chexseg.evaluation.evaluate import evaluate
from tests.evaluation.heat_map_files import (
    FIRST,
    HEIGHT,
    SECOND,
    WIDTH,
    peak,
    refused,
    write_map,
    write_points,
)


def test_covers_is_the_decoded_pixel():
    generator = np.random.default_rng(0)
    for density in (0, 0.1, 0.5, 0.9, 1):
        mask_HW = generator.random((7, 5)) < density
        rle = chexlocalize.checked(chexlocalize.encode(mask_HW), "here")
        covered = [[hit_rate.covers(rle, row, column) for column in range(5)] for row in range(7)]
        np.testing.assert_array_equal(covered, mask_HW)


def test_points(truth, tmp_path):
    points = {
        FIRST: {
            "Edema": [[29.9, 15], [49.9, 19.9]],
            "Cardiomegaly": [[15, 35]],
            "Consolidation": [[1, 1]],
        },
        "patient3_study1_view1_frontal": {"Edema": [[1, 1]]},
    }
    evaluation = evaluate(truth, write_points(tmp_path / "points.json", points), "hit-rate")
    table = evaluation.table.set_index("pathology")
    # x and y aren't swapped: (15, 35) is outside; row 15 and column 35 would be inside.
    assert table["hit_rate"]["Edema"] == 0.5 and table["n_images"]["Edema"] == 2
    assert table["hit_rate"]["Cardiomegaly"] == 0 and table["n_images"]["Cardiomegaly"] == 1
    assert np.isnan(table["hit_rate"]["Consolidation"]) and table["hit_rate"]["mean"] == 0.25
    assert any("1 masks have no point: counted as misses" in note for note in evaluation.notes)
    assert any("names 1 image that" in note for note in evaluation.notes)
    results = evaluation.published["hitmiss_results_per_cxr.csv"]
    assert results["img_id"].tolist() == [FIRST, SECOND] and results["Edema"].tolist() == [1, 0]


@pytest.mark.parametrize("ending", ["pkl", "npy"])
def test_heat_maps(truth, tmp_path, ending):
    maps = tmp_path / "maps"
    # One cell of 4 x 6 is 10 x 10 pixels: rows 10 to 19, columns 40 to 49.
    write_map(maps, FIRST, "Edema", peak(1, 4), ending)
    write_map(maps, FIRST, "Cardiomegaly", peak(2, 4), ending)
    write_map(maps, FIRST, "Fracture", peak(2, 4), ending)
    evaluation = evaluate(truth, maps, "hit-rate")
    table = evaluation.table.set_index("pathology")
    assert (
        table["hit_rate"]["Edema"] == 1 and table["n_images"]["Edema"] == 1
    )  # the other image has no map: left out
    assert table["hit_rate"]["Cardiomegaly"] == 0
    assert any("1 masks have no heat map" in note and SECOND in note for note in evaluation.notes)
    assert any("none of the ten" in note and "Fracture" in note for note in evaluation.notes)


def test_the_first_of_equal_scores_is_taken(truth, tmp_path):
    scores_hw = np.zeros((HEIGHT, WIDTH))
    scores_hw[15, 35] = scores_hw[30, 5] = 1
    write_map(tmp_path / "maps", FIRST, "Edema", scores_hw)
    assert (
        evaluate(truth, tmp_path / "maps", "hit-rate").table.set_index("pathology")["hit_rate"][
            "Edema"
        ]
        == 1
    )
    write_map(tmp_path / "maps", FIRST, "Edema", scores_hw[::-1].copy())
    assert (
        evaluate(truth, tmp_path / "maps", "hit-rate").table.set_index("pathology")["hit_rate"][
            "Edema"
        ]
        == 0
    )


@pytest.mark.parametrize(
    ("background", "second", "first"),
    [
        (0.0, 1e39, 2e39),  # both infinite in float32
        (-1e39, -1e39, -1.0),
        (0.0, 1 - 1e-9, 1.0),  # equal in float32
        (0.0, 1e-46, 2e-46),  # both 0 in float32
        (0, 2**30, 2**30 + 1),  # whole numbers of 64 bits
    ],
)
def test_no_rounding_moves_the_highest_score(tmp_path, background, second, first):
    scores_hw = np.full((8, 8), background)
    scores_hw[1, 1], scores_hw[5, 5] = second, first
    np.save(tmp_path / "map.npy", scores_hw)
    read_hw = heat_maps.read(tmp_path / "map.npy")
    assert heat_maps.most_representative_point(read_hw, (8, 8)) == (5, 5)


def test_scores_that_float32_holds_stay_float32(tmp_path):
    """Published maps are float32, and the published code resizes them as such."""
    for kind in (np.float16, np.float32, np.float64, np.uint8, np.int64):
        np.save(tmp_path / "map.npy", np.eye(4, dtype=kind))
        assert heat_maps.read(tmp_path / "map.npy").dtype == np.float32


def test_scores_that_float64_would_round_are_refused(tmp_path):
    np.save(tmp_path / "map.npy", np.array([[2**53, 2**53 + 1]]))
    with pytest.raises(UserError, match="float64 would round; expected"):
        heat_maps.read(tmp_path / "map.npy")


@pytest.mark.parametrize("kind", ["points", "maps"])
def test_ids_match_without_an_ending_and_a_pathology_without_predictions_is_left_out(
    truth, tmp_path, kind
):
    if kind == "points":
        pred = write_points(
            tmp_path / "points.json", {f"{FIRST}.jpg": {"Edema": [[35, 15]]}, SECOND: {"Edema": []}}
        )
    else:
        pred = tmp_path / "maps"
        write_map(pred, f"{FIRST}.jpg", "Edema", peak(1, 4), "npy")
        write_map(pred, "patient3_study1_view1_frontal", "Edema", peak(1, 4), "npy")
    evaluation = evaluate(truth, pred, "hit-rate")
    table = evaluation.table.set_index("pathology")
    assert table["n_images"].to_dict() | {"mean": 0} == dict.fromkeys(table.index, 0) | {
        "Edema": 2 if kind == "points" else 1
    }
    assert (
        table["hit_rate"]["mean"] == table["hit_rate"]["Edema"] == (0.5 if kind == "points" else 1)
    )
    assert evaluation.left_out.not_predicted == ("Cardiomegaly", "Consolidation")
    assert any(
        "1 image ids are matched without their suffixes" in note for note in evaluation.notes
    )
    assert any(f"{pred}: doesn't name 2 pathologies" in note for note in evaluation.notes)
    if kind == "maps":
        assert any("names 1 image that" in note and "patient3" in note for note in evaluation.notes)


def test_mistakes_are_named(truth, tmp_path):
    path = tmp_path / "points.json"
    refused(truth, path, "points.json", "cannot be read")
    refused(truth, write_points(path, [1]), "found a list")
    refused(truth, write_points(path, {FIRST: [1]}), FIRST, "found a list")
    refused(truth, write_points(path, {FIRST: {"Edemas": []}}), "'Edemas'", "did you mean 'Edema'")
    refused(
        truth,
        write_points(path, {FIRST: {"Edema": [1, 2]}}),
        "Edema: found [1, 2]",
        "[[x, y], ...]",
    )
    refused(truth, write_points(path, {FIRST: {"Edema": [[60, 2]]}}), "(60, 2)", "60 x 40")
    refused(
        truth,
        write_points(path, {FIRST: {"Edema": [[10**400, 2]]}}),
        "not JSON (a number of 401 digits; expected at most 308)",
        "[[x, y], ...]",
    )
    refused(
        truth,
        write_points(path, {FIRST: {"Edema": [[float("nan"), 2]]}}),
        "Edema: found [[nan",
        "[[x, y], ...]",
    )
    both = {"Lung Opacity": [], "Airspace Opacity": [[1, 1]]}
    refused(
        truth, write_points(path, {FIRST: both}), FIRST, "found Airspace Opacity under two names"
    )
    path.write_text(f'{{"{FIRST}": {{"Edema": [[1, 1]]}}, "{FIRST}": {{"Edema": [[35, 15]]}}}}')
    refused(truth, path, f"found '{FIRST}' twice in one object")
    refused(truth, write_points(path, {}), "points.json: found no image")
    refused(
        truth, write_points(path, {"other": {"Edema": []}}), "points.json", "'other'", f"'{FIRST}'"
    )
    refused(
        truth,
        write_points(path, {FIRST: {"Lung Lesion": []}}),
        "found no pathology",
        "Lung Lesion",
        "Edema",
    )
    maps = tmp_path / "maps"
    maps.mkdir()
    refused(truth, maps, "found no heat map", "_Edema_map.pkl")
    write_map(maps, "other", "Edema", peak(1, 4), "npy")
    refused(truth, maps, "found no image of", "'other'", f"'{FIRST}'")
    (maps / "other_Edema_map.npy").unlink()
    write_map(maps, FIRST, "Edema", np.full((4, 6), np.nan))
    refused(truth, maps, "aren't finite")
    write_map(maps, FIRST, "Edema", np.zeros((2, 4, 6)), "npy")
    refused(truth, maps, "one heat map per image and pathology")
    (maps / f"{FIRST}_Edema_map.pkl").unlink()
    refused(truth, maps, "an array (2, 4, 6)")
    (maps / f"{FIRST}_Edema_map.npy").write_bytes(b"x")
    refused(truth, maps, "found no heat map")

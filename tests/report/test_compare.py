"""Comparisons: which cells stand against which, on one footing or refused, and the numbers of `difference`."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis import comparison, comparison_sides
from chexseg.analysis.comparison import A_HIGHER, MEAN, UNDECIDED
from chexseg.analysis.comparison_sides import Group, Side
from chexseg.analysis.statistics.inference import difference, measured
from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.evaluation.evaluate import evaluate
from chexseg.pathologies import PATHOLOGIES
from chexseg.report import compare_page
from chexseg.report.figures.comparison_figure import figure_rows
from chexseg.store.store import Store
from tests.analysis import stores

NAMES = ("Edema", "Cardiomegaly")
IMAGES = tuple(f"patient{number // 2}_study1_view{number % 2}_frontal" for number in range(40))


def side(title: str, *groups: Group) -> Side:
    return Side(title, groups, IMAGES, NAMES, 64)


def counts(seed: int, trials: int, gain: int) -> np.ndarray:
    """Counts against the same expert masks whatever the seed; a higher gain is a better model."""
    true_IK = np.random.default_rng(9).integers(50, 90, size=(len(IMAGES), len(NAMES)))
    true_IK[3:, 1] = 0  # Cardiomegaly on two patients
    generator = np.random.default_rng(seed)
    shared_TIK = np.minimum(
        true_IK, generator.integers(20, 40, size=(trials, *true_IK.shape)) + gain
    )
    predicted_TIK = shared_TIK + generator.integers(0, 10, size=shared_TIK.shape)
    return np.stack(
        [shared_TIK, predicted_TIK, np.broadcast_to(true_IK, shared_TIK.shape)], axis=-1
    )


def group(
    name: str, seed: int, trials: tuple[int, ...], gain: int = 0, **settings: object
) -> Group:
    """Return a group whose trials are of one draw."""
    keys = tuple(f"{name}{trial}" for trial in trials)
    of_draw = tuple((0, trial) for trial in trials)
    return Group(name, counts(seed, max(1, len(trials)), gain), of_draw, keys, settings or {})


def test_the_means_are_those_of_difference():
    one, other = group("one", 1, (0, 1, 2), 8, lr=1), group("other", 2, (1, 2, 3), lr=2)
    found = comparison.compare(side("a", one), side("b", other))
    row = found.rows.set_index("pathology").loc[MEAN]
    expected = difference(
        measured(one.counts_TIK3, IMAGES, one.trials),
        measured(other.counts_TIK3, IMAGES, other.trials),
    )
    assert row["difference"] == pytest.approx(expected.value)
    assert (row["from"], row["to"]) == pytest.approx(
        (expected.patients.low, expected.patients.high)
    )
    assert (row["trials from"], row["trials to"]) == pytest.approx(
        (expected.trials.low, expected.trials.high)
    )
    assert row["patients"] == 20 and row["trials"] == 2
    assert found.settings.to_dict("records") == [{"setting": "lr", "A": "1", "B": "2"}]


def test_a_setting_that_matters_to_one_side_alone_is_not_named():
    one = group("full", 1, (0, 1, 2), **{"labels.p": 1, "labels.weak_images": 100})
    one = dataclasses.replace(one, idle=("labels.weak",))
    other = group("mixed", 2, (0, 1, 2), **{"labels.p": 0.9, "labels.weak_images": 20})
    compared = comparison.compare(side("a", one), side("b", other))
    assert compared.settings["setting"].tolist() == ["labels.p"]


def test_a_pathology_by_hand_and_no_interval_from_two_patients():
    one, other = group("one", 1, (0, 1, 2, 3), 8, lr=1), group("other", 2, (0, 1, 2, 3), lr=2)
    found = comparison.compare(side("a", one), side("b", other)).rows.set_index("pathology")
    iou = []
    for counted_TIK3 in (one.counts_TIK3, other.counts_TIK3):
        shared, predicted, true = counted_TIK3[:, :, 1].sum(axis=1).T
        iou.append((shared / (predicted + true - shared)).mean())
    row = found.loc["Cardiomegaly"]
    assert (row["IoU A"], row["IoU B"], row["difference"]) == pytest.approx((*iou, iou[0] - iou[1]))
    assert np.isnan(row["from"]) and row["patients"] == 2 and row["verdict"] == UNDECIDED
    assert found.loc["Edema", "verdict"] == A_HIGHER


def test_one_trial_against_one_has_no_winner_and_says_so(tmp_path):
    sides = [side(n, group(n, k, (0,), 8 * k, lr=k)) for k, n in enumerate("ab")]
    found = comparison.compare(*sides)
    text = comparison.sentence(found)
    assert text.endswith("undecided (one trial against one).")
    assert set(found.rows["verdict"]) == {UNDECIDED} and found.rows["P"].isna().all()
    # Without a common trial there is no difference either, and still a page.
    other = side("b", group("b", 1, (1,), 8, lr=1))
    found = comparison.compare(sides[0], other)
    assert comparison.sentence(found).endswith(": no trial has finished in both.")
    assert compare_page.write(found, tmp_path / "page").exists()


@pytest.mark.parametrize("few", [False, True])
def test_models_of_few_steps_have_no_winner(few):
    one, other = group("one", 1, (0, 1, 2), 8, lr=1), group("other", 2, (0, 1, 2), lr=2)
    one = dataclasses.replace(one, steps=59.0 if few else 60.0)
    row = comparison.compare(side("a", one), side("b", other)).means.iloc[0]
    assert row["verdict"] == (UNDECIDED if few else A_HIGHER)
    assert row["reason"] == "59 optimiser steps, a test needs 60" if few else pd.isna(row["reason"])


def test_a_file_has_no_trials_and_of_two_the_patients_alone_decide():
    found = comparison.compare(
        side("a", group("one", 1, (0, 1, 2), 8, lr=1)), side("b", group("masks.json", 2, ()))
    )
    row = found.rows.set_index("pathology").loc["Edema"]
    assert row["trials"] == 3 and row["trials from"] < row["difference"] < row["trials to"]
    assert row["verdict"] == A_HIGHER
    assert not len(found.settings)
    alone = comparison.compare(
        side("a", group("one.json", 1, (), 8)), side("b", group("other.json", 2, ()))
    )
    row = alone.rows.set_index("pathology").loc["Edema"]
    assert (
        np.isnan(row["trials from"]) and np.isnan(row["both from"]) and row["verdict"] == A_HIGHER
    )


def test_groups_of_two_studies_are_matched_by_what_varies_within_them():
    first = side(
        "a",
        group("x", 1, (0,), p=0, lr=1),
        group("y", 2, (0,), p=1, lr=1),
        group("z", 3, (0,), p=2, lr=1),
    )
    second = side("b", group("v", 4, (0,), p=1, lr=5), group("w", 5, (0,), p=0, lr=5))
    found = comparison.compare(first, second)
    means = found.rows[found.rows["pathology"] == MEAN]
    assert list(zip(means["A"], means["B"], strict=True)) == [("x", "w"), ("y", "v")]
    assert found.settings.to_dict("records") == [{"setting": "lr", "A": "1", "B": "5"}]
    assert any(note.startswith("a: left out") and "z" in note for note in found.notes)
    with pytest.raises(UserError, match="no cells of both agree in p"):
        comparison.compare(
            first, side("b", group("v", 4, (0,), p=7, lr=5), group("w", 5, (0,), p=8, lr=5))
        )


# ---- from a store ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory, phantom_root) -> tuple[Path, Path, Store]:
    """A study, its data, and a store in which all of it but one trial has been scored; twice, at another number of epochs."""
    folder = tmp_path_factory.mktemp("compare")
    study, store = stores.write_study(folder / "small.yaml"), Store(folder / "store")
    plan = stores.plan_of(study, phantom_root, store)
    stores.score(store, plan, phantom_root, plan.cells[:-1])
    longer = stores.write_study(
        folder / "longer.yaml", stores.STUDY.replace("epochs: 3", "epochs: 5")
    )
    plan = stores.plan_of(longer, phantom_root, store)
    stores.score(store, plan, phantom_root, plan.cells, shift=4)
    own = stores.plan_of(study, phantom_root, store, "score.resolution=own")
    stores.score(store, own, phantom_root, own.cells)
    return study, phantom_root, store


def compared(
    small: tuple[Path, Path, Store],
    first: str,
    second: str,
    *overrides: str,
    gt: Path | None = None,
):
    study, data, store = small
    both = [
        text.replace("STUDY", str(study)).replace("LONGER", str(study.with_name("longer.yaml")))
        for text in (first, second)
    ]
    return comparison.compare(
        *comparison_sides.read(both, data, store, overrides, gt), replicates=50
    )


def test_two_studies(small):
    found = compared(small, "STUDY", "LONGER")
    means = found.rows[found.rows["pathology"] == MEAN]
    assert means["A"].tolist() == ["cam p=0.5", "full trial 0"] and means["B"].tolist() == [
        "cam p=0.5",
        "full",
    ]
    assert (means["difference"] > 0).all() and means["trials"].tolist() == [2, 1]
    assert found.settings.to_dict("records") == [{"setting": "fit.epochs", "A": "3", "B": "5"}]
    assert any("3 of 4 cells finished" in note for note in found.notes)
    assert found.size == 64 and len(found.cells) == 7


def test_cells_by_name_by_arm_and_by_key(small):
    study, data, store = small
    key = stores.plan_of(study, data, store).cells[2].score
    arm = compared(small, "STUDY#cam p=0.5", f"STUDY#{key[:12]}")
    assert arm.rows["A"].unique().tolist() == ["cam p=0.5"] and arm.rows["B"].unique().tolist() == [
        "full trial 0"
    ]
    one = compared(small, "STUDY#cam p=0.5 trial 1", "STUDY")
    assert set(one.cells.loc[one.cells["side"] == "A", "trial"]) == {1}
    assert len(one.rows[one.rows["pathology"] == MEAN]) == 2


def test_a_file_beside_a_study_is_counted_at_its_size(small, tmp_path):
    study, data, store = small
    truth = data / chexlocalize.FILES["test"]
    found = compared(small, str(truth), "STUDY#full trial 0")
    rows = found.rows.set_index("pathology")
    assert rows.loc[MEAN, "IoU A"] == 1 and rows.loc[MEAN, "IoU B"] < 1
    assert any("squares of 64 x 64" in note for note in found.notes)
    own = compared(small, str(truth), "STUDY#full trial 0", "score.resolution=own")
    assert own.size == 0 and not any("squares" in note for note in own.notes)


def test_two_files_have_the_numbers_of_evaluate(small, tmp_path):
    truth = small[1] / chexlocalize.FILES["test"]
    other = small[1] / chexlocalize.FILES["radiologists"]
    found = compared(small, str(other), str(truth))
    for column, path in (("IoU A", other), ("IoU B", truth)):
        expected = evaluate(truth, path).table.set_index("pathology")["iou"].rename({"mean": MEAN})
        pd.testing.assert_series_equal(
            found.rows.set_index("pathology")[column],
            expected[found.rows["pathology"]],
            check_names=False,
        )
    assert not found.notes


Masks = dict[str, dict[str, Any]]


def without_pathologies(masks: Masks) -> Masks:
    return {image_id: {name: entry[name] for name in NAMES} for image_id, entry in masks.items()}


def without_images(masks: Masks) -> Masks:
    return dict(list(masks.items())[2:])


def with_endings(masks: Masks) -> Masks:
    return {f"{image_id}.JPG": entry for image_id, entry in masks.items()}


REDUCED = {
    without_pathologies: ("doesn't name Airspace Opacity, ", "Support Devices: left out"),
    without_images: (
        "doesn't name 2 of ",
        "left out (hint: name an image without predictions, with empty masks)",
    ),
    with_endings: ("image ids are matched without their suffixes", ""),
}


@pytest.mark.parametrize("reduce", REDUCED)
def test_files_are_compared_on_what_both_have(small, tmp_path, reduce):
    """The same masks, of which one file lacks some: there is no difference, in either order."""
    whole = small[1] / chexlocalize.FILES["radiologists"]
    masks = reduce(json.loads(whole.read_text()))
    part = tmp_path / "part.json"
    part.write_text(json.dumps(masks))
    for both in ((whole, part), (part, whole), (part, part)):
        found = compared(small, *map(str, both))
        assert (found.rows["difference"].dropna() == 0).all() and set(
            found.rows["verdict"].dropna()
        ) == {UNDECIDED}
        assert found.images == len(masks) and found.rows["IoU A"].iloc[0] > 0
        notes = [note for note in found.notes if note.startswith(str(part))]
        assert len(notes) == len(found.notes) == both.count(part)
        assert all(word in note for note in notes for word in REDUCED[reduce])
    names = set(NAMES) if reduce is without_pathologies else set(PATHOLOGIES)
    assert set(found.rows["pathology"]) == names | {MEAN}


@pytest.mark.parametrize("reduce", REDUCED)
def test_a_file_that_lacks_some_is_compared_with_a_study_on_the_rest(small, tmp_path, reduce):
    truth = small[1] / chexlocalize.FILES["test"]
    masks = reduce(json.loads(truth.read_text()))
    part = tmp_path / "part.json"
    part.write_text(json.dumps(masks))
    found = compared(small, "STUDY#full trial 0", str(part))
    assert (found.rows["IoU B"].dropna() == 1).all() and found.images == len(masks)
    names = {"Edema", "Cardiomegaly"} | (
        set() if reduce is without_pathologies else {"Support Devices"}
    )
    assert set(found.rows["pathology"]) == names | {MEAN}
    if reduce is without_pathologies:
        assert any(
            note == f"{part}: doesn't name Support Devices: left out" for note in found.notes
        )
    whole = compared(small, "STUDY#full trial 0", str(truth)).rows.set_index("pathology")
    if reduce is not without_images:
        pathologies = sorted(names)
        assert (
            found.rows.set_index("pathology")
            .loc[pathologies, "IoU A"]
            .equals(whole.loc[pathologies, "IoU A"])
        )


def test_an_empty_mask_is_a_prediction_and_a_missing_one_of_a_named_pathology_too(small, tmp_path):
    whole = small[1] / chexlocalize.FILES["radiologists"]
    masks = json.loads(whole.read_text())
    drawn = next(
        image_id
        for image_id in masks
        if chexlocalize.read(whole).masks(image_id, ["Support Devices"]).any()
    )
    size = masks[drawn]["Support Devices"]["size"]
    rows = []
    for number, mask in enumerate((None, chexlocalize.encode(np.zeros(size, dtype=bool)))):
        del masks[drawn]["Support Devices"]
        masks[drawn] |= {"Support Devices": mask} if mask else {}
        part = tmp_path / f"part{number}.json"
        part.write_text(json.dumps(masks))
        found = compared(small, str(whole), str(part))
        rows.append(found.rows.set_index("pathology").loc["Support Devices", "IoU B"])
        assert (
            found.rows.set_index("pathology").loc["Support Devices", "difference"] > 0
            and not found.notes
        )
        masks[drawn]["Support Devices"] = mask
    assert rows[0] == rows[1]


def test_the_json_has_everything_of_the_comparison(small, tmp_path):
    whole = small[1] / chexlocalize.FILES["radiologists"]
    part = tmp_path / "part.json"
    part.write_text(json.dumps(without_images(json.loads(whole.read_text()))))
    found = compared(small, "STUDY", str(part))
    told = found.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (
        told["notes"] == list(found.notes)
        and len(told["rows"]) == len(found.rows)
        and len(told["cells"]) == 3
    )


def test_what_cannot_be_compared_is_refused(small, tmp_path):
    study, data, store = small
    mistakes = [
        (
            ("STUDY#full trial 7", "LONGER"),
            (),
            ["no cell 'full trial 7'", "did you mean 'full trial"],
        ),
        (("STUDY#full trial 1", "LONGER"), (), ["none of 1 cell has been scored"]),
        (("STUDY", "STUDY"), (), ["the same cells on both sides"]),
        (
            ("STUDY", str(study.with_name("longer.yaml"))),
            ("size=96",),
            ["none of 4 cells has been scored"],
        ),
        (("STUDY", str(tmp_path / "none.json")), (), ["none.json", "cannot be read"]),
    ]
    for both, overrides, words in mistakes:
        with pytest.raises(UserError) as caught:
            compared(small, *both, *overrides)
        message = str(caught.value)
        assert (
            "\n" not in message
            and ("allowed" in message or "expected" in message)
            and all(word in message for word in words)
        ), message
    masks = json.loads((data / chexlocalize.FILES["test"]).read_text())
    halves = [tmp_path / f"half{number}.json" for number in range(2)]
    for number, half in enumerate(halves):
        half.write_text(json.dumps(dict(list(masks.items())[number::2])))
    first, second = list(masks)[:2]
    with pytest.raises(
        UserError,
        match=f"found no common image, only ids like {first} and {second}; expected: at least one",
    ):
        compared(small, *map(str, halves))
    for number, name in enumerate(NAMES):
        one_name = {image_id: {name: entry[name]} for image_id, entry in masks.items()}
        halves[number].write_text(json.dumps(one_name))
    with pytest.raises(UserError, match="found no common pathology"):
        compared(small, *map(str, halves))
    halves[0].write_text(json.dumps({f"x/{image_id}": entry for image_id, entry in masks.items()}))
    for beside in (str(halves[1]), "STUDY"):
        with pytest.raises(
            UserError,
            match=f"half0.json: found no image of .*'x/{first}'; expected: ids like '{first}'",
        ):
            compared(small, beside, str(halves[0]))
    own = stores.write_study(
        study.with_name("own.yaml"), stores.STUDY + "  score: {resolution: own}\n"
    )
    with pytest.raises(UserError, match="expected: the same size.*score.resolution=own"):
        compared(small, str(own), "STUDY")
    sides = [
        Side(title, (), ("x",), ("Edema",), 64, resize=resize)
        for title, resize in (("one", "nearest"), ("two", "area"))
    ]
    with pytest.raises(UserError, match="mask_resize: nearest, two with area; expected: the same"):
        comparison_sides._on_common_ground(*sides)
    other = tmp_path / "other.json"
    entries = json.loads((data / chexlocalize.FILES["test"]).read_text())
    name = next(name for name in entries if "Support Devices" in entries[name])
    entries[name]["Support Devices"] = chexlocalize.encode(
        np.eye(*entries[name]["Support Devices"]["size"], dtype=bool)
    )
    other.write_text(json.dumps(entries))
    with pytest.raises(
        UserError, match="found other masks than in .*; expected: the study's truth"
    ):
        compared(small, str(other), "STUDY", gt=other)
    truth = chexlocalize.read(data / chexlocalize.FILES["test"])
    mirrored = {
        image_id: {
            pathology: chexlocalize.encode(mask_HW[:, ::-1])
            for pathology, mask_HW in zip(entry, truth.masks(image_id, list(entry)), strict=True)
        }
        for image_id, entry in truth.items()
    }
    other.write_text(json.dumps(mirrored))
    with pytest.raises(UserError, match="found other masks"):  # with equal numbers of pixels
        compared(small, str(other), "STUDY", gt=other)
    with pytest.raises(UserError, match="neither --gt nor --data"):
        comparison_sides.read((str(other), str(other)), None, store)
    with pytest.raises(UserError, match="--data: missing"):
        comparison_sides.read((str(study), str(other)), None, store)


def test_the_page_holds_all_of_it_and_needs_no_network(small, tmp_path):
    found = compared(small, "STUDY", "LONGER")
    written = compare_page.write(found, tmp_path / "out")
    text = written.read_text()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"?(https?:)?//", text)
    assert "{{" not in text.partition("<script")[0]
    for key in found.cells["key"]:
        assert key in text
    drawn = json.loads(
        re.search(r'<script type="application/json" id="difference">(.*?)</script>', text, re.S)[1]
    )
    lines = figure_rows(found).drop_duplicates("line")
    names = [note["text"] for note in drawn["layout"]["annotations"]]
    assert names == lines["label"].tolist()
    assert len(pd.read_csv(written.with_name("compare.csv"))) == len(found.rows) == 2 * 4
    assert "fit.epochs" in text and "3 of 4 cells finished" in text

"""Test masks that ignore the image: against naive loops, by hand, from a store, and as rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from chexseg.analysis import baselines, load
from chexseg.analysis.baselines import CONSTANT, PRIOR, SQUARE, ExpertMasks
from chexseg.analysis.claims import headline
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.statistics.scores import pooled_iou
from chexseg.analysis.study_analysis import analyse
from chexseg.analysis.study_scores import score
from chexseg.analysis.tables import paper_tables
from chexseg.analysis.tables.text import study_result
from chexseg.data import shards
from chexseg.data.sampling.splits import expert_split
from chexseg.errors import DamagedArtifactError
from chexseg.store.store import Store
from tests.analysis import stores
from tests.analysis import test_claims as made_studies
from tests.analysis.synthetic_study import with_baselines
from tests.report.rendered import page_text, sections, split_sections

SIDE = 16


def masks_of(masks_NKHW: np.ndarray) -> ExpertMasks:
    ids = tuple(f"patient{n:05d}_study1_view1_frontal" for n in range(len(masks_NKHW)))
    flat = masks_NKHW.reshape(*masks_NKHW.shape[:2], -1)
    bits_IKB = np.packbits(flat, axis=-1, bitorder="little")
    patients = tuple(name.partition("_")[0] for name in ids)
    return ExpertMasks(ids, patients, bits_IKB, masks_NKHW.shape[-1])


def rectangles(seed: int, images: int, pathologies: int = 3) -> np.ndarray:
    """Return masks_NKHW: a rectangle in about half of them; the last pathology has none."""
    generator = np.random.default_rng(seed)
    out = np.zeros((images, pathologies, SIDE, SIDE), dtype=bool)
    for n in range(images):
        for k in range(pathologies - 1):
            if generator.random() < 0.5:
                (y, x), (h, w) = generator.integers(0, 8, 2), generator.integers(2, 9, 2)
                out[n, k, y : y + h, x : x + w] = True
    return out


# ---- masks and counts


def naive_mask(masks_NHW: np.ndarray) -> np.ndarray:
    """Return the mean mask above each threshold in turn, the one with the highest pooled IoU."""
    best, chosen = -1.0, np.zeros((SIDE, SIDE), dtype=bool)
    mean_HW = masks_NHW.mean(axis=0) if len(masks_NHW) else np.zeros((SIDE, SIDE))
    if not mean_HW.any():
        return chosen
    for step in range(1, 20):
        mask_HW = mean_HW / mean_HW.max() > step / 20
        shared = sum(int((mask_HW & one).sum()) for one in masks_NHW)
        union = sum(int((mask_HW | one).sum()) for one in masks_NHW)
        if shared / union > best:
            best, chosen = shared / union, mask_HW
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_mean_masks_are_those_of_naive_loops(seed):
    train, scored = rectangles(seed, 11), rectangles(seed + 100, 7)
    counts = baselines.mean_mask_counts(masks_of(train), masks_of(scored))
    for k in range(train.shape[1]):
        of_all = naive_mask(train[:, k])
        of_positive = naive_mask(train[train[:, k].any(axis=(1, 2)), k])
        for n in range(len(scored)):
            true = scored[n, k]
            prior = of_positive & true.any()
            for name, mask in ((CONSTANT, of_all), (PRIOR, prior)):
                assert counts[name][n, k].tolist() == [
                    (mask & true).sum(),
                    mask.sum(),
                    true.sum(),
                ]
    assert not any(counts[name][:, -1].any() for name in counts), "no training mask, no baseline"


def test_a_case_by_hand():
    """Two training images of four have the pathology: a 4 x 4 square, and its upper half."""
    train = np.zeros((4, 1, SIDE, SIDE), dtype=bool)
    train[0, 0, 4:8, 4:8] = train[1, 0, 4:6, 4:8] = True
    scored = np.zeros((2, 1, SIDE, SIDE), dtype=bool)
    scored[0, 0, 4:8, 4:6] = True
    counts = baselines.mean_mask_counts(masks_of(train), masks_of(scored))
    # Prior: the upper half has IoU 16 / 24 on the two images, the square 24 / 32. All four images:
    # the upper half 16 / (32 + 24 - 16), the square 24 / (64 + 24 - 24).
    assert counts[PRIOR][:, 0].tolist() == [[8, 16, 8], [0, 0, 0]]
    assert counts[CONSTANT][:, 0].tolist() == [[4, 8, 8], [0, 8, 0]]


def test_nothing_is_chosen_on_the_scored_images():
    train = masks_of(rectangles(1, 9))
    predicted = [
        baselines.mean_mask_counts(train, masks_of(rectangles(seed, 6)))[CONSTANT][..., 1]
        for seed in (2, 3)
    ]
    assert predicted[0].any() and np.array_equal(*predicted)


def test_a_random_square_has_the_pixels_of_the_experts_mask():
    scored = rectangles(4, 5)
    counts_IK3 = baselines.square_counts(masks_of(scored))
    true_IK = scored.sum(axis=(2, 3))
    assert np.array_equal(counts_IK3[..., 1], true_IK) and np.array_equal(
        counts_IK3[..., 2], true_IK
    )
    n, k = np.argwhere(true_IK)[0]
    side = round(int(true_IK[n, k]) ** 0.5)
    places = SIDE - side + 1
    shared = [
        scored[n, k, y : y + side, x : x + side].sum() for y in range(places) for x in range(places)
    ]
    mean = np.mean(shared) * true_IK[n, k] / side**2
    assert counts_IK3[n, k, 0] == pytest.approx(mean)


# ---- from a store


@pytest.fixture
def stored(phantom_root, tmp_path):
    """Return (plan, store) of a scored study whose masks are ingested."""
    store = Store(tmp_path / "store")
    plan = stores.plan_of(stores.write_study(tmp_path / "small.yaml"), phantom_root, store)
    stores.score(store, plan, phantom_root, plan.cells)
    for split in ("valid", "test"):
        stores.ingest_masks(store, plan, phantom_root, split)
    return plan, store


def ingested(plan, store, split):
    (node,) = (n for n in plan.nodes.values() if n.config.get("split") == split)
    return store.find(node.stage, node.key)


def test_a_store_gives_the_baselines_of_its_expert_split(stored):
    plan, store = stored
    results = load.study_results(plan, store)
    names = results.pathologies
    valid, test = (
        baselines.read(ingested(plan, store, split).path, names) for split in ("valid", "test")
    )
    ids, _ = expert_split(valid.image_ids, valid.patients, 8, 4, 0)
    wanted = baselines.mean_mask_counts(valid.of(ids), test)
    assert list(results.baselines) == [CONSTANT, PRIOR, SQUARE] and not results.baselines_note
    for name, counts_IK3 in wanted.items():
        assert np.array_equal(results.baselines[name], counts_IK3)
    true_IK = results.counts_CIK3[0, ..., 2]
    assert all(np.array_equal(c[..., 2], true_IK) for c in results.baselines.values())


def test_a_missing_or_damaged_split_is_a_note(stored):
    plan, store = stored
    path = ingested(plan, store, "valid").path / "masks" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    results = load.study_results(plan, store)
    note = "found no ingested images of valid, or damaged ones: left out"
    assert not results.baselines and results.baselines_note == note
    missing = analyse(results).missing
    assert ["baselines", "left out", note] in missing.to_numpy().tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": (9, 64, 64)}, "found no masks of 10 pathologies"),
        ({"shape": (10, 64, 32)}, "found no masks of 10 pathologies"),
        ({"shape": (10, 12, 12)}, "found no masks of 10 pathologies"),
        ({"shape": (10,)}, "found no masks of 10 pathologies"),
        ({"dtype": "uint8"}, "found no masks of 10 pathologies"),
        ({"name": "squares"}, "found no masks of 10 pathologies"),
        ({"patient": "person"}, "has no column patient"),
        ({"image_id": "id"}, "has no column image_id"),
        ({}, None),
    ],
)
def test_masks_of_another_layout_are_a_note(tmp_path, change, words):
    """Check shards whose checksums match, as of another program."""
    (tmp_path / "masks").mkdir()
    masks = np.zeros((2, *change.get("shape", (10, 64, 64))), dtype=change.get("dtype", bool))
    scalars = {change.get(name, name): ["a", "b"] for name in ("image_id", "patient")}
    table = shards.table(scalars, {change.get("name", "masks"): masks})
    shards.write(tmp_path / "masks" / "part-00000.parquet", table)
    if words is None:
        assert baselines.read(tmp_path, ["Edema"]).side == 64
        return
    with pytest.raises(DamagedArtifactError, match=words):
        baselines.read(tmp_path, ["Edema"])


def test_masks_of_two_sizes_are_a_note(tmp_path):
    (tmp_path / "masks").mkdir()
    for number, side in enumerate((64, 32)):
        masks = np.zeros((1, 10, side, side), dtype=bool)
        table = shards.table({"image_id": ["a"], "patient": ["a"]}, {"masks": masks})
        shards.write(tmp_path / "masks" / shards.part_name(number), table)
    with pytest.raises(DamagedArtifactError, match="masks of several shapes"):
        baselines.read(tmp_path, ["Edema"])


def test_images_without_a_mask_are_a_note(stored):
    plan, store = stored
    keys = {n.config.get("split"): n.key for n in plan.nodes.values() if n.stage == "ingest"}
    artifacts = {keys[split]: ingested(plan, store, split) for split in ("valid", "test")}
    names = ("Edema",)

    def masks(key):
        return baselines.read(artifacts[key].path, names)

    counts, note = baselines.on_test(plan, artifacts, ["elsewhere"], masks)
    assert (counts, note) == ({}, "found no expert mask of image elsewhere: left out")
    assert baselines.on_valid("gone", masks, ["elsewhere"], np.array([True])) == {}


def test_of_several_expert_splits_the_largest_is_taken(phantom_root, tmp_path):
    text_of_study = stores.STUDY.replace("trial: [0, 1]", "labels.expert_split.train: [6, 9, 8]")
    store = Store(tmp_path / "store")
    path = stores.write_study(tmp_path / "small.yaml", text_of_study)
    plan = stores.plan_of(path, phantom_root, store)
    stores.score(store, plan, phantom_root, plan.cells)
    for split in ("valid", "test"):
        stores.ingest_masks(store, plan, phantom_root, split)
    results = load.study_results(plan, store)
    valid, test = (
        baselines.read(ingested(plan, store, split).path, results.pathologies)
        for split in ("valid", "test")
    )
    ids, _ = expert_split(valid.image_ids, valid.patients, 9, 4, 0)
    wanted = baselines.mean_mask_counts(valid.of(ids), test)[CONSTANT]
    assert np.array_equal(results.baselines[CONSTANT], wanted)
    assert results.baselines_note == (
        f"made from one of the cells’ 3 expert splits, {len(ids)} training images with seed 0"
    )


# ---- in a report


@pytest.fixture(scope="module")
def compared(study):
    return with_baselines(study)


def test_the_headline_ends_with_the_baselines(compared):
    rows = analyse(compared).headline.set_index("arm")
    assert rows.index.tolist()[-3:] == [CONSTANT, PRIOR, SQUARE]
    for name, counts_IK3 in compared.baselines.items():
        row = rows.loc[name]
        iou_K = pooled_iou(counts_IK3, require_expert=True)
        assert row["mIoU"] == pytest.approx(iou_K.mean())
        assert row["patients low"] < row["mIoU"] < row["patients high"]
        assert row[["trials low", "trials high", "paper"]].isna().all()


@pytest.mark.parametrize(
    ("draws", "trials", "verdict"),
    [
        (3, 1, "Full, CheXseg. Worse: Weak."),
        (
            1,
            3,
            "no arm. Undecided (given one classifier, encoder and split): Weak, Full, CheXseg.",
        ),
        (1, 2, "no arm. Undecided (2 trials, a test needs 3): Weak, Full, CheXseg."),
    ],
)
def test_arms_are_compared_with_the_location_prior(draws, trials, verdict):
    arms = [made_studies.weak(0.05), made_studies.full(0.26), made_studies.mixed(0.30)]
    made = made_studies.study(arms, draws=draws, trials=trials)
    prior = made_studies.counts_IK3(np.full((len(made.image_ids), 2), 0.15)).astype(float)
    scores = score(dataclasses.replace(made, baselines={PRIOR: prior}))
    roles = headline.choose(scores)
    measured = scores.measure([*roles.values(), PRIOR])
    found = headline.above_chance(headline.role_names(scores), roles, measured)
    assert found == f"Better than chance, the location prior: {verdict}"
    assert headline.above_chance(headline.role_names(scores), roles, {}) == ""


def test_baselines_are_rows_below_the_arms_and_never_best(compared):
    analysis = analyse(compared)
    rows = analysis.tables["pathologies"]
    assert rows["arm"].drop_duplicates().tolist()[-3:] == [CONSTANT, PRIOR, SQUARE]
    added = rows[rows["arm"] == PRIOR].set_index("pathology")
    iou_K = pooled_iou(compared.baselines[PRIOR], require_expert=True)
    assert added.loc[list(compared.pathologies), "value"].to_numpy() == pytest.approx(iou_K)
    assert added.loc[AVERAGE, "value"] == pytest.approx(iou_K.mean())
    assert not rows.loc[rows["arm"].isin(compared.baselines), "best"].any()
    assert "\nWithout a network: Constant mask 0." in study_result(analysis)


def test_a_study_without_baselines_has_no_rows(study):
    analysis = analyse(study)
    assert analysis.baselines is None and analysis.chance == ""
    assert len(analysis.tables["pathologies"]) == len(analysis.arms)
    assert paper_tables.baselines_table(score(study), analysis.arms) is None


def test_the_page_shows_them(compared):
    noted = dataclasses.replace(compared, baselines_note="counted at <another> size")
    text = page_text(noted)
    page = split_sections(text)
    for title in ("Result", "Table 1", "Pathologies"):
        for name in (CONSTANT, PRIOR, SQUARE):
            assert name in page[title], (title, name)
        assert "counted at &lt;another&gt; size." in page[title]
    assert "Better than chance, the location prior:" in page["Result"]
    terms = text.partition("Terms and methods")[2]
    for name in (CONSTANT, PRIOR, SQUARE):
        assert f"<dt>{name}</dt>" in terms


def test_with_many_arms_the_baselines_stay_on_the_page(compared, monkeypatch):
    monkeypatch.setattr("chexseg.report.page.study_view.MOST_ARMS", 2)
    section = sections(compared)["Pathologies"]
    assert "The first 2 of" in section and PRIOR in section
    assert section.count("<tr") == 1 + 2 + 3


def test_an_untrained_network_is_a_baseline_and_no_arm_of_the_paper(study):
    """Even with the highest mIoU it is in no role, and no Table 1 or figure has it."""
    full = study.cells["method"] == "full"
    added = study.cells[full].assign(
        method="untrained", name="untrained", epochs=0, selection_miou=0.99
    )
    counts_CIK3 = study.counts_CIK3[full.to_numpy()].copy()
    counts_CIK3[..., :2] = counts_CIK3[..., 2:]
    results = dataclasses.replace(
        study,
        cells=pd.concat([study.cells, added], ignore_index=True),
        counts_CIK3=np.concatenate([study.counts_CIK3, counts_CIK3]),
    )
    before, after = analyse(study), analyse(results)
    assert after.headline["arm"].tolist() == [*before.headline["arm"], "Untrained network"]
    row = after.headline.iloc[-1]
    assert row["mIoU"] == 1 and row["settings"] == "untrained, encoder chexpert"
    assert row["colour"] == "baseline" and np.isnan(row["paper"])
    assert "untrained" in after.tables["pathologies"]["arm"].tolist()
    for name in ("figure2", "figure3", "figure4", "figure5"):
        pd.testing.assert_frame_equal(getattr(after, name), getattr(before, name))
    assert [claim.because for claim in after.claims] == [claim.because for claim in before.claims]
    assert "Untrained network" in sections(dataclasses.replace(results, image=None))["Result"]
    compared = analyse(dataclasses.replace(results, baselines={PRIOR: counts_CIK3[0]})).chance
    assert "CheXseg" in compared and "Untrained" not in compared

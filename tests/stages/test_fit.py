"""Fit, distil and score: reproducible, resumable, and blind to what they must not see."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from chexseg.data import chexlocalize, radiographs, shards
from chexseg.data.sampling import splits
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.models import encoders, segmenter
from chexseg.pathologies import PATHOLOGIES
from chexseg.seeds import derive
from chexseg.stages import distil, fit, score
from chexseg.stages.artifacts import COUNTS, ENCODER_WEIGHTS, PREDICTIONS, SEGMENTER_WEIGHTS
from chexseg.stages.configs import DistilConfig, FitConfig, ScoreConfig
from chexseg.stages.registry import STAGES
from chexseg.stages.training import segmenter_data, segmenter_selection

from .conftest import CONTEXT, EXPERT, SIZE

pytestmark = pytest.mark.heavy  # most of these train; together 20 s

SMALL = {**EXPERT, "epochs": 2, "samples_per_epoch": 16}


def inputs(results, *roles: str) -> dict:
    names = {"weak": "saliency", "encoder": "pretrain"}
    return {role: results.paths[names.get(role, role)] for role in roles}


def same(first, second) -> bool:
    a, b = (load_file(path / SEGMENTER_WEIGHTS) for path in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(config: FitConfig, given: dict, out, context=CONTEXT) -> dict:
    out.mkdir(exist_ok=True)
    return fit.run(config, given, out, context)


MIXED = {"p": 0.5, "weak": "cam", "weak_images": 12, "init": "random"}


def test_same_seed_same_weights_bit_for_bit_and_another_seed_others(results, tmp_path):
    given = inputs(results, "train", "valid", "weak")
    facts = run(FitConfig(**SMALL, **MIXED), given, tmp_path / "a")
    assert run(FitConfig(**SMALL, **MIXED), given, tmp_path / "b") == facts
    assert same(tmp_path / "a", tmp_path / "b")
    run(FitConfig(**SMALL, **MIXED, seed=1), given, tmp_path / "c")
    assert not same(tmp_path / "a", tmp_path / "c")


class Killed(Exception):
    pass


def test_a_killed_fit_goes_on_to_the_same_weights(results, tmp_path):
    given = inputs(results, "train", "valid", "weak")
    config = FitConfig(**{**SMALL, "epochs": 3}, **MIXED)
    quiet = run(config, given, tmp_path / "quiet")

    def kill_in_the_third_epoch(done, total, unit, note=None):
        if (note or {}).get("epoch") == 3:
            assert 0 < note["data wait s"] < note["step s"]
            raise Killed

    eager = replace(CONTEXT, checkpoint_seconds=0)
    with pytest.raises(Killed):
        run(config, given, tmp_path / "killed", replace(eager, progress=kill_in_the_third_epoch))
    assert (tmp_path / "killed" / "resume.pt").exists()
    seen = []
    resumed = run(
        config, given, tmp_path / "killed", replace(eager, progress=lambda *a: seen.append(a))
    )
    assert min(done for done, *_ in seen) > 2 * 16
    assert resumed == quiet
    assert same(tmp_path / "quiet", tmp_path / "killed")
    assert not (tmp_path / "killed" / "resume.pt").exists()


def test_no_expert_mask_reaches_a_weak_cell_but_by_the_choice_of_its_epoch(results, tmp_path):
    """Change every expert training mask: the weights of each epoch, and the thresholds, stay."""
    given = inputs(results, "train", "valid", "weak")
    config = FitConfig(**{**SMALL, "epochs": 1}, p=0.0, weak="cam", weak_images=12, init="random")
    before = run(config, given, tmp_path / "before")
    changed = tmp_path / "valid"
    shutil.copytree(results.paths["valid"], changed)
    train, _ = segmenter_data.expert_ids(config, changed)
    for path in shards.files(changed / "masks"):
        table = shards.read(path)
        masks = shards.array(table, "masks").copy()
        for row, image_id in enumerate(table["image_id"].to_pylist()):
            if image_id in train:
                masks[row] = ~masks[row]
        scalars = {name: table[name] for name in ("image_id", "patient")}
        target = changed / "masks" / path.rpartition("/")[2]
        shards.write(
            target, shards.table(scalars, {"masks": masks}, kind="masks", pathologies=PATHOLOGIES)
        )
    after = run(config, {**given, "valid": changed}, tmp_path / "after")
    assert same(tmp_path / "before", tmp_path / "after")
    assert after["thresholds"] == before["thresholds"]


def test_a_pretrained_encoder_is_where_training_starts(results, tmp_path, monkeypatch):

    wanted = load_file(results.paths["pretrain"] / ENCODER_WEIGHTS)
    loaded = {}

    def look(module, path):
        encoders_load(module, path)
        loaded.update({name: value.clone() for name, value in module.state_dict().items()})

    encoders_load = encoders.load
    monkeypatch.setattr(encoders, "load", look)
    run(FitConfig(**{**SMALL, "epochs": 1}), inputs(results, "valid", "encoder"), tmp_path / "fit")
    assert wanted.keys() == loaded.keys()
    assert all(torch.equal(wanted[name], loaded[name]) for name in wanted)


@pytest.mark.parametrize("thresholds", ["training", "training-batches"])
def test_without_epochs_the_network_is_untrained_and_thresholds_are_chosen(
    results, tmp_path, thresholds
):
    config = FitConfig(**{**SMALL, "epochs": 0}, thresholds=thresholds)
    given = inputs(results, "valid", "encoder")
    facts = run(config, given, tmp_path)
    torch.manual_seed(derive(config.seed, "segmenter"))
    wanted = fit.build(config)
    encoders.load(wanted.encoder, given["encoder"] / ENCODER_WEIGHTS)
    model, about = score.load_segmenter(tmp_path, "cpu")
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    train, select = segmenter_data.expert_ids(config, given["valid"])
    sets = [
        segmenter_data.expert_set(config, given["valid"], ids, "cpu") for ids in (train, select)
    ]
    chosen, _ = segmenter_selection.choose_thresholds(
        FitConfig(**SMALL), model, segmenter_data.in_batches(sets[0])
    )
    assert about["thresholds"] == chosen and len(set(chosen)) > 1
    again = segmenter_selection.selection_score(config, model, sets[1])
    assert facts["selection_miou"] == pytest.approx(again, abs=1e-9)
    assert (facts["samples"], facts["expert_share"], facts["selection_curve"]) == (0, None, [])


def test_the_kept_epoch_is_the_best_and_its_score_can_be_had_again(results):
    config = FitConfig(**SMALL)
    facts = results.facts["fit"]
    history = json.loads((results.paths["fit"] / "history.json").read_text())
    assert facts["selection_miou"] == max(epoch["selection_miou"] for epoch in history)
    model, about = score.load_segmenter(results.paths["fit"], "cpu")
    assert about["pathologies"] == list(PATHOLOGIES)
    _, select = segmenter_data.expert_ids(config, results.paths["valid"])
    again = segmenter_selection.selection_score(
        config, model, segmenter_data.expert_set(config, results.paths["valid"], select, "cpu")
    )
    assert again == pytest.approx(facts["selection_miou"], abs=1e-9)


def test_more_images_than_there_are_is_refused(results, tmp_path):
    given = inputs(results, "train", "valid", "weak")
    with pytest.raises(UserError, match="labels.expert_split"):
        run(FitConfig(expert_train=500, expert_select=4, init="random"), given, tmp_path / "a")
    with pytest.raises(UserError, match="labels.weak_images"):
        run(
            FitConfig(**EXPERT, p=0.5, weak="cam", weak_images=500, init="random"),
            given,
            tmp_path / "b",
        )


def test_counts_are_those_of_the_predicted_masks(results, tmp_path):
    facts = score.run(
        ScoreConfig(),
        {"test": results.paths["test"], "segmenter": results.paths["fit"]},
        tmp_path,
        CONTEXT,
    )
    counts = shards.read(tmp_path / COUNTS).to_pandas()
    runs = shards.read(tmp_path / PREDICTIONS).to_pandas()
    ids = [image_id for image_id, _ in radiographs.mask_index(results.paths["test"])]
    true = radiographs.unpack_bits(
        radiographs.expert_masks(results.paths["test"], ids, PATHOLOGIES, SIZE),
        (len(PATHOLOGIES), SIZE, SIZE),
    ).numpy()
    for i, image_id in enumerate(ids):
        for k, name in enumerate(PATHOLOGIES):
            row = i * len(PATHOLOGIES) + k
            assert tuple(counts.loc[row, ["image_id", "pathology"]]) == (image_id, name)
            predicted = chexlocalize.decode(
                {"size": [SIZE, SIZE], "counts": runs.loc[row, "counts"]}, "test"
            )
            expected = ((predicted & true[i, k]).sum(), predicted.sum(), true[i, k].sum())
            assert tuple(counts.loc[row, ["intersection", "predicted", "true"]]) == expected
    sums = counts.groupby("pathology")[["intersection", "predicted", "true"]].sum()
    for name, iou in facts["iou"].items():
        i, p, t = sums.loc[name]
        assert iou == pytest.approx(i / (p + t - i)) if p + t - i else iou is None


@pytest.fixture(scope="module")
def taught(results, tmp_path_factory):
    """Fraction -> what the teacher made of it."""
    given = {"train": results.paths["train"], "teacher": results.paths["fit"]}
    out = {fraction: tmp_path_factory.mktemp("distil") for fraction in (0.05, 0.25, 0.5)}
    for fraction, path in out.items():
        distil.run(DistilConfig(fraction=fraction), given, path, CONTEXT)
    return out


def test_a_smaller_fraction_is_exactly_what_it_would_be_by_itself(results, taught):
    table = radiographs.index(results.paths["train"])
    frontal = table["image_id"][table["frontal"]].tolist()
    few, some, many = (radiographs.ids(path / "train") for path in taught.values())
    assert [len(few), len(some), len(many)] == [int(share * len(frontal)) for share in taught]
    assert set(few) < set(some) < set(many) < set(frontal)
    for fraction, path in taught.items():
        alone = radiographs.ids(path / "train")
        assert distil.images(path, None) == distil.images(taught[0.5], fraction) == alone
        drawn = (
            radiographs.arrays(at / "train", "logits", alone).float() for at in (path, taught[0.5])
        )
        assert torch.allclose(*drawn, atol=0.01, rtol=0.01)
    with pytest.raises(
        DamagedArtifactError, match=f"found {len(some)} images; expected {len(many)}"
    ):
        distil.images(taught[0.25], 0.5)


@pytest.mark.parametrize(
    ("fraction", "images", "expected"),
    [(0.01, 191_027, 1910), (0.29, 100, 29), (0.001, 48, 1), (1, 7, 7)],
)
def test_a_fraction_is_rounded_down_and_never_empty(fraction, images, expected):
    assert splits.fraction_count(fraction, images) == expected


def test_a_students_targets_are_its_teachers_logits(results, taught, tmp_path):
    few = radiographs.ids(taught[0.25] / "train")
    logits = radiographs.load_cached(taught[0.25] / "train", "logits", few).float()
    model, about = score.load_segmenter(results.paths["fit"], "cpu")
    with torch.inference_mode():
        direct = model(
            encoders.prepare(radiographs.pixels(results.paths["train"], few), about["init"])
        )
    assert torch.allclose(segmenter.upsample(logits), direct, atol=0.02, rtol=0.01)
    student = FitConfig(**SMALL, supervision="teacher", fraction=0.25)
    given = {**inputs(results, "train", "valid", "encoder"), "teacher": taught[0.5]}
    assert run(student, given, tmp_path / "student")["images"] == len(few)
    # A batch's images and targets are one image's each.
    pairs = dict(
        zip(
            map(bytes, radiographs.pixels(results.paths["train"], few).numpy()), logits, strict=True
        )
    )
    for batch in segmenter_data.student(student, given, CONTEXT).batches(0):
        for pixels, target in zip(batch["images"], batch["teacher"].float(), strict=True):
            assert torch.allclose(pairs[bytes(pixels.numpy())], target, atol=0.01, rtol=0.01)


def test_a_student_of_fewer_images_than_a_batch_trains_on_full_batches(results, taught, tmp_path):
    student = FitConfig(**EXPERT, epochs=2, supervision="teacher", fraction=0.05)
    given = {**inputs(results, "train", "valid", "encoder"), "teacher": taught[0.5]}
    data = segmenter_data.student(student, given, CONTEXT)
    assert 0 < len(data.ids) < student.batch_size
    assert [len(batch["images"]) for batch in data.batches(0)] == [student.batch_size]
    run(student, given, tmp_path / "student")
    history = json.loads((tmp_path / "student" / "history.json").read_text())
    assert len(history) == 2 and all(math.isfinite(epoch["loss"]) for epoch in history)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_keeps_the_contract(name):
    """A frozen config that refuses unknown fields and can be written as JSON and read back; a version; a run."""
    stage = STAGES[name]
    assert callable(stage.load().run)
    assert hasattr(stage.load(), "build") == stage.has_network
    needed = {
        "ingest": {"split": "test"},
        "imported": {"kind": "imagenet", "architecture": "resnet18", "sha256": "0" * 64},
    }
    config = stage.config(**needed.get(name, {}))
    assert stage.config.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match="[Ff]rozen|attribute"):
        config.seed = 3
    with pytest.raises(ValueError, match="[Ee]xtra"):
        stage.config.model_validate({**config.model_dump(), "no_such_field": 1})

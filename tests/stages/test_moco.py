"""MoCo pretraining: it learns, goes on after a kill to the same weights, and a fit starts from what it has made."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from chexseg.errors import UserError
from chexseg.models import encoders
from chexseg.stages import fit, moco
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import ENCODER_WEIGHTS, HISTORY, SEGMENTER_WEIGHTS
from chexseg.stages.configs import FitConfig, MoCoConfig
from chexseg.stages.training import checkpoint

from .conftest import CONTEXT, EXPERT, RESIDENT_AND_STREAMED

pytestmark = pytest.mark.heavy  # most of these train

#: 48 images, 12 steps a pass.
SMALL = MoCoConfig(
    architecture="mobilenet_v2", epochs=2, batch_size=4, learning_rate=1e-3, queue=10, momentum=0.9
)
#: 3 steps.
SHORT = SMALL.model_copy(update={"epochs": 1, "batch_size": 16})


class Killed(Exception):
    pass


def killing(step: int):
    """A progress that raises when so many steps are done."""

    def progress(done, total, unit, note=None):
        if done == step * SMALL.batch_size:
            assert 0 < note["data wait s"] < note["step s"]
            raise Killed

    return progress


def same(first, second) -> bool:
    a, b = (load_file(path / ENCODER_WEIGHTS) for path in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(results, out, config=SMALL, context=CONTEXT) -> dict:
    out.mkdir(exist_ok=True)
    return moco.run(config, {"train": results.paths["train"]}, out, context)


@pytest.fixture(scope="module")
def quiet(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("moco")
    return out, run(results, out)


def test_it_learns_to_find_the_positive_key(quiet):
    out, facts = quiet
    assert {name: facts[name] for name in ("queue", "steps", "images")} == {
        "queue": 10,
        "steps": 24,
        "images": 48,
    }
    assert facts["accuracy"] > 3 / 11  # by chance: 1 / 11
    assert encoders.describe(out / ENCODER_WEIGHTS) == {
        "architecture": "mobilenet_v2",
        "init": "moco",
    }
    assert sorted(path.name for path in out.iterdir()) == [
        "encoder.json",
        ENCODER_WEIGHTS,
        HISTORY,
        checkpoint.ENDED,
    ]


def test_the_history_has_a_hundred_points_at_most(results, quiet, tmp_path, monkeypatch):
    out, facts = quiet
    history = json.loads((out / HISTORY).read_text())
    assert [entry["step"] for entry in history] == list(range(1, 25))
    assert {name: history[-1][name] for name in ("loss", "accuracy")} == {
        name: facts[name] for name in ("loss", "accuracy")
    }
    monkeypatch.setattr(moco, "POINTS", 2)
    run(results, tmp_path, SHORT)
    again = json.loads((tmp_path / HISTORY).read_text())
    assert [entry["step"] for entry in again] == [2, 3]


@RESIDENT_AND_STREAMED
def test_killed_in_the_middle_it_goes_on_to_the_same_weights(
    results, quiet, tmp_path, resident_bytes
):
    undisturbed, facts = quiet
    context = replace(CONTEXT, resident_bytes=resident_bytes)
    if not resident_bytes:
        undisturbed = tmp_path / "quiet"
        facts = run(results, undisturbed, context=context)
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        run(results, out, context=replace(context, checkpoint_seconds=0, progress=killing(14)))
    assert (out / checkpoint.STATE).exists()
    assert not (out / ENCODER_WEIGHTS).exists()
    seen = []
    resumed = run(results, out, context=replace(context, progress=lambda *a: seen.append(a)))
    assert (
        min(done for done, *_ in seen) == 14 * SMALL.batch_size
    )  # the step whose progress killed it was not yet saved
    assert resumed == facts
    assert same(out, undisturbed)
    assert (out / HISTORY).read_text() == (undisturbed / HISTORY).read_text()
    assert not (out / checkpoint.STATE).exists()


def test_one_that_has_ended_is_not_trained_again(results, quiet):
    out, facts = quiet
    seen = []
    assert run(results, out, context=replace(CONTEXT, progress=lambda *a: seen.append(a))) == facts
    assert not seen


def test_on_ray_train_it_gives_the_same(ray_session, results, quiet, tmp_path):
    undisturbed, facts = quiet
    assert run(results, tmp_path / "out", context=StageContext(train_failures=1)) == facts
    assert same(tmp_path / "out", undisturbed)


@pytest.fixture(scope="module")
def short(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("short")
    run(results, out, SHORT)
    return out


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"temperature": 0.1}, {"queue": 11}, {"crop": 1.0}, {"precision": "bfloat16"}],
    ids=str,
)
def test_what_is_in_the_config_changes_the_weights(results, short, tmp_path, change):
    facts = run(results, tmp_path, SHORT.model_copy(update=change))
    assert facts["steps"] == 3
    assert not same(tmp_path, short)


def test_a_fit_starts_from_its_encoder(results, quiet, tmp_path):
    config = FitConfig(
        **EXPERT,
        architecture="mobilenet_v2",
        init="moco",
        epochs=1,
        samples_per_epoch=8,
        learning_rate=1e-6,
    )
    fit.run(config, {"valid": results.paths["valid"], "encoder": quiet[0]}, tmp_path, CONTEXT)
    trained, start = load_file(tmp_path / SEGMENTER_WEIGHTS), load_file(quiet[0] / ENCODER_WEIGHTS)
    # One step of Adam moves a weight by the learning rate at most.
    for name in ("features.0.0.weight", "features.17.conv.2.weight"):
        assert 0 < (trained[f"encoder.{name}"] - start[name]).abs().max() <= 1.1e-6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"batch_size": 64}, "moco.batch_size: found 64; expected at most 48, the number"),
        ({"queue": 49}, "moco.queue: found 49; expected at most 48, the number"),
        (
            {"architecture": "resnet81"},
            "encoder.architecture: found 'resnet81' (did you mean 'resnet18'?)",
        ),
    ],
)
def test_a_mistake_is_one_line(results, tmp_path, config, message):
    with pytest.raises(UserError) as caught:
        run(results, tmp_path, MoCoConfig(**config))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("images", "queue"), [(223_414, 24_576), (400, 100), (3, 1)])
def test_a_queue_left_open_fits_the_set(images, queue):
    assert moco.queue_length(MoCoConfig(batch_size=2), images) == queue
    assert moco.queue_length(MoCoConfig(batch_size=2, queue=3), images) == 3


def test_the_learning_rate_falls_along_half_a_cosine():
    rates = [moco.learning_rate(SMALL, step, 40) for step in range(1, 41)]
    assert rates[0] == SMALL.learning_rate
    assert rates[20] == pytest.approx(SMALL.learning_rate / 2)
    assert 0 < rates[-1] < 0.01 * SMALL.learning_rate
    assert rates == sorted(rates, reverse=True)


def test_a_loss_that_is_not_finite_is_a_failure_and_leaves_no_weights(results, tmp_path):
    message = r"the loss is nan in step \d+, learning rate [\d.e+]+; hint: lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        run(results, tmp_path, SHORT.model_copy(update={"learning_rate": 1e30}))
    assert not (tmp_path / ENCODER_WEIGHTS).exists()

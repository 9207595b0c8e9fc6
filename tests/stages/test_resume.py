"""Killed in the middle, the stages that make weak labels go on to the same bytes; damaged shards are made again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chexseg.data import shards
from chexseg.errors import UserError
from chexseg.models.irnet import IRNet
from chexseg.stages import classify, irnet, saliency
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import CLASSIFIER_WEIGHTS, HISTORY, IRNET_WEIGHTS, ROC
from chexseg.stages.configs import ClassifyConfig, IRNetConfig, SaliencyConfig
from chexseg.stages.training import checkpoint
from chexseg.store import manifest
from tests.models.legacy_files import enlarging, legacy_file

from .conftest import CONTEXT, EXPERT, RESIDENT_AND_STREAMED

pytestmark = pytest.mark.heavy  # most tests train a network twice

CLASSIFY = ClassifyConfig(
    architecture="mobilenet_v2", epochs=2, batch_size=8, learning_rate=1e-3, checkpoint_every=5
)
IRNET = IRNetConfig(architecture="resnet18", epochs=2, images=16, radius=4, batch_size=8)
SALIENCY = SaliencyConfig(images=40, **EXPERT)
#: A process that kills itself when it has mapped two training files.
KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from chexseg.data import ray_data as streams
from chexseg.stages.api import StageContext
from chexseg.stages.registry import STAGES

def map_files(paths, worker, arguments, **_):
    mapped = worker(**arguments)
    for path in paths[:2]:
        mapped(path)
    os.kill(os.getpid(), signal.SIGKILL)

streams.map_files = map_files
stage = STAGES[sys.argv[1]]
inputs = dict(entry.split("=", 1) for entry in sys.argv[4:])
config = stage.config.model_validate_json(sys.argv[2])
stage.load().run(config, {name: Path(path) for name, path in inputs.items()}, Path(sys.argv[3]), StageContext())
"""


class Killed(Exception):
    pass


def killing(step: int, batch_size: int):
    """A progress that raises when so many steps are done."""

    def progress(done, total, unit, note=None):
        if done == step * batch_size and "loss" in (note or {}):
            assert 0 < note["data wait s"] < note["step s"]
            raise Killed

    return progress


def weights(path: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in load_file(path).items()}


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


def made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def both(results):
    return {name: results.paths[name] for name in ("train", "valid")}


@pytest.fixture(scope="module")
def quiet_classifier(both, tmp_path_factory):
    out = tmp_path_factory.mktemp("classify")
    return out, classify.run(CLASSIFY, both, out, CONTEXT)


@RESIDENT_AND_STREAMED
def test_a_killed_classifier_goes_on_to_the_same_weights(
    both, quiet_classifier, tmp_path, resident_bytes
):
    context = replace(CONTEXT, resident_bytes=resident_bytes)
    quiet, facts = quiet_classifier
    if not resident_bytes:
        quiet = made(tmp_path / "quiet")
        facts = classify.run(CLASSIFY, both, quiet, context)
    out = made(tmp_path / "killed")
    eager = replace(context, checkpoint_seconds=0)
    with pytest.raises(Killed):
        classify.run(CLASSIFY, both, out, replace(eager, progress=killing(7, 8)))
    assert (out / checkpoint.STATE).exists()
    seen = []
    resumed = classify.run(CLASSIFY, both, out, replace(eager, progress=lambda *a: seen.append(a)))
    assert min(done for done, *_ in seen) == 7 * 8
    assert resumed == facts
    assert same(out / CLASSIFIER_WEIGHTS, quiet / CLASSIFIER_WEIGHTS)
    assert not (out / checkpoint.STATE).exists()


def test_a_classifier_that_has_ended_is_not_trained_again(both, quiet_classifier):
    out, facts = quiet_classifier
    seen = []
    assert (
        classify.run(CLASSIFY, both, out, replace(CONTEXT, progress=lambda *a: seen.append(a)))
        == facts
    )
    assert not seen


def test_a_damaged_state_means_training_from_the_start(both, quiet_classifier, tmp_path):
    (tmp_path / checkpoint.STATE).write_bytes(b"PK\x03\x04 cut off")
    quiet, facts = quiet_classifier
    assert classify.run(CLASSIFY, both, tmp_path, CONTEXT) == facts
    assert same(tmp_path / CLASSIFIER_WEIGHTS, quiet / CLASSIFIER_WEIGHTS)


def test_no_flipped_byte_of_a_state_is_gone_on_from(tmp_path):
    """In the digest, in the container, and in the tensors."""
    model = torch.nn.Linear(40, 3)
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint.save(tmp_path, model, optimizer, epoch=3)
    content = (tmp_path / checkpoint.STATE).read_bytes()
    assert checkpoint.load(tmp_path, model, optimizer) == {"epoch": 3}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for position in (
        0,
        checkpoint.DIGEST - 1,
        checkpoint.DIGEST,
        *range(checkpoint.DIGEST, len(content), 97),
        len(content) - 1,
    ):
        flipped = bytearray(content)
        flipped[position] ^= 1
        (tmp_path / checkpoint.STATE).write_bytes(flipped)
        assert checkpoint.load(tmp_path, model, optimizer) is None
        assert not (tmp_path / checkpoint.STATE).exists()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_state_that_this_user_cannot_read_is_refused_and_kept(tmp_path, monkeypatch):
    """It may be hours of work of another user, in a store that several share."""

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    checkpoint.save(tmp_path, model, optimizer, epoch=3)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "read_regular", deny)
        with pytest.raises(UserError, match="resume.pt: cannot be read .Permission denied."):
            checkpoint.load(tmp_path, model, optimizer)
        with pytest.raises(UserError, match="training.json: cannot be read"):
            checkpoint.train_once(tmp_path, lambda: pytest.fail("it was trained anew"))
    assert checkpoint.load(tmp_path, model, optimizer) == {"epoch": 3}


@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.ENDED])
def test_a_folder_in_the_place_of_a_state_or_a_record_means_training_from_the_start(tmp_path, name):
    (tmp_path / name / "folder").mkdir(parents=True)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def train():
        assert checkpoint.load(tmp_path, model, optimizer) is None
        return {"images": 3}

    assert checkpoint.train_once(tmp_path, train) == {"images": 3}
    assert not (tmp_path / checkpoint.STATE).exists()


def test_a_state_that_torch_would_read_into_freed_memory_is_not_read(tmp_path, monkeypatch):
    """Give it a digest too: everything that goes into one is in the store."""
    content = legacy_file(enlarging(1000), {"0": 3000})
    path = tmp_path / checkpoint.STATE
    digest = hashlib.sha256(manifest.identity(path) + content).digest()
    path.write_bytes(digest + content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has read it"))
    model = torch.nn.Linear(2, 2)
    assert checkpoint.load(tmp_path, model, torch.optim.SGD(model.parameters(), 0.1)) is None
    assert not path.exists()


def test_the_state_and_the_record_of_another_run_are_not_taken_for_this_ones(tmp_path):
    """Copy both from a fit with other settings, and from one of the same name with other inputs."""
    mine, other = made(tmp_path / "fit-1"), made(tmp_path / "fit-2")
    again = made(tmp_path / "elsewhere") / "fit-1"
    made(again)
    (again / manifest.INPUTS).write_text("{}")
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    checkpoint.save(mine, model, optimizer, step=3)

    def train(out: Path) -> dict[str, int]:
        (out / "net.safetensors").write_bytes(b"x")
        (out / "net.json").write_text("{}")
        return {"trained in": len(trained)}

    trained: list[Path] = []

    def train_once(out: Path) -> dict[str, int]:
        return checkpoint.train_once(out, lambda: (trained.append(out), train(out))[1])

    for out in (other, again):
        shutil.copy(mine / checkpoint.STATE, out / checkpoint.STATE)
        assert checkpoint.load(out, model, optimizer) is None
    assert checkpoint.load(mine, model, optimizer) == {"step": 3}
    train_once(mine)
    for out in (other, again):
        for path in mine.iterdir():
            shutil.copy(path, out / path.name)
        train_once(out)
    train_once(mine)
    assert trained == [mine, other, again]


def test_no_flipped_bit_in_the_facts_of_an_ended_training_is_silent(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    (tmp_path / "x.json").write_text("{}")
    facts = {"selection_miou": 0.25, "images": 8}
    assert checkpoint.train_once(tmp_path, lambda: facts) == facts
    content = (tmp_path / checkpoint.ENDED).read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 4
        (tmp_path / checkpoint.ENDED).write_bytes(flipped)
        assert checkpoint.train_once(tmp_path, lambda: {"again": 1}) in (
            {"again": 1},
            facts,
        )


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("[]")])
def test_a_changed_file_of_an_ended_training_means_training_again(tmp_path, change):
    def train() -> dict[str, int]:
        assert not (tmp_path / "scores").exists(), "it is from the earlier weights"
        (tmp_path / checkpoint.STATE).write_bytes(b"state")
        (tmp_path / "history.json").write_text("[1, 2]")
        trained.append(1)
        return {"epochs": 2}

    trained: list[int] = []
    for times in (1, 1, 2, 2):
        if times > len(trained) > 0:
            change(tmp_path / "history.json")
        assert checkpoint.train_once(tmp_path, train) == {"epochs": 2}
        assert len(trained) == times
        assert (tmp_path / "history.json").read_text() == "[1, 2]"
        (tmp_path / "scores").mkdir(exist_ok=True)


@pytest.mark.parametrize("other", [CLASSIFIER_WEIGHTS, "classifier.json"])
def test_weights_that_another_training_has_made_are_not_taken_for_this_ones(
    both, quiet_classifier, tmp_path, other
):
    quiet, facts = quiet_classifier
    out = made(tmp_path / quiet.name)
    for name in (CLASSIFIER_WEIGHTS, "classifier.json", checkpoint.ENDED):
        shutil.copy(quiet / name, out / name)
    content = bytearray((quiet / other).read_bytes())
    content[-1] ^= 1
    (out / other).write_bytes(content)
    assert classify.run(CLASSIFY, both, out, CONTEXT) == facts
    assert (out / other).read_bytes() == (quiet / other).read_bytes()


@pytest.mark.parametrize("lost", [CLASSIFIER_WEIGHTS, "classifier.json"])
def test_weights_or_their_description_that_are_gone_are_trained_again(
    both, quiet_classifier, tmp_path, lost
):
    quiet, facts = quiet_classifier
    out = made(tmp_path / quiet.name)
    for name in (CLASSIFIER_WEIGHTS, "classifier.json", checkpoint.ENDED):
        shutil.copy(quiet / name, out / name)
    (out / lost).unlink()
    assert classify.run(CLASSIFY, both, out, CONTEXT) == facts
    assert (out / lost).read_bytes() == (quiet / lost).read_bytes()


class Dying:
    """A progress that kills its own process, once, when so many samples are done."""

    def __init__(self, marker: Path, samples: int):
        self.marker, self.samples = marker, samples

    def __call__(self, done, total, unit, note=None) -> None:
        if done == self.samples and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_classifier_on_ray_train_survives_its_worker_and_equals_one_in_this_process(
    ray_session, both, quiet_classifier, tmp_path
):
    quiet, facts = quiet_classifier
    out, marker = made(tmp_path / "out"), tmp_path / "killed"
    context = StageContext(train_failures=1, checkpoint_seconds=0, progress=Dying(marker, 7 * 8))
    assert classify.run(CLASSIFY, both, out, context) == facts
    assert int(marker.read_text()) != os.getpid()
    assert same(out / CLASSIFIER_WEIGHTS, quiet / CLASSIFIER_WEIGHTS)
    assert sorted(path.name for path in out.iterdir()) == [
        "classifier.json",
        CLASSIFIER_WEIGHTS,
        HISTORY,
        ROC,
        checkpoint.ENDED,
    ]
    for name in (HISTORY, ROC):
        assert (out / name).read_bytes() == (quiet / name).read_bytes()


@RESIDENT_AND_STREAMED
def test_a_killed_irnet_training_goes_on_to_the_same_weights(results, tmp_path, resident_bytes):
    inputs = {name: results.paths[name] for name in ("train", "valid", "saliency")}
    context = replace(CONTEXT, resident_bytes=resident_bytes, checkpoint_seconds=0)
    quiet, killed = made(tmp_path / "quiet"), made(tmp_path / "killed")
    facts = irnet.run(IRNET, inputs, quiet, context)
    with pytest.raises(Killed):
        irnet.run(IRNET, inputs, killed, replace(context, progress=killing(3, 8)))
    assert (killed / checkpoint.STATE).exists()
    assert irnet.run(IRNET, inputs, killed, context) == facts
    assert same(killed / IRNET_WEIGHTS, quiet / IRNET_WEIGHTS)
    history = json.loads((quiet / "history.json").read_text())
    assert [entry["step"] for entry in history] == list(range(1, facts["steps"] + 1))
    assert json.loads((killed / "history.json").read_text()) == history
    for path in shards.files(quiet / "train"):
        assert Path(path).read_bytes() == (killed / "train" / Path(path).name).read_bytes()


@pytest.fixture(scope="module")
def many_files(results, tmp_path_factory):
    """The ingested training images again, eight a file, so that there is a middle to be killed in."""
    images = made(tmp_path_factory.mktemp("many") / "images")
    rows = shards.read(shards.files(results.paths["train"] / "images")[0])
    for number, start in enumerate(range(0, rows.num_rows, 8)):
        shards.write(images / shards.part_name(number), rows.slice(start, 8))
    return images.parent


@pytest.fixture(scope="module")
def mapped(results, both, many_files, tmp_path_factory):
    """An undisturbed saliency run over many files."""
    out = tmp_path_factory.mktemp("mapped")
    saliency.run(
        SALIENCY,
        {**both, "train": many_files, "classifier": results.paths["classify"]},
        out,
        CONTEXT,
    )
    return out


def test_actors_of_ray_data_write_what_one_worker_writes(
    ray_session, results, both, many_files, mapped, tmp_path
):
    inputs = {**both, "train": many_files, "classifier": results.paths["classify"]}
    saliency.run(SALIENCY, inputs, made(tmp_path / "saliency"), replace(CONTEXT, map_workers=2))
    assert contents(tmp_path / "saliency") == contents(mapped)


def kill(stage, config, inputs: dict[str, Path], out: Path) -> dict[str, int]:
    """Run a stage in a process that gets SIGKILL after two training files; when these were written."""
    name = stage.__name__.rpartition(".")[2]
    given = [f"{role}={path}" for role, path in inputs.items()]
    command = [sys.executable, "-c", KILLED_RUN, name, config.model_dump_json(), str(out), *given]
    assert subprocess.run(command, check=False, timeout=300).returncode == -signal.SIGKILL
    return written(out / "train")


def written(directory: Path) -> dict[str, int]:
    return {path: Path(path).stat().st_mtime_ns for path in shards.files(directory)}


def test_a_killed_saliency_or_irnet_run_goes_on_where_it_stopped(
    results, both, many_files, mapped, tmp_path
):
    inputs = {**both, "train": many_files, "classifier": results.paths["classify"]}
    killed = made(tmp_path / "killed")
    before = kill(saliency, SALIENCY, inputs, killed)
    assert len(before) == 2 < len(shards.files(mapped / "train"))
    saliency.run(SALIENCY, inputs, killed, CONTEXT)
    assert before.items() <= written(killed / "train").items()
    assert contents(killed) == contents(mapped)

    inputs = {**both, "train": many_files, "saliency": mapped}
    quiet, killed = made(tmp_path / "quiet irnet"), made(tmp_path / "killed irnet")
    irnet.run(IRNET, inputs, quiet, CONTEXT)
    before = kill(irnet, IRNET, inputs, killed)
    trained = (killed / IRNET_WEIGHTS).stat().st_mtime_ns
    assert len(before) == 2 < len(shards.files(quiet / "train"))
    irnet.run(IRNET, inputs, killed, CONTEXT)
    assert before.items() <= written(killed / "train").items()
    assert (killed / IRNET_WEIGHTS).stat().st_mtime_ns == trained
    assert contents(killed) == contents(quiet)


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of a stage by name.

    Without what a killed writer left, which `Store.commit` deletes, and without the record of the
    training, which names its directory.
    """
    files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes()
        for name, path in files.items()
        if not name.name.startswith(".") and name.name != checkpoint.ENDED
    }


@pytest.mark.parametrize("damage", ["cut", "bytes", "empty", "gone"])
def test_a_damaged_shard_is_not_taken_for_finished(mapped, tmp_path, damage):
    whole = Path(shards.files(mapped / "train")[0])
    path = tmp_path / whole.name
    content = bytearray(whole.read_bytes())
    path.write_bytes(content)
    manifest.note_digest(path)
    assert shards.finished(path) == shards.read(whole).num_rows
    if damage == "cut":
        path.write_bytes(content[:-60])
    elif damage == "bytes":  # same size, same footer
        middle = len(content) // 3
        content[middle : middle + 64] = bytes(64)
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    assert shards.finished(path) is None
    assert not path.exists()


def test_a_truncated_shard_of_a_killed_run_is_made_again_and_no_other(
    results, both, many_files, mapped, tmp_path
):
    inputs = {**both, "train": many_files, "classifier": results.paths["classify"]}
    out = tmp_path / "saliency"
    shutil.copytree(mapped, out)
    victim = Path(shards.files(out / "train")[1])
    victim.write_bytes(victim.read_bytes()[:-60])
    before = written(out / "train")
    saliency.run(SALIENCY, inputs, out, CONTEXT)
    assert contents(out) == contents(mapped)
    assert {path for path, at in written(out / "train").items() if before[path] != at} == {
        str(victim)
    }


def test_irnet_killed_after_its_last_step_goes_on_to_the_same_weights(
    results, tmp_path, monkeypatch
):
    inputs = {name: results.paths[name] for name in ("train", "valid", "saliency")}
    quiet, killed = made(tmp_path / "quiet"), made(tmp_path / "killed")
    eager = replace(CONTEXT, checkpoint_seconds=0)
    facts = irnet.run(IRNET, inputs, quiet, eager)

    def calibrate(self, batches):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(IRNet, "calibrate", calibrate)
        irnet.run(IRNET, inputs, killed, eager)
    assert not (killed / IRNET_WEIGHTS).exists()
    assert irnet.run(IRNET, inputs, killed, eager) == facts
    assert same(killed / IRNET_WEIGHTS, quiet / IRNET_WEIGHTS)


def test_a_network_that_was_damaged_is_trained_again_with_all_that_came_of_it(results, tmp_path):
    inputs = {name: results.paths[name] for name in ("train", "valid", "saliency")}
    irnet.run(IRNET, inputs, tmp_path, CONTEXT)
    before, at = contents(tmp_path), written(tmp_path / "train")
    (tmp_path / IRNET_WEIGHTS).unlink()
    irnet.run(IRNET, inputs, tmp_path, CONTEXT)
    assert contents(tmp_path) == before
    assert not at.items() & written(tmp_path / "train").items()


def test_a_classifier_killed_while_it_is_trained_again_is_not_taken_for_the_old_one(
    both, quiet_classifier, tmp_path
):
    """Its facts are still there when its weights are gone, and the killed training has written others."""
    quiet, facts = quiet_classifier
    out = tmp_path / "out"
    shutil.copytree(quiet, out)
    (out / CLASSIFIER_WEIGHTS).unlink()
    with pytest.raises(Killed):
        classify.run(CLASSIFY, both, out, replace(CONTEXT, progress=killing(7, 8)))
    assert not (out / checkpoint.ENDED).exists()
    assert not (out / CLASSIFIER_WEIGHTS).exists()
    assert classify.run(CLASSIFY, both, out, CONTEXT) == facts
    assert same(out / CLASSIFIER_WEIGHTS, quiet / CLASSIFIER_WEIGHTS)

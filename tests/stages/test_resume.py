"""Killed in the middle, the stages that make weak labels go on to the same bytes; damaged shards are made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from chexseg.data import shards
from chexseg.errors import UserError
from chexseg.stages import classify, irnet, ray_train, resume, saliency
from chexseg.stages.base import Execution

from .conftest import EXECUTION, EXPERT

CLASSIFY = classify.Config(architecture="resnet18", epochs=4, batch_size=8, learning_rate=1e-3, checkpoint_every=5)
IRNET = irnet.Config(architecture="resnet18", epochs=3, images=16, radius=4, batch_size=8)
SALIENCY = saliency.Config(images=40, **EXPERT)
#: Part of the command line of a process that is to be killed: what it runs, in its own Ray.
KILLED_RUN = """
import sys, ray
from chexseg.stages import irnet, saliency
from chexseg.stages.base import Execution
from pathlib import Path
ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
stage = {"irnet": irnet, "saliency": saliency}[sys.argv[1]]
inputs = dict(entry.split("=", 1) for entry in sys.argv[4:])
config = stage.Config.model_validate_json(sys.argv[2])
stage.run(config, {name: Path(path) for name, path in inputs.items()}, Path(sys.argv[3]), Execution())
print("finished")
"""


class Killed(Exception):
    pass


def killing(step: int, batch_size: int):
    """A progress that raises when so many steps are done."""

    def progress(done, total, unit, note=None):
        if done == step * batch_size and "loss" in (note or {}):
            raise Killed

    return progress


def weights(path: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in load_file(path).items()}


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def both(results):
    return {name: results.paths[name] for name in ("train", "valid")}


@pytest.fixture(scope="module")
def quiet_classifier(both, tmp_path_factory):
    out = tmp_path_factory.mktemp("classify")
    return out, classify.run(CLASSIFY, both, out, EXECUTION)


@pytest.mark.parametrize("resident_bytes", [2**30, 0], ids=["resident", "streamed"])
def test_a_killed_classifier_goes_on_to_the_same_weights(both, quiet_classifier, tmp_path, resident_bytes):
    execution = replace(EXECUTION, resident_bytes=resident_bytes)
    quiet, facts = quiet_classifier
    if not resident_bytes:
        quiet = made(tmp_path / "quiet")
        facts = classify.run(CLASSIFY, both, quiet, execution)
    out = made(tmp_path / "killed")
    eager = replace(execution, checkpoint_seconds=0)
    with pytest.raises(Killed):
        classify.run(CLASSIFY, both, out, replace(eager, progress=killing(13, 8)))
    assert (out / resume.STATE).exists()
    seen = []
    resumed = classify.run(CLASSIFY, both, out, replace(eager, progress=lambda *a: seen.append(a)))
    assert min(done for done, *_ in seen) == 13 * 8
    assert resumed == facts
    assert same(out / classify.WEIGHTS, quiet / classify.WEIGHTS)
    assert not (out / resume.STATE).exists()


def test_a_classifier_that_has_ended_is_not_trained_again(both, quiet_classifier):
    out, facts = quiet_classifier
    seen = []
    assert classify.run(CLASSIFY, both, out, replace(EXECUTION, progress=lambda *a: seen.append(a))) == facts
    assert not seen


def test_a_damaged_state_means_training_from_the_start(both, quiet_classifier, tmp_path):
    (tmp_path / resume.STATE).write_bytes(b"PK\x03\x04 cut off")
    quiet, facts = quiet_classifier
    assert classify.run(CLASSIFY, both, tmp_path, EXECUTION) == facts
    assert same(tmp_path / classify.WEIGHTS, quiet / classify.WEIGHTS)


class Dying:
    """A progress that kills its own process, once, when so many samples are done."""

    def __init__(self, marker: Path, samples: int):
        self.marker, self.samples = marker, samples

    def __call__(self, done, total, unit, note=None) -> None:
        if done == self.samples and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_classifier_on_ray_train_survives_its_worker_and_equals_one_in_this_process(both, quiet_classifier, tmp_path):
    quiet, facts = quiet_classifier
    out, marker = made(tmp_path / "out"), tmp_path / "killed"
    execution = Execution(train_failures=1, checkpoint_seconds=0, progress=Dying(marker, 13 * 8))
    assert classify.run(CLASSIFY, both, out, execution) == facts
    assert int(marker.read_text()) != os.getpid()
    assert same(out / classify.WEIGHTS, quiet / classify.WEIGHTS)
    assert sorted(path.name for path in out.iterdir()) == ["classifier.json", classify.WEIGHTS, resume.ENDED]


def mistaken(execution):
    raise UserError("x.yaml: found 1; allowed: 2")


def broken(execution):
    raise ZeroDivisionError("of nothing")


def test_errors_on_ray_train_arrive_and_are_not_tried_again(ray_session, tmp_path):
    with pytest.raises(UserError, match="^x.yaml: found 1; allowed: 2$"):
        ray_train.run(mistaken, "mistaken", tmp_path, Execution(train_failures=2))
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: of nothing\n(.*\n)+.*in broken"):
        ray_train.run(broken, "broken", tmp_path, Execution(train_failures=2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("resident_bytes", [2**30, 0], ids=["resident", "streamed"])
def test_a_killed_irnet_training_goes_on_to_the_same_weights(results, tmp_path, resident_bytes):
    inputs = {name: results.paths[name] for name in ("train", "valid", "saliency")}
    execution = replace(EXECUTION, resident_bytes=resident_bytes, checkpoint_seconds=0)
    quiet, killed = made(tmp_path / "quiet"), made(tmp_path / "killed")
    facts = irnet.run(IRNET, inputs, quiet, execution)
    with pytest.raises(Killed):
        irnet.run(IRNET, inputs, killed, replace(execution, progress=killing(4, 8)))
    assert (killed / resume.STATE).exists()
    assert irnet.run(IRNET, inputs, killed, execution) == facts
    assert same(killed / irnet.WEIGHTS, quiet / irnet.WEIGHTS)
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


def killed_and_continued(stage, config, inputs: dict[str, Path], out: Path) -> int:
    """Run a stage in a process that gets SIGKILL as soon as a training file is there, then here; files kept from then."""
    name = stage.__name__.rpartition(".")[2]
    given = [f"{role}={path}" for role, path in inputs.items()]
    command = [sys.executable, "-c", KILLED_RUN, name, config.model_dump_json(), str(out), *given]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + 120
        while not shards.files(out / "train") and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.002)
    finally:
        process.kill()
        output, _ = process.communicate()
    assert "finished" not in output
    # Its workers die of its death, but not at once.
    time.sleep(3)
    before = {path: Path(path).stat().st_mtime_ns for path in shards.files(out / "train")}
    stage.run(config, inputs, out, EXECUTION)
    return sum(Path(path).stat().st_mtime_ns == changed for path, changed in before.items())


def test_a_killed_saliency_or_irnet_run_goes_on_where_it_stopped(results, both, many_files, tmp_path):
    inputs = {**both, "train": many_files, "classifier": results.paths["classify"]}
    quiet, killed = made(tmp_path / "quiet"), made(tmp_path / "killed")
    saliency.run(SALIENCY, inputs, quiet, EXECUTION)
    assert 1 <= killed_and_continued(saliency, SALIENCY, inputs, killed) < len(shards.files(quiet / "train"))
    assert contents(killed) == contents(quiet)

    inputs = {**both, "train": many_files, "saliency": quiet}
    quiet, killed = made(tmp_path / "quiet irnet"), made(tmp_path / "killed irnet")
    irnet.run(IRNET, inputs, quiet, EXECUTION)
    assert 1 <= killed_and_continued(irnet, IRNET, inputs, killed) < len(shards.files(quiet / "train"))
    assert contents(killed) == contents(quiet)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a stage; without what a killed writer left, which `Store.commit` sweeps away."""
    files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in files.items() if not name.name.startswith(".")}


@pytest.mark.parametrize("damage", ["cut", "bytes", "empty", "gone"])
def test_a_damaged_shard_of_a_killed_run_is_found_and_made_again(results, both, many_files, tmp_path, damage):
    inputs = {**both, "train": many_files, "classifier": results.paths["classify"]}
    saliency.run(SALIENCY, inputs, tmp_path, EXECUTION)
    before = contents(tmp_path)
    files = [Path(path) for path in shards.files(tmp_path / "train")]
    kept = {path: path.stat().st_mtime_ns for path in files[1:]}
    content = bytearray(files[0].read_bytes())
    if damage == "cut":
        files[0].write_bytes(content[:-60])
    elif damage == "bytes":  # same size, same footer
        middle = len(content) // 3
        content[middle : middle + 64] = bytes(64)
        files[0].write_bytes(content)
    elif damage == "empty":
        files[0].write_bytes(b"")
    else:
        files[0].unlink()
    saliency.run(SALIENCY, inputs, tmp_path, EXECUTION)
    assert contents(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in files[1:]} == kept

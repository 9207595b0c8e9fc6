"""Test prediction: the masks that `score` counts, for all kinds of files; none after an error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from chexseg.data import chexlocalize, chexpert, shards
from chexseg.errors import ChexsegError, DamagedArtifactError, UserError
from chexseg.models import encoders, segmenter
from chexseg.phantom.radiograph import radiograph
from chexseg.predict import image_files, segment
from chexseg.progress import Quiet
from chexseg.stages import ingest, score
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import COUNTS, SEGMENTER_WEIGHTS
from chexseg.stages.configs import IngestConfig, ScoreConfig
from chexseg.store import manifest

from .conftest import NAMES, SIZE


@pytest.fixture(scope="session")
def film_HW() -> np.ndarray:
    pixels_HW, _ = radiograph(5, 90, 120, ["Cardiomegaly"])
    return pixels_HW


def predicted(model: Path, out: Path, *paths: Path) -> chexlocalize.MaskFile:
    segment.run(segment.load(model), image_files.find(paths)[0], out, Quiet())
    return chexlocalize.read(out / segment.MASKS)


def masks_of(model: Path, out: Path, path: Path) -> np.ndarray:
    mask_file = predicted(model, out, path)
    (image_id,) = mask_file
    return mask_file.masks(image_id, NAMES)


def test_its_masks_have_the_counts_that_score_has_at_own_size(phantom_root, model, tmp_path):
    (tmp_path / "test").mkdir()
    ingest.run(
        IngestConfig(split="test", size=SIZE),
        {"data": phantom_root},
        tmp_path / "test",
        StageContext(),
    )
    given = {"test": tmp_path / "test", "segmenter": model, "data": phantom_root}
    (tmp_path / "score").mkdir()
    score.run(ScoreConfig(resolution="own"), given, tmp_path / "score", StageContext())
    counts = (
        shards.read(tmp_path / "score" / COUNTS).to_pandas().set_index(["image_id", "pathology"])
    )
    csv, folder = chexpert.locate(phantom_root, "test")
    mask_file = predicted(model, tmp_path / "out", folder)
    truth = chexlocalize.read(phantom_root / chexlocalize.FILES["test"])
    assert set(mask_file) == set(truth) == set(chexpert.read_csv(csv, folder)["image_id"])
    for image_id in truth:
        guess_KHW, true_KHW = mask_file.masks(image_id, NAMES), truth.masks(image_id, NAMES)
        for name, guess_HW, true_HW in zip(NAMES, guess_KHW, true_KHW, strict=True):
            counted = counts.loc[(image_id, name), ["intersection", "predicted", "true"]].tolist()
            assert counted == [(guess_HW & true_HW).sum(), guess_HW.sum(), true_HW.sum()]
    assert (
        0.02
        < counts["predicted"].sum() / sum(np.prod(truth.size(name)) * len(NAMES) for name in truth)
        < 0.98
    )


def test_every_image_and_pathology_is_named_and_has_an_overlay(model, film_HW, tmp_path):
    black_HW = np.zeros((40, 30), dtype=np.uint8)
    for name, pixels in (("film.jpg", film_HW), ("black.png", black_HW)):
        Image.fromarray(pixels).save(tmp_path / name)
    result = segment.run(
        segment.load(model), image_files.find([tmp_path])[0], tmp_path / "out", Quiet()
    )
    mask_file = chexlocalize.read(tmp_path / "out" / segment.MASKS)
    assert {image_id: mask_file.size(image_id) for image_id in mask_file} == {
        "black": (40, 30),
        "film": (90, 120),
    }
    assert all(tuple(mask_file[image_id]) == NAMES for image_id in mask_file)
    per_image = [mask_file.masks(image_id, NAMES).any(axis=(1, 2)) for image_id in mask_file]
    assert list(result.values()) == np.sum(per_image, axis=0).tolist()
    for image_id in mask_file:
        picture = np.asarray(
            Image.open(tmp_path / "out" / segment.OVERLAYS / f"{image_id}.png")
        ).astype(int)
        coloured_HW = np.ptp(picture, axis=2) > 10
        assert coloured_HW.any() == mask_file.masks(image_id, NAMES).any()


def test_sixteen_bits_give_the_masks_of_eight(model, film_HW, tmp_path):
    Image.fromarray(film_HW).save(tmp_path / "eight.png")
    Image.fromarray(film_HW.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    first, second = (
        masks_of(model, tmp_path / name, tmp_path / f"{name}.png") for name in ("eight", "sixteen")
    )
    assert first.any() and np.array_equal(first, second)


def test_twelve_bits_in_sixteen_give_the_masks_of_eight(model, film_HW, tmp_path):
    Image.fromarray(film_HW).save(tmp_path / "eight.png")
    Image.fromarray(film_HW.astype(np.uint16) * 16).save(tmp_path / "twelve.png")
    first, second = (
        masks_of(model, tmp_path / name, tmp_path / f"{name}.png") for name in ("eight", "twelve")
    )
    assert first.any() and np.array_equal(first, second)


def test_masks_are_those_of_the_image_as_it_is_shown(model, film_HW, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(film_HW).save(tmp_path / "upright.png")
    Image.fromarray(np.rot90(film_HW)).save(tmp_path / "sideways.png", exif=exif)
    first, second = (
        masks_of(model, tmp_path / name, tmp_path / f"{name}.png")
        for name in ("upright", "sideways")
    )
    assert first.any() and np.array_equal(first, second)


def test_both_photometric_interpretations_give_the_same_masks_as_a_png(
    model, film_HW, tmp_path, write_dicom
):
    full_HW = film_HW.astype(int)
    full_HW[0, :2] = (
        0,
        255,
    )  # so that the least and the greatest value mean the same in DICOM as in PNG
    Image.fromarray(full_HW.astype(np.uint8)).save(tmp_path / "film.png")
    write_dicom(tmp_path / "dark air.dcm", full_HW * 16)
    write_dicom(tmp_path / "dark bone.dcm", 4095 - full_HW * 16, "MONOCHROME1")
    names = ("film.png", "dark air.dcm", "dark bone.dcm")
    plain, second, first = (
        masks_of(model, tmp_path / "out" / name, tmp_path / name) for name in names
    )
    assert plain.any() and np.array_equal(first, second) and np.array_equal(first, plain)


def test_a_weights_file_is_as_good_as_its_directory(model, film_HW, tmp_path):
    Image.fromarray(film_HW).save(tmp_path / "film.png")
    first, second = (
        masks_of(path, tmp_path / path.name, tmp_path / "film.png")
        for path in (model, model / SEGMENTER_WEIGHTS)
    )
    assert np.array_equal(first, second)


def damaged_model(model: Path, tmp_path: Path, how: str) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    weights, note = copy / SEGMENTER_WEIGHTS, (copy / SEGMENTER_WEIGHTS).with_suffix(".json")
    if how == "weights cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "weights of nothing":
        weights.write_bytes(b"x" * 100)
    elif how == "no description":
        note.unlink()
    elif how.startswith("description: "):
        field, value = json.loads(how.removeprefix("description: "))
        note.write_text(json.dumps(json.loads(note.read_text()) | {field: value}))
    elif how == "another description":
        encoders.save(torch.nn.Linear(1, 1), weights, architecture="resnet18")
    else:
        weights.unlink()
    return copy


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("weights cut", "segmenter.safetensors: weights don't fit"),
        ("weights of nothing", "segmenter.safetensors: weights don't fit"),
        ("no description", "segmenter.json: not the description of a segmenter"),
        ("another description", "segmenter.json: not the description of a segmenter"),
        (
            'description: ["thresholds", [0.5, 0.45]]',
            "thresholds: found [0.5, 0.45]; expected 3 numbers from 0 to 1",
        ),
        ('description: ["thresholds", [0.5, 0.45, 0.5, 0.5]]', "expected 3 numbers"),
        ('description: ["thresholds", [0.5, NaN, 0.5]]', "expected 3 numbers from 0 to 1"),
        ('description: ["thresholds", 0.5]', "expected 3 numbers from 0 to 1"),
        (
            'description: ["pathologies", ["Edema", "Edema", "Oedema"]]',
            "pathologies: found ['Edema', 'Edema', 'Oedema']",
        ),
        ('description: ["size", 100]', "size: found 100; expected a multiple of 32"),
        ('description: ["size", 3200000]', "size: found 3200000; expected a multiple of 32 up to"),
        ("none", "found no segmenter.safetensors"),
    ],
)
def test_what_is_no_segmenter_is_refused_in_one_line(model, tmp_path, how, words):
    with pytest.raises(ChexsegError) as caught:
        segment.load(damaged_model(model, tmp_path, how))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_every_size_of_a_study_is_accepted():
    IngestConfig(split="train", size=segmenter.LARGEST)
    with pytest.raises(ValueError, match="less than or equal"):
        IngestConfig(split="train", size=segmenter.LARGEST + 32)


@pytest.mark.parametrize("weights", [True, False])
def test_the_result_of_another_key_is_refused_in_one_line(model, tmp_path, weights):
    """Check because the key says what a model was trained on.

    A directory with another model's key would pass for that model.
    """
    key, other = "0123456789abcdef" * 4, "f" * 64
    for name, is_refused in ((key[:20], False), (other[:20], True), ("best", False)):
        directory = tmp_path / name
        shutil.copytree(model, directory)
        write_manifest(directory, key)
        given = directory / SEGMENTER_WEIGHTS if weights else directory
        if not is_refused:
            assert segment.load(given).pathologies == NAMES
            continue
        with pytest.raises(DamagedArtifactError) as caught:
            segment.load(given)
        assert str(caught.value) == (
            f"{directory}/manifest.json: key: found {key[:20]}...; expected {name}..."
        )


def write_manifest(directory: Path, key: str) -> None:
    files = {
        path.name: {"size": path.stat().st_size, "sha256": manifest.sha256(path.open("rb"))}
        for path in directory.iterdir()
    }
    parts = {"key": key, "stage": "fit", "version": 1, "config": {}, "inputs": {}, "data": None}
    parts |= {"files": files, "facts": {}, "seconds": 1, "finished": "", "host": "here"}
    (directory / manifest.MANIFEST).write_text(json.dumps(manifest.seal(parts)))


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "chexseg", "predict", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.mark.heavy  # commands that import PyTorch
def test_the_command_writes_all_or_nothing(model, film_HW, tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("a", "b"):
        Image.fromarray(film_HW).save(tmp_path / "films" / f"{name}.png")
    (tmp_path / "films" / "b.png").write_bytes((tmp_path / "films" / "a.png").read_bytes()[:500])
    answer = command(model, "films", "--out", "out", cwd=tmp_path)
    assert answer.returncode == 2
    assert (
        answer.stderr.startswith("chexseg: films/b.png: found no readable image")
        and answer.stderr.count("\n") == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["films"]

    (tmp_path / "films" / "b.png").rename(tmp_path / "films" / "notes.txt")
    (tmp_path / "films" / "notes.txt").write_text("no image")
    answer = command(model, "films", "--out", "out", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "note: skipped, no JPEG, PNG, TIFF or DICOM image: films/notes.txt\n" in answer.stderr
    assert answer.stdout.startswith(
        "out: segmentations.json and overlays/ of 1 image\nCardiomegaly "
    )
    files = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")
    )
    assert files == ["overlays", "overlays/a.png", "segmentations.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "out"]

    answer = command(model, "films", "--out", "out", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (
        2,
        "chexseg: out: already exists; expected: a new or empty directory\n",
    )


@pytest.mark.heavy  # commands that import PyTorch
def test_a_missing_model_and_an_empty_directory_are_told_in_one_line(model, film_HW, tmp_path):
    (tmp_path / "empty").mkdir()
    Image.fromarray(film_HW).save(tmp_path / "film.png")
    for arguments, words in (
        (("nowhere", "film.png"), "nowhere: found no segmenter.safetensors"),
        ((model, "empty"), "empty: found no image"),
        ((model, "film.png", "nothing.png"), "nothing.png: no such file or directory"),
    ):
        answer = command(*arguments, "--out", "out", cwd=tmp_path)
        assert answer.returncode == 2 and answer.stderr.count("\n") == 1
        assert words in answer.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "film.png"]


def test_all_damaged_files_are_counted(tmp_path, film_HW):
    Image.fromarray(film_HW).save(tmp_path / "whole.png")
    for name in ("x.jpg", "y.png", "z.dcm"):
        (tmp_path / name).write_bytes(b"nothing")
    seen: list[int] = []
    with pytest.raises(
        UserError, match=r"x\.jpg: found no readable image .*\(3 of 4 files can't be read\)$"
    ):
        image_files.check({path.name: path for path in sorted(tmp_path.iterdir())}, seen.append)
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("place", ["fit", "key", "file"])
def test_a_linked_fit_of_a_store_is_refused(model, tmp_path, place):
    outside = shutil.copytree(model, tmp_path / "outside" / ("0" * 20))
    fit = tmp_path / "store" / "fit"
    if place == "fit":
        fit.parent.mkdir()
        fit.symlink_to(outside.parent)
    elif place == "key":
        fit.mkdir(parents=True)
        (fit / outside.name).symlink_to(outside)
    else:
        (fit / outside.name).mkdir(parents=True)
        for path in outside.iterdir():
            (fit / outside.name / path.name).symlink_to(path)
    with pytest.raises(ChexsegError, match="symbolic link"):
        segment.load(fit / outside.name)


def test_a_fit_of_a_store_without_its_manifest_is_refused(model, tmp_path):
    directory = shutil.copytree(model, tmp_path / "fit" / ("0" * 20))
    (directory / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(ChexsegError, match="no manifest.json"):
        segment.load(directory)


def test_images_are_resized_as_in_training(model, film_HW, monkeypatch):
    methods = []
    monkeypatch.setattr(
        segment.Frame,
        "image",
        lambda frame, pixels_HW, method: (
            methods.append(method) or np.zeros((frame.size,) * 2, dtype=np.uint8)
        ),
    )
    segmenter = segment.load(model)
    for method in ("antialiased", "bilinear"):
        list(segment.masks(replace(segmenter, image_resize=method), [film_HW]))
    assert methods == ["antialiased", "bilinear"] and segmenter.image_resize == methods[0]


def test_a_name_of_dots_is_a_name(model, film_HW, tmp_path):
    Image.fromarray(film_HW).save(tmp_path / "film.png")
    files, _ = image_files.find([(tmp_path / "film.png").rename(tmp_path / "....jpg")])
    segment.run(segment.load(model), files, tmp_path / "out", Quiet())
    assert (tmp_path / "out" / segment.OVERLAYS / "....png").is_file()

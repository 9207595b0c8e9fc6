"""Fuzz the readers of files that others can write: no traceback, no hang, little memory.

The cases are valid files that are damaged, the same in every run. A longer search is
``CHEXSEG_FUZZ=20 pytest tests/fuzz``, with 20 times as many cases. test_fuzz.py runs each of these
tests in a process without Ray: a fork of one with its threads may wait for ever.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from chexseg import resolve
from chexseg.data import chexlocalize, images
from chexseg.data.masks.areas import areas
from chexseg.data.raw_split import RawData
from chexseg.errors import Mistakes, UserError
from chexseg.evaluation.evaluate import evaluate
from chexseg.pathologies import PATHOLOGIES
from chexseg.search import journal, status
from chexseg.search.optuna_study import OptunaStudy
from chexseg.store import contents, manifest
from chexseg.store.store import Store
from tests.fuzz import mutations
from tests.fuzz.child import check
from tests.search.searches import GRID, SEARCH, finish, searched
from tests.store.test_manifest import document

TIMES = int(os.environ.get("CHEXSEG_FUZZ", "1"))
#: A study with the sections that a search and a grid of tests lack.
STUDY = """\
name: small  # a comment
title: "A small study"
reproduces: [table-1]
axes: {labels.p: [0.5, 1], labels.weak: [cam, irnet], trial: &trials [0, 1]}
also:
  - {distil.fraction: 0.5, distil.noise: true}
  - {fit.epochs: 0, labels.p: 1}
settings:
  size: 64
  pathologies: [Edema, Atelectasis]
  encoder: {architecture: resnet18, init: random}
  labels: {expert_split: {train: 8, select: 4}}
  saliency: {threshold: 0.5}
resources: {cpu: 2, gpu: auto}
execution: {graphs: off}
"""
Damage = Callable[[bytes, random.Random], bytes]


def cases(count: int, valid: list[bytes], *damages: Damage) -> Iterator[bytes]:
    """Yield damaged files, after the valid ones."""
    yield from valid
    for seed in range(count * TIMES):
        source = random.Random(seed)
        yield source.choice(damages)(source.choice(valid), source)


def test_study_files(tmp_path, phantom_root):
    file, store, raw = tmp_path / "study.yaml", Store(tmp_path / "store"), RawData(phantom_root)
    valid = [text.encode() for text in (SEARCH, GRID, STUDY)]

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for plan in resolve.read([file], raw, store, check=True):
            lines = resolve.mistakes(plan, store, raw, planning=True)
            resolve.summarise(plan, store, raw)
            if lines:
                raise Mistakes(lines)

    damaged = cases(400, valid, mutations.damaged_bytes, mutations.damaged_tokens)
    check(read, damaged, mebibytes=500)


def test_mask_files(tmp_path):
    rng = np.random.default_rng(0)
    entries = {
        f"patient{number}": {name: rng.random((20, 30)) < 0.3 for name in PATHOLOGIES[:3]}
        for number in range(3)
    }
    truth, file = tmp_path / "gt.json", tmp_path / "pred.json"
    chexlocalize.write(truth, entries)
    points = {image_id: {"Edema": [[3, 4], [10.5, 2]]} for image_id in entries}
    valid = [truth.read_bytes(), json.dumps(points).encode()]

    def read(content: bytes) -> None:
        file.write_bytes(content)
        masks, faults = chexlocalize.scan(file)
        lines = [message for _, message in faults] + areas(masks)[1]
        for metric in ("pooled", "per-image", "hit-rate"):
            try:
                evaluate(truth, file, metric)
            except UserError as error:
                lines.append(str(error))
        if lines:
            raise Mistakes(lines)

    check(read, cases(3000, valid, mutations.damaged_json), mebibytes=300)


def test_manifests(tmp_path):
    store = Store(tmp_path)
    folder = tmp_path / "fit" / ("a" * 20)
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "values.bin").write_bytes(b"0123456789")
    facts = {"curve": [0.1, 0.2], "size": 64, "names": {"a": [1, [2]]}}
    whole = document(facts=facts, config={"epochs": 1, "parts": {"rate": 0.1}})
    valid = [json.dumps(manifest.seal(whole)).encode(), json.dumps(whole).encode()]

    def read(content: bytes) -> None:
        (folder / manifest.MANIFEST).write_bytes(content)
        contents.table(contents.contents(store))
        lines = contents.verify(store, lambda *progress: None).damaged
        assert all("\n" not in line for line in lines)
        store.imported()
        for artifact in store.artifacts():
            json.dumps(artifact.manifest, indent=1)

    check(read, cases(1500, valid, mutations.damaged_json), mebibytes=300)


def test_a_searchs_journal(tmp_path):
    search, store = searched(), Store(tmp_path)
    optuna_study = OptunaStudy(search, store)
    optuna_study.open()
    for miou in (0.25, 0.5):
        trial, point = optuna_study.ask()
        planned = search.plan([point])
        for cell in planned.cells:
            finish(store, planned, cell.fit, miou)
        optuna_study.complete(trial, [cell.fit for cell in planned.cells], [])
    optuna_study.ask()
    path = journal.path_in(store)
    valid = [path.read_bytes()]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        status.summarise(search, store).status_text()
        OptunaStudy(search, store).points()

    def damaged_lines(content: bytes, source: random.Random) -> bytes:
        lines = content.splitlines(keepends=True)
        number = source.randrange(len(lines))
        lines[number] = mutations.damaged_json(lines[number], source)
        return (
            b"".join(lines) if source.random() < 0.8 else mutations.damaged_bytes(content, source)
        )

    check(read, cases(200, valid, damaged_lines), mebibytes=300)


def test_dicom_headers(tmp_path, write_dicom):
    stored_HW = np.random.default_rng(0).integers(0, 4096, (16, 12))
    window = {"WindowCenter": 2000, "WindowWidth": 3000}
    factors = {"RescaleSlope": 2, "RescaleIntercept": -5}
    padding = {"PixelPaddingValue": 7, "PixelPaddingRangeLimit": 9}
    valid = [
        write_dicom(tmp_path / "x.dcm", stored_HW, **elements).read_bytes()
        for elements in ({}, window, factors, padding, {**window, **factors, **padding})
    ]
    file = tmp_path / "x.dcm"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        images.read(file)

    def damaged_header(content: bytes, source: random.Random) -> bytes:
        header = len(content) - stored_HW.size * 2 - 12
        return mutations.damaged_bytes(content[132:header], source).join(
            (content[:132], content[header:])
        )

    damaged = cases(3000, valid, damaged_header, mutations.damaged_bytes)
    check(read, damaged, mebibytes=300)


def test_pictures(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 12), dtype=np.uint8))
    valid = []
    for kind, options in (
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        *(("TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg")),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        valid.append(file.getvalue())
    path = tmp_path / "image"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        images.read(path)

    check(read, cases(3000, valid, mutations.damaged_bytes), mebibytes=1000)

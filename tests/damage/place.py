"""A directory with a data set, a study, a search and their store, restored after each damage."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from chexseg import resolve
from chexseg.data import chexpert
from chexseg.data.raw_split import RawData
from chexseg.models import encoders
from chexseg.phantom import dataset
from chexseg.plan.graph import Node, node_of
from chexseg.run.encoder_import import import_encoder
from chexseg.run.execute import execute
from chexseg.stages.api import StageContext
from chexseg.stages.configs import FitConfig
from chexseg.stages.training import checkpoint
from chexseg.store.store import Store

ARCHITECTURE = "mobilenet_v2"  # the smallest segmenter
STUDY = f"""
name: small
settings:
  size: 32
  pathologies: [Cardiomegaly, Edema]
  encoder: {{init: imagenet, architecture: {ARCHITECTURE}}}
  labels: {{p: 0.5, weak_images: 4, expert_split: {{train: 4, select: 4}}}}
  classify: {{architecture: {ARCHITECTURE}, epochs: 1, batch_size: 8}}
  fit: {{epochs: 2, samples_per_epoch: 4, batch_size: 2}}
"""
SEARCH = STUDY.replace("name: small", "name: searched") + (
    "axes: {labels.p: {low: 0.5, high: 0.9}}\nsearch: {points: 2, sampler: random, pruner: none}\n"
)
CONTEXT = StageContext(threads=1)
Entry = tuple[int, int, int, int]


class Killed(BaseException):
    """Ends a stage run in the middle, as if its process had been killed."""


class Place:
    """A study that has run, as files below `root`. `restore` undoes what has changed since."""

    def __init__(self, root: Path, run: Callable[[Place, str], Any]) -> None:
        """run: runs the study file of this name."""
        self.root, self.aside = root, root.with_name(f"{root.name}-aside")
        self.data, self.store = root / "data", Store(root / "store")
        self.stored = self.store.backend.local
        self.aside.mkdir()
        dataset.write(
            self.data, dataset.Config(train=12, valid=16, test=4, size=64, prevalence=0.5)
        )
        (root / "study.yaml").write_text(STUDY)
        (root / "searched.yaml").write_text(SEARCH)
        self.readers = self.data / "CheXlocalize" / "hb_segmentations_test.json"
        self.image = root / "new" / "film.jpg"
        self.image.parent.mkdir()
        shutil.copy(self.film("test"), self.image)
        torch.manual_seed(0)
        torch.save(encoders.build(ARCHITECTURE).state_dict(), self.aside / "encoder.pt")
        import_encoder(self.aside / "encoder.pt", "imagenet", ARCHITECTURE, self.store)
        self.plan = self.plan_of("study.yaml")
        self.partials = {stage: self._killed(stage) for stage in ("saliency", "fit")}
        run(self, "study.yaml")
        run(self, "searched.yaml")
        self.unneeded = self._unneeded()
        shutil.copytree(root, self.aside / "copy", symlinks=True)
        self._entries = _entries(root)
        self.files = self.digests()

    def _killed(self, stage: str) -> Path:
        """Return what a killed run of a stage leaves as its partial directory, moved aside."""

        def kill(*arguments: Any, **keywords: Any) -> None:
            raise Killed

        needed = self.plan.behind([self.node(stage).key])
        *before, last = [node for key, node in self.plan.nodes.items() if key in needed]
        for node in before:
            execute(node, self.plan.nodes, self.store, self.data, CONTEXT)
        save = checkpoint.save
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            patch.setattr(checkpoint, "save", lambda *a, **k: kill(save(*a, **k)))
            context = StageContext(
                threads=1,
                checkpoint_seconds=0,
                progress=kill if stage == "saliency" else lambda *a: None,
            )
            execute(last, self.plan.nodes, self.store, self.data, context)
        (partial,) = self.store.backend.partials().values()
        return partial.rename(self.aside / partial.name)

    def _unneeded(self) -> Path:
        """Add a result that no study needs, and return its directory."""
        fit = self.node("fit")
        other = node_of("fit", FitConfig(**{**fit.config, "epochs": 7}), fit.inputs)
        with self.store.working_on(other) as partial:
            shutil.copytree(self.result("fit"), partial)
            artifact = self.store.commit(other, partial, self.store.find("fit", fit.key).facts, 1)
        return artifact.path

    def plan_of(self, study: str) -> Any:
        (plan,) = resolve.read([self.root / study], RawData(self.data), self.store)
        return plan

    def film(self, split: str) -> Path:
        return Path(chexpert.read(self.data, split)["path"].iloc[0])

    def node(self, stage: str, split: str | None = None) -> Node:
        nodes = [node for node in self.plan.nodes.values() if node.stage == stage]
        return next(node for node in nodes if split in (None, node.config.get("split")))

    def result(self, stage: str, split: str | None = None) -> Path:
        return self.stored / stage / self.node(stage, split).key[:20]

    def digests(self) -> dict[str, dict[str, str]]:
        """Return result -> file -> SHA-256 of all results of the store."""
        return {
            artifact.name: {
                name: entry["sha256"] for name, entry in artifact.manifest["files"].items()
            }
            for artifact in self.store.artifacts()
        }

    def entries(self) -> dict[str, Entry]:
        """Return path -> what changes with a file, of all that is here, without outputs."""
        entries = _entries(self.root)
        return {name: entry for name, entry in entries.items() if not name.startswith("out")}

    def restore(self) -> None:
        """Bring back every file that has changed, and delete every other one."""
        entries = _entries(self.root)
        for name in sorted(entries.keys() - self._entries.keys(), reverse=True):
            _remove(self.root / name)
        for name, entry in sorted(self._entries.items()):
            if entries.get(name) != entry:
                path = self.root / name
                if stat.S_ISDIR(entry[0]):
                    if not path.is_dir() or path.is_symlink():
                        _remove(path)
                        path.mkdir()
                else:
                    _remove(path)
                    shutil.copy2(self.aside / "copy" / name, path)
                self._entries[name] = _entry(path)


def _entries(root: Path) -> dict[str, Entry]:
    """Return path below a directory -> `_entry`, links not followed."""
    return {
        os.path.relpath(os.path.join(folder, name), root): _entry(Path(folder, name))
        for folder, folders, files in os.walk(root)
        for name in (*folders, *files)
    }


def _entry(path: Path) -> Entry:
    """Return what changes with a file: its mode, size, last write and inode; only a folder's mode."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return status.st_mode, 0, 0, 0
    return status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

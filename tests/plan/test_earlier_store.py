"""Test a store that an earlier version wrote: all its results are still cached.

Commit 0032811 made ``earlier_store.tar.xz``, stage by stage on one CPU. It holds a data set, a
study of all ten stages and its store, without the files above 100 kB. These are weights, and `study
status` looks only at their sizes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chexseg.cli import app
from chexseg.errors import Mistakes
from chexseg.stages.registry import STAGES

ARCHIVE = Path(__file__).with_name("earlier_store.tar.xz")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """Return a directory with ``study.yaml``, ``data`` and ``store``.

    The study gets the one default that has changed since.
    """
    root = tmp_path_factory.mktemp("earlier")
    shutil.unpack_archive(ARCHIVE, root)
    study = root / "study.yaml"
    (root / "default.yaml").write_text(study.read_text())
    study.write_text(
        study.read_text().replace("init: imagenet}", "init: imagenet, freeze_backbone: false}", 1)
    )
    for manifest in root.glob("store/*/*/manifest.json"):
        for name, entry in json.loads(manifest.read_bytes())["files"].items():
            if not (file := manifest.parent / name).exists():
                with file.open("wb") as empty:
                    empty.truncate(entry["size"])
    return root


def chexseg(earlier: Path, command: str, study: str = "study.yaml") -> dict[str, Any]:
    """Return the JSON of `chexseg study plan` or `status` on the earlier store."""
    arguments = [
        "study",
        command,
        str(earlier / study),
        "--data",
        str(earlier / "data"),
        "--json",
    ]
    answer = CliRunner().invoke(app, [*arguments, "--store", str(earlier / "store")])
    # The data is so small that `plan` finds mistakes in what would have to run.
    if study == "study.yaml" or command == "status":
        assert answer.exit_code == 0, answer.output
    else:
        assert isinstance(answer.exception, Mistakes)
    return json.loads(answer.stdout)


def test_every_cell_of_an_earlier_store_is_done(earlier):
    status = chexseg(earlier, "status")
    assert len(status["cells"]) == 5
    assert status["complete"]


def test_every_stage_of_an_earlier_store_is_cached(earlier):
    stages = chexseg(earlier, "plan")["stages"]
    assert {stage["stage"] for stage in stages} == set(STAGES)
    assert [stage for stage in stages if stage["state"] != "cached"] == []


def test_the_changed_default_is_named_as_the_reason(earlier):
    stages = chexseg(earlier, "plan", "default.yaml")["stages"]
    changes = [stage["change"] for stage in stages if stage["stage"] == "irnet"]
    assert changes == ["irnet.freeze_backbone: false then, true now"]

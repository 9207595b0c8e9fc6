"""Test that a result is of the driver's code, whenever the sources change."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import chexseg
from chexseg import code_version
from chexseg.errors import UserError
from chexseg.run.execute import execute
from chexseg.stages import fit, ingest
from chexseg.stages.registry import STAGES
from tests.run.small_study import CONTEXT, node_of, run


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a copy of chexseg's directory that counts as the one imported."""
    code_version.running()
    copied = tmp_path / "chexseg"
    shutil.copytree(Path(chexseg.__file__).parent, copied)
    monkeypatch.setattr(chexseg, "__file__", str(copied / "__init__.py"))
    return copied


def edit(package: Path) -> None:
    with (package / "stages" / "ingest.py").open("a") as file:
        file.write("# edited\n")


def test_a_stage_that_was_imported_after_its_sources_had_changed_does_not_run(
    planned, store, root, package, monkeypatch
):
    train = node_of(planned, "ingest", "train")

    def edit_and_load() -> object:
        edit(package)
        return ingest

    stage = SimpleNamespace(load=edit_and_load, parse=STAGES["ingest"].parse)
    monkeypatch.setitem(STAGES, "ingest", stage)
    with pytest.raises(UserError, match="a worker imports other code than the driver"):
        execute(train, planned.nodes, store, root, CONTEXT, code_version.running())
    assert store.find("ingest", train.key) is None


@pytest.mark.parametrize("imports", [True, False])
def test_a_module_that_is_imported_while_a_stage_runs_is_of_the_same_code(
    planned, store, root, package, monkeypatch, imports
):
    """Sources may be edited after a stage has imported all that it needs."""
    train, run_ingest = node_of(planned, "ingest", "train"), ingest.run

    def edit_and_import(*arguments: object) -> object:
        edit(package)
        if imports:
            monkeypatch.setitem(sys.modules, "chexseg.imported_now", SimpleNamespace())
        return run_ingest(*arguments)

    monkeypatch.setattr(ingest, "run", edit_and_import)
    arguments = (train, planned.nodes, store, root, CONTEXT, code_version.running())
    if imports:
        with pytest.raises(UserError, match="a worker imports other code than the driver"):
            execute(*arguments)
    else:
        execute(*arguments)
    assert (store.find("ingest", train.key) is None) == imports


@pytest.mark.parametrize("fails", [True, False])
def test_work_of_other_code_is_not_gone_on_with(planned, store, package, root, monkeypatch, fails):
    """Nor if the stage failed after it had imported a module of other code."""
    fitted = node_of(planned, "fit")
    run(planned, store, root, "ingest")

    def edit_import_and_train(config, inputs, out, context):
        edit(package)
        monkeypatch.setitem(sys.modules, "chexseg.imported_now", SimpleNamespace())
        (out / "resume.pt").write_bytes(b"of other code")
        if fails:
            raise OSError("No space left on device")
        return {}

    monkeypatch.setattr(fit, "run", edit_import_and_train)
    with pytest.raises(UserError, match="a worker imports other code than the driver"):
        execute(fitted, planned.nodes, store, root, CONTEXT, code_version.running())
    with store.working_on(fitted) as partial:
        assert not partial.exists()

"""Test which chexseg a process runs, and how two versions are distinguished."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import chexseg
from chexseg import code_version
from chexseg.code_version import CodeVersion
from chexseg.errors import UserError


def test_the_digest_is_of_the_files_that_can_be_imported_and_nothing_else(tmp_path, monkeypatch):
    package = tmp_path / "chexseg"
    (package / "study").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "study" / "run.py").write_text("a = 1\n")
    monkeypatch.setattr(chexseg, "__file__", str(package / "__init__.py"))
    version, before, directory = code_version.describe()
    assert (version, directory) == (chexseg.__version__, str(package.resolve()))
    (package / "__pycache__").mkdir()
    (package / ".#run.py").symlink_to("me@host.4711:1")  # an editor's
    for name in ("page.css", "__pycache__/run.cpython-311.pyc"):
        (package / name).write_text("body {}")
        assert code_version.describe()[1] == before
    shutil.copytree(package, tmp_path / "elsewhere" / "chexseg", symlinks=True)
    monkeypatch.setattr(
        chexseg, "__file__", str(tmp_path / "elsewhere" / "chexseg" / "__init__.py")
    )
    assert code_version.describe()[1] == before, "another host's checkout"
    (tmp_path / "elsewhere" / "chexseg" / "study" / "run.py").write_text("a = 2\n")
    assert code_version.describe()[1] != before


@pytest.mark.parametrize("suffix", importlib.machinery.all_suffixes())
def test_whatever_could_be_imported_instead_of_a_source_file_changes_the_digest(
    tmp_path, monkeypatch, suffix
):
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(chexseg, "__file__", str(tmp_path / "__init__.py"))
    before = code_version.describe()[1]
    (tmp_path / f"errors{suffix}").write_bytes(b"a library")
    assert code_version.describe()[1] != before


@pytest.mark.parametrize("field", ["version", "digest"])
def test_other_code_is_refused_in_one_line_that_names_both(field, monkeypatch):
    monkeypatch.setattr(code_version, "_required", [])
    version = code_version.running()
    code_version.require(replace(version, directory="/on/another/host"))
    other = replace(version, **{field: "other"}, directory="/another/checkout")
    with pytest.raises(
        UserError, match=r"found chexseg .*; expected chexseg .*/another/checkout"
    ) as refused:
        code_version.require(other)
    assert version.directory in str(refused.value) and "\n" not in str(refused.value)


def test_a_linked_folder_of_sources_belongs_to_the_digest(tmp_path, monkeypatch):
    package, elsewhere = tmp_path / "chexseg", tmp_path / "elsewhere"
    package.mkdir()
    elsewhere.mkdir()
    (package / "__init__.py").write_text("")
    (package / "stages").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(package)  # a circle
    (elsewhere / "fit.py").write_text("a = 1")
    monkeypatch.setattr(chexseg, "__file__", str(package / "__init__.py"))
    before = code_version.describe()[1]
    (elsewhere / "fit.py").write_text("a = 2")
    assert code_version.describe()[1] != before


def test_a_worker_requires_the_drivers_code_of_the_processes_that_it_starts(tmp_path, monkeypatch):
    """Not what its own sources have become after it was checked."""
    monkeypatch.setattr(code_version, "_required", [])
    driver = CodeVersion(*code_version.describe())
    code_version.require(driver)
    shutil.copytree(Path(chexseg.__file__).parent, tmp_path / "chexseg")
    monkeypatch.setattr(chexseg, "__file__", str(tmp_path / "chexseg" / "__init__.py"))
    (tmp_path / "chexseg" / "errors.py").write_text("# edited")
    assert code_version.running() == driver
    with pytest.raises(UserError, match="other code than the driver"):
        code_version.require(code_version.running())


@pytest.mark.heavy
def test_the_command_imports_nothing_from_the_directory_it_is_given_in(tmp_path):
    (tmp_path / "typer.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    command = [sys.executable, "-m", "chexseg", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert not (tmp_path / "imported").exists()
    assert done.returncode == 0 and "study" in done.stdout, done.stderr


@pytest.mark.heavy
def test_a_checkout_that_is_not_installed_still_runs_from_its_directory(tmp_path):
    shutil.copytree(
        Path(chexseg.__file__).parent,
        tmp_path / "chexseg",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    code = (
        "import runpy, chexseg; runpy.run_module('chexseg', run_name='other'); import sys; "
        "print(chexseg.__file__, sys.path[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "chexseg" / "__init__.py")


@pytest.mark.parametrize(
    "command", ["study run s.yaml --data . --quiet", "demo --out out --quiet"], ids=["run", "demo"]
)
def test_a_command_records_its_code_before_it_imports_what_keys_depend_on(command, tmp_path):
    """Sources may be edited while a command imports them: results would get keys of others."""
    (tmp_path / "s.yaml").write_text("name: s\n")
    script = """if True:
        import sys
        from chexseg import code_version
        from chexseg.cli import main

        def describe():
            print(*code_version.loaded())
            raise SystemExit(3)

        code_version.describe = describe
        main()
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *command.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(chexseg.__file__).parents[1])},
    )
    assert done.returncode == 3, done.stderr
    others = [name for name in done.stdout.split() if not name.startswith("chexseg.cli")]
    expected = ["chexseg.code_version", "chexseg.errors", "chexseg.library_search"]
    assert sorted(others) == expected

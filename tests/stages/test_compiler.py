"""The compiler's caches, from which it executes code, are where only this user can write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chexseg.errors import UserError
from chexseg.stages.training import compiler

#: Prints every directory that the compiler derives from its settings or from the temporary one.
CACHES = """
import torch
from chexseg.stages import configs, fit
from chexseg.stages.training import compiler

model = fit.build(configs.FitConfig(architecture="resnet18"))
torch.optim.Adam(model.parameters(), fused=True)  # imports torch._dynamo, which sets its cache
compiler.compiled(model)
from torch._inductor import codecache
from torch._inductor.runtime import cache_dir_utils

print(codecache._HEADER_DIR)
print(cache_dir_utils.cache_dir())
print(cache_dir_utils.default_cache_dir())
print(cache_dir_utils.triton_cache_dir(0))
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary directory that others may write to, as /tmp."""
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(path))
    compiler.private_directory.cache_clear()
    yield path
    compiler.private_directory.cache_clear()


@pytest.mark.heavy  # imports PyTorch and its compiler in a process
def test_all_caches_are_in_a_private_directory(tmp_path):
    """Set the variables to what a process that has imported torch._dynamo leaves to its workers."""
    inherited = {name: str(tmp_path / "torchinductor_user") for name in (
        "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"
    )}  # fmt: skip
    answer = subprocess.run(
        [sys.executable, "-c", CACHES],
        env={**os.environ, **inherited, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    private = tmp_path / f"chexseg-compiler-{os.getuid()}"
    assert private.stat().st_mode & 0o777 == 0o700
    directories = answer.stdout.split()
    assert len(directories) == 4
    for directory in directories:
        assert Path(directory).is_relative_to(private)


def test_processes_of_a_user_share_the_directory(temporary):
    first = compiler.private_directory()
    compiler.private_directory.cache_clear()
    assert compiler.private_directory() == first


@pytest.mark.parametrize("planted", ["open to all", "readable", "link", "another user's"])
def test_a_directory_that_somebody_else_may_have_filled_is_refused(
    temporary, tmp_path, monkeypatch, planted
):
    path = temporary / f"chexseg-compiler-{os.getuid()}"
    if planted == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "elsewhere")
    elif planted == "another user's":
        uid = os.getuid() + 1
        path = temporary / f"chexseg-compiler-{uid}"
        path.mkdir(mode=0o700)
        monkeypatch.setattr(os, "getuid", lambda: uid)
    else:
        path.mkdir()
        path.chmod(0o777 if planted == "open to all" else 0o755)
    with pytest.raises(UserError, match="expected: a directory that only this user can enter"):
        compiler.private_directory()

"""Test what is refused before Ray starts: no home directory, and no place for Ray's files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from chexseg.errors import UserError
from chexseg.run import cluster, local_ray, ray_internals
from chexseg.run.worker import Job, attempt
from chexseg.stages.api import StageContext
from chexseg.store.object_backend import cache_directory
from chexseg.store.store import Store

EXPECTED = (
    "; expected: a writable directory with free space and a path of at most 20 characters;"
    " hint: set RAY_TMPDIR to one"
)


@pytest.fixture
def no_ray(monkeypatch):
    """Fail a test that starts Ray."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was started"))
    monkeypatch.setattr(ray, "shutdown", lambda *arguments: None)


@pytest.fixture
def homeless(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CHEXSEG_CACHE", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])


def start() -> None:
    with cluster.cluster():
        pytest.fail("it started")


def test_a_user_without_a_home_directory(homeless, no_ray):
    with pytest.raises(UserError, match="^HOME: not set, .*; hint: set HOME to any directory$"):
        start()
    with pytest.raises(UserError, match="^CHEXSEG_CACHE: not set, "):
        cache_directory()


def test_a_directory_for_rays_files_that_cannot_be_written(no_ray, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    with pytest.raises(UserError) as caught:
        start()
    assert str(caught.value) == (
        f"/proc/none, for Ray's files: can't be written (No such file or directory){EXPECTED}"
    )


def test_a_directory_for_rays_files_that_is_full(no_ray, monkeypatch):
    before = set(os.listdir("/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1000))
    with pytest.raises(UserError) as caught:
        start()
    assert str(caught.value) == (
        f"/tmp, for Ray's files: has 1.0 kB free, and Ray needs 50.0 MB{EXPECTED}"
    )
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("chexseg-")]


def test_a_directory_for_rays_files_in_which_others_may_rename(no_ray, monkeypatch):
    """They could put a directory of theirs, with sockets and a certificate, in the place of it."""
    directory = tempfile.mkdtemp(prefix="cxr-", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", directory)
    try:
        os.chmod(directory, 0o777)
        with pytest.raises(UserError) as caught:
            start()
        assert str(caught.value) == (
            f"{directory}, for Ray's files: others may rename what is in {directory}{EXPECTED}"
        )
        assert os.listdir(directory) == []
        os.chmod(directory, 0o1777)
        with local_ray._private_directory("token") as private:
            assert os.listdir(private) == ["token"]
    finally:
        shutil.rmtree(directory)


def test_a_link_to_a_directory_for_rays_files_is_not_kept(no_ray, monkeypatch):
    """Whoever may write to the folder of the link could let it lead elsewhere afterwards."""
    top = tempfile.mkdtemp(prefix="cxr-", dir="/tmp")
    try:
        os.mkdir(f"{top}/a")
        os.symlink(f"{top}/a", f"{top}/b")
        monkeypatch.setenv("RAY_TMPDIR", f"{top}/b")
        with local_ray._private_directory("token") as private:
            assert private.startswith(f"{top}/a/")
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize(
    ("chosen", "used"), [("/tmp/a", "/tmp/a"), ("/tmp/" + 20 * "x", "/tmp"), ("", "/tmp")]
)
def test_a_path_too_long_for_sockets_is_replaced(chosen, used, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", chosen)
    monkeypatch.setattr(local_ray.tempfile, "gettempdir", lambda: "/tmp")
    assert local_ray._short_directory() == used


def test_a_failure_that_cannot_be_recorded_is_returned(planned, root, store, monkeypatch):
    """The disk of the store is full: the stage fails, and so does the record of its failure."""

    class Quiet:
        def __getattr__(self, name: str) -> Quiet:
            return self

        def remote(self, *arguments: object) -> None: ...

    def full(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    node = next(node for node in planned.nodes.values() if node.stage == "ingest")
    monkeypatch.setattr("chexseg.stages.ingest.run", full)
    monkeypatch.setattr(Store, "record_failure", full)
    monkeypatch.setattr("chexseg.run.worker.raise_if_draining", lambda: None)  # without a Ray
    job = Job({node.key: node}, str(Path(store.backend.local)), root, Quiet())
    result = attempt(job, node.key, "ingest", StageContext())
    assert result["state"] == "failed" and "No space left on device" in result["error"]
    assert f"{store}/.partial/" in result["error"]


def test_variables_with_relative_paths_mean_the_same_in_workers(tmp_path, monkeypatch):
    """Workers have the run's private directory, and use one cache with the driver."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHEXSEG_CACHE", "cache")
    monkeypatch.setenv("PYTHONPATH", "one::/two")
    monkeypatch.delenv("HF_HOME", raising=False)
    local_ray._make_paths_absolute()
    assert os.environ["CHEXSEG_CACHE"] == f"{tmp_path}/cache"
    assert os.environ["PYTHONPATH"] == f"{tmp_path}/one:/two"
    assert "HF_HOME" not in os.environ


def test_a_rays_variables_are_the_former_ones_after_it(monkeypatch):
    """The same program may then use a cluster, with the token and certificate of that."""
    monkeypatch.setattr(ray_internals, "read_environment", lambda: None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of a cluster")
    monkeypatch.setenv("RAY_USE_TLS", "0")
    monkeypatch.delenv("RAY_TLS_CA_CERT", raising=False)
    before = dict(os.environ)
    settings = {"RAY_AUTH_TOKEN": "x", "RAY_USE_TLS": "1", "RAY_TLS_CA_CERT": "y", "HOME": None}
    with local_ray._variables(settings):
        assert {name: os.environ.get(name) for name in settings} == settings
    assert dict(os.environ) == before

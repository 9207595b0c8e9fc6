"""Test an object store whose copies can't be written on this host; a directory is the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from chexseg.errors import UserError
from chexseg.store import object_backend
from chexseg.store.object_backend import ObjectBackend
from chexseg.store.store import Store
from chexseg.store.uris import Place
from tests.store.places import NODE, commit


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> str:
    """Return the URI of a store that pyarrow reads from a directory."""
    folder = tmp_path / "bucket"
    commit(Store(folder))
    place = Place(fs.LocalFileSystem(), str(folder), "s3://bucket", {})
    monkeypatch.setattr(object_backend, "connect", lambda uri, option: place)
    return "s3://bucket"


def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path / ("file" if kind == "file" else "cache")))
    if kind == "full":

        def full(self: Path, *arguments: object, **options: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)


@pytest.mark.parametrize("kind", ["file", "full"])
def test_reading_manifests_needs_no_copies(kind, bucket, tmp_path, monkeypatch):
    unwritable(tmp_path, monkeypatch, kind)
    store = Store(bucket, ObjectBackend(bucket))
    assert store.find(NODE.stage, NODE.key) and len(store.artifacts()) == 1


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_copy_that_cannot_be_written_names_the_variable(kind, bucket, tmp_path, monkeypatch):
    unwritable(tmp_path, monkeypatch, kind)
    artifact = Store(bucket, ObjectBackend(bucket)).find(NODE.stage, NODE.key)
    with pytest.raises(UserError, match="cannot be written .*; hint: name one .* CHEXSEG_CACHE$"):
        assert artifact.path

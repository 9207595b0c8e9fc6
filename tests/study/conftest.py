"""Stores of either kind, for the tests of what must be true of both."""

from __future__ import annotations

import uuid

import pytest

from tests.study.places import open_store


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.heavy)])
def place(request, tmp_path) -> str:
    """Where a new store may be: a directory, or a prefix of an S3 bucket."""
    if request.param == "directory":
        return str(tmp_path / "store")
    return request.getfixturevalue("s3")(f"stores/{uuid.uuid4().hex}")


@pytest.fixture
def store(place):
    return open_store(place)

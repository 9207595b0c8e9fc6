"""Fixtures of the store's tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def remote(s3, tmp_path) -> str:
    return s3(f"remote/{tmp_path.name}")

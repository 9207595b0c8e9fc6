"""Machines that are really this one."""

from __future__ import annotations

import pytest

from tests.cluster.standins import Machine


@pytest.fixture(scope="module")
def machine():
    there = Machine()
    yield there
    there.close()

"""Provide machines that are emulated on this one."""

from __future__ import annotations

import pytest

from tests.cluster.standins import Machine


@pytest.fixture(scope="module")
def machine():
    machine = Machine()
    yield machine
    machine.close()

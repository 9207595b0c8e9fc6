"""Share a store of weak labels between the tests of their agreement and of their overlays."""

from __future__ import annotations

import pytest

from chexseg.analysis import load
from tests.analysis.weak_label_store import a_plan, a_store


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    planned = a_plan()
    return load.study_results(planned, a_store(tmp_path_factory.mktemp("store"), planned))

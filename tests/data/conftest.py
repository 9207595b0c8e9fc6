"""Share the data sets beside the repository, and a check of error lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from chexseg.errors import UserError

BESIDE = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the directory with the published sample and the real study set."""
    for name in ("chexlocalize-sample", "covid-cxr"):
        if not (BESIDE / name).is_dir():
            pytest.skip(f"../shared/{name} is not beside this checkout")
    return BESIDE


@pytest.fixture(scope="session")
def sample(shared) -> Path:
    """Return CheXlocalize's published sample: two images, their masks and labels."""
    return shared / "chexlocalize-sample" / "sample"


@pytest.fixture(scope="session")
def refused() -> Callable[..., AbstractContextManager[None]]:
    """Expect a one-line `UserError` with all the words and an expectation in a ``with`` block."""

    @contextmanager
    def expect(*words: object) -> Iterator[None]:
        with pytest.raises(UserError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message and ("allowed" in message or "expected" in message)
        for word in words:
            assert str(word) in message

    return expect

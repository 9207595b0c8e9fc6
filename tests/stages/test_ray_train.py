"""Test how errors of a training loop arrive from Ray Train's workers."""

from __future__ import annotations

import pytest

from chexseg.errors import DamagedArtifactError, UserError
from chexseg.stages.api import StageContext
from chexseg.stages.training import ray_train

pytestmark = pytest.mark.heavy  # Ray Train is imported


def damaged(context):
    raise OSError("shard: truncated")


def mistaken(context):
    raise UserError("fit.x: found 3")


def broken(context):
    raise ZeroDivisionError("of nothing")


@pytest.mark.slow
def test_an_error_on_ray_train_arrives_and_is_not_tried_again(ray_session, tmp_path):
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: of nothing\n(.*\n)+.*in broken"):
        ray_train.run(broken, "broken", tmp_path, StageContext(train_failures=2))
    assert not list(tmp_path.iterdir())


class Trainer:
    """Stands for Ray Train's, with one worker in this process."""

    def __init__(self, loop, **options) -> None:
        self.fit = loop


@pytest.mark.parametrize(
    ("loop", "error", "text"),
    [(damaged, DamagedArtifactError, "shard: truncated"), (mistaken, UserError, "fit.x: found 3")],
)
def test_errors_that_a_user_is_told_keep_their_kind(loop, error, text, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.train.torch.TorchTrainer", Trainer)
    with pytest.raises(error, match=f"^{text}$"):
        ray_train.run(loop, "failing", tmp_path, StageContext(train_failures=2))
    assert not list(tmp_path.iterdir())

"""The time of training timer, by a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chexseg.stages.training import step_timer


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    turned = SimpleNamespace(now=100.0)
    monkeypatch.setattr(step_timer, "time", SimpleNamespace(perf_counter=lambda: turned.now))
    return turned


def test_a_step_is_its_wait_and_its_work_and_nothing_that_comes_between(clock):
    def take() -> str:
        clock.now += 0.25
        return "a batch"

    timer = step_timer.StepTimer()
    for _ in range(3):
        assert timer.wait(take) == "a batch"
        clock.now += 0.75
        figures = timer.finish_step()
        clock.now += 60  # a checkpoint is scored and saved
    assert figures == {"step s": pytest.approx(1.0), "data wait s": pytest.approx(0.25)}


def test_one_slow_step_moves_the_mean_by_a_twentieth_and_the_first_not_at_all(clock):
    timer = step_timer.StepTimer()
    for seconds in (50.0, 1.0, 21.0):
        timer.wait(lambda: None)
        clock.now += seconds
        figures = timer.finish_step()
    assert figures == {"step s": pytest.approx(2.0), "data wait s": 0.0}

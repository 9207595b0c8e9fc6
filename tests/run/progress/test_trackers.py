"""Test the figures of trainings in MLflow's file store and in W&B's files, and failing trackers."""

from __future__ import annotations

import http.server
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from chexseg.progress import Reporter
from chexseg.run.progress import log, trackers
from chexseg.store.store import Store

RUN = ".runs/first/20260101T000000-host-1.log"


@pytest.fixture(autouse=True)
def clean_environment(tmp_path, monkeypatch):
    for name in ("MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trackers, "SENT_EVERY", 0.01)
    monkeypatch.setattr(trackers, "LONGEST_WAIT", 300)  # on a busy machine W&B takes its time


#: More than MLflow's call may have, and a longer value than it may have.
SETTINGS = {"fit.loss": "cross-entropy", "labels.p": 1.0, "long": "x" * 9000} | {
    f"section.setting_{number}": number for number in range(120)
}


class Recorded(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def train(store: Store, names: tuple[str, ...]) -> list[str]:
    """Report three trainings, of which one fails and one is interrupted; return the lines."""
    shown = Recorded()
    with (
        pytest.raises(KeyboardInterrupt),
        log.logged(store, RUN, shown, 60, names) as reporter,
    ):
        reporter.settings_of = lambda name: SETTINGS if name == "full trial 0, fit" else {}
        reporter.update("ingest train", 4, 8, "images", {})
        reporter.update("full trial 0, fit", 8, 16, "samples", {"epoch": 1, "loss": 0.5})
        reporter.update("full trial 0, fit", 8, 16, "samples", {"epoch": 1, "loss": 0.5})
        note = {"epoch": 2, "loss": 0.25, "selection mIoU": 0.125, "step s": 0.1}
        reporter.update("full trial 0, fit", 16, 16, "samples", note)
        reporter.finish("ingest train", "done in 1 s")
        reporter.finish("full trial 0, fit", "done in 1 s")
        reporter.update("full trial 1, fit", 8, 16, "samples", {"loss": 1.5})
        reporter.finish("full trial 1, fit", "failed: RuntimeError: out of memory")
        reporter.update("full trial 2, fit", 8, 16, "samples", {"loss": 2.5})
        raise KeyboardInterrupt
    return shown.lines


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    tracking = pytest.importorskip("mlflow.tracking", reason="needs mlflow, of the extra mlflow")
    return tracking.MlflowClient()


def test_mlflow_has_a_run_of_each_training(tmp_path, mlflow):
    assert train(Store(tmp_path / "store"), ("mlflow", "mlflow")) == []
    experiment = mlflow.get_experiment_by_name("first")
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "full trial 0, fit": "FINISHED",
        "full trial 1, fit": "FAILED",
        "full trial 2, fit": "KILLED",
    }
    run = runs["full trial 0, fit"]
    assert len(run.data.params) == len(SETTINGS)
    assert (run.data.params["fit.loss"], run.data.params["labels.p"]) == ("cross-entropy", "1.0")
    assert run.data.params["long"] == "x" * 500
    assert runs["full trial 1, fit"].data.params == {}
    assert run.data.tags["chexseg.run"] == "20260101T000000-host-1"
    points = {
        figure: [
            (one.step, one.value) for one in mlflow.get_metric_history(run.info.run_id, figure)
        ]
        for figure in run.data.metrics
    }
    assert points == {"loss": [(8, 0.5), (16, 0.25)], "selection mIoU": [(16, 0.125)]}


def test_a_second_run_of_the_study_is_in_the_same_experiment(tmp_path, mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for _ in range(2):
        assert train(Store(tmp_path / "store"), ("mlflow",)) == []
    assert mlflow.get_experiment_by_name("first") is None
    experiment = mlflow.get_experiment_by_name("mine")
    assert len(mlflow.search_runs([experiment.experiment_id])) == 6


def records(path: Path) -> list[Any]:
    """Return the records of an offline run: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, parts, out = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if 0 < -position % 2**15 < 7:  # padding: a block ends
            position += -position % 2**15
        size, kind = int.from_bytes(content[position + 4 : position + 6], "little"), position + 6
        parts += content[position + 7 : position + 7 + size]
        if content[kind] in (1, 4):  # whole, or the last part
            out.append(Record.FromString(parts))
            parts = b""
        position += 7 + size
    return out


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for folder in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{folder}_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of the user's
    module = pytest.importorskip("wandb", reason="needs wandb, of the extra wandb")
    yield module
    module.teardown()  # its process


@pytest.mark.heavy
def test_wandb_has_a_run_of_each_training(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "argv", ["chexseg", "--store", "s3://name:passphrase@bucket/store"])
    assert train(Store(tmp_path / "store"), ("wandb",)) == []
    wandb.teardown()
    written = [path.read_bytes() for path in tmp_path.glob("wandb/**/*") if path.is_file()]
    assert written and not any(b"passphrase" in content for content in written)
    runs = {}
    for path in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        of_run = records(path)
        (run,) = [one.run for one in of_run if one.HasField("run")]
        points = [
            {
                (item.key or ".".join(item.nested_key)): float(item.value_json)
                for item in one.history.item
                if not (item.key or item.nested_key[0]).startswith("_")
            }
            for one in of_run
            if one.HasField("history")
        ]
        (code,) = [one.exit.exit_code for one in of_run if one.HasField("exit")]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        of_cell = SETTINGS if run.display_name == "full trial 0, fit" else {}
        assert {key: config[key] for key in config if not key.startswith("_")} == of_cell
        assert (run.project, run.run_group) == ("first", "20260101T000000-host-1")
        runs[run.display_name] = (points, code)
    assert runs == {
        "full trial 0, fit": (
            [
                {"loss": 0.5, "samples": 8},
                {"loss": 0.25, "selection mIoU": 0.125, "samples": 16},
            ],
            0,
        ),
        "full trial 1, fit": ([{"loss": 1.5, "samples": 8}], 1),
        "full trial 2, fit": ([{"loss": 2.5, "samples": 8}], 1),
    }


@pytest.mark.heavy
def test_wandb_without_a_key_asks_nothing_and_says_so_once(tmp_path, wandb):
    (line,) = train(Store(tmp_path / "store"), ("wandb",))
    assert line == (
        "wandb: found no API key; expected WANDB_API_KEY or WANDB_MODE=offline;"
        " it gets no more figures, and the run goes on"
    )


@pytest.mark.heavy
@pytest.mark.parametrize("later", [False, True])
def test_wandb_takes_no_server_from_the_current_directory(tmp_path, wandb, monkeypatch, later):
    """A run's check of the directory is hours older than the first figure.

    later: the file comes after the second check too.
    """
    if later:
        monkeypatch.setattr(trackers, "_check_here", lambda name: None)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    calls: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(self.headers["Authorization"])
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "wandb").mkdir()
    settings = f"[default]\nbase_url = http://127.0.0.1:{server.server_port}\n"
    (tmp_path / "wandb" / "settings").write_text(settings)
    lines = train(Store(tmp_path / "store"), ("wandb",))
    server.shutdown()
    server.server_close()
    assert calls == []
    file = f"wandb: found {tmp_path / 'wandb' / 'settings'}, whose server"
    place = f"wandb: found the server http://127.0.0.1:{server.server_port}; expected https://"
    assert lines[0].startswith(place if later else file)


class Broken:
    """A tracker whose server fails, or never answers."""

    def __init__(self, answer: threading.Event | None) -> None:
        self.answer, self.calls = answer, 0

    def write(self, training, points) -> None:
        self.calls += 1
        if self.answer is None:
            raise ConnectionError("http://name:p@ss@host:80/x refused\nby the server")
        self.answer.wait()

    def end(self, training, failed) -> None: ...

    def close(self) -> None: ...


def test_a_tracker_that_fails_is_one_line_and_is_not_called_again(tmp_path, monkeypatch):
    broken = Broken(None)
    monkeypatch.setattr(trackers, "TRACKERS", {"mlflow": lambda *_: broken})
    store = Store(tmp_path / "store")
    (line,) = train(store, ("mlflow",))
    assert line == "mlflow: http://host:80/x refused; it gets no more figures, and the run goes on"
    assert broken.calls == 1
    logged = (tmp_path / "store" / RUN).read_text().splitlines()
    assert [one[20:] for one in logged].count(line) == 1


def test_a_tracker_that_does_not_answer_is_left_at_the_end(tmp_path, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": lambda *_: Broken(answer)})
    monkeypatch.setattr(trackers, "LONGEST_WAIT", 0.1)
    (line,) = train(Store(tmp_path / "store"), ("wandb",))
    answer.set()
    assert line == "wandb: found no answer for 0.1 s; its last figures may be missing"

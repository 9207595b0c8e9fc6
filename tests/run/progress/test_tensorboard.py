"""Test the scalars that TensorBoard shows of a run's trainings."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from chexseg.progress import Reporter
from chexseg.run.progress import log
from chexseg.run.progress.tensorboard import Scalars
from chexseg.store.store import Store


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return tag -> (step, value) of the event files in a folder."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    values: dict[str, list[tuple[int, float]]] = {}
    for path in folder.glob("events.*"):
        content = path.read_bytes()
        while content:  # length, its checksum, the record, its checksum
            size = int.from_bytes(content[:8], "little")
            assert int.from_bytes(content[8:12], "little") == masked_crc32c(content[:8])
            event = Event.FromString(content[12 : 12 + size])
            for value in event.summary.value:
                values.setdefault(value.tag, []).append((event.step, value.simple_value))
            content = content[16 + size :]
    return values


def test_a_training_has_its_figures_over_its_samples(tmp_path):
    curves = Scalars(tmp_path, "run/tensorboard")
    curves.add("full trial 0, fit", 8, {"epoch": 1, "loss": 0.5})
    curves.add("full trial 0, fit", 8, {"epoch": 1, "loss": 0.5})  # shown again, not new
    curves.add("full trial 0, fit", 16, {"epoch": 2, "loss": 0.5})  # of the last epoch still
    curves.add("full trial 0, fit", 16, {"epoch": 2, "loss": 0.25, "selection mIoU": 0.125})
    curves.add("ingest train", 4, {})
    curves.end("full trial 0, fit")
    curves.close()
    folder = tmp_path / "run" / "tensorboard"
    assert [path.name for path in folder.iterdir()] == ["full trial 0, fit"]
    assert scalars(folder / "full trial 0, fit") == {
        "loss": [(8, 0.5), (16, 0.25)],
        "selection_mIoU": [(16, 0.125)],
    }


def test_without_a_training_there_is_no_folder(tmp_path):
    curves = Scalars(tmp_path, "tensorboard")
    curves.add("ingest train", 4, {})
    curves.close()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("planted", ["run", "run/tensorboard"])
def test_no_link_in_a_store_leads_the_files_out_of_it(tmp_path, planted):
    (store := tmp_path / "store").mkdir()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (store / planted).parent.mkdir(exist_ok=True)
    (store / planted).symlink_to(elsewhere)
    curves = Scalars(store, "run/tensorboard")
    curves.add("fit", 8, {"loss": 0.5})
    curves.close()
    assert not list(elsewhere.iterdir())


def test_links_that_wait_in_the_folder_are_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    monkeypatch.setattr("time.time", lambda: 1.8e9)
    (folder := tmp_path / "store" / "run" / "tensorboard" / "fit").mkdir(parents=True)
    (thesis := tmp_path / "thesis.tex").write_text("thesis")
    (folder / "events.out.tfevents.1800000000.host").symlink_to(thesis)
    curves = Scalars(tmp_path / "store", "run/tensorboard")
    curves.add("fit", 8, {"loss": 0.5})
    curves.close()
    assert thesis.read_text() == "thesis"


def test_a_full_disk_ends_one_trainings_curves_and_no_run(tmp_path, monkeypatch):
    """A thread of SummaryWriter's had ended then, and the eleventh scalar waited forever for it."""
    from tensorboardX.record_writer import RecordWriter

    curves, flush = Scalars(tmp_path, "tensorboard"), RecordWriter.flush

    def full(writer: RecordWriter) -> None:
        if "/first/" in writer.path:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(writer)

    curves.add("first", 8, {"loss": 0.5})
    monkeypatch.setattr(RecordWriter, "flush", full)
    for done in range(9, 40):
        curves.add("first", done, {"loss": 1 / done})
        curves.add("second", done, {"loss": 1 / done})
    curves.close()
    assert len(scalars(tmp_path / "tensorboard" / "second")["loss"]) == 31


def test_a_name_that_is_too_long_for_a_folder_is_cut_and_stays_unique(tmp_path):
    curves = Scalars(tmp_path, "tensorboard")
    names = [f"{'ä' * 150} trial {trial}, fit" for trial in (0, 1)]
    for name in names:
        curves.add(name, 8, {"loss": 0.5})
    curves.close()
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [scalars(folder) for folder in folders] == 2 * [{"loss": [(8, 0.5)]}]
    assert all(folder.name.startswith("ä" * 90) for folder in folders)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_writes_them_beside_its_log(tmp_path, interrupted):
    store, name = Store(tmp_path), ".runs/study/run.log"
    try:
        with log.logged(store, name, Reporter(), interval=60) as reporter:
            reporter.update("fit", 8, 16, "samples", {"loss": 0.5})
            if interrupted:
                raise KeyboardInterrupt
            reporter.finish("fit", "done")
    except KeyboardInterrupt:
        pass
    assert scalars(log.tensorboard_folder(store, name) / "fit") == {"loss": [(8, 0.5)]}

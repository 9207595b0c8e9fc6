"""Test the scalars that TensorBoard shows of a run's trainings."""

from __future__ import annotations

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
    curves = Scalars(tmp_path)
    curves.add("full trial 0, fit", 8, {"epoch": 1, "loss": 0.5})
    curves.add("full trial 0, fit", 8, {"epoch": 1, "loss": 0.5})  # shown again, not new
    curves.add("full trial 0, fit", 16, {"epoch": 2, "loss": 0.5})  # of the last epoch still
    curves.add("full trial 0, fit", 16, {"epoch": 2, "loss": 0.25, "selection mIoU": 0.125})
    curves.add("ingest train", 4, {})
    curves.end("full trial 0, fit")
    curves.close()
    assert [path.name for path in tmp_path.iterdir()] == ["full trial 0, fit"]
    assert scalars(tmp_path / "full trial 0, fit") == {
        "loss": [(8, 0.5), (16, 0.25)],
        "selection_mIoU": [(16, 0.125)],
    }


def test_without_a_training_there_is_no_folder(tmp_path):
    curves = Scalars(tmp_path / "tensorboard")
    curves.add("ingest train", 4, {})
    curves.close()
    assert not (tmp_path / "tensorboard").exists()


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

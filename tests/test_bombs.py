"""Small files that stand for much: refused in one line before memory or time is spent on them.

Bombs of YAML are in `tests.config.test_yaml_source`, those of pickles in
`tests.models.test_hostile_checkpoints` and `tests.evaluation.test_untrusted_heat_maps`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chexseg import cli
from chexseg.config import study_file
from chexseg.data import chexlocalize, dicom, images
from chexseg.data.formats import limits
from chexseg.data.images import Frame
from chexseg.data.masks.counts import count
from chexseg.errors import UserError
from chexseg.models import checkpoint_import
from chexseg.pathologies import PATHOLOGIES
from chexseg.search import journal_lines
from chexseg.store import contents, links, manifest
from chexseg.store.store import Store
from tests.store.test_manifest import document

#: Bytes that a refusal may take; each of these files stands for at least ten times as many.
SMALL = 5_000_000


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    """Check the memory that Python and NumPy have asked for; those of C libraries aren't seen."""
    tracemalloc.start()
    tracemalloc.clear_traces()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL


def png(height: int, width: int, pixels: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def jpeg(height: int, width: int, scans: int = 0) -> bytes:
    """Return a JPEG of 8 x 8 pixels whose header says another size; the last scan is repeated."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG", progressive=scans > 0)
    content = file.getvalue().replace(
        b"\x08\x00\x08\x00\x08", struct.pack(">BHH", 8, height, width)
    )
    last = content.rfind(b"\xff\xda")
    return content[:-2] + scans * content[last:-2] + content[-2:]


def tiff(height: int, width: int, count: int = 0, **saving: Any) -> bytes:
    """Return a TIFF of 8 x 8 pixels whose tags say another size, and so many bytes of its strip."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "TIFF", **saving)
    content = bytearray(file.getvalue())
    values = {256: width, 257: height} | ({279: count} if count else {})
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    for position in range(start + 2, start + 2 + 12 * entries, 12):
        (tag,) = struct.unpack_from("<H", content, position)
        if tag in values:
            kind = 9 if values[tag] < 0 else 4  # signed
            struct.pack_into("<HHIi", content, position, tag, kind, 1, values[tag])
    return bytes(content)


@pytest.mark.parametrize("make", [png, jpeg, tiff])
@pytest.mark.parametrize("size", [(9_460, 9_459), (50_000, 50_000)])
def test_an_image_with_more_pixels_than_any_film_is_refused(tmp_path, make, size):
    (tmp_path / "image").write_bytes(make(*size))
    with (
        warnings.catch_warnings(),
        pytest.raises(UserError, match="image: found more pixels than 89478485; expected a radio"),
    ):
        warnings.simplefilter("error")  # Pillow's would be shown to users
        images.read(tmp_path / "image")


@pytest.mark.parametrize("size", [(9_460, 9_459), (20_000, 30_000)])
def test_a_dicom_film_with_more_pixels_is_refused(tmp_path, write_dicom, size):
    rows, columns = size
    path = write_dicom(tmp_path / "x.dcm", np.zeros((2, 2)), Rows=rows, Columns=columns)
    with pytest.raises(UserError, match=f"found {rows} x {columns} pixels; expected at most 8947"):
        images.read(path)


def test_a_dicom_film_is_windowed_a_strip_at_a_time(tmp_path, write_dicom, monkeypatch):
    """A film of 169 million pixels took 24 bytes for each."""
    stored_HW = np.random.default_rng(0).integers(0, 4096, (50, 40))
    elements = {
        "WindowCenter": 2000,
        "WindowWidth": 3000,
        "RescaleSlope": 2,
        "RescaleIntercept": -5,
        "PixelPaddingValue": int(stored_HW[0, 0]),
    }
    path = write_dicom(tmp_path / "x.dcm", stored_HW, "MONOCHROME1", **elements)
    whole_HW = images.decode(path)
    monkeypatch.setattr(dicom.grey, "STRIP", 120)
    assert np.array_equal(images.decode(path), whole_HW)


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """Each scan takes time for all pixels: 1,000 of 12 bytes took 16 s."""
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(8, 8, scans=1000))
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(UserError, match="image.jpg: found a JPEG of more than 100 scans"):
        images.read(path)


def test_an_archive_behind_a_refused_checkpoint_is_not_inflated(tmp_path):
    """The explanation of the refusal inflated it: 1.5 MB took 3.9 GB."""
    inflated = io.BytesIO()
    archive = zipfile.ZipFile(inflated, "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("archive/data.pkl", "w") as member:
        for _ in range(100):
            member.write(bytes(2**20))
    (tmp_path / "x.pt").write_bytes(b"\x80\x02cos\nsystem\n." + inflated.getvalue())
    with pytest.raises(UserError, match=r"requires more than plain weights: os\.system"):
        checkpoint_import.read(tmp_path / "x.pt")


def test_the_calls_for_a_tensors_name_do_not_grow_with_its_parts(tmp_path):
    """A file of 300 kB with one tensor took a minute, one of 3 MB would have taken two hours."""
    prefix, calls = "a." * 20_000, 0

    def count_calls(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"

    state, target = ({name: torch.zeros(1)} for name in (f"{prefix}conv1.weight", "conv1.weight"))
    sys.setprofile(count_calls)
    try:
        chosen = checkpoint_import._prefix(tmp_path / "x.safetensors", state, target)
    finally:
        sys.setprofile(None)
    assert chosen == prefix and calls < 100


@pytest.mark.parametrize("count", [-1, 100_000])
def test_strips_of_more_bytes_than_the_file_are_refused_before_they_are_read(tmp_path, count):
    """They overlap: 220 kB of 2,500 strips took 109 s, and twice as many of twice the size 4 times.

    A negative count would be all bytes up to the file's end.
    """
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(8, 8, count, compression="tiff_adobe_deflate"))
    words = rf"found strips of {count} bytes in a file of {path.stat().st_size}; expected ones"
    with pytest.raises(UserError, match=words):
        images.read(path)


def test_jpeg_tables_that_each_strip_would_repeat_are_refused(tmp_path):
    path = tmp_path / "image.tif"
    tables = {347: b"\xff\xd8" + b"\xff\xfe\0\2" * 2_000 + b"\xff\xd9"}
    path.write_bytes(tiff(8, 8, compression="jpeg", tiffinfo=tables))
    with pytest.raises(UserError, match="found JPEG tables of 8004 bytes; expected at most 4096"):
        images.read(path)


def sparse(path: Path, content: bytes = b"", size: int = 2**33) -> Path:
    """Return a file that begins with the content and is a hole else, which takes no space."""
    path.write_bytes(content)
    os.truncate(path, size)
    return path


def holes(folder: Path) -> dict[str, tuple[Callable[[], object], str]]:
    """Return name -> (reader of a file with a hole of 8 GiB, its message)."""
    result = folder / "store" / "fit" / ("a" * 20)
    result.mkdir(parents=True)
    journal = folder / "optuna" / "journal.log"
    journal.parent.mkdir()
    return {
        "png": (lambda: images.read(sparse(folder / "i", png(8, 8))), "of at most 1,073,741,824"),
        "dicom": (lambda: images.read(sparse(folder / "d", bytes(128) + b"DICM")), "of at most 1,"),
        "masks": (
            lambda: chexlocalize.read(sparse(folder / "m")),
            "cannot be read .it has 8,589,9",
        ),
        "study": (lambda: study_file.load(sparse(folder / "s")), "cannot be read .it has 8,589,9"),
        "manifest": (
            lambda: Store(folder / "store").find(
                "fit", sparse(result / "manifest.json") and "a" * 64
            ),
            "cannot be read .it has 8,589,9",
        ),
        "journal": (
            lambda: journal_lines.FileLines(folder, sparse(journal)).read_logs(0),
            "can't be opened .it has 8,589,9",
        ),
    }


@pytest.mark.parametrize("name", ["png", "dicom", "masks", "study", "manifest", "journal"])
def test_a_file_that_is_a_hole_is_not_read(tmp_path, name):
    read, message = holes(tmp_path)[name]
    with pytest.raises(UserError, match=message):
        read()


def test_ten_masks_are_resized_one_at_a_time(tmp_path, monkeypatch):
    """Ten runs of a few bytes were 1.9 GB at once."""
    path, at_once = tmp_path / "masks.json", []
    chexlocalize.write(path, {"image": {name: np.eye(8, dtype=bool) for name in PATHOLOGIES}})
    resize = Frame.masks

    def spy(frame: Frame, masks_KHW: np.ndarray, *arguments: Any) -> np.ndarray:
        at_once.append(len(masks_KHW))
        return resize(frame, masks_KHW, *arguments)

    monkeypatch.setattr(Frame, "masks", spy)
    masks = chexlocalize.read(path)
    assert (count(masks, masks, ["image"], size=4)[0, :, 0] == 4).all()
    assert at_once == [1] * 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200 + "]" * 200, "nested more than 100 deep"),
        ('{"a":' * 100_000, "nested more than 100 deep"),
        ('{"a": 1' + "0" * 5000 + "}", "a number of 5001 digits; expected at most 308"),
        ('{"%s": 1}' % ("k" * 100_000), "a key of 100,000 characters; expected at most 1,000"),
    ],
)
def test_json_that_no_later_code_could_handle_is_refused(tmp_path, content, message):
    (tmp_path / "masks.json").write_text(content)
    with pytest.raises(UserError, match=rf"masks.json: not JSON \(.*{message}\)"):
        chexlocalize.read(tmp_path / "masks.json")


def test_a_manifest_may_have_100_levels():
    def facts(levels: int) -> bytes:
        deep: Any = 1
        for _ in range(levels):
            deep = [deep]
        return json.dumps(document(facts={"deep": deep})).encode()

    assert manifest.parse(facts(98), "here")
    with pytest.raises(UserError, match="here: not JSON .lists or objects nested more than 100"):
        manifest.parse(facts(99), "here")


def test_folders_without_end_are_one_line(tmp_path):
    """`os.walk` ended in a RecursionError, and so would what deletes folders."""
    folder = tmp_path / "fit" / ("a" * 20)
    deep = folder.joinpath(*["d"] * 101)
    deep.mkdir(parents=True)
    store = Store(tmp_path)
    for read in (lambda: contents.contents(store), lambda: store.find("fit", "a" * 64)):
        with pytest.raises(UserError, match="found folders nested more than 100 deep"):
            read()
    deep.rmdir()
    assert len(list(links.walk(folder))) == 101


def test_study_files_that_include_each_other_in_a_long_row(tmp_path):
    """3,000 of them used up the call stack."""
    for number in range(12):
        (tmp_path / f"{number}.yaml").write_text(f"name: s\nstudies: [{number + 1}.yaml]\n")
    (tmp_path / "12.yaml").write_text("name: s\naxes: {trial: [0]}\n")
    assert study_file.load(tmp_path / "2.yaml").members
    with pytest.raises(UserError, match="included by 11 files in a row; expected: at most 10"):
        study_file.load(tmp_path / "1.yaml")


def test_a_line_of_torn_records_is_read_in_linear_time():
    """The time of each error grew with the text before it: 3 MB took longer than 90 s."""
    record = b'{"op_code":4,"worker_id":"w"}'
    line = b'{"op_code"' * 20_000
    records, torn = journal_lines.parse(record + line + record + record + b"\n")
    assert (len(records), len(torn)) == (3, 20_000)


def test_a_compressed_tar_is_not_inflated(tmp_path):
    """Python's tarfile inflates the long name that it begins with."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 50_000_000
    with gzip.open(tmp_path / "weights.pt", "wb", 1) as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        for _ in range(50):
            file.write(bytes(1_000_000))
    with pytest.raises(UserError, match="weights.pt: damaged, or not a file of weights"):
        checkpoint_import.read(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 37.3 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
    ],
)
def test_a_command_without_enough_memory_ends_in_one_line(monkeypatch, capsys, error):
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 1
    assert lines[0].startswith("chexseg: not enough memory (") and "hint:" in lines[0]


def test_other_faults_keep_their_traceback(monkeypatch):
    def fail() -> None:
        raise RuntimeError("a fault of chexseg")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(RuntimeError, match="a fault of chexseg"):
        cli.main()


def test_the_largest_pictures_are_below_pillows_own_limit():
    assert limits.MAX_PIXELS == Image.MAX_IMAGE_PIXELS

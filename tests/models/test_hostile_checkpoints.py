"""Hostile and damaged checkpoints: nothing in a file ever runs, and no wrong tensor is read."""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import struct
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from chexseg.errors import UserError
from chexseg.models import checkpoint_import
from tests.models.legacy_files import Rebuilt, Storage, enlarging, legacy_file
from tests.models.test_checkpoint_import import under

#: Keys that were one key in the scan and are two in torch.
UNLIKE = (OrderedDict, Counter)


class Trap:
    """Unpickled, it makes a directory."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.marker),)


def tar(trap: Trap, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            content = pickle.dumps(trap, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def in_zip(trap: Trap, path: Path, protocol: int = 2) -> None:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "extra": trap}, path, pickle_protocol=protocol)


def legacy(trap: Trap, path: Path) -> None:
    torch.save(
        {"state_dict": {"a": torch.zeros(2)}, "extra": trap},
        path,
        _use_new_zipfile_serialization=False,
    )


def bare(trap: Trap, path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {}, "extra": trap}, protocol=protocol))


#: How a trap gets into a file -> (the file's name, its writer).
TRAPS: dict[str, tuple[str, Callable[[Trap, Path], None]]] = {
    "zip": ("file.pt", in_zip),
    "zip, protocol 4": ("file.pth", lambda trap, path: in_zip(trap, path, 4)),
    "legacy": ("file.pt", legacy),
    "tar": ("file.tar", tar),
    **{
        f"bare, protocol {n}": ("file.pkl", lambda trap, path, n=n: bare(trap, path, n))
        for n in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "zip as safetensors": ("file.safetensors", in_zip),
    "bare as safetensors": ("file.SafeTensors", lambda trap, path: bare(trap, path, 4)),
    "bare as a checkpoint": ("file.ckpt", lambda trap, path: bare(trap, path, 4)),
}


def read_carelessly(path: Path, name: str) -> None:
    """Read such a file without a guard: by pickle, or by torch if it is in torch's format."""
    plain = path.with_name("plain")  # torch goes by the suffix, too
    path.rename(plain)
    with suppress(
        RuntimeError, EOFError, pickle.UnpicklingError, TypeError
    ):  # after the trap has sprung, the rest is junk
        if name.startswith("bare"):
            with plain.open("rb") as file:
                pickle.load(file)
        else:
            torch.load(plain, weights_only=False)


@pytest.mark.parametrize("name", TRAPS)
def test_nothing_in_a_file_runs(name, tmp_path, monkeypatch):
    # The one switch by which a user's environment turns torch's safe loading off must not reach us.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    filename, write = TRAPS[name]
    marker, path = tmp_path / "marker", tmp_path / filename
    write(Trap(marker), path)
    with pytest.raises(UserError) as caught:
        checkpoint_import.encoder(path, "resnet18")
    assert not marker.exists()
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "expected " in message
    if path.suffix.lower() != ".safetensors":
        assert "Nothing in it was run" in message
        assert "state_dict" in message
        assert ("legacy .tar format" if name == "tar" else "posix.mkdir") in message
    # The trap is a real one: this test would see it spring.
    read_carelessly(path, name)
    assert marker.is_dir()


def test_a_lightning_checkpoint_with_foreign_classes_is_refused_by_their_name(resnet18, tmp_path):
    content = {
        "state_dict": under("model.model.", resnet18),
        "hyper_parameters": argparse.Namespace(rate=0.1),
    }
    torch.save(content, tmp_path / "file.ckpt")
    with pytest.raises(
        UserError, match=r"file\.ckpt: refused.* argparse\.Namespace.*save its weights alone"
    ):
        checkpoint_import.encoder(tmp_path / "file.ckpt", "resnet18")
    torch.save(content["state_dict"], tmp_path / "weights.pt")
    assert checkpoint_import.encoder(tmp_path / "weights.pt", "resnet18").matched == 120


def test_whole_modules_and_torchscript_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18(), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"torchvision\.models\.resnet\.ResNet"):
        checkpoint_import.encoder(tmp_path / "module.pt", "resnet18")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(UserError, match="found a TorchScript archive"):
        checkpoint_import.encoder(tmp_path / "script.pt", "resnet18")


class Unfilled:
    """A tensor that a pickle makes by its size alone: torch fills it with uninitialised memory."""

    def __init__(self, kind: type):
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return self.kind, (64, 3, 7, 7)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", [torch.Tensor, torch.FloatTensor])
def test_a_tensor_that_the_file_does_not_fill_is_refused(kind, legacy, resnet18, tmp_path):
    content = resnet18 | {"conv1.weight": Unfilled(kind)}
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=rf"refused.*torch\.{kind.__name__}"):
        checkpoint_import.encoder(tmp_path / "file.pt", "resnet18")


def test_the_pickle_that_torch_reads_is_the_one_that_is_scanned(resnet18, tmp_path):
    """Write the pickle under a name in capitals: torch's reader ignores the case of names."""
    path = tmp_path / "file.pt"
    files = members(resnet18 | {"conv1.weight": Unfilled(torch.Tensor)})
    path.write_bytes(
        archived({name.replace("data.pkl", "DATA.PKL"): files[name] for name in files})
    )
    assert torch.load(path, weights_only=True)["conv1.weight"].shape == (64, 3, 7, 7)
    with pytest.raises(UserError, match=r"refused.*torch\.Tensor"):
        checkpoint_import.encoder(path, "resnet18")


@pytest.mark.parametrize("first", ["archive/data.pkl", "archive/DATA.PKL", "archive/DATA/0"])
def test_two_members_of_one_name_are_refused(first, resnet18, tmp_path):
    path, files = tmp_path / "file.pt", members(resnet18)
    for extra in ({first: b"x", **files}, {**files, first: b"x"}):
        buffer = io.BytesIO(archived(extra))
        if first in files:
            with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning):
                archive.writestr(first, b"x")
        path.write_bytes(buffer.getvalue())
        with pytest.raises(UserError, match=rf"several members named {first.lower()}"):
            checkpoint_import.encoder(path, "resnet18")


class Resized:
    """A tensor to which BUILD gives a fresh storage, and then its own as a larger one."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, arguments, *_ = self.tensor.__reduce_ex__(2)
        return rebuild, arguments, ()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_the_file_changes_is_refused(legacy, resnet18, tmp_path):
    content = resnet18 | {"conv1.weight": Resized(resnet18["conv1.weight"])}
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="refused.*BUILD"):
        checkpoint_import.encoder(tmp_path / "file.pt", "resnet18")


def test_a_byte_that_differs_from_an_archives_checksum_is_refused(resnet18, tmp_path):
    path = tmp_path / "file.pt"
    torch.save(resnet18, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        checkpoint_import.encoder(path, "resnet18")


def test_a_storage_without_content_is_refused(resnet18, tmp_path):
    """Leave the keys of an old file's storages out: torch would return uninitialised memory."""
    whole, path = tmp_path / "whole", tmp_path / "file.legacy"
    torch.save(resnet18, whole, _use_new_zipfile_serialization=False)
    content = io.BytesIO(whole.read_bytes())
    starts = []
    for _ in range(5):
        starts.append(content.tell())
        list(pickletools.genops(content))
    path.write_bytes(
        whole.read_bytes()[: starts[-1]] + pickle.dumps([], 2) + bytes(len(content.getvalue()))
    )
    with pytest.raises(UserError, match="storages have no content") as caught:
        checkpoint_import.encoder(path, "resnet18")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "stored", "words"),
    [
        (enlarging(1000), {"0": 3000}, "a view of a storage"),
        ({"view": enlarging(1000)["view"]}, {"0": 1000}, "a view of a storage"),
        ({"a": Rebuilt(Storage("0", 8), 9)}, {"0": 8}, "in a storage of 8 numbers"),
        ([Rebuilt(Storage("0", n), n) for n in (8, 9)], {"0": 8}, "two spellings, types or sizes"),
        ({"a": Rebuilt(Storage("0", -8), 0)}, {"0": 8}, "no known type or size"),
        ([Rebuilt(Storage(k, 8), 8) for k in UNLIKE], {OrderedDict: 8}, "not a string"),
        ({"a": Rebuilt(Storage("0", 8), 8)}, {"0": 8, OrderedDict: 8}, "not strings"),
    ],
    ids=["longer base", "view", "beyond", "two sizes", "negative", "keys", "keys of contents"],
)
def test_torch_sees_no_tensor_outside_its_storage(content, stored, words, tmp_path, monkeypatch):
    """Refuse it before torch would write to memory that it has freed."""
    path = tmp_path / "file.pt"
    path.write_bytes(legacy_file(content, stored))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has read it"))
    with pytest.raises(UserError, match=f"refused.*{words}"):
        checkpoint_import.read(path)


def test_a_dot_in_a_name_does_not_hide_the_function_that_rebuilds_tensors(tmp_path):
    path = tmp_path / "file.pt"
    content = legacy_file({"a": Rebuilt(Storage("0", 8), 9)}, {"0": 8})
    hidden = content.replace(
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\n_utils._rebuild_tensor_v2\n"
    )
    assert hidden != content
    path.write_bytes(hidden)
    with pytest.raises(UserError, match=r"refused.*torch\._utils\._rebuild_tensor_v2"):
        checkpoint_import.read(path)


def test_a_dictionary_has_no_attributes_from_the_file(tmp_path):
    content = OrderedDict(a=torch.zeros(2))
    content.get = 5  # type: ignore[assignment]
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(UserError, match="refused.*BUILD"):
        checkpoint_import.encoder(tmp_path / "file.pt", "resnet18")


def test_the_legacy_files_of_these_tests_are_read_if_nothing_is_wrong_with_them(tmp_path):
    path = tmp_path / "file.pt"
    path.write_bytes(legacy_file({"a": Rebuilt(Storage("0", 8), 8)}, {"0": 8}))
    assert torch.equal(checkpoint_import.read(path)["a"], torch.zeros(8))


@pytest.mark.parametrize("suffix", [".pt", ".legacy", ".safetensors"])
def test_damaged_files_are_one_line(suffix, resnet18, tmp_path):
    whole, path = tmp_path / "whole", tmp_path / f"file{suffix}"
    if suffix == ".safetensors":
        save_file(resnet18, whole)
    else:
        torch.save(resnet18, whole, _use_new_zipfile_serialization=suffix == ".pt")
    content = whole.read_bytes()
    cuts = [0, 1, 7, 8, 100, 1000, 10_000, len(content) // 2, len(content) - 100, len(content) - 1]
    files = [content[:cut] for cut in cuts] + [
        b"PK\x03\x04" + bytes(200),
        b"hello\n" * 100,
        b"\x80\x02" + bytes(50),
    ]
    for damaged in files:
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            checkpoint_import.encoder(path, "resnet18")
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).isprintable()


def members(content: Any) -> dict[str, bytes]:
    """Return file name -> bytes of the archive that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archived(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_directory_of_another(hidden: bytes, visible: bytes) -> bytes:
    """Return an archive in which `zipfile` sees the members of `visible`, and torch of `hidden`.

    Both use the offset in the end record: torch from the start of the file, and `zipfile` from the
    start of the last archive in it.
    """
    first, second = (struct.unpack("<L", part[-6:-2])[0] for part in (hidden, visible))
    return hidden[:first] + bytes(second - first) + hidden[first:-22] + visible


def test_compressed_or_overlapping_members_are_refused_before_torch_reads_them(
    tmp_path, monkeypatch
):
    path = tmp_path / "file.pt"
    bomb = archived(members({"queue": torch.zeros(1_000_000)}), zipfile.ZIP_DEFLATED)
    overlapping = bytearray(archived({"a/data.pkl": bytes(1000)}))
    entry = overlapping.rindex(b"PK\x01\x02")
    overlapping[entry + 20 : entry + 28] = struct.pack("<LL", 10**9, 10**9)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has read it"))
    for content in (bomb, bytes(overlapping)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="with compressed or overlapping members") as caught:
            checkpoint_import.read(path)
        assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()
    for content in (bomb + b"PK\x05\x06", bomb[:-2] + b"\x07\x00PK\x05\x06abc"):
        path.write_bytes(content)  # torch would open these, and `zipfile` doesn't
        with pytest.raises(UserError, match="damaged, or not a file of weights"):
            checkpoint_import.read(path)


def test_torch_reads_only_the_members_that_were_checked(tmp_path):
    path = tmp_path / "file.pt"
    hidden = archived(members({"a": torch.zeros(1000)}), zipfile.ZIP_DEFLATED)
    path.write_bytes(with_directory_of_another(hidden, archived(members({"a": torch.ones(1000)}))))
    assert not torch.load(path, weights_only=True)["a"].any()
    assert checkpoint_import.read(path)["a"].all()


def test_a_file_that_torch_wrote_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "file.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoint_import.read(tmp_path / "file.pt")["a"].tolist() == [1, 1, 1]


def test_what_is_not_there_or_no_file_is_refused(tmp_path):
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            checkpoint_import.encoder(path, "resnet18")
    (tmp_path / "file.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        checkpoint_import.encoder(tmp_path / "file.pt", "resnt18")

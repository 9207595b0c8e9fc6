"""Foreign checkpoints: published names are understood, wrong files are refused, and nothing in a file ever runs."""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
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
from chexseg.models import checkpoint_import, encoders
from tests.models.legacy_files import Rebuilt, Storage, enlarging, legacy_file

State = dict[str, torch.Tensor]
#: Keys that were one key in the scan and are two in torch.
UNLIKE = (OrderedDict, Counter)


@pytest.fixture(scope="module")
def resnet18() -> State:
    torch.manual_seed(0)
    return dict(torchvision.models.resnet18(weights=None).state_dict())


def headless(state: State) -> State:
    return {
        name: value for name, value in state.items() if not name.startswith(("fc.", "classifier."))
    }


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def moco(state: State) -> dict[str, Any]:
    """As MoCo-CXR's training saves it: two encoders with projection heads, a queue, the optimiser."""
    body, other = headless(state), {name: value + 1 for name, value in headless(state).items()}
    heads = {
        f"module.encoder_{which}.fc.{layer}.weight": torch.zeros(4, 4)
        for which in "qk"
        for layer in (0, 2)
    }
    both = under("module.encoder_q.", body) | under("module.encoder_k.", other) | heads
    optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], 0.1).state_dict()
    return {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": both | {"module.queue": torch.zeros(2, 3)},
        "optimizer": optimizer,
    }


#: Published naming -> (the file's contents, prefix, tensors that are ignored).
NAMINGS: dict[str, tuple[Callable[[State], Any], str, int]] = {
    "torchvision": (lambda state: state, "", 2),
    "moco-cxr": (moco, "module.encoder_q.", 120 + 4 + 1),
    "chexpert, lightning": (
        lambda state: {
            "pytorch-lightning_version": "0.9.0",
            "state_dict": under("model.model.", state),
        },
        "model.model.",
        2,
    ),
    "parallel": (lambda state: {"model": under("module.", state)}, "module.", 2),
    "compiled": (lambda state: under("_orig_mod.", state), "_orig_mod.", 2),
    "any wrapper": (
        lambda state: {"model": under("module.net._orig_mod.", state) | state_of_a_head()},
        "module.net._orig_mod.",
        3,
    ),
}


def state_of_a_head() -> State:
    """Return a tensor whose name ends as one of an encoder does."""
    return {"module.head.bn1.weight": torch.zeros(7)}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_published_names_give_the_same_encoder(naming, legacy, resnet18, tmp_path):
    make, prefix, ignored = NAMINGS[naming]
    torch.save(make(resnet18), tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)
    found = checkpoint_import.encoder(tmp_path / "file.pt", "resnet18")
    assert (found.prefix, found.matched, len(found.ignored)) == (prefix, 120, ignored)
    wanted = headless(resnet18)
    assert found.weights.keys() == wanted.keys()
    assert all(torch.equal(found.weights[name], wanted[name]) for name in wanted)
    encoders.fill(encoders.build("resnet18"), found.weights)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "densenet121"])
def test_timms_names_are_torchvisions(architecture, tmp_path):
    import timm

    state = timm.create_model(architecture, pretrained=False).state_dict()
    save_file(state, tmp_path / "file.safetensors")
    found = checkpoint_import.encoder(tmp_path / "file.safetensors", architecture)
    assert len(found.ignored) == 2
    assert all(torch.equal(found.weights[name], value) for name, value in headless(state).items())
    encoders.fill(encoders.build(architecture), found.weights)


def test_the_older_names_of_densenets_are_understood(tmp_path):
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
        for name, value in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({"state_dict": under("model.model.", old)}, tmp_path / "file.ckpt")
    found = checkpoint_import.encoder(tmp_path / "file.ckpt", "densenet121")
    assert all(torch.equal(found.weights[name], value) for name, value in headless(state).items())


def test_old_and_new_names_of_one_tensor_are_refused(tmp_path):
    state = torchvision.models.densenet121(weights=None).state_dict()
    name = "features.denseblock1.denselayer1.norm1.weight"
    old = {name.replace("norm1", "norm.1"): state[name] + 5}
    for order in ({**state, **old}, {**old, **state}):
        torch.save(order, tmp_path / "file.pt")
        with pytest.raises(UserError, match=r"old and new names of the same tensors.*norm"):
            checkpoint_import.encoder(tmp_path / "file.pt", "densenet121")


def test_two_state_dicts_are_refused(resnet18, tmp_path):
    torch.save({"model": resnet18, "state_dict": under("module.", resnet18)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="weights under state_dict and model; expected one"):
        checkpoint_import.encoder(tmp_path / "a.pt", "resnet18")
    torch.save({"model": {"depth": 18}, "state_dict": resnet18}, tmp_path / "b.pt")
    assert checkpoint_import.encoder(tmp_path / "b.pt", "resnet18").matched == 120


def test_missing_counters_are_0_and_half_precision_is_widened(resnet18, tmp_path):
    half = {
        name: value.half()
        for name, value in resnet18.items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(half, tmp_path / "file.pt")
    found = checkpoint_import.encoder(tmp_path / "file.pt", "resnet18")
    assert (found.matched, len(found.weights)) == (100, 120)
    assert found.weights["bn1.num_batches_tracked"] == 0
    assert found.weights["conv1.weight"].dtype == torch.float32
    assert torch.equal(found.weights["conv1.weight"], resnet18["conv1.weight"].half().float())


def test_the_sha256_is_that_of_the_weights_and_not_of_the_file(resnet18, tmp_path):
    torch.save(resnet18, tmp_path / "a.pt")
    torch.save(moco(resnet18), tmp_path / "b.pt")
    save_file(dict(reversed(headless(resnet18).items())), tmp_path / "c.safetensors")
    torch.save(resnet18 | {"bn1.bias": resnet18["bn1.bias"] + 1e-7}, tmp_path / "d.pt")
    a, b, c, d = (
        checkpoint_import.encoder(path, "resnet18").sha256 for path in sorted(tmp_path.iterdir())
    )
    assert a == b == c != d


def test_a_tensor_that_is_stored_with_the_opposite_sign_has_its_own(resnet18, tmp_path):
    """PyTorch stores views of imaginary parts in this way; NumPy cannot read them."""
    negated = torch._neg_view(-resnet18["conv1.weight"])
    assert negated.is_neg()
    torch.save(resnet18 | {"conv1.weight": negated}, tmp_path / "negated.pt")
    torch.save(resnet18, tmp_path / "plain.pt")
    one, other = (
        checkpoint_import.encoder(tmp_path / name, "resnet18")
        for name in ("negated.pt", "plain.pt")
    )
    assert one.sha256 == other.sha256


def changed(state: State, **changes: Any) -> State:
    return {name: value for name, value in (state | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            lambda s: changed(s, **{"bn1.weight": None}),
            ["1 tensors of a resnet18 are missing (bn1.weight)"],
        ),
        (
            lambda s: {"first.weight": torch.zeros(3)},
            ["100 tensors", "conv1.weight, bn1.weight, bn1.bias and 97 more"],
        ),
        (
            lambda s: changed(s, **{"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            ["conv1.weight", "(64, 1, 7, 7)", "(64, 3, 7, 7)"],
        ),
        (
            lambda s: torchvision.models.resnet34().state_dict(),
            ["layers that a resnet18 does not have (layer1.2.conv1.weight"],
        ),
        (
            lambda s: torchvision.models.resnet50().state_dict(),
            ["layers that a resnet18 does not have", "--architecture"],
        ),
        (
            lambda s: changed(s, **{"bn1.bias": torch.full((64,), torch.nan)}),
            ["bn1.bias", "expected finite ones"],
        ),
        (
            lambda s: changed(s, **{"bn1.running_var": torch.tensor([-1e-3] + 63 * [1.0])}),
            ["bn1.running_var: found negative variances"],
        ),
        (
            lambda s: changed(s, **{"bn1.bias": torch.zeros(64, dtype=torch.int64)}),
            ["bn1.bias", "torch.int64"],
        ),
        (
            lambda s: changed(s, **{"bn1.bias": torch.zeros(64).to_sparse()}),
            ["refused", "torch._utils._rebuild_sparse_tensor"],
        ),
        (lambda s: {"epoch": 3}, ["found no state dict"]),
        (lambda s: torch.zeros(3), ["found no state dict"]),
        (lambda s: {"a\n\x1b[31mb": torch.zeros(3)}, ["found a??[31mb"]),
    ],
    ids=range(12),
)
def test_a_file_that_is_no_such_encoder_is_refused(change, parts, resnet18, tmp_path):
    torch.save(change(resnet18), tmp_path / "file.pt")
    with pytest.raises(UserError) as caught:
        checkpoint_import.encoder(tmp_path / "file.pt", "resnet18")
    assert str(caught.value).startswith(str(tmp_path / "file.pt"))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_file_that_holds_itself_ends(tmp_path):
    circle: dict[str, Any] = {"epoch": 1}
    circle["model"] = circle
    torch.save(circle, tmp_path / "file.pt")
    with pytest.raises(UserError, match="found no state dict"):
        checkpoint_import.encoder(tmp_path / "file.pt", "resnet18")


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

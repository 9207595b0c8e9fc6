"""Foreign checkpoints: published names are understood, and files of other networks are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from chexseg.errors import UserError
from chexseg.models import checkpoint_import, encoders

State = dict[str, torch.Tensor]


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
